"""One session a protocol: takes an engine's events, asks policy, accounts and store, and answers.

Bytes stay below, in the engines and streams; rows stay below, in the store's units of work.
"""
