"""What a client can say to `SmtpServer`, as values: one struct an event. They have tags, as they may cross to another
process."""

from msgspec import Struct

from fubako.message.envelope import Recipient, Sender
from fubako.message.octets import Irregularity


class Hello(Struct, frozen=True, tag=True):
    verb: str
    name: str


class StartTls(Struct, frozen=True, tag=True):
    pass


class Auth(Struct, frozen=True, tag=True):
    mechanism: str
    initial: bytes | None  # still in base64; None: no initial response, b"=": an empty one


class AuthResponse(Struct, frozen=True, tag=True):
    line: bytes  # base64, or b"*" to cancel


class Mail(Struct, frozen=True, tag=True):
    sender: Sender


class Rcpt(Struct, frozen=True, tag=True):
    recipient: Recipient


class Data(Struct, frozen=True, tag=True):
    """DATA was said. Reply 354 and content follows, reply anything else and it does not."""


class Content(Struct, frozen=True, tag=True):
    """A piece of the letter, without dot-stuffing."""

    octets: bytes


class ChunkEnd(Struct, frozen=True, tag=True):
    """A BDAT that was not the last is complete; reply 250."""


class ContentEnd(Struct, frozen=True, tag=True):
    """The letter is complete; reply once (LMTP: once for each recipient accepted). `irregular`: what is wrong with its octets; only
    of a `lenient` peer is there any content to mend."""

    too_big: bool = False
    irregular: Irregularity | None = None


class Reset(Struct, frozen=True, tag=True):
    pass


class Noop(Struct, frozen=True, tag=True):
    verb: str  # NOOP, VRFY, EXPN or HELP
    argument: str = ""


class XClient(Struct, frozen=True, tag=True):
    """A proxy says for whom it speaks (Postfix's XCLIENT); names in capitals, values decoded, empty where they are not known."""

    attributes: dict[str, str]


class Quit(Struct, frozen=True, tag=True):
    pass


Event = (
    Hello
    | StartTls
    | Auth
    | AuthResponse
    | Mail
    | Rcpt
    | Data
    | Content
    | ChunkEnd
    | ContentEnd
    | Reset
    | Noop
    | Quit
    | XClient
)
