"""A letter as a person reads it: the fields that matter, one text, and what is attached. Pure; a stranger's text stays text: no
escape sequence, no direction mark and no HTML gets through."""

import html
import re
from dataclasses import dataclass

from fubako.message.headers import fields, unfold
from fubako.message.mime import Part, parse_parameterised, scan
from fubako.message.words import decode_text, decode_transfer, decode_words

SHOWN = ("date", "from", "to", "cc", "reply-to", "subject")
TEXT_OCTETS_MAX = 2 * 1024 * 1024
_BLOCKS = {
    "p",
    "div",
    "br",
    "tr",
    "li",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "blockquote",
    "table",
    "ul",
    "ol",
    "pre",
    "hr",
}
_SILENT = {"head", "title", "template"}
_DIRECTIONS = re.compile("[\u202a-\u202e\u2066-\u2069\u200e\u200f\u061c]")


@dataclass(frozen=True, slots=True)
class Attachment:
    number: int
    name: str
    kind: str  # application/pdf
    octets: int  # as it travels
    start: int
    end: int
    encoding: bytes

    def content(self, letter: bytes) -> bytes:
        octets = letter[self.start : self.end]
        decoded = decode_transfer(octets, self.encoding)
        return octets if decoded is None else decoded


@dataclass(frozen=True, slots=True)
class View:
    headers: tuple[tuple[str, str], ...]
    text: str
    attachments: tuple[Attachment, ...]


def clean(text: str) -> str:
    """Safe for a terminal: control characters as escapes, direction marks as a sign; line ends and tabs stay."""
    text = _DIRECTIONS.sub("\N{REPLACEMENT CHARACTER}", text.replace("\r\n", "\n"))
    return "".join(
        c if c in "\n\t" or c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text
    )


def line(text: str) -> str:
    """`clean`, on one line."""
    return " ".join(clean(text).split())


def view(content: bytes, *, every_field: bool = False) -> View:
    root = scan(content)
    header = []
    for name, value in fields(content[: root.body]):
        key = name.decode("ascii", "replace")
        if every_field or key.lower() in SHOWN:
            header.append((clean(key), line(decode_words(unfold(value)))))
    if not every_field:
        header.sort(key=lambda one: SHOWN.index(one[0].lower()))
    texts: list[str] = []
    attached: list[Attachment] = []
    _walk(content, root, texts, attached)
    return View(tuple(header), clean("\n".join(texts)), tuple(attached))


def _walk(content: bytes, part: Part, texts: list[str], attached: list[Attachment]) -> None:
    if part.multipart:
        if part.subtype == b"alternative":
            _walk(content, _best(part.children), texts, attached)
            return
        for child in part.children:
            _walk(content, child, texts, attached)
        return
    disposition = part.fields.get(b"content-disposition", b"")
    if part.type == b"text" and not disposition.lower().startswith(b"attachment"):
        texts.append(text_of(content, part))
        return
    name = _file_name(part, disposition)
    kind = f"{part.type.decode('ascii', 'replace')}/{part.subtype.decode('ascii', 'replace')}"
    number = len(attached) + 1
    attached.append(Attachment(number, name, clean(kind), part.end - part.body, part.body, part.end, part.encoding))
    texts.append(f"[-- {number}: {name or 'without a name'}, {clean(kind)}, {part.end - part.body} octets --]")


def _best(children: list[Part]) -> Part:
    """Plain text where there is any: it is what was written, and it hides nothing."""
    for wanted in ((b"text", b"plain"), (b"text", b"html")):
        for child in children:
            if (child.type, child.subtype) == wanted:
                return child
    return next((child for child in reversed(children) if child.multipart), children[-1])


def text_of(content: bytes, part: Part) -> str:
    octets = content[part.body : min(part.end, part.body + TEXT_OCTETS_MAX)]
    decoded = decode_transfer(octets, part.encoding)
    charset = part.parameter(b"charset").decode("ascii", "replace") or "utf-8"
    text = decode_text(octets if decoded is None else decoded, charset).replace("\r\n", "\n")
    if part.subtype == b"html":
        return from_html(text)
    return text + ("\n[-- the rest is not shown --]" if part.end - part.body > TEXT_OCTETS_MAX else "")


def _file_name(part: Part, disposition: bytes) -> str:
    """As the sender names it, without any folder: it never says where something is written."""
    named = dict(parse_parameterised(disposition)[1])
    extended = named.get(b"filename*", b"")
    if extended.count(b"'") >= 2:
        charset, _, rest = extended.split(b"'", 2)
        octets = re.sub(rb"%([0-9A-Fa-f]{2})", lambda found: bytes([int(found.group(1), 16)]), rest)
        name = decode_text(octets, charset.decode("ascii", "replace") or "utf-8")
    else:
        name = decode_words(named.get(b"filename", b"") or part.parameter(b"name"))
    return line(name.replace("\\", "/").rpartition("/")[2])[:200].lstrip(".")


_TAG = re.compile(r"""<(/?)([A-Za-z][A-Za-z0-9]*+)((?:"[^"]*"|'[^']*'|[^'"<>])*)>""")
_HREF = re.compile(r"""\b(href|alt)\s*=\s*("[^"]*"|'[^']*'|[^\s"'<>]+)""", re.IGNORECASE)
_LONG_REFERENCE = re.compile(r"&#[0-9]{9,};?")  # no character has such a number, and making it one takes long


class _Reader:
    """Text of an HTML part. A link is shown with where it leads, because that is what it does.

    One pass in which no octet is looked at more than a few times: a letter may be made to keep a parser busy for hours, and the
    standard library's one can be kept.
    """

    def __init__(self) -> None:
        self.out: list[str] = []
        self._silent: list[str] = []
        self._link = ("", 0)  # where it leads, and where its text begins

    def read(self, text: str) -> None:
        at = 0
        while at < len(text):
            sign = text.find("<", at)
            end = sign if sign >= 0 else len(text)
            self._words(text[at:end])
            if sign < 0:
                break
            at = self._markup(text, sign)
        self._leave()

    def _markup(self, text: str, at: int) -> int:
        """What begins with the < at this place; returns where it ends."""
        if text.startswith("<!--", at):
            end = text.find("-->", at + 4)
            return end + 3 if end >= 0 else len(text)
        if text.startswith(("<!", "<?"), at):
            end = text.find(">", at)
            return end + 1 if end >= 0 else len(text)
        found = _TAG.match(text, at)
        if found is None:
            self._words("<")
            return at + 1
        tag = found.group(2).lower()
        if found.group(1):
            self._close(tag)
        elif tag in ("script", "style"):
            # linear: each try begins at the one octet that ends it
            over = re.compile(f"</{tag}[^<>]*>", re.IGNORECASE).search(text, found.end())
            return over.end() if over else len(text)
        else:
            given = {name.lower(): html.unescape(_LONG_REFERENCE.sub("", value.strip("\"'"))) for name, value in
                     _HREF.findall(found.group(3))}  # fmt: skip
            self._open(tag, given)
        return found.end()

    def _open(self, tag: str, given: dict[str, str]) -> None:
        if tag == "body":
            self._silent.clear()  # a head that is not closed ends here
        if tag in _SILENT:
            self._silent.append(tag)
        if tag in _BLOCKS:
            self.out.append("\n* " if tag == "li" else "\n")
        if tag == "a":
            self._leave()  # no link within a link
            self._link = (given.get("href", ""), len(self.out))
        if tag == "img" and given.get("alt"):
            self.out.append(f"[{given['alt']}]")

    def _close(self, tag: str) -> None:
        if self._silent and tag == self._silent[-1]:
            self._silent.pop()
        if tag in _BLOCKS:
            self.out.append("\n")
        if tag == "a":
            self._leave()

    def _leave(self) -> None:
        (target, start), self._link = self._link, ("", 0)
        if target.startswith(("http:", "https:", "mailto:")) and target not in "".join(self.out[start:]):
            self.out.append(f" <{target[:300]}>")

    def _words(self, data: str) -> None:
        if data and not self._silent:
            self.out.append(re.sub(r"\s+", " ", html.unescape(_LONG_REFERENCE.sub("", data))))


def from_html(text: str) -> str:
    """What an HTML part says, as text; nothing in it is loaded or run."""
    reader = _Reader()
    reader.read(text)
    lines = [" ".join(one.split()) for one in "".join(reader.out).split("\n")]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip() + "\n"


# -- the way that a letter took


@dataclass(frozen=True, slots=True)
class Leg:
    """One Received field: what the server that wrote it says. `protected`: it says that the leg was encrypted."""

    by: str
    text: str
    protected: bool


_WITH = re.compile(r"\bwith\s+(?:UTF8)?(ESMTPS?A?|SMTPS?A?|LMTPS?A?|\S+)", re.IGNORECASE)
_PROTECTED = {"ESMTPS", "ESMTPSA", "SMTPS", "SMTPSA", "LMTPS", "LMTPSA", "HTTPS"}
# in the words of Postfix, Exim and others; never a name
_TLS = re.compile(r"(?:\(|version=|using )TLSv?1[._][0-3](?=[\s),;])")
_BY = re.compile(r"\bby\s+(\S+)")


def legs(content: bytes) -> list[Leg]:
    """The journey as the header tells it, first leg first. Only the topmost field was written by somebody that the reader knows."""
    found = []
    root_header = content[: scan(content).body]
    for name, value in fields(root_header):
        if name.lower() == b"received":
            text = line(decode_words(unfold(value)))
            sign = _WITH.search(text)
            word = sign.group(1).upper() if sign else ""
            by = _BY.search(text)
            protected = word in _PROTECTED or _TLS.search(text) is not None
            found.append(Leg(by.group(1) if by else "?", text, protected))
    return found[::-1]
