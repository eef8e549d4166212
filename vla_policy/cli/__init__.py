"""The `vla` command: the one place that knows every part of the project."""
