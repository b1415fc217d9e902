"""The demo: one command that shows the jobs of `stdlib_index` at work."""
