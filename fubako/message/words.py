"""Text in mail: encoded words (RFC 2047), charsets, transfer encodings. Never raises on hostile input."""

import codecs
import quopri
import re

from fubako.message import transfer
from fubako.message.limits import ENCODED_WORDS_OCTETS_MAX

_WORD = re.compile(rb"=\?([^?\s]{1,64})\?([bBqQ])\?([^?]*+)\?=")
_BETWEEN = re.compile(rb"(\?=)[ \t\r\n]++(=\?)")
_ALIASES = {
    "x-sjis": "cp932",
    "shift_jis": "cp932",
    "shift-jis": "cp932",
    "iso-2022-jp": "iso2022_jp_ext",
    "gb2312": "gb18030",
    "ks_c_5601-1987": "cp949",
    "iso-8859-8-i": "iso-8859-8",
    "unknown-8bit": "latin-1",
}
_NOT_CHARSETS = frozenset({"idna", "punycode", "unicode_escape", "raw_unicode_escape", "undefined", "mbcs", "oem"})


def codec_name(charset: str) -> str | None:
    """Python's name for a charset, or None where it decodes none of that name. Codecs that are no charsets are refused."""
    name = _ALIASES.get(charset.lower().strip(), charset.strip())
    try:
        found = codecs.lookup(name)
    except (LookupError, ValueError):
        return None
    if not getattr(found, "_is_text_encoding", True) or found.name.replace("-", "_") in _NOT_CHARSETS:
        return None
    return found.name


def decode_text(octets: bytes, charset: str) -> str:
    """The text of `octets`; an unknown charset is tried as UTF-8, then read as Latin-1, so that something can be found."""
    name = codec_name(charset) or "utf-8"
    try:
        return octets.decode(name)
    except (UnicodeError, ValueError):
        pass
    try:
        return octets.decode("utf-8")
    except UnicodeError:
        return octets.decode(name if name.startswith("iso2022") else "latin-1", "replace")


def decode_words(value: bytes) -> str:
    """A header value with its encoded words read. White space between two encoded words is dropped (RFC 2047 §6.2)."""
    if b"=?" not in value or len(value) > ENCODED_WORDS_OCTETS_MAX:
        return decode_text(value, "utf-8")
    value = _BETWEEN.sub(rb"\1\2", value)
    out: list[str] = []
    position = 0
    for match in _WORD.finditer(value):
        out.append(decode_text(value[position : match.start()], "utf-8"))
        charset = match.group(1).split(b"*", 1)[0].decode("ascii", "replace")
        if match.group(2) in b"bB":
            octets = decode_base64(match.group(3))
        else:
            octets = quopri.decodestring(match.group(3), header=True)
        out.append(decode_text(octets, charset))
        position = match.end()
    out.append(decode_text(value[position:], "utf-8"))
    return "".join(out)


def decode_base64(octets: bytes) -> bytes:
    """Base64 as mail carries it."""
    return transfer.decode(octets, b"base64") or b""


def decode_transfer(octets: bytes, encoding: bytes) -> bytes | None:
    """Content without its transfer encoding (RFC 2045 §6); None where the encoding is unknown."""
    return transfer.decode(octets, encoding)
