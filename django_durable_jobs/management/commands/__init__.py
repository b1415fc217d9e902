"""``runjobs``: the door to the worker."""
