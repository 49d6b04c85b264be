"""The octets of a message in their one regular form: lines of at most 998 octets that end in CRLF, no other CR or LF, no NUL
(RFC 5321 §2.3.8, §4.1.1.4, §4.5.3.1.6; RFC 5322 §2.1.1).

Every way in asks here and nowhere else, so that what we judge, what we keep, what we pass on and what the next reader sees are cut
into the same lines: a bare LF that one program takes for a line end and another does not hides a field or a whole message (SMTP
smuggling, CVE-2023-51764). `Inspector` reads content in blocks as it comes, `irregularity` reads it whole, `regular` mends it,
`within_line_limit` mends what is too long for a line. Pure, linear, and a handful of passes in C where nothing is wrong.
"""

import quopri
from enum import StrEnum

from fubako.message.headers import first_fields, header_end

LINE_OCTETS_MAX = 998  # without the CRLF
RETURNS_BEFORE_LF_MAX = 3  # so many CR and an LF are one line end: what programs write that add a CR to a CRLF
NUL_SHOWN_AS = b"?"  # one octet for one octet, so that no field's name and no line end comes into being by the mending


class Irregularity(StrEnum):
    """What is wrong, in the words that a reply gives; the gravest first."""

    BARE = "a CR or LF that is no line end"
    NUL = "a NUL"
    LONG_LINE = f"a line of more than {LINE_OCTETS_MAX} octets"


class Inspector:
    """Content in blocks, cut anywhere: between CR and LF too (a BDAT may end there). `found` is the gravest irregularity so far."""

    __slots__ = ("_after_cr", "_column", "_long_lines", "found")

    def __init__(self, *, long_lines: bool = False) -> None:
        """`long_lines`: they are let through."""
        self.found: Irregularity | None = None
        self._after_cr = False
        self._column = 0  # octets since the last LF
        self._long_lines = long_lines

    def feed(self, block: bytes) -> Irregularity | None:
        """What has been found so far."""
        if not block or self.found is Irregularity.BARE:
            return self.found
        if self._has_bare(block):
            self.found = Irregularity.BARE
        elif self.found is not Irregularity.NUL and b"\0" in block:
            self.found = Irregularity.NUL
        elif self.found is None and not self._long_lines and self._is_long(block):
            self.found = Irregularity.LONG_LINE
        return self.found

    def end(self) -> Irregularity | None:
        """What is wrong with the whole."""
        if self._after_cr:
            self.found = Irregularity.BARE
        return self.found

    def _has_bare(self, block: bytes) -> bool:
        pairs, line_feeds, returns = block.count(b"\r\n"), block.count(b"\n"), block.count(b"\r")
        if self._after_cr:
            if not block.startswith(b"\n"):
                return True
            line_feeds -= 1
        self._after_cr = block.endswith(b"\r")
        return line_feeds != pairs or returns - self._after_cr != pairs

    def _is_long(self, block: bytes) -> bool:
        """A look at each thousandth octet rather than at each line: from one line end to the last one that is near enough."""
        begin, size = -self._column, len(block)  # where the line at hand began
        while size - begin > LINE_OCTETS_MAX:
            found = block.rfind(b"\n", max(begin, 0), begin + LINE_OCTETS_MAX + 2)
            if found < 0:
                if size - begin == LINE_OCTETS_MAX + 1 and self._after_cr:
                    break  # the LF is still to come
                return True
            begin = found + 1
        self._column = size - max(begin, block.rfind(b"\n") + 1 or begin)
        return False


def irregularity(content: bytes, *, long_lines: bool = False) -> Irregularity | None:
    """What keeps this content from being a message that can travel, or None."""
    inspector = Inspector(long_lines=long_lines)
    inspector.feed(content)
    return inspector.end()


def regular(content: bytes) -> bytes:
    """The same content with CRLF for every line end and nothing else that reads as one; NUL is shown as `?`.

    CR, LF and CRLF end a line each, and so does CR CR LF, which Windows programs write. Long lines stay: here the message rests.
    """
    if irregularity(content, long_lines=True) is None:
        return content
    content = content.replace(b"\0", NUL_SHOWN_AS)
    for _ in range(RETURNS_BEFORE_LF_MAX):
        if b"\r\n" not in content:
            break
        content = content.replace(b"\r\n", b"\n")
    return content.replace(b"\r", b"\n").replace(b"\n", b"\r\n")


def within_line_limit(content: bytes) -> bytes:
    """Regular content whose lines are no longer than 998 octets; the reader sees the same text where MIME can say so.

    Header lines are folded at white space. The body of a text without parts becomes quoted-printable (RFC 2045 §6.7); where that
    cannot be said (multipart, or an encoding that is in use) a line is cut and goes on in the next one.
    """
    if irregularity(content) is None:
        return content
    end = header_end(content)
    header, body = content[:end], content[end:]
    header = b"\r\n".join([_folded(line) for line in header.split(b"\r\n")])
    if irregularity(body) is None:
        return header + body
    fields = first_fields(header)
    kind = fields.get(b"content-type", b"text/plain").lower()
    encoding = fields.get(b"content-transfer-encoding", b"7bit").lower()
    if kind.startswith(b"text/") and encoding in (b"7bit", b"8bit", b"binary") and header.endswith(b"\r\n"):
        return _declared(header) + _quoted_printable(body)
    return header + b"\r\n".join([_cut(line) for line in body.split(b"\r\n")])


def _folded(line: bytes) -> bytes:
    """A header line in pieces that fit; cut hard where it holds no white space."""
    pieces: list[bytes] = []
    start, room = 0, LINE_OCTETS_MAX - 1  # one less: a blank is put before what is cut hard
    while len(line) - start > room:
        reach = start + room
        cut = max(line.rfind(b" ", start + 1, reach), line.rfind(b"\t", start + 1, reach))
        hard = cut < 0 or not line[start:cut].strip()
        cut = reach if hard else cut
        pieces.append(line[start:cut] + (b"\r\n " if hard else b"\r\n"))
        start = cut
    return b"".join([*pieces, line[start:]])


def _cut(line: bytes) -> bytes:
    if len(line) <= LINE_OCTETS_MAX:
        return line
    return b"\r\n".join([line[at : at + LINE_OCTETS_MAX] for at in range(0, len(line), LINE_OCTETS_MAX)])


def _declared(header: bytes) -> bytes:
    """The header of a body in quoted-printable."""
    kept, dropping = [], False
    for line in header.removesuffix(b"\r\n").split(b"\r\n"):
        if line[:1] not in (b" ", b"\t"):
            dropping = line.split(b":", 1)[0].rstrip(b" \t").lower() == b"content-transfer-encoding"
        if not dropping and line:
            kept.append(line)
    names = [line.split(b":", 1)[0].rstrip(b" \t").lower() for line in kept]
    added = [] if b"mime-version" in names else [b"MIME-Version: 1.0"]
    return b"\r\n".join([*kept, *added, b"Content-Transfer-Encoding: quoted-printable", b"", b""])


def _quoted_printable(body: bytes) -> bytes:
    return quopri.encodestring(body.replace(b"\r\n", b"\n")).replace(b"\n", b"\r\n")
