"""The project's figures, each measured beside the limit of the server and beside comparable systems.

``python -m tests.benchmarks`` runs them (see ``--help``). Nothing here belongs to the test run: a figure is a ratio
between two measurements of the same minutes on the same machine, never a threshold in a unit test.

How the rooms divide the work: ``figures`` says what is compared, ``measures`` how a thing is measured, ``systems``
how each contender is installed, fed and run, ``runner`` runs one measurement in a process of its own, ``report``
makes the table, ``servers`` gives every measurement a fresh database.
"""
