"""Tests of the documentation: its code runs, its facts are the code's, its links lead somewhere."""
