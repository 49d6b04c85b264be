"""Running it: every operation a function, for the command line now and for a web page later.

Never prints and never reads a configuration file; it takes an opened store and gives values.
"""
