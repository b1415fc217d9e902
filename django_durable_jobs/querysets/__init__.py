"""Questions about rows, one module per subject; methods are named as questions and change nothing."""
