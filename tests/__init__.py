"""The tests. `python -m tests.lanes` runs them on every database, plain `pytest` on SQLite alone."""
