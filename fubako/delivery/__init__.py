"""How mail moves on: every letter enters by one door, `intake`, and is in its mailboxes when the sender reads 250.

Never speaks a protocol, and never decides whether a letter is welcome.
"""
