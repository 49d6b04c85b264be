"""Whom we believe on the wire: the judgement over a handshake's facts, what is demanded of a leg to another server and why,
and the authority of our own making.

Never opens a connection; verification raises, it never returns a bool.
"""
