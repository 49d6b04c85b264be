"""Which protocol a service speaks, and which session speaks it."""

from collections.abc import Callable

from fubako.server.imap import ImapSession
from fubako.server.pop3 import Pop3Session
from fubako.server.session import Arrival, Resources, Session
from fubako.server.smtp import SmtpSession

PROTOCOL = {
    "smtp": "smtp", "submission": "smtp", "submissions": "smtp", "lmtp": "smtp", "filtered": "smtp",
    "pop3": "pop3", "pop3s": "pop3", "imap": "imap", "imaps": "imap",
}  # fmt: skip
SESSIONS: dict[str, Callable[[Resources, Arrival], Session]] = {
    "smtp": SmtpSession,
    "pop3": Pop3Session,
    "imap": ImapSession,
}
