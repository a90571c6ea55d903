"""Loads the plugin with which pytest compares notebooks: `tests/nbval_numbers.py`."""

pytest_plugins = ["tests.nbval_numbers"]
