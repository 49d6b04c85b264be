"""What a person reads in a message: the text that SEARCH looks in."""

from fubako.message.headers import fields, unfold
from fubako.message.mime import Part, scan
from fubako.message.words import decode_text, decode_transfer, decode_words

TEXT_OCTETS_MAX = 8 * 1024 * 1024


def header_text(header: bytes) -> str:
    """Every field on a line of its own, encoded words read."""
    lines = [f"{name.decode('ascii', 'replace')}: {decode_words(unfold(value))}" for name, value in fields(header)]
    return "\n".join(lines)


def body_text(content: bytes, root: Part | None = None) -> str:
    """The text parts of the body, transfer encodings and charsets taken off; headers of enclosed messages included."""
    out: list[str] = []
    _collect(content, root or scan(content), out, outermost=True)
    return "\n".join(out)


def _collect(content: bytes, part: Part, out: list[str], *, outermost: bool) -> None:
    if not outermost:
        out.append(header_text(content[part.start : part.body]))
    if part.children:
        for child in part.children:
            _collect(content, child, out, outermost=False)
        return
    if part.type not in (b"text", b"message", b"multipart"):
        return
    octets = content[part.body : min(part.end, part.body + TEXT_OCTETS_MAX)]
    decoded = decode_transfer(octets, part.encoding)
    charset = part.parameter(b"charset").decode("ascii", "replace") or "utf-8"
    out.append(decode_text(octets if decoded is None else decoded, charset))
