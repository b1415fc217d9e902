"""The app: models and jobs that index the standard library."""
