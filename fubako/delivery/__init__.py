"""How mail moves on: every letter enters by one door, `intake`, and is in its mailboxes and in the queue when the sender reads
250; the `runner` carries what is queued, by `route`, over SMTP and LMTP (`remote`), to programs and files (`pipe`)
or through the intake again, and reports; `dress` signs what is our own.

Never decides whether a letter is welcome.
"""
