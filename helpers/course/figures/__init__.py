"""The figures of each notebook, drawn with the parts in `helpers.course.plots` and `shared`."""
