"""Answers: a reply or a forward as a text to edit, and the text as a letter. Pure; time and names come in (RFC 5322 §3.6.4)."""

import re
from collections.abc import Sequence
from email.headerregistry import AddressHeader
from email.message import EmailMessage
from email.policy import SMTP

from fubako.message.display import View, clean, line, view
from fubako.message.headers import fields, unfold
from fubako.message.mailboxes import Mailbox, parse_list
from fubako.message.mime import scan
from fubako.message.words import decode_words

REFERENCES_MAX = 20
_ODD = (
    ValueError,
    LookupError,
    AttributeError,
    TypeError,
    AssertionError,
)  # what `email` raises for what it does not understand


class DraftFault(ValueError):
    """The text cannot become a letter; the message says where."""


def _field(content: bytes, *names: str) -> str:
    for name in names:
        for key, value in fields(content[: scan(content).body]):
            if key.decode("ascii", "replace").lower() == name:
                return line(decode_words(unfold(value)))
    return ""


def _heading(rows: Sequence[tuple[str, str]]) -> str:
    return "".join(f"{name}: {value}\n" for name, value in rows if value or name in ("To", "Subject"))


def blank(sender: str, to: str = "", subject: str = "") -> str:
    return _heading([("From", sender), ("To", to), ("Subject", subject)]) + "\n"


def reply(content: bytes, sender: str, *, everybody: bool = False) -> str:
    """The text to edit. Whom it goes to: Reply-To or From; to everybody: also who else had it, without the sender."""
    shown = view(content)
    to = _people(content, "reply-to", "from")
    more = ""
    if everybody:
        others = [*_people(content, "to"), *_people(content, "cc")]
        already = {_bare(one) for one in (*to, sender)}
        more = ", ".join(one for one in others if _bare(one) not in already)
    subject = _field(content, "subject")
    if not subject.lower().startswith("re:"):
        subject = f"Re: {subject}".strip()
    known = _field(content, "references").split() or _field(content, "in-reply-to").split()
    own = _field(content, "message-id")
    rows = [("From", sender), ("To", ", ".join(to)), ("Cc", more), ("Subject", subject), ("In-Reply-To", own),
            ("References", " ".join([*known[-REFERENCES_MAX:], own]).strip())]  # fmt: skip
    quoted = "".join(
        f">{'' if one.startswith('>') else ' '}{one}".rstrip() + "\n" for one in _spoken(shown).split("\n")
    )
    return f"{_heading(rows)}\nOn {_field(content, 'date')}, {_field(content, 'from')} wrote:\n{quoted}\n"


def forward(content: bytes, sender: str) -> str:
    shown = view(content)
    header = "".join(f"{name}: {value}\n" for name, value in shown.headers)
    rows = [("From", sender), ("To", ""), ("Subject", f"Fwd: {_field(content, 'subject')}".strip())]
    return f"{_heading(rows)}\n---- Forwarded ----\n{header}\n{_spoken(shown)}\n---- End ----\n"


def _spoken(shown: View) -> str:
    """The text without the signature (RFC 3676 §4.3)."""
    return shown.text.partition("\n-- \n")[0].rstrip("\n")


def letter(text: str, attachments: Sequence[tuple[str, bytes]] = ()) -> bytes:
    """A draft as it travels, with CRLF, encoded words and a charset; Bcc is left in for whoever sends it. Raises DraftFault."""
    head, _, body = text.replace("\r\n", "\n").partition("\n\n")
    made = EmailMessage(policy=SMTP)
    for row in head.split("\n"):
        name, colon, value = row.partition(":")
        if not colon or not name.isascii() or not name.strip() or " " in name.strip():
            raise DraftFault(f"this is no header line: {clean(row)[:60]}")
        value = value.strip()
        if value and name.lower() not in ("mime-version", "content-type", "content-transfer-encoding"):
            try:
                made[name.strip()] = value
            except _ODD as error:
                raise DraftFault(f"{name}: {error}") from None
            parsed = made[name.strip()]
            if isinstance(parsed, AddressHeader) and list(getattr(parsed, "defects", [])):
                raise DraftFault(f"{name}: {clean(value)[:60]} is no list of addresses")
    made.set_content(body.rstrip("\n") + "\n", charset="utf-8", cte="8bit" if _short(body) else "quoted-printable")
    for name, content in attachments:
        made.add_attachment(content, "application", "octet-stream", filename=line(name))
    return made.as_bytes()


def _short(body: str) -> bool:
    return body.isascii() and all(len(one) < 990 for one in body.split("\n"))


def _people(content: bytes, *names: str) -> list[str]:
    """Addresses of the first of these fields that is there, each as it is written in a header."""
    for name in names:
        for key, value in fields(content[: scan(content).body]):
            if key.decode("ascii", "replace").lower() == name:
                return [_written(one) for one in parse_list(unfold(value)) if one.mailbox and one.host]
    return []


def _written(box: Mailbox) -> str:
    address = line((box.mailbox or b"").decode("utf-8", "replace") + "@" + (box.host or b"").decode("utf-8", "replace"))
    name = line(decode_words(box.name or b""))
    if not name:
        return address
    plain = not re.search(r'[()<>\[\]:;@\\,."]', name)
    return f"{name} <{address}>" if plain else '"' + re.sub(r'(["\\])', r"\\\1", name) + f'" <{address}>'


def _bare(text: str) -> str:
    return text.rpartition("<")[2].rstrip("> ").lower()
