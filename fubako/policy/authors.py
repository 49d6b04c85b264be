"""The domains in whose name a stranger's message may be read: `claimed(content)` gives them with the form of its From field.

A plain From field (`message.ambiguity`) names its domains. In any other one every domain counts that some reader might show:
behind an @ in the field as it stands, with its encoded words decoded, without its comments, blanks and quotes, and without the
octets that are no text. So writing a name oddly never takes it out of the reach of its owner's policy. Pure and linear.
"""

import binascii
import re
from dataclasses import dataclass

from fubako.message.ambiguity import Ambiguity, author_is_ambiguous
from fubako.message.headers import header_end, unfold
from fubako.message.mailboxes import parse_list
from fubako.policy.disposition import Form
from fubako.policy.dkim import is_domain

DOMAINS_MAX = 4  # authors' domains of one message; each costs a walk through DNS
NAME_LENGTH_MAX = 253 - len("_dmarc.")
_WRITTEN_MAX = 1000  # characters of a domain before its A-labels are made

_FORMS = {
    Ambiguity.MISSING: Form.NONE,
    Ambiguity.EMPTY: Form.NONE,
    Ambiguity.SEVERAL: Form.SEVERAL,
}
_LINES = re.compile(rb"\r\n|[\r\n\0]")
_NOT_LETTERS = re.compile(rb"[^a-z]+")
_ENCODED_WORD = re.compile(rb"=\?[^?\s]{1,64}\?([BbQq])\?([^?\s]*)\?=")
_COMMENT = re.compile(r"\([^()]*\)")
_NOT_OF_A_NAME = re.compile(r"[\s\"\\()\x00-\x1f\x7f]+")
_AT_SIGNS = "@\N{FULLWIDTH COMMERCIAL AT}\N{SMALL COMMERCIAL AT}"
_WITHOUT_POLICY = re.compile(r"@(?:[A-Za-z0-9-]{1,63}+(?![\w.@-])|\[[0-9A-Fa-f.:]{1,64}+\])")  # a lone name, a literal
_BEHIND_AT = re.compile(r"@([^\s@<>()\[\],;:\"\\]+)")


@dataclass(frozen=True, slots=True)
class Authors:
    """`domains` are A-labels in lower case, each once, DOMAINS_MAX at most; `reason` says what is wrong with the From field."""

    form: Form
    domains: tuple[str, ...] = ()
    reason: str = ""


def claimed(content: bytes) -> Authors:
    """`content` is the whole message, or its header."""
    ambiguity = author_is_ambiguous(content)
    if ambiguity is None:
        return _plain(content)
    form = _FORMS.get(ambiguity, Form.MALFORMED)
    if form is not Form.MALFORMED:
        return Authors(form, (), str(ambiguity))
    readings = _readings(_from_values(content[: header_end(content)]))
    domains = _visible(readings)
    if domains:
        return _counted(Form.MALFORMED, domains, str(ambiguity))
    if not any(map(_holds_at_sign, readings)):
        return Authors(Form.NONE, (), "the From field names nobody")
    if any(_holds_at_sign(_WITHOUT_POLICY.sub("", reading)) for reading in readings):
        return Authors(Form.UNREADABLE, (), "the From field holds an address whose domain cannot be told")
    return Authors(Form.MALFORMED, (), str(ambiguity))


def _holds_at_sign(reading: str) -> bool:
    return any(sign in reading for sign in _AT_SIGNS)


def _plain(content: bytes) -> Authors:
    domains: dict[str, None] = {}
    form, reason = Form.USABLE, ""
    for value in _from_values(content[: header_end(content)]):
        for box in parse_list(unfold(value)):
            domain = a_labels((box.host or b"").decode("utf-8", "replace"))
            if domain:
                domains[domain] = None
            else:
                form, reason = Form.MALFORMED, "an author has no domain"
    return _counted(form, domains, reason)


def _counted(form: Form, domains: dict[str, None], reason: str) -> Authors:
    if len(domains) > DOMAINS_MAX:
        return Authors(Form.SEVERAL, (), f"the From field names more than {DOMAINS_MAX} domains")
    return Authors(form, tuple(domains), reason)


def a_labels(domain: str) -> str:
    """As DNS knows it; empty for what is no domain, because it is asked for and shown in replies."""
    name = domain.rstrip(".").lower()
    if len(name) > _WRITTEN_MAX:  # making A-labels takes more than linear time
        return ""
    try:
        name = name if name.isascii() else name.encode("idna").decode()
    except UnicodeError:
        return ""
    return name if len(name) <= NAME_LENGTH_MAX and is_domain(name) else ""


def _from_values(header: bytes) -> list[bytes]:
    """The values of all that some reader may take for a From field."""
    values: list[list[bytes]] = []
    reading = False
    for line in _LINES.split(header):
        if line[:1] in (b" ", b"\t"):
            if reading:
                values[-1].append(line)
            continue
        name, colon, value = line.partition(b":")
        reading = bool(colon) and _NOT_LETTERS.sub(b"", name[:64].lower()) == b"from"
        if reading:
            values.append([value])
    return [b"".join(value) for value in values]


def _readings(values: list[bytes]) -> list[str]:
    """What readers may make of these values, before they look for addresses."""
    found: dict[str, None] = {}
    for value in values:
        for octets in (value, _ENCODED_WORD.sub(_decoded, value)):
            text = octets.decode("utf-8", "ignore")
            found |= dict.fromkeys((text, _NOT_OF_A_NAME.sub("", _COMMENT.sub("", text))))
    return list(found)


def _visible(readings: list[str]) -> dict[str, None]:
    """Domains behind an @; never more than one above DOMAINS_MAX."""
    found: dict[str, None] = {}
    for reading in readings:
        for match in _BEHIND_AT.finditer(reading):
            domain = a_labels(match.group(1))
            if domain:
                found[domain] = None
            if len(found) > DOMAINS_MAX:
                return found
    return found


def _decoded(word: "re.Match[bytes]") -> bytes:
    """The octets of an encoded word (RFC 2047 §4)."""
    kind, text = word.group(1, 2)
    if kind in b"qQ":
        return re.sub(rb"=([0-9A-Fa-f]{2})", lambda pair: bytes([int(pair.group(1), 16)]), text.replace(b"_", b" "))
    try:
        return binascii.a2b_base64(text + b"=" * (-len(text) % 4))
    except ValueError:
        return text
