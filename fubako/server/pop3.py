"""`Pop3Session`: POP3 over INBOX. The maildrop is a snapshot under a lock; deletion happens only at QUIT (RFC 1939 §6)."""

from collections.abc import Callable
from dataclasses import dataclass

from fubako.accounts.identity import Identity
from fubako.net.line import Line
from fubako.net.pace import SEND_OCTETS
from fubako.protocol import pop3
from fubako.protocol.engine import ProtocolError
from fubako.protocol.pop3 import State
from fubako.protocol.sasl import SaslFailure
from fubako.server.extent import NOTHING, Cut, Extent, Reply, Stored, prove
from fubako.server.session import Arrival, Resources, Session
from fubako.store import messages
from fubako.store.faults import DAMAGED, Fault
from fubako.store.interface import BlobRef, Damaged, StoreError, StoreUnavailable, Transaction
from fubako.store.lease import LeaseLost
from fubako.store.leases import Lease
from fubako.store.mailboxes import INBOX_ID

FAILURES_MAX = 5


@dataclass(slots=True)
class Drop:
    """One message of the maildrop."""

    uid: int
    size: int
    header_size: int
    ref: BlobRef
    deleted: bool = False


class Pop3Session(Session):
    """One connection."""

    protocol = "pop3"

    def __init__(self, resources: Resources, arrival: Arrival) -> None:
        self.engine = pop3.Pop3Server()
        line: Line[pop3.Event] = Line(self.engine, arrival.stream, resources.limits.pace)
        super().__init__(resources, arrival, line)
        self.timestamp = b""
        self.user = ""
        self.drops: list[Drop] = []
        self.uidvalidity = 0
        self.lease: Lease | None = None
        self.failures = 0

    async def converse(self) -> None:
        self.stream.idle_seconds = self.resources.limits.pop3_idle_seconds
        if self.proved is None:
            self._greet()
        else:
            await self._enter(self.proved)
            if self.identity is None:  # another session has the maildrop
                await self.line.flush()
                return
        while True:
            event = await self.line.event()
            if not isinstance(event, pop3.Command):
                raise ProtocolError("a SASL response without an exchange")
            self.count_command(b"-ERR too many commands before a login\r\n")
            if event.keyword == "QUIT":
                await self._quit()
                await self.line.flush()
                return
            await self._command(event)

    def _greet(self) -> None:
        # the timestamp is only shown where APOP is allowed: under protection (attacks: C-APOP, collisions in MD5)
        self.timestamp = self.resources.logins.timestamp() if self.encrypted else b""
        self.engine.ok(f"Fubako POP3 {self.timestamp.decode()}".strip())

    async def _command(self, event: pop3.Command) -> None:
        match event.keyword, event.arguments:
            case "CAPA", _:
                self._capa()
            case "STLS", _:
                await self._stls()
            case "USER", (name,):
                self._user(name)
            case "PASS", (password,):
                await self._pass(password)
            case "APOP", (name, digest):
                await self._apop(name, digest)
            case "AUTH", arguments:
                await self._auth(arguments)
            case "UTF8", _:
                self.engine.ok("UTF-8 is on")
            case "LANG", arguments:
                self._lang(arguments)
            case "STAT", _:
                kept = self._kept()
                self.engine.ok(f"{len(kept)} {sum(drop.size for _, drop in kept)}")
            case "LIST", arguments:
                await self._list(arguments, lambda drop: str(drop.size))
            case "UIDL", arguments:
                await self._list(arguments, lambda drop: f"{self.uidvalidity}.{drop.uid}")
            case "RETR", (number,):
                await self._retr(number)
            case "TOP", (number, lines):
                await self._top(number, lines)
            case "DELE", (number,):
                self._dele(number)
            case "RSET", _:
                for drop in self.drops:
                    drop.deleted = False
                self.engine.ok()
            case _:
                self.engine.ok()

    # -- before the login

    def _capa(self) -> None:
        names = ["TOP", "UIDL", "RESP-CODES", "AUTH-RESP-CODE", "PIPELINING", "UTF8", "LANG", "EXPIRE NEVER"]
        if self.pump is not None and self.stream.tls is None and not self.stream.local:
            names.append("STLS")
        if self.encrypted and self.engine.state is State.AUTHORIZATION:
            names += ["USER", "SASL " + " ".join(self.mechanisms)]
        names.append("IMPLEMENTATION Fubako")
        self.engine.ok("this can be said")
        self.engine.listing([name.encode() for name in names])

    async def _stls(self) -> None:
        if self.pump is None or self.stream.tls is not None or self.stream.local:
            self.engine.err("STLS is not possible here")
            return
        self.engine.ok("begin TLS")
        await self.line.start_tls(self.pump)
        self.user = ""

    def _lang(self, arguments: tuple[str, ...]) -> None:
        if not arguments:
            self.engine.ok("languages")
            self.engine.listing([b"i-default English"])
        elif arguments[0].lower() in ("*", "i-default", "en"):
            self.engine.ok("i-default")
        else:
            self.engine.err("that language is not spoken here")

    def _protected(self) -> bool:
        if not self.encrypted:
            self.engine.err("encryption required: STLS comes first", "AUTH")
        return self.encrypted

    def _user(self, name: str) -> None:
        if self._protected():
            self.user = name
            self.engine.ok("the password, please")

    async def _pass(self, password: str) -> None:
        if not self._protected():
            return
        if not self.user:
            self.engine.err("USER comes first")
            return
        name, self.user = self.user, ""
        try:
            identity = await self.resources.logins.password(name, password, self.scene)
        except SaslFailure as error:
            await self._failed(error)
            return
        await self._enter(identity)

    async def _apop(self, name: str, digest: str) -> None:
        if not self._protected():
            return
        if not self.timestamp:
            self.engine.err("APOP needs the timestamp of a protected greeting")
            return
        try:
            identity = await self.resources.logins.apop(name, digest, self.timestamp, self.scene)
        except SaslFailure as error:
            await self._failed(error)
            return
        await self._enter(identity)

    async def _auth(self, arguments: tuple[str, ...]) -> None:
        names = self.mechanisms if self.encrypted else []
        if not arguments:  # an old way to ask what there is
            self.engine.ok("mechanisms")
            self.engine.listing([name.encode() for name in names])
            return
        if not self._protected():
            return
        if arguments[0].upper() not in names:
            self.engine.err("the mechanism is not offered here")
            return
        initial = arguments[1].encode() if len(arguments) > 1 else None
        try:
            identity = await self.sasl(arguments[0].upper(), initial, self._ask)
        except SaslFailure as error:
            self.engine.auth_ended()
            await self._failed(error)
            return
        self.engine.auth_ended()
        await self._enter(identity)

    async def _ask(self, challenge: bytes) -> bytes:
        self.engine.challenge(challenge)
        event = await self.line.event()
        if not isinstance(event, pop3.AuthResponse):
            raise ProtocolError("a SASL response was expected")
        return event.line

    async def _failed(self, error: SaslFailure) -> None:
        self.failures += 1
        await self.login_failed(error)
        if error.temporary:
            self.engine.err("try again later", "SYS/TEMP")
        else:
            self.engine.err("authentication failed", "AUTH")
        if self.failures >= FAILURES_MAX:
            raise ProtocolError("too many failed logins", self.engine.output() + b"-ERR too many failures\r\n")

    async def _enter(self, identity: Identity) -> None:
        """The login holds: lock the maildrop and take the snapshot."""
        account_id = identity.account.account_id
        if not identity.read_only:
            self.lease = await self.resources.leases.take(f"pop3-{account_id}")
        if self.lease is None and not identity.read_only:
            self.engine.err("another session has the maildrop", "IN-USE")
            return

        def unit(tx: Transaction) -> tuple[int, list[Drop]]:
            row = tx.row("SELECT uidvalidity FROM mailbox WHERE account_id=? AND mailbox_id=?", (account_id, INBOX_ID))
            rows = tx.rows(
                "SELECT uid, header_size, blob_id, segment, place, size FROM message WHERE account_id=? AND mailbox_id=?"
                " ORDER BY uid",
                (account_id, INBOX_ID),
            )
            return int(row[0]) if row else 0, [Drop(row[0], row[5], row[1], BlobRef(*row[2:])) for row in rows]

        self.uidvalidity, self.drops = await self.resources.database.read(unit)
        await self.login_held(identity)
        self.engine.state = State.TRANSACTION
        self.engine.ok(f"{len(self.drops)} messages")
        await self.begin_layer(identity)

    # -- the maildrop

    def _kept(self) -> list[tuple[int, Drop]]:
        return [(number, drop) for number, drop in enumerate(self.drops, 1) if not drop.deleted]

    def _find(self, text: str) -> Drop | None:
        if text.isascii() and text.isdigit() and len(text) < 10 and 0 < int(text) <= len(self.drops):
            drop = self.drops[int(text) - 1]
            if not drop.deleted:
                return drop
        self.engine.err("there is no such message")
        return None

    async def _list(self, arguments: tuple[str, ...], show: Callable[[Drop], str]) -> None:
        if arguments:
            drop = self._find(arguments[0])
            if drop is not None:
                self.engine.ok(f"{int(arguments[0])} {show(drop)}")
            return
        kept = self._kept()
        self.engine.ok(f"{len(kept)} messages")
        await self.line.send_all(f"{number} {show(drop)}\r\n".encode() for number, drop in kept)
        await self.line.send(b".\r\n")

    async def _is_there(self, drop: Drop) -> bool:
        if self.identity is None:
            return False
        key = (self.identity.account.account_id, INBOX_ID, drop.uid)
        return await self.resources.database.read(lambda tx: messages.content(tx, *key)) is not None

    async def _retr(self, number: str) -> None:
        drop = self._find(number)
        if drop is None:
            return
        content = await self._content(drop)
        if content is not None:
            self.engine.ok(f"{drop.size} octets")
            await self._say(content, NOTHING)

    async def _top(self, number: str, lines: str) -> None:
        drop = self._find(number)
        if drop is None:
            return
        if not (lines.isascii() and lines.isdigit() and len(lines) < 10):
            self.engine.err("TOP takes a number of lines")
            return
        content = await self._content(drop)
        if content is not None:
            self.engine.ok()
            await self._say(Cut(content, 0, drop.header_size), Cut(content, drop.header_size, drop.size), int(lines))

    async def _content(self, drop: Drop) -> Stored | None:
        try:
            ref = drop.ref
            if not await self._is_there(drop):
                raise StoreError("another session removed the message")
            await prove(self.resources.blobs, ref)
        except Damaged:  # told where it was found
            self.engine.err(f"{DAMAGED.words}; the administrator has been told", DAMAGED.pop3)
            return None
        except StoreError as error:  # removed by another session since the snapshot
            self.resources.telemetry.event("store.error", self.trace_id, reason=str(error))
            self.engine.err("the message is not there any more", "SYS/TEMP")
            return None
        return Stored(self.resources.blobs, ref, 0, ref.size)

    async def _say(self, whole: Extent, part: Extent, lines: int = 0) -> None:
        """A multi-line reply: all of the first, and so many lines of the other."""
        reply, form = Reply(self.line), pop3.MultiLine()
        try:
            for start in range(0, whole.size, SEND_OCTETS):
                await reply.say(form.piece(await whole.read(start, SEND_OCTETS)))
            for start in range(0, part.size, SEND_OCTETS):
                if not lines:
                    break
                octets, lines = _first_lines(await part.read(start, SEND_OCTETS), lines)
                await reply.say(form.piece(octets))
        except StoreError as error:  # the client counts on what was announced
            self.resources.telemetry.event("store.error", self.trace_id, reason=str(error))
            raise ProtocolError("content was lost while it was sent") from None
        await reply.say(form.end())
        await reply.end()

    def _dele(self, number: str) -> None:
        if self.identity is not None and self.identity.read_only:
            self.engine.err("who has no name may only read")
            return
        drop = self._find(number)
        if drop is not None:
            drop.deleted = True
            self.engine.ok()

    async def _quit(self) -> None:
        gone = [drop.uid for drop in self.drops if drop.deleted]
        lease = self.lease
        if self.identity is not None and lease is not None:
            account_id = self.identity.account.account_id

            def unit(tx: Transaction) -> None:
                if gone:
                    lease.require(tx)
                    messages.expunge(tx, account_id, INBOX_ID, gone, flagged=False)
                lease.drop(tx)  # who is told that it is over may come again at once

            try:
                await self.resources.database.write(unit)
            except LeaseLost:
                self.engine.err("another session has the maildrop now; no message was removed", "SYS/TEMP")
                return
            except StoreUnavailable as error:
                self.unavailable(error)
                if not gone:
                    self.engine.ok("bye")
                    return
                self.engine.err(f"the messages were not removed: {error.fault.words}", error.fault.pop3)
                return
        self.engine.ok("bye")

    def cleanup(self) -> None:
        if self.lease is not None:
            self.lease.release()
            self.lease = None

    def farewell_changed(self) -> None:
        self.stream.write(b"-ERR [AUTH] the account was changed: log in again\r\n")

    def farewell_stopping(self) -> None:
        self.stream.write(b"-ERR [SYS/TEMP] the server is shutting down\r\n")

    def farewell_unavailable(self, fault: Fault) -> None:
        self.stream.write(f"-ERR [{fault.pop3}] {fault.words}\r\n".encode())

    def farewell_bug(self) -> None:
        self.stream.write(b"-ERR [SYS/TEMP] an error on our side\r\n")


def _first_lines(octets: bytes, lines: int) -> tuple[bytes, int]:
    """As many lines as are there, and how many are still wanted."""
    position = 0
    for done in range(lines):
        place = octets.find(b"\n", position)
        if place < 0:
            return octets, lines - done
        position = place + 1
    return octets[:position], 0
