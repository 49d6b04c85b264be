"""Fubako (文箱): one program that takes a letter safely the whole way.

The rooms of the house are listed in README.md; each one's `__init__` says what it owns and what it never does.
"""

__version__ = "0.1.0"
