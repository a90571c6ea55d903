"""Pictures that belong to one chapter each, drawn with the parts in `helpers.course.plots`."""
