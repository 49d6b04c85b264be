"""`SearchIndex`: which messages hold a text. A derived file per account: it may be deleted at any time.

Words are kept as they are and found by scanning the vocabulary, so a needle inside a word is found; Japanese, Chinese and
Korean text is cut into pairs of characters, so a word of two characters is found. What the index cannot decide exactly it
says so, and the caller reads the candidates.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import apsw

from fubako.store.interface import StoreError

_CJK = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff々〆ー"
_CJK_RUN = re.compile(f"[{_CJK}]+")
_TOKEN = re.compile(rf"[{_CJK}]+|[^\W_{_CJK}]+")
_SIMPLE_WORD = re.compile(r"[a-z0-9]+")
_TERMS_MAX = 800
_VERSION = 1
_SCHEMA = (
    "DROP TABLE IF EXISTS words",
    "DROP TABLE IF EXISTS letters",
    "DROP TABLE IF EXISTS progress",
    """CREATE VIRTUAL TABLE letters USING fts5(header, body, content='', contentless_delete=1,
        tokenize="unicode61 remove_diacritics 0")""",
    "CREATE VIRTUAL TABLE words USING fts5vocab(letters, row)",
    "CREATE TABLE progress (mailbox_id INTEGER PRIMARY KEY, uid INTEGER NOT NULL)",
    f"PRAGMA user_version={_VERSION}",
)
_PROGRESS = "INSERT INTO progress (mailbox_id, uid) VALUES (?,?) ON CONFLICT (mailbox_id) DO UPDATE SET uid=max(uid, ?)"


@dataclass(frozen=True, slots=True)
class Found:
    """UIDs that may hold the needle; `exact`: they do."""

    uids: set[int]
    exact: bool


def fold(text: str) -> str:
    """The form in which texts are compared: without regard to case."""
    return text.casefold()


def _prepared(text: str) -> str:
    """Text for the tokenizer: a run of CJK characters becomes its pairs."""
    return _CJK_RUN.sub(lambda match: " " + " ".join(_pairs(match.group(0))) + " ", fold(text))


def _pairs(run: str) -> list[str]:
    return [run] if len(run) == 1 else [run[i : i + 2] for i in range(len(run) - 1)]


class SearchIndex:
    """The index of one account. Not for two threads at once."""

    def __init__(self, path: Path) -> None:
        self._vocabulary: str | None = None
        self._version: object = None
        try:
            self._connection = apsw.Connection(str(path))
            self._connection.set_busy_timeout(10_000)
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=OFF")  # it can be made again
            with self._writing() as run:
                if run("PRAGMA user_version").get != _VERSION:
                    for statement in _SCHEMA:
                        run(statement)
        except apsw.Error as error:
            raise StoreError(f"the search index {path} cannot be opened: {error}") from None

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
        """The last UID that is in the index."""
        return int(self._connection.execute("SELECT uid FROM progress WHERE mailbox_id=?", (mailbox_id,)).get or 0)

    def add(self, mailbox_id: int, letters: Iterable[tuple[int, str, str]]) -> None:
        """(uid, header text, body text) in UID order."""
        last = 0
        self._vocabulary = None
        try:
            with self._writing() as run:
                for uid, header, body in letters:
                    row = (mailbox_id << 32 | uid, _prepared(header), _prepared(body))
                    run("INSERT OR REPLACE INTO letters (rowid, header, body) VALUES (?,?,?)", row)
                    last = uid
                if last:
                    run(_PROGRESS, (mailbox_id, last, last))
        except apsw.Error as error:
            raise StoreError(f"the search index cannot be written: {error}") from None

    def find(self, mailbox_id: int, needle: str, column: str) -> Found | None:
        """`column`: "body", "header" or "" for both. None when the index cannot help (no letter or digit in the needle)."""
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
        exact = exact and bool(_SIMPLE_WORD.fullmatch(needle) or (_CJK_RUN.fullmatch(needle)))
        return Found({int(row[0]) & 0xFFFFFFFF for row in rows}, exact)  # type: ignore[arg-type]  # a rowid

    def _group(self, token: str, *, first: bool, last: bool) -> str | None:
        """An FTS5 expression for one token of the needle; "" when nothing can match, None when too much would."""
        if _CJK_RUN.fullmatch(token):
            if len(token) > 1:  # the pairs of a run lie side by side: a phrase of them is the run
                return '"' + " ".join(_pairs(token)) + '"'
            pattern = f"^.*{token}.*$"
        else:  # what stands inside the needle is whole, its ends may be parts of longer words
            pattern = f"^{'.*' if first else ''}{re.escape(token)}{'.*' if last else ''}$"
        terms = re.findall(pattern, self._terms(), re.MULTILINE)
        if len(terms) > _TERMS_MAX:
            return None
        return "(" + " OR ".join(f'"{term}"' for term in terms) + ")" if terms else ""

    def _terms(self) -> str:
        """Every term on a line of its own. SQLite counts what each term holds when it lists them; so it is asked once."""
        version = self._connection.execute("PRAGMA data_version").get  # another process may have added letters
        if self._vocabulary is None or version != self._version:
            self._version = version
            rows = self._connection.execute("SELECT term FROM words").fetchall()
            self._vocabulary = "\n".join(str(row[0]) for row in rows)
        return self._vocabulary

    def close(self) -> None:
        self._connection.close()
