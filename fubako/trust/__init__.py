"""Whom we believe on the wire: the judgement over a handshake's facts, and the authority of our own making.

Never opens a connection; verification raises, it never returns a bool.
"""
