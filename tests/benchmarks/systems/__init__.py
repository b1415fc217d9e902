"""The contenders: one module for each system, all with the interface of ``base.System``."""
