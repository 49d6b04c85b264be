"""The IMAP session: its states are the engine's table, its selected mailbox is a `View`, its commands stand in one file a
subject."""

from fubako.server.imap.session import ImapSession

__all__ = ["ImapSession"]
