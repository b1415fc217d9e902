"""Bridges to libraries and conventions beside Django; each room is imported only by those who want it."""
