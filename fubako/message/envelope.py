"""The envelope of a letter and `Transaction`, what policy judges and intake accepts."""

from msgspec import Struct

from fubako.message.address import Address
from fubako.message.hop import Hop


class Recipient(Struct, frozen=True):
    """One RCPT: the address and the DSN parameters that came with it (RFC 3461 §4.1, 4.2)."""

    address: Address
    notify: str = ""
    orcpt: str = ""


class Sender(Struct, frozen=True):
    """One MAIL: the reverse path and its parameters."""

    address: Address
    body: str = "7BIT"  # 7BIT or 8BITMIME
    smtputf8: bool = False
    size: int = 0  # octets, as announced; 0 when it was not
    ret: str = ""  # FULL or HDRS (RFC 3461 §4.3)
    envid: str = ""
    require_tls: bool = False  # RFC 8689
    auth: str = ""  # RFC 4954 §5, kept as it came
    priority: int = 0  # RFC 6710: -9 to 9
    by_seconds: int = 0  # RFC 2852: so many seconds from MAIL on; 0 with an empty mode: it was not said
    by_mode: str = ""  # R: return it then, N: tell then
    deliver_by: int = 0  # seconds since the epoch, once the clock was asked
    hold_seconds: int = 0  # RFC 4865: to be sent so much later
    hold_until: int = 0  # or at this time, in seconds since the epoch


class Transaction(Struct):
    """A letter on its way in: who brought it, how, from whom, to whom, and its content in chunks."""

    hop: Hop
    hello: str
    sender: Sender
    recipients: list[Recipient] = []
    chunks: list[bytes] = []
    protocol: str = "ESMTP"  # the Received field's `with` (RFC 3848, RFC 6531); empty: no registered one
    trace_id: str = ""
    user: str = ""  # the account that submitted it, empty for a stranger
    earlier: list[Hop] = []  # legs before this one
    again: bool = False  # it came out of our own queue: nothing is written on top of it
    at: int = 0  # when it is to go on, in seconds since the epoch; 0: now
    fields: list[bytes] = []  # header fields that we put on top, each with its CRLF
    held: str = ""  # why it must not leave until somebody has looked at it
    # the domains (A-labels) in which who wrote it may be its author, and in which it is signed; None: nobody of ours wrote it
    authors: frozenset[str] | None = None
    doubt: str = ""  # why readers may disagree about its author (message/ambiguity.py)
    keywords: tuple[str, ...] = ()  # IMAP keywords that it gets besides its seal
