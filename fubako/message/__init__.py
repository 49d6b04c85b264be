"""What mail is: pure values.

Owns addresses, envelopes, header fields, MIME structure, delivery status, hops and trace fields.
Never opens a file, a socket or a clock, and never decides anything about a message.
"""
