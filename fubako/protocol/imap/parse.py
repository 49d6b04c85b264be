"""`parse`: one command's text -> a typed value (RFC 9051 §9). Raises ParseError and nothing else."""

from collections.abc import Callable

from fubako.protocol.imap import types as t
from fubako.protocol.imap import utf7
from fubako.protocol.imap.cursor import MODSEQ_MAX, Cursor, ParseError
from fubako.protocol.imap.parse_fetch import fetch_items
from fubako.protocol.imap.parse_search import search

STATUS_ITEMS = frozenset(
    {"MESSAGES", "RECENT", "UIDNEXT", "UIDVALIDITY", "UNSEEN", "HIGHESTMODSEQ", "SIZE", "DELETED", "APPENDLIMIT"}
)
BARE = frozenset({"CAPABILITY", "NOOP", "LOGOUT", "STARTTLS", "CHECK", "CLOSE", "UNSELECT", "IDLE", "NAMESPACE"})
SPECIAL_USES = ("\\All", "\\Archive", "\\Drafts", "\\Flagged", "\\Junk", "\\Sent", "\\Trash")
APPEND_MESSAGES_MAX = 1000
ID_PAIRS_MAX = 30


class BadName(ParseError):
    """A mailbox name that no mailbox can have: NO [CANNOT]."""


def parse(name: str, cursor: Cursor, *, utf8: bool) -> t.Command:
    """The command `name` whose arguments begin at the cursor; `utf8`: mailbox names come in UTF-8 (RFC 6855)."""
    if name in BARE:
        cursor.end()
        return t.Bare(name)
    uid = name == "UID"
    if uid:
        cursor.space()
        name = cursor.word()
        if name not in ("FETCH", "STORE", "COPY", "MOVE", "SEARCH", "EXPUNGE"):
            raise ParseError("UID goes with FETCH, STORE, COPY, MOVE, SEARCH or EXPUNGE")
        if name == "EXPUNGE":
            cursor.space()
            return _ended(cursor, t.Expunge(cursor.sequence_set()))
    if name == "EXPUNGE":
        return _ended(cursor, t.Expunge())
    known = _COMMANDS.get(name)
    if known is not None:
        cursor.space()
        return _ended(cursor, known(cursor, utf8))
    numbered = _NUMBERED.get(name)
    if numbered is None:
        raise ParseError("unknown command")
    cursor.space()
    return _ended(cursor, numbered(cursor, uid, utf8))


def _ended(cursor: Cursor, command: t.Command) -> t.Command:
    cursor.end()
    return command


def mailbox(cursor: Cursor, utf8: bool) -> str:
    return _mailbox_name(cursor.astring(), utf8)


def _mailbox_name(name: str, utf8: bool) -> str:
    if utf8:
        return name
    try:
        return utf7.decode(name)
    except ValueError as error:
        raise BadName(f"the mailbox name is malformed: {error}") from None


def _login(cursor: Cursor, _utf8: bool) -> t.Command:
    user = cursor.astring()
    cursor.space()
    return t.Login(user, cursor.astring())


def _authenticate(cursor: Cursor, _utf8: bool) -> t.Command:
    mechanism = cursor.word()
    initial = None
    if cursor.accept(b" "):
        initial = cursor.line[cursor.at :]
        cursor.at = len(cursor.line)
    return t.Authenticate(mechanism, initial)


def _id(cursor: Cursor, _utf8: bool) -> t.Command:
    if cursor.nstring_or_open():
        return t.Id(())
    pairs: list[tuple[str, str | None]] = []
    while not cursor.accept(b")"):
        if pairs:
            cursor.space()
        key = cursor.astring()
        cursor.space()
        pairs.append((key, cursor.nstring()))
        if len(pairs) > ID_PAIRS_MAX:
            raise ParseError("too many fields")
    return t.Id(tuple(pairs))


def _enable(cursor: Cursor, _utf8: bool) -> t.Command:
    names = [cursor.word()]
    while cursor.accept(b" "):
        names.append(cursor.word())
    return t.Enable(tuple(names))


def _select(cursor: Cursor, utf8: bool, *, read_only: bool = False) -> t.Command:
    name = mailbox(cursor, utf8)
    condstore, qresync = False, None
    if cursor.accept(b" "):
        for _ in cursor.members():
            word = cursor.word()
            if word == "CONDSTORE":
                condstore = True
            elif word == "QRESYNC":
                cursor.space()
                qresync = _qresync(cursor)
            else:
                raise ParseError("unknown SELECT parameter")
    return t.Select(name, read_only, condstore, qresync)


def _qresync(cursor: Cursor) -> tuple[int, int, t.SequenceSet | None]:
    cursor.expect(b"(")
    validity = cursor.number()
    cursor.space()
    modseq = cursor.number(MODSEQ_MAX)
    known = None
    if cursor.accept(b" "):
        if not cursor.peek(b"("):
            known = cursor.sequence_set()
            cursor.accept(b" ")
        if cursor.accept(b"("):  # the client's guess of which numbers match; the server need not use it
            cursor.sequence_set()
            cursor.space()
            cursor.sequence_set()
            cursor.expect(b")")
    cursor.expect(b")")
    return validity, modseq, known


def _examine(cursor: Cursor, utf8: bool) -> t.Command:
    return _select(cursor, utf8, read_only=True)


def _create(cursor: Cursor, utf8: bool) -> t.Command:
    name = mailbox(cursor, utf8)
    uses: list[str] = []
    if cursor.accept(b" "):
        cursor.expect(b"(USE (")
        while not cursor.accept(b")"):
            if uses:
                cursor.space()
            uses.append(cursor.flag())
        cursor.expect(b")")
    return t.Create(name, tuple(uses))


def _on_mailbox(name: str) -> Callable[[Cursor, bool], t.Command]:
    return lambda cursor, utf8: t.OnMailbox(name, mailbox(cursor, utf8))


def _rename(cursor: Cursor, utf8: bool) -> t.Command:
    old = mailbox(cursor, utf8)
    cursor.space()
    return t.Rename(old, mailbox(cursor, utf8))


def _list(cursor: Cursor, utf8: bool) -> t.Command:
    select, extended = frozenset[str](), False
    if cursor.accept(b"("):
        extended = True
        select = frozenset(_words(cursor))
        cursor.space()
    reference = _mailbox_name(cursor.astring(), utf8)
    cursor.space()
    patterns: list[str] = []
    if cursor.accept(b"("):
        extended = True
        while not cursor.accept(b")"):
            if patterns:
                cursor.space()
            patterns.append(_pattern(cursor, utf8))
    else:
        patterns.append(_pattern(cursor, utf8))
    returns: set[str] = set()
    status: tuple[str, ...] = ()
    if cursor.accept(b" "):
        extended = True
        if cursor.word() != "RETURN":
            raise ParseError("RETURN is expected")
        cursor.space()
        returns, status = _list_returns(cursor)
    unknown = (select - {"SUBSCRIBED", "REMOTE", "RECURSIVEMATCH", "SPECIAL-USE"}) | (
        returns - {"SUBSCRIBED", "CHILDREN", "SPECIAL-USE", "STATUS"}
    )
    if unknown or ("RECURSIVEMATCH" in select and not select & {"SUBSCRIBED", "SPECIAL-USE"}):
        raise ParseError("a LIST option is not known or cannot stand alone")
    return t.List(reference, tuple(patterns), select, frozenset(returns), status, extended=extended)


def _pattern(cursor: Cursor, utf8: bool) -> str:
    """A pattern that is no valid name is allowed: it matches nothing."""
    text = cursor.list_pattern()
    try:
        return _mailbox_name(text, utf8)
    except BadName:
        return text


def _list_returns(cursor: Cursor) -> tuple[set[str], tuple[str, ...]]:
    cursor.expect(b"(")
    names: set[str] = set()
    status: tuple[str, ...] = ()
    while not cursor.accept(b")"):
        if names:
            cursor.space()
        name = cursor.word()
        names.add(name)
        if name == "STATUS":
            cursor.space()
            status = _status_items(cursor)
    return names, status


def _words(cursor: Cursor) -> list[str]:
    """Words up to the closing parenthesis."""
    words: list[str] = []
    while not cursor.accept(b")"):
        if words:
            cursor.space()
        words.append(cursor.word())
    return words


def _lsub(cursor: Cursor, utf8: bool) -> t.Command:
    reference = _mailbox_name(cursor.astring(), utf8)
    cursor.space()
    return t.List(reference, (_pattern(cursor, utf8),), lsub=True)


def _status_items(cursor: Cursor) -> tuple[str, ...]:
    cursor.expect(b"(")
    items = _words(cursor)
    if not items or set(items) - STATUS_ITEMS:
        raise ParseError("a STATUS item is missing or not known")
    return tuple(items)


def _status(cursor: Cursor, utf8: bool) -> t.Command:
    name = mailbox(cursor, utf8)
    cursor.space()
    return t.Status(name, _status_items(cursor))


def _append(cursor: Cursor, utf8: bool) -> t.Command:
    name = mailbox(cursor, utf8)
    messages: list[t.AppendMessage] = []
    while cursor.accept(b" "):
        flags: tuple[str, ...] = ()
        moment, zone = None, 0
        if cursor.peek(b"("):
            flags = cursor.flags()
            cursor.space()
        if cursor.peek(b'"'):
            moment, zone = cursor.date_time()
            cursor.space()
        wrapped = cursor.accept(b"UTF8 (")  # RFC 6855 §4
        cursor.accept(b"~")
        messages.append(t.AppendMessage(flags, moment, zone, cursor.content()))
        if wrapped:
            cursor.expect(b")")
        if len(messages) > APPEND_MESSAGES_MAX:
            raise ParseError("too many messages in one APPEND")
    if not messages:
        raise ParseError("a message is missing")
    return t.Append(name, tuple(messages))


def _fetch(cursor: Cursor, uid: bool, _utf8: bool) -> t.Command:
    numbers = cursor.sequence_set()
    cursor.space()
    items = fetch_items(cursor)
    changed, vanished = None, False
    if cursor.accept(b" "):
        for _ in cursor.members():
            word = cursor.word()
            if word == "CHANGEDSINCE":
                cursor.space()
                changed = cursor.number(MODSEQ_MAX)
            elif word == "VANISHED" and uid:
                vanished = True
            else:
                raise ParseError("unknown FETCH modifier")
    if vanished and changed is None:
        raise ParseError("VANISHED needs CHANGEDSINCE")
    return t.Fetch(uid, numbers, items, changed, vanished)


def _store(cursor: Cursor, uid: bool, _utf8: bool) -> t.Command:
    numbers = cursor.sequence_set()
    cursor.space()
    unchanged = None
    if cursor.accept(b"("):
        if cursor.word() != "UNCHANGEDSINCE":
            raise ParseError("unknown STORE modifier")
        cursor.space()
        unchanged = cursor.number(MODSEQ_MAX)
        cursor.expect(b")")
        cursor.space()
    how = "+" if cursor.accept(b"+") else "-" if cursor.accept(b"-") else "="
    name, dot, suffix = cursor.word().partition(".")
    if name != "FLAGS" or (dot and suffix != "SILENT"):
        raise ParseError("FLAGS or FLAGS.SILENT is expected")
    cursor.space()
    return t.Store(uid, numbers, how, cursor.flags(), bool(dot), unchanged)


def _copy(cursor: Cursor, uid: bool, utf8: bool) -> t.Command:
    numbers = cursor.sequence_set()
    cursor.space()
    return t.Copy(uid, numbers, mailbox(cursor, utf8), move=False)


def _move(cursor: Cursor, uid: bool, utf8: bool) -> t.Command:
    numbers = cursor.sequence_set()
    cursor.space()
    return t.Copy(uid, numbers, mailbox(cursor, utf8), move=True)


_COMMANDS: dict[str, Callable[[Cursor, bool], t.Command]] = {
    "LOGIN": _login,
    "AUTHENTICATE": _authenticate,
    "ID": _id,
    "ENABLE": _enable,
    "SELECT": _select,
    "EXAMINE": _examine,
    "CREATE": _create,
    "DELETE": _on_mailbox("DELETE"),
    "SUBSCRIBE": _on_mailbox("SUBSCRIBE"),
    "UNSUBSCRIBE": _on_mailbox("UNSUBSCRIBE"),
    "RENAME": _rename,
    "LIST": _list,
    "LSUB": _lsub,
    "STATUS": _status,
    "APPEND": _append,
}
_NUMBERED: dict[str, Callable[[Cursor, bool, bool], t.Command]] = {
    "FETCH": _fetch,
    "STORE": _store,
    "COPY": _copy,
    "MOVE": _move,
    "SEARCH": search,
}
