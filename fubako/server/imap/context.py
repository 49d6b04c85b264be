"""`ImapContext`: what the command files know of a session: its engine, its selected mailbox, what was enabled, and how
news are told."""

from collections.abc import Sequence

from fubako.net.line import Line
from fubako.protocol.engine import ProtocolError
from fubako.protocol.imap import render, utf7
from fubako.protocol.imap import server as wire
from fubako.protocol.imap.server import State
from fubako.server.imap.sections import Trees
from fubako.server.imap.view import News, View
from fubako.server.session import Arrival, Resources, Session
from fubako.store.mailboxes import claim_recent

SYSTEM_FLAGS = "\\Answered \\Flagged \\Deleted \\Seen \\Draft"


class ImapContext(Session):
    """`view` is the selected mailbox; `enabled` what ENABLE (or a command that implies it) switched on."""

    protocol = "imap"

    def __init__(self, resources: Resources, arrival: Arrival) -> None:
        self.engine = wire.ImapServer()
        line: Line[wire.Event] = Line(self.engine, arrival.stream, resources.limits.pace)
        super().__init__(resources, arrival, line)
        self.view: View | None = None
        self.enabled: set[str] = set()
        self.failures = 0
        self.trees = Trees()

    # -- what the command files use

    @property
    def account_id(self) -> int:
        assert self.identity is not None
        return self.identity.account.account_id

    @property
    def selected(self) -> View:
        assert self.view is not None
        return self.view

    @property
    def rev2(self) -> bool:
        return "IMAP4REV2" in self.enabled

    @property
    def condstore(self) -> bool:
        return "CONDSTORE" in self.enabled or "QRESYNC" in self.enabled

    def use_condstore(self) -> None:
        """A command asked for MODSEQ: from now on it is shown, and the client learns where it stands (RFC 7162 §3.1.2)."""
        if not self.condstore and self.view is not None:
            self.engine.untagged(b"OK [HIGHESTMODSEQ %d] the last change" % self.view.modseq)
        self.enabled.add("CONDSTORE")

    def shown_name(self, name: str) -> bytes:
        return render.astring(name if self.engine.utf8 else utf7.encode(name))

    def leave(self) -> None:
        self.view = None
        if self.engine.state is State.SELECTED:
            self.engine.state = State.KNOWN

    async def tell_news(self, *, expunge: bool) -> None:
        """Untagged responses for what changed, by whomever."""
        view = self.selected
        news = await view.sync(self.resources.database, expunge=expunge)
        if news.gone:
            raise ProtocolError("the mailbox was removed", b"* BYE the selected mailbox was removed\r\n")
        if news.keywords is not None:
            self.engine.untagged(flags_line(news.keywords))
        await self._say_expunged(news)
        if news.arrived:
            await self._say_arrived(view)
        await self.tell_flags(news.flagged, uid_shown=self.condstore)

    async def tell_flags(self, rows: Sequence[tuple[int, int, str, int]], *, uid_shown: bool) -> None:
        """(uid, bits, keywords, modseq) of messages whose flags the client has to know."""
        if rows:
            view = self.selected
            shown = (flags_response(self, view, *row, uid_shown=uid_shown) for row in rows)
            await self.line.send_all(b"* " + one + b"\r\n" for one in shown)

    async def _say_expunged(self, news: News) -> None:
        if not news.expunged:
            return
        if "QRESYNC" in self.enabled:
            self.engine.untagged(b"VANISHED " + render.number_set(news.expunged))
        else:
            await self.line.send_all(b"* %d EXPUNGE\r\n" % number for number in news.numbers)

    async def _say_arrived(self, view: View) -> None:
        if not view.read_only and not self.rev2:
            first = await self.resources.database.write(lambda tx: claim_recent(tx, view.account_id, view.mailbox_id))
            view.recent_from = min(view.recent_from, first) if view.recent_from else first
        self.engine.untagged(b"%d EXISTS" % view.exists)
        if not self.rev2:
            self.engine.untagged(b"%d RECENT" % await recent_count(self, view))


def flags_line(keywords: str) -> bytes:
    return f"FLAGS ({SYSTEM_FLAGS}{' ' + keywords if keywords else ''})".encode()


async def recent_count(session: ImapContext, view: View) -> int:
    if view.recent_from >= view.uidnext:
        return 0
    uids = await view.uids(session.resources.database)
    return len(uids) - view.number(view.recent_from) + 1


def flags_response(
    session: ImapContext, view: View, uid: int, bits: int, keywords: str, modseq: int, *, uid_shown: bool
) -> bytes:
    shown = [b"FLAGS (%b)" % view.shown_flags(uid, bits, keywords)]
    if uid_shown:
        shown.insert(0, b"UID %d" % uid)
    if session.condstore:
        shown.append(b"MODSEQ (%d)" % modseq)
    return b"%d FETCH (%b)" % (view.number(uid), b" ".join(shown))
