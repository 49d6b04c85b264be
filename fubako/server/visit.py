"""`Visit`: the whole of one SMTP session of somebody who did not log in: messages, commands between them, seconds.

Each message and each wait has its own time (`pace.py`, `smtp_transaction_seconds`); here is what ends a session that goes on and
on. Whoever has more to bring comes again, and is counted again.
"""

from fubako.message.status import Status
from fubako.protocol import smtp_events as events
from fubako.protocol.engine import ProtocolError
from fubako.protocol.smtp import SmtpLimits

_OF_CONTENT = (events.Content, events.ContentEnd, events.ChunkEnd)  # the engine counts chunks


class Visit:
    """`began` is a time of the loop; `messages` and `seconds` are what one session has, `smtp` says how many commands lead to a
    message."""

    def __init__(self, smtp: SmtpLimits, began: float, *, messages: int, seconds: float) -> None:
        self._smtp = smtp
        self._messages_left, self._ends = messages, began + seconds
        self._commands = 0  # since the last message

    def command(self, event: events.Event, now: float) -> None:
        """Raises ProtocolError with a 421, before anything is done for a command that is one too many."""
        if isinstance(event, _OF_CONTENT):
            return
        self._commands += 1
        if self._commands > self._smtp.commands_a_message:
            raise _end("too many commands without a message")
        if isinstance(event, events.Mail) and not self._messages_left:
            raise _end("too many messages in one session")
        if isinstance(event, events.Mail) and now > self._ends:
            raise _end("the session has lasted too long")

    def message(self) -> None:
        """One has come to its end, whatever became of it."""
        self._messages_left -= 1
        self._commands = 0


def _end(words: str) -> ProtocolError:
    return ProtocolError(words, Status(421, "4.7.0", f"{words}; come again").wire())
