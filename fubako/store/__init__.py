"""Where mail is kept: three seams (`Database`, `Blobs`, `Changes`) and the semantics of mailboxes above them.

Content is durable before its rows, rows before the reply. UID, MODSEQ and message rows change in one transaction.
Never knows a protocol, a session or a policy.
"""
