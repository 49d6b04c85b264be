"""Who may do what: each check returns a verdict with its evidence, and never speaks to a peer.

Never looks at an account's password, and never changes a message.
"""
