"""How mail moves on: every letter enters by one door, `intake`, and is in its mailboxes and in the queue when the sender reads
250; the `runner` carries what is queued, by `route`, over SMTP and LMTP (`remote`) or to programs (`pipe`), and reports.

Never decides whether a letter is welcome.
"""
