"""Maildir and mbox: how other programs keep mail, read and written one message at a time."""

import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fubako import modes
from fubako.message.headers import first_fields, header_end
from fubako.message.octets import regular
from fubako.protocol.imap import utf7
from fubako.store.messages import ANSWERED, DELETED, DRAFT, FLAGGED, SEEN

_MAILDIR_LETTERS = {"D": DRAFT, "F": FLAGGED, "R": ANSWERED, "S": SEEN, "T": DELETED}
_STATUS = ((SEEN, "R"),)
_X_STATUS = ((ANSWERED, "A"), (FLAGGED, "F"), (DRAFT, "T"), (DELETED, "D"))
_FROM_LINE = re.compile(rb"From .*\d{4}$")
_QUOTED_FROM = re.compile(rb"^(>*From )", re.MULTILINE)
_UNQUOTED_FROM = re.compile(rb"^>(>*From )", re.MULTILINE)
_MARKS = frozenset({b"status", b"x-status", b"x-keywords"})
KEYWORDS_FILE = "dovecot-keywords"
KEYWORDS_MAX = 26


@dataclass(frozen=True, slots=True)
class Kept:
    """One message between two stores. Line ends are CRLF; `at` in seconds since the epoch."""

    content: bytes
    bits: int
    keywords: str
    at: int


# -- Maildir


def folder_name(mailbox: str) -> str:
    """The Maildir++ folder of a mailbox: INBOX is the Maildir itself, others begin with a dot."""
    if mailbox == "INBOX":
        return ""
    return "." + ".".join(utf7.encode(level.replace(".", "\uff0e")) for level in mailbox.split("/"))


def mailbox_name(folder: str) -> str:
    if not folder:
        return "INBOX"
    levels = []
    for level in folder.lstrip(".").split("."):
        try:
            levels.append(utf7.decode(level).replace("/", "\uff0f"))
        except ValueError:
            levels.append(level)
    return "/".join(levels).replace("\uff0e", ".")


class MaildirWriter:
    """Writes messages as a Maildir; `close` writes the names of the keywords."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._keywords: list[str] = []
        self._count = 0
        for part in ("cur", "new", "tmp"):
            modes.folder(path / part)
        (path / "maildirfolder").touch()

    def add(self, kept: Kept) -> None:
        """The file is whole before it has its name."""
        self._count += 1
        letters = "".join(letter for letter, bit in _MAILDIR_LETTERS.items() if kept.bits & bit)
        letters += "".join(sorted(chr(97 + index) for index in map(self._index, kept.keywords.split()) if index >= 0))
        name = f"{kept.at}.M{self._count:09d}P{os.getpid()}.fubako,S={len(kept.content)}"
        fresh = self._path / "tmp" / name
        with modes.create(fresh) as file:
            file.write(kept.content)
        os.utime(fresh, (kept.at, kept.at))
        fresh.rename(self._path / "cur" / f"{name}:2,{letters}")

    def _index(self, keyword: str) -> int:
        if keyword not in self._keywords:
            if len(self._keywords) >= KEYWORDS_MAX:
                return -1
            self._keywords.append(keyword)
        return self._keywords.index(keyword)

    def close(self) -> None:
        if self._keywords:
            lines = "".join(f"{index} {keyword}\n" for index, keyword in enumerate(self._keywords))
            with modes.create(self._path / KEYWORDS_FILE) as file:
                file.write(lines.encode())


def read_maildir(path: Path) -> Iterator[Kept]:
    names: dict[str, str] = {}
    table = path / KEYWORDS_FILE
    if table.exists():
        for line in table.read_text(encoding="utf-8").splitlines():
            number, _, keyword = line.partition(" ")
            if number.isdigit() and int(number) < KEYWORDS_MAX:
                names[chr(97 + int(number))] = keyword
    files = [file for part in ("new", "cur") if (path / part).is_dir() for file in (path / part).iterdir()]
    for file in sorted(files, key=lambda file: file.name):
        letters = file.name.rpartition(":2,")[2] if ":2," in file.name else ""
        bits = sum(bit for letter, bit in _MAILDIR_LETTERS.items() if letter in letters)
        keywords = " ".join(names[letter] for letter in letters if letter in names)
        yield Kept(regular(file.read_bytes()), bits, keywords, int(file.stat().st_mtime))


def maildir_folders(path: Path) -> list[tuple[str, Path]]:
    """(mailbox, folder) of a Maildir++ tree."""
    found = [("INBOX", path)] if (path / "cur").is_dir() or (path / "new").is_dir() else []
    folders = (folder for folder in sorted(path.iterdir()) if folder.name.startswith(".") and (folder / "cur").is_dir())
    return found + [(mailbox_name(folder.name), folder) for folder in folders]


# -- mbox (mboxrd: every From line of the content gets one more >)


def mbox_entry(kept: Kept) -> bytes:
    """One message with its From line and the marks that hold its flags."""
    end = header_end(kept.content)
    header, body = kept.content[:end], kept.content[end:]
    sender = first_fields(header).get(b"return-path", b"").strip(b"<> ") or b"MAILER-DAEMON"
    when = time.strftime("%a %b %d %H:%M:%S %Y", time.gmtime(kept.at)).encode()
    status = "".join(letter for bit, letter in _STATUS if kept.bits & bit) + "O"
    x_status = "".join(letter for bit, letter in _X_STATUS if kept.bits & bit)
    marks = f"Status: {status}\r\nX-Status: {x_status}\r\nX-Keywords: {kept.keywords}\r\n".encode()
    whole = (header.removesuffix(b"\r\n") + marks + b"\r\n" + body).replace(b"\r\n", b"\n")
    return b"From " + sender.replace(b" ", b"_") + b" " + when + b"\n" + _QUOTED_FROM.sub(rb">\1", whole) + b"\n"


def read_mbox(path: Path) -> Iterator[Kept]:
    """One message at a time: a From line behind an empty line begins the next."""
    with path.open("rb") as file:
        lines: list[bytes] = []
        at, empty = 0, True
        for line in file:
            if empty and _FROM_LINE.match(line.rstrip(b"\r\n")):
                if lines:
                    yield _from_mbox(lines, at)
                lines, at = [], _from_date(line)
            else:
                lines.append(line)
            empty = line in (b"\n", b"\r\n")
        if lines:
            yield _from_mbox(lines, at)


def _from_date(line: bytes) -> int:
    words = line.split()
    try:
        text = b" ".join(words[-5:]).decode("ascii")
        return int(time.mktime(time.strptime(text, "%a %b %d %H:%M:%S %Y")) - time.timezone)
    except (ValueError, UnicodeDecodeError):
        return int(time.time())


def _from_mbox(lines: list[bytes], at: int) -> Kept:
    if lines and lines[-1] in (b"\n", b"\r\n"):
        lines = lines[:-1]  # the separator
    content = regular(_UNQUOTED_FROM.sub(rb"\1", b"".join(lines)))
    end = header_end(content)
    marks = first_fields(content[:end])
    status, x_status = marks.get(b"status", b"").decode(), marks.get(b"x-status", b"").decode()
    bits = sum(bit for bit, letter in _STATUS if letter in status) + sum(
        bit for bit, letter in _X_STATUS if letter in x_status
    )
    kept_lines = [line for line in content[:end].split(b"\r\n") if line.split(b":", 1)[0].lower() not in _MARKS]
    keywords = marks.get(b"x-keywords", b"").decode("utf-8", "replace")
    return Kept(b"\r\n".join(kept_lines) + content[end:], bits, keywords, at)
