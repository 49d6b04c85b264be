"""Who may do what: each check returns a verdict with its evidence, and never speaks to a peer.

Never looks at an account's password. What a filter wants changed in a letter is returned, and done by the session.
"""
