"""How the files in `assets` were made: the course model, the set of messages, the set of instructions."""
