"""What is said on the wire: pure engines, both sides of each protocol.

Bytes go in by `receive`, events come out of `next_event`, replies become bytes in `output`.
Never knows a socket, a clock, a store or a password; randomness comes in as an argument.
"""
