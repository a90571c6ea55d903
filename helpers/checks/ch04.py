"""Checkers for chapter 4."""

__all__: list[str] = []
