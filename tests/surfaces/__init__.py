"""Tests of what people and programs use: commands, admin, API."""
