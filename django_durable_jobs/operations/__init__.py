"""Every change of rows, once, for worker, admin, API and commands alike.

An operation takes ids or names, never a request; it returns models or frozen values and raises from
``errors.py``. ``transition.py`` is the only writer of a job's status besides the dialects' fused statements,
which are rendered from the same table.
"""
