"""Two at once, on real connections: isolation levels, deadlocks, processes that claim from one queue."""
