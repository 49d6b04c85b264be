"""Mail as a user: our own client engines on streams, with a judgement before a password is said.

Never falls back: what was asked to be protected is protected, or an error says why not.
"""
