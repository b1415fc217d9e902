"""The project: settings, addresses, database URLs."""
