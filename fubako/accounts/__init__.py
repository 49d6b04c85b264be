"""Who the users are: domains, accounts, aliases, and how they prove themselves: passwords here or at a backend, keys, certificates,
tickets, tokens.

Owns what is kept of passwords (argon2 and SCRAM keys; a secret itself only where a mechanism that needs it was asked for).
Never says to a stranger whether an account exists.
"""
