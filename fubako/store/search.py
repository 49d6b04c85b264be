"""`SearchIndex`: which messages hold a text. A derived file per account: it may be deleted at any time.

Words are kept as they are and found by scanning the vocabulary, so a needle inside a word is found; Japanese, Chinese and
Korean text is cut into pairs of characters, so a word of two characters is found. What the index cannot decide exactly it
says so, and the caller reads the candidates.
"""

import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import apsw

from fubako import modes
from fubako.scan.terms import CJK, CJK_RUN, fold, pairs
from fubako.store.interface import StoreError

_TOKEN = re.compile(rf"[{CJK}]+|[^\W_{CJK}]+")
_SIMPLE_WORD = re.compile(r"[a-z0-9]+")
_TERMS_MAX = 800
_PART = 2000  # terms
_VERSION = 2
_SCHEMA = (
    "DROP TABLE IF EXISTS words",
    "DROP TABLE IF EXISTS letters",
    "DROP TABLE IF EXISTS progress",
    "DROP TABLE IF EXISTS trying",
    "DROP TABLE IF EXISTS skipped",
    """CREATE VIRTUAL TABLE letters USING fts5(header, body, content='', contentless_delete=1,
        tokenize="unicode61 remove_diacritics 0")""",
    "CREATE VIRTUAL TABLE words USING fts5vocab(letters, row)",
    "CREATE TABLE progress (mailbox_id INTEGER PRIMARY KEY, uid INTEGER NOT NULL)",
    "CREATE TABLE trying (mailbox_id INTEGER PRIMARY KEY, first INTEGER NOT NULL, last INTEGER NOT NULL, times INTEGER NOT NULL)",
    """CREATE TABLE skipped (mailbox_id INTEGER NOT NULL, uid INTEGER NOT NULL, reason TEXT NOT NULL, at INTEGER NOT NULL,
        PRIMARY KEY (mailbox_id, uid))""",
    f"PRAGMA user_version={_VERSION}",
)
_BEGIN = (
    "INSERT INTO trying (mailbox_id, first, last, times) VALUES (?,?,?,1) ON CONFLICT (mailbox_id) DO UPDATE SET"
    " times=CASE WHEN first=excluded.first AND last=excluded.last THEN times+1 ELSE 1 END, first=excluded.first, last=excluded.last"
)
_PROGRESS = "INSERT INTO progress (mailbox_id, uid) VALUES (?,?) ON CONFLICT (mailbox_id) DO UPDATE SET uid=max(uid, ?)"


@dataclass(frozen=True, slots=True)
class Found:
    """UIDs that may hold the needle; `exact`: they do."""

    uids: set[int]
    exact: bool


class DamagedIndex(StoreError):
    """The file is no index of ours, or no longer. It can be made anew."""


_PASSING = (
    apsw.BusyError, apsw.LockedError, apsw.FullError, apsw.IOError, apsw.NoMemError, apsw.ReadOnlyError, apsw.CantOpenError,
    apsw.PermissionsError, apsw.AuthError, apsw.InterruptError, apsw.ThreadingViolationError, apsw.ConnectionClosedError,
)  # fmt: skip


@contextmanager
def _told() -> Iterator[None]:
    """Raises StoreError for what may pass, DamagedIndex for what cannot."""
    try:
        yield
    except (*_PASSING, OSError) as error:
        raise StoreError(f"the search index cannot be used: {error}") from None
    except (apsw.Error, TypeError, ValueError) as error:  # rows that hold what was never put there
        raise DamagedIndex(f"the search index is damaged: {error}") from None


class SearchIndex:
    """The index of one account. Not for two threads at once."""

    def __init__(self, path: Path) -> None:
        self._vocabulary: list[str] | None = None
        self._version: object = None
        with _told():
            modes.ensure(path)
            self._connection = apsw.Connection(str(path))
            self._connection.set_busy_timeout(10_000)
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA secure_delete=ON")  # a word that is removed is overwritten
            self._connection.execute("PRAGMA synchronous=OFF")  # it can be made again
            with self._writing() as run:
                if run("PRAGMA user_version").get != _VERSION:
                    for statement in _SCHEMA:
                        run(statement)
            self._file = _identity(path)

    def in_place(self, path: Path) -> bool:
        """Whether the file that is open still has its name."""
        return self._file == _identity(path)

    @contextmanager
    def _writing(self) -> Iterator[Callable[..., apsw.Cursor]]:
        """A transaction that takes its turn among processes from the start."""
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield self._connection.execute
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    def indexed(self, mailbox_id: int) -> int:
        """The last UID that is in the index, or was passed over."""
        return self.standing(mailbox_id)[0]

    def standing(self, mailbox_id: int) -> tuple[int, tuple[int, int] | None]:
        """The last UID that is done; first and last of those that a process was trying when it ended."""
        with _told():
            last = self._connection.execute("SELECT uid FROM progress WHERE mailbox_id=?", (mailbox_id,)).get or 0
            left = self._connection.execute("SELECT first, last FROM trying WHERE mailbox_id=?", (mailbox_id,)).get
            return int(last), (int(left[0]), int(left[1])) if left is not None else None

    def begin(self, mailbox_id: int, first: int, last: int) -> int:
        """These are tried now. Returns how many times they were begun and neither finished nor released, this time included."""
        with _told(), self._writing() as run:
            run(_BEGIN, (mailbox_id, first, last))
            return int(run("SELECT times FROM trying WHERE mailbox_id=?", (mailbox_id,)).get)

    def release(self, mailbox_id: int) -> None:
        """They were not tried to the end, and nothing has ended by it."""
        with _told(), self._writing() as run:
            run("DELETE FROM trying WHERE mailbox_id=?", (mailbox_id,))

    def skip(self, mailbox_id: int, reasons: dict[int, str], now: int) -> None:
        """UID -> why it is passed over, from now on."""
        with _told(), self._writing() as run:
            for uid, reason in reasons.items():
                run(
                    "INSERT OR REPLACE INTO skipped (mailbox_id, uid, reason, at) VALUES (?,?,?,?)",
                    (mailbox_id, uid, reason, now),
                )

    def skipped(self, mailbox_id: int) -> dict[int, str]:
        with _told():
            rows = self._connection.execute(
                "SELECT uid, reason FROM skipped WHERE mailbox_id=?", (mailbox_id,)
            ).fetchall()
            return {int(uid): str(reason) for uid, reason in rows}  # type: ignore[arg-type]  # a row of integers and text

    def add(self, mailbox_id: int, prepared: Iterable[tuple[int, str, str]], last: int) -> None:
        """(uid, header, body), prepared, in UID order; with them all up to `last` is done."""
        self._vocabulary = None
        with _told(), self._writing() as run:
            for uid, header, body in prepared:
                row = (mailbox_id << 32 | uid, header, body)
                run("INSERT OR REPLACE INTO letters (rowid, header, body) VALUES (?,?,?)", row)
            run(_PROGRESS, (mailbox_id, last, last))
            run("DELETE FROM trying WHERE mailbox_id=?", (mailbox_id,))

    def mailboxes(self) -> list[int]:
        """Those of whose messages something is here."""
        with _told():
            rows = self._connection.execute(
                "SELECT mailbox_id FROM progress UNION SELECT mailbox_id FROM skipped"
            ).fetchall()
            return [int(row[0]) for row in rows]  # type: ignore[arg-type]  # integers

    def held(self, mailbox_id: int) -> list[int]:
        """UIDs of all whose words are here, or of which it is remembered that they are passed over."""
        with _told():
            rows = self._connection.execute(
                "SELECT rowid & 4294967295 FROM letters WHERE rowid BETWEEN ? AND ? UNION SELECT uid FROM skipped"
                " WHERE mailbox_id=?",
                (mailbox_id << 32, (mailbox_id + 1 << 32) - 1, mailbox_id),
            ).fetchall()
            return [int(row[0]) for row in rows]  # type: ignore[arg-type]  # integers

    def forget(self, mailbox_id: int, gone: Iterable[int]) -> None:
        """Their words leave the file, and its WAL: a row that is removed is only marked until all that is left is written anew."""
        self._vocabulary = None
        with _told():
            with self._writing() as run:
                for uid in gone:
                    run("DELETE FROM letters WHERE rowid=?", (mailbox_id << 32 | uid,))
                    run("DELETE FROM skipped WHERE mailbox_id=? AND uid=?", (mailbox_id, uid))
                run("INSERT INTO letters (letters) VALUES ('optimize')")
            self._connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)

    def find(self, mailbox_id: int, needle: str, column: str) -> Found | None:
        """`column`: "body", "header" or "" for both. None when the index cannot help (no letter or digit in the needle)."""
        with _told():
            return self._find(mailbox_id, needle, column)

    def _find(self, mailbox_id: int, needle: str, column: str) -> Found | None:
        needle = fold(needle)
        tokens = _TOKEN.findall(needle)
        if not tokens:
            return None
        groups: list[str] = []
        for position, token in enumerate(tokens):
            group = self._group(token, first=position == 0, last=position == len(tokens) - 1)
            if group is None:
                return None
            if not group:
                return Found(set(), exact=True)
            groups.append(group)
        query = " AND ".join(groups)
        rows = self._connection.execute(
            "SELECT rowid FROM letters WHERE letters MATCH ? AND rowid BETWEEN ? AND ?",
            (f"{column} : ({query})" if column else query, mailbox_id << 32, (mailbox_id + 1 << 32) - 1),
        ).fetchall()
        exact = len(tokens) == 1 and tokens[0] == needle
        exact = exact and bool(_SIMPLE_WORD.fullmatch(needle) or (CJK_RUN.fullmatch(needle)))
        return Found({int(row[0]) & 0xFFFFFFFF for row in rows}, exact)  # type: ignore[arg-type]  # a rowid

    def _group(self, token: str, *, first: bool, last: bool) -> str | None:
        """An FTS5 expression for one token of the needle; "" when nothing can match, None when too much would."""
        if CJK_RUN.fullmatch(token):
            if len(token) > 1:  # the pairs of a run lie side by side: a phrase of them is the run
                return '"' + " ".join(pairs(token)) + '"'
            pattern = f"^.*{token}.*$"
        else:  # what stands inside the needle is whole, its ends may be parts of longer words
            pattern = f"^{'.*' if first else ''}{re.escape(token)}{'.*' if last else ''}$"
        # linear: in the number of terms, one to a line; a term is as short as words are
        terms = [term for part in self._terms() for term in re.findall(pattern, part, re.MULTILINE)]
        if len(terms) > _TERMS_MAX:
            return None
        return "(" + " OR ".join(f'"{term}"' for term in terms) + ")" if terms else ""

    def _terms(self) -> list[str]:
        """Every term on a line of its own, in parts: other threads get the interpreter between two of them. SQLite counts what each
        term holds when it lists them; so it is asked once."""
        version = self._connection.execute("PRAGMA data_version").get  # another process may have added messages
        if self._vocabulary is None or version != self._version:
            self._version, self._vocabulary = version, []
            rows = self._connection.execute("SELECT term FROM words")
            while part := "\n".join(str(row[0]) for row in islice(rows, _PART)):
                self._vocabulary.append(part)
        return self._vocabulary

    def close(self) -> None:
        self._connection.close()


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def passed_over(path: Path) -> list[tuple[int, int, str]]:
    """(mailbox, UID, reason) of the messages that the index of a file leaves out; changes nothing. Raises StoreError."""
    with _told():
        connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
        try:
            if connection.execute("PRAGMA user_version").get != _VERSION:
                return []
            rows = connection.execute("SELECT mailbox_id, uid, reason FROM skipped ORDER BY mailbox_id, uid").fetchall()
            return [(int(row[0]), int(row[1]), str(row[2])) for row in rows]  # type: ignore[arg-type]  # as they were put there
        finally:
            connection.close()
