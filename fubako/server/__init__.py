"""One session a protocol: takes an engine's events, asks policy, accounts and store, and answers; the SSH door, and logins for
other programs.

Bytes stay below, in the engines and streams; rows stay below, in the store's units of work.
"""
