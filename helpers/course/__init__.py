"""What frames the course: the list of notebooks, exercise checkers, figures, plots, widgets, references."""
