"""How programs are started: typed requests, the command each stands for, and who starts it.

Owns: what a program that an administrator named is given, as whom it runs, how long, and how many run at once. A process that may
start programs does it itself (`Direct`); one that is confined asks the spawner over a door (`Asking`, `process`). Invariant: a
request says which program by what the administrator wrote, never by a command line; what the spawner is not told to permit, it
does not start.
"""
