"""`ImapSession`: takes commands, calls what carries them out, and tells the client what changed."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

from fubako.accounts.identity import Identity
from fubako.protocol.engine import ProtocolError
from fubako.protocol.imap import server as wire
from fubako.protocol.imap import types as t
from fubako.protocol.imap.server import State
from fubako.protocol.sasl import SaslFailure
from fubako.server.imap import mailboxes, messages, search
from fubako.server.imap.coming import Coming
from fubako.server.imap.context import ImapContext
from fubako.server.imap.outcome import No
from fubako.store.faults import Fault
from fubako.store.interface import StoreError, StoreUnavailable
from fubako.store.mailboxes import MailboxExists, NoSuchMailbox

FAILURES_MAX = 5
_CAPABILITIES = (
    "IMAP4rev1 IMAP4rev2 SASL-IR ID ENABLE IDLE NAMESPACE UIDPLUS MOVE CHILDREN UNSELECT SPECIAL-USE"
    " CREATE-SPECIAL-USE LIST-EXTENDED LIST-STATUS STATUS=SIZE CONDSTORE QRESYNC ESEARCH SEARCHRES MULTIAPPEND BINARY"
    " UTF8=ACCEPT SAVEDATE"
)
ENABLEABLE = ("IMAP4REV2", "CONDSTORE", "QRESYNC", "UTF8=ACCEPT")

_WRITING = (t.Store, t.Copy, t.Expunge, t.Append, t.Create, t.Rename, t.OnMailbox)


class ImapSession(ImapContext):
    """One connection."""

    # -- the conversation

    async def converse(self) -> None:
        self.stream.idle_seconds = self.resources.limits.login_seconds
        if self.proved is None and self._arrival.certificate_login and self.encrypted:
            self.proved = await self.resources.logins.preauth(self.scene)
        if self.proved is not None:
            await self._welcome(self.proved)
            self.engine.untagged(f"PREAUTH [CAPABILITY {self.capabilities()}] welcome".encode())
        else:
            self.engine.untagged(f"OK [CAPABILITY {self.capabilities()}] Fubako".encode())
        while True:
            event = await self.line.event()
            if not isinstance(event, t.Tagged):
                raise ProtocolError("a line without a command")
            self.count_command(b"* BYE too many commands before a login\r\n")
            if await self._one(event.tag, event.command):
                return
            del event  # and with it what an APPEND brought

    def capabilities(self) -> str:
        names = [_CAPABILITIES]
        # RFC 7888 §5: never both
        if self.engine.state is not State.STRANGER:
            names.append("LITERAL+")
        else:
            names.append("LITERAL-")
            if self.pump is not None and self.stream.tls is None and not self.stream.local:
                names.append("STARTTLS")
            if self.encrypted:
                names += [f"AUTH={name}" for name in self.mechanisms]
            else:
                names.append("LOGINDISABLED")
        names.append(f"APPENDLIMIT={self.resources.limits.append_octets_max}")
        return " ".join(names)

    async def _one(self, tag: str, command: t.Command) -> bool:
        """Carry out one command; True when it was LOGOUT."""
        try:
            done = await self._carry_out(tag, command)
        except No as no:
            self.engine.tagged(tag, no.condition, str(no))
            return False
        except StoreUnavailable as error:
            self.unavailable(error)
            self.engine.tagged(tag, "NO", f"[{error.fault.imap}] {error.fault.words}")
            return False
        except NoSuchMailbox as error:
            self.engine.tagged(tag, "NO", f"[NONEXISTENT] {_shown(error)}")
            return False
        except MailboxExists as error:
            self.engine.tagged(tag, "NO", f"[ALREADYEXISTS] {_shown(error)}")
            return False
        except StoreError as error:
            self.engine.tagged(tag, "NO", f"[CANNOT] {_shown(error)}")
            return False
        if done is None:
            return isinstance(command, t.Bare) and command.name == "LOGOUT"
        if self.view is not None:
            await self.tell_news(expunge=_may_expunge(command))
        self.engine.tagged(tag, "OK", done)
        return False

    async def _carry_out(self, tag: str, command: t.Command) -> str | None:
        """The text of OK; None when the command has said its own end."""
        command = self._permitted(command)
        match command:
            case t.Fetch():
                return await messages.fetch(self, command)
            case t.Store():
                return await messages.store(self, command)
            case t.Search():
                return await search.search(self, tag, command)
            case t.Copy():
                return await messages.copy(self, command)
            case t.Expunge():
                return await messages.expunge(self, command)
            case t.Append():
                return await messages.append(self, command)
            case t.Select():
                await self._select(tag, command)
            case t.Status():
                return await mailboxes.status(self, command)
            case t.List():
                return await mailboxes.list_(self, command)
            case t.Create() | t.Rename() | t.OnMailbox():
                return await mailboxes.change(self, command)
            case t.Bare():
                return await self._bare(tag, command.name)
            case t.Authenticate():
                await self._authenticate(tag, command)
            case t.Login():
                await self._login(tag, command)
            case t.Id():
                self.engine.untagged(b'ID ("name" "Fubako")')
                return "known"
            case t.Enable():
                return self._enable(command)
        return None

    def _permitted(self, command: t.Command) -> t.Command:
        """Nobody in particular may look, and change nothing."""
        if self.identity is None or not self.identity.read_only:
            return command
        if isinstance(command, _WRITING):
            raise No("[NOPERM] who has no name may only read")
        return replace(command, read_only=True) if isinstance(command, t.Select) else command

    async def _bare(self, tag: str, name: str) -> str | None:
        match name:
            case "CAPABILITY":
                self.engine.untagged(f"CAPABILITY {self.capabilities()}".encode())
                return "that is all"
            case "LOGOUT":
                self.engine.untagged(b"BYE")
                self.engine.tagged(tag, "OK", "bye")
                await self.line.flush()
                return None
            case "STARTTLS":
                await self._starttls(tag)
                return None
            case "NAMESPACE":
                self.engine.untagged(b'NAMESPACE (("" "/")) NIL NIL')
                return "that is all"
            case "IDLE":
                await self._idle()
                return "done"
            case "CLOSE":
                await self._close()
                return "closed"
            case "UNSELECT":
                self.leave()
                return "unselected"
            case _:  # NOOP, CHECK: news are told with every command
                return "done"

    async def _starttls(self, tag: str) -> None:
        if self.pump is None or self.stream.tls is not None or self.stream.local:
            raise No("STARTTLS is not possible here", "BAD")
        self.engine.tagged(tag, "OK", "begin TLS")
        await self.line.start_tls(self.pump)

    def _enable(self, command: t.Enable) -> str:
        fresh = [name for name in command.names if name in ENABLEABLE and name not in self.enabled]
        self.enabled.update(fresh)
        if "QRESYNC" in fresh:
            self.enabled.add("CONDSTORE")
        if self.enabled & {"UTF8=ACCEPT", "IMAP4REV2"}:
            self.engine.utf8 = True
        shown = ["IMAP4rev2" if name == "IMAP4REV2" else name for name in fresh]
        self.engine.untagged(" ".join(["ENABLED", *shown]).encode())
        return "enabled"

    # -- login

    async def _login(self, tag: str, command: t.Login) -> None:
        if not self.encrypted:
            raise No("[PRIVACYREQUIRED] encryption required: STARTTLS comes first")
        await self._prove(tag, lambda: self.resources.logins.password(command.user, command.password, self.scene))

    async def _authenticate(self, tag: str, command: t.Authenticate) -> None:
        if not self.encrypted:
            raise No("[PRIVACYREQUIRED] encryption required: STARTTLS comes first")
        if command.mechanism not in self.mechanisms:
            raise No("[CANNOT] the mechanism is not offered here")
        await self._prove(tag, lambda: self.sasl(command.mechanism, command.initial, self._ask))

    async def _ask(self, challenge: bytes) -> bytes:
        self.engine.challenge(challenge)
        event = await self.line.event()
        self.engine.resume()
        if not isinstance(event, wire.Response):
            raise ProtocolError("a SASL response was expected")
        return event.line

    async def _prove(self, tag: str, proof: Callable[[], Awaitable[Identity]]) -> None:
        try:
            identity = await proof()
        except SaslFailure as error:
            self.failures += 1
            await self.login_failed(error)
            if self.failures >= FAILURES_MAX:
                raise ProtocolError("too many failed logins", b"* BYE too many failures\r\n") from None
            code = "UNAVAILABLE" if error.temporary else "AUTHENTICATIONFAILED"
            raise No(f"[{code}] authentication failed") from None
        await self._welcome(identity)
        self.engine.tagged(tag, "OK", f"[CAPABILITY {self.capabilities()}] welcome")
        await self.begin_layer(identity)

    async def _welcome(self, identity: Identity) -> None:
        await self.login_held(identity)
        limits = self.resources.limits
        self.engine.known(limits.append_octets_max, limits.imap_command_octets, lambda: Coming(self.resources.spool))
        self.stream.idle_seconds = self.resources.limits.imap_idle_seconds

    # -- the selected mailbox

    async def _select(self, tag: str, command: t.Select) -> None:
        if command.qresync and "QRESYNC" not in self.enabled:
            raise No("QRESYNC was not enabled", "BAD")
        had = self.view is not None
        self.leave()
        if command.condstore:
            self.enabled.add("CONDSTORE")
        view = await mailboxes.open_view(self, command)
        if had:
            self.engine.untagged(b"OK [CLOSED] the mailbox before is closed")
        self.view = view
        self.engine.state = State.SELECTED
        await mailboxes.announce(self, view, command)
        self.engine.tagged(tag, "OK", "[READ-ONLY] selected" if view.read_only else "[READ-WRITE] selected")

    async def _close(self) -> None:
        view = self.selected
        if not view.read_only:
            await messages.remove_deleted(self, view)
        self.leave()

    # -- IDLE

    async def _idle(self) -> None:
        """Tell news as they come, until DONE (RFC 2177). A hint wakes; a slow look now and then covers a lost hint."""
        self.engine.idle()
        stream, loop = self.stream, asyncio.get_running_loop()
        end = self.resources.changes.subscribe(self.account_id, lambda _mailbox: stream.nudge())
        stream.nudge()  # what came before we listened
        look: asyncio.TimerHandle | None = None
        try:
            while True:
                event = await self.line.event_or_nudge()
                if isinstance(event, wire.Done):
                    return
                if event is not None:
                    raise ProtocolError("no DONE behind IDLE")
                if self.view is not None:
                    await self.tell_news(expunge=True)
                if look is not None:
                    look.cancel()
                look = loop.call_later(IDLE_LOOK_SECONDS, stream.nudge)
        finally:
            if look is not None:
                look.cancel()
            end()
            self.engine.resume()

    # -- the end

    def timed_out(self) -> None:
        self.stream.write(b"* BYE nothing was said for too long\r\n")

    def farewell_stopping(self) -> None:
        self.stream.write(b"* BYE the server is shutting down\r\n")

    def farewell_changed(self) -> None:
        self.stream.write(b"* BYE the account was changed: log in again\r\n")

    def farewell_unavailable(self, fault: Fault) -> None:
        self.stream.write(f"* BYE [UNAVAILABLE] {fault.words}\r\n".encode())

    def farewell_bug(self) -> None:
        self.stream.write(b"* BYE [SERVERBUG] an error on our side\r\n")


IDLE_LOOK_SECONDS = 60.0


def _may_expunge(command: t.Command) -> bool:
    """Numbers must not move under FETCH, STORE and SEARCH by number (RFC 9051 §7.5.1)."""
    return not (isinstance(command, (t.Fetch, t.Store, t.Search)) and not command.uid)


def _shown(error: Exception) -> str:
    """Words that name a client's own input, safe for a response line."""
    return "".join(c if " " <= c <= "~" else "?" for c in str(error))
