"""SEARCH (RFC 9051 §6.4.4, RFC 4731 ESEARCH, RFC 5182 SEARCHRES, RFC 7162 MODSEQ)."""

from fubako.message.words import codec_name
from fubako.protocol.imap import types as t
from fubako.protocol.imap.cursor import MODSEQ_MAX, NESTING_MAX, Cursor, ParseError

RETURNS = frozenset({"MIN", "MAX", "ALL", "COUNT", "SAVE"})
CRITERIA_MAX = 1000

_SIMPLE: dict[str, t.Criterion] = {
    "ANSWERED": t.Flagged("\\Answered"),
    "DELETED": t.Flagged("\\Deleted"),
    "DRAFT": t.Flagged("\\Draft"),
    "FLAGGED": t.Flagged("\\Flagged"),
    "SEEN": t.Flagged("\\Seen"),
    "UNANSWERED": t.Flagged("\\Answered", wanted=False),
    "UNDELETED": t.Flagged("\\Deleted", wanted=False),
    "UNDRAFT": t.Flagged("\\Draft", wanted=False),
    "UNFLAGGED": t.Flagged("\\Flagged", wanted=False),
    "UNSEEN": t.Flagged("\\Seen", wanted=False),
    "RECENT": t.Recent(wanted=True),
    "OLD": t.Recent(wanted=False),
    "NEW": t.And((t.Recent(wanted=True), t.Flagged("\\Seen", wanted=False))),
    "ALL": t.And(()),
}
_HEADERS = frozenset({"BCC", "CC", "FROM", "SUBJECT", "TO"})
_DATES = {
    f"{prefix}{relation}": (kind, relation.lower())
    for prefix, kind in (("", "internal"), ("SENT", "sent"), ("SAVED", "saved"))
    for relation in ("BEFORE", "ON", "SINCE")
}


class BadCharset(ParseError):
    """The charset is not known: NO [BADCHARSET]."""


def search(cursor: Cursor, uid: bool, _utf8: bool) -> t.Command:
    returns: frozenset[str] | None = None
    charset = "UTF-8"
    if cursor.line[cursor.at : cursor.at + 7].upper() == b"RETURN ":
        cursor.at += 7
        returns = _returns(cursor)
        cursor.space()
    if cursor.line[cursor.at : cursor.at + 8].upper() == b"CHARSET ":
        cursor.at += 8
        charset = cursor.astring()
        if codec_name(charset) is None:
            raise BadCharset("the charset is not known")
        cursor.space()
    reader = _Criteria(cursor, codec_name(charset) or "utf-8")
    criteria = [reader.one(0)]
    while cursor.accept(b" "):
        criteria.append(reader.one(0))
    return t.Search(uid, criteria[0] if len(criteria) == 1 else t.And(tuple(criteria)), returns, charset)


def _returns(cursor: Cursor) -> frozenset[str]:
    cursor.expect(b"(")
    words: list[str] = []
    while not cursor.accept(b")"):
        if words:
            cursor.space()
        words.append(cursor.word())
    if set(words) - RETURNS:
        raise ParseError("a RETURN option is not known")
    return frozenset(words or ["ALL"])


class _Criteria:
    def __init__(self, cursor: Cursor, codec: str) -> None:
        self._cursor = cursor
        self._codec = codec
        self._count = 0

    def one(self, depth: int) -> t.Criterion:
        cursor = self._cursor
        self._count += 1
        if depth > NESTING_MAX or self._count > CRITERIA_MAX:
            raise ParseError("the search is nested too deeply or too long")
        if cursor.accept(b"("):
            inner = [self.one(depth + 1)]
            while cursor.accept(b" "):
                inner.append(self.one(depth + 1))
            cursor.expect(b")")
            return t.And(tuple(inner))
        if cursor.line[cursor.at : cursor.at + 1] in b"0123456789*$" and not cursor.at_end:
            return t.Numbers(uid=False, numbers=cursor.sequence_set())
        word = cursor.word()
        return _SIMPLE[word] if word in _SIMPLE else self._with_argument(word, depth)

    def _with_argument(self, word: str, depth: int) -> t.Criterion:
        cursor = self._cursor
        cursor.space()
        if word in _DATES:
            kind, relation = _DATES[word]
            return t.Dated(kind, relation, cursor.day())
        if word in _HEADERS:
            return t.Text("header", self._string(), word.lower())
        match word:
            case "NOT":
                return t.Not(self.one(depth + 1))
            case "OR":
                either = self.one(depth + 1)
                cursor.space()
                return t.Or(either, self.one(depth + 1))
            case "BODY" | "TEXT":
                return t.Text(word.lower(), self._string())
            case "HEADER":
                name = cursor.astring()
                cursor.space()
                return t.Text("header", self._string(), name.lower())
            case "KEYWORD" | "UNKEYWORD":
                return t.Flagged(cursor.flag(), wanted=word == "KEYWORD")
            case "LARGER" | "SMALLER":
                return t.Size(word == "LARGER", cursor.number(MODSEQ_MAX))
            case "UID":
                return t.Numbers(uid=True, numbers=cursor.sequence_set())
            case "MODSEQ":
                return self._modseq()
        raise ParseError("a search key is not known")

    def _modseq(self) -> t.Criterion:
        """`MODSEQ ["/flags/…" all] value`: the entry name is read and not used, one MODSEQ serves all (RFC 7162 §3.1.5)."""
        cursor = self._cursor
        if cursor.peek(b'"'):
            cursor.astring()
            cursor.space()
            cursor.word()
            cursor.space()
        return t.ModSeq(cursor.number(MODSEQ_MAX))

    def _string(self) -> str:
        try:
            return self._cursor.astring_octets().decode(self._codec)
        except UnicodeDecodeError:
            raise ParseError("a search string is not in the charset named") from None
