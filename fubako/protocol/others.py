"""Another protocol on a mail port: HTTP and TLS in the clear, which end the connection at once (ALPACA, USENIX Security 2021).

A web browser that somebody leads to a mail port says HTTP there, inside of TLS too; what a page made it send must not be taken for
commands behind its first line.
"""

import re

from fubako.protocol.engine import ProtocolError
from fubako.protocol.lines import LineBuffer

# RFC 9110 §9.3, RFC 5789, RFC 9113 §3.4
_METHODS = frozenset(b"GET HEAD POST PUT DELETE CONNECT OPTIONS TRACE PATCH PRI".split())
_TARGET = re.compile(rb"/|\*|[A-Za-z]+://")
_HANDSHAKE = b"\x16\x03"  # a TLS record that begins a handshake, of any version (RFC 8446 §5.1)


class OtherProtocol(ProtocolError):
    """The peer speaks another protocol than the one of this port."""


def refuse_http(line: bytes, farewell: bytes, *, words_may_be_tags: bool = False) -> None:
    """`line` is where a command stands. Raises OtherProtocol for a request of HTTP; `words_may_be_tags`: a method alone is none,
    because a command may begin with any word (IMAP)."""
    word, _, rest = line.partition(b" ")
    target, _, version = rest.partition(b" ")
    method = word.upper() in _METHODS and (not words_may_be_tags or _TARGET.match(target) is not None)
    # the name of a command is a word, a target is none (RFC 9112 §3)
    if method or (version.startswith(b"HTTP/") and not target.isalpha()):
        raise OtherProtocol("the peer speaks HTTP", farewell)


def refuse_tls(begun: LineBuffer, farewell: bytes) -> None:
    """`begun` holds the beginning of a command. Raises OtherProtocol for a handshake of TLS where none was agreed upon."""
    if begun.begins_with(_HANDSHAKE):
        raise OtherProtocol("the peer speaks TLS in the clear", farewell)
