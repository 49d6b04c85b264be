"""`Commands`: what an account may run by SSH.

What runs is in `_COMMANDS` and nowhere else; nothing starts a program. A letter that comes in here takes the way of every submitted
letter, so that the same rules, rates and filters hold.
"""

import asyncio
import shlex
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from os import EX_DATAERR, EX_NOINPUT, EX_NOPERM, EX_NOUSER, EX_OK, EX_SOFTWARE, EX_TEMPFAIL, EX_UNAVAILABLE, EX_USAGE

from fubako.accounts import enrol
from fubako.accounts.conditions import require
from fubako.accounts.identity import Identity
from fubako.accounts.presence import Stay
from fubako.delivery import journey
from fubako.message import compose
from fubako.message.address import NULL, Address, AddressError, parse_address
from fubako.message.status import Status
from fubako.message.trace import mail_date
from fubako.net import memory
from fubako.net.interface import Stream, StreamClosed, StreamTimeout, Terminal
from fubako.net.line import Line
from fubako.protocol import callers
from fubako.protocol.callers import Request, UsageFault
from fubako.protocol.engine import ProtocolError
from fubako.protocol.smtp_client import Reply, SmtpClient
from fubako.server.session import Arrival, Resources
from fubako.server.smtp import SmtpSession
from fubako.store.interface import Database, StoreError
from fubako.telemetry import visible

SLEEP_SECONDS_MAX = 3600.0
LINE_OCTETS_MAX = 64 * 1024
HELP = """This is a mail server. There is no shell here; this can be run:
  imapd, pop3d, smtpd      a session, already logged in
  sendmail, rmail          take a letter from standard input
  passwd                   change your password: the new one as a line on standard input, or --random
  keys                     your SSH keys: keys list, keys add (a line on standard input), keys remove SHA256:...
  trace ID                 where a letter of yours is, and how it was protected
  sleep SECONDS            keep forwarded connections open
  help                     this
Connections can be forwarded to this server's own mail services: ssh -L 8143:localhost:143 ...
"""

Serve = Callable[[Stream, str, Identity, bool], Awaitable[None]]


class Commands:
    """Of one connection. `limited`: what the key may be used for; empty: everything."""

    def __init__(
        self,
        resources: Resources,
        identity: Identity,
        limited: tuple[str, ...],
        serve: Serve,
        peer: str,
        trace_id: str,
        stay: Stay | None = None,
    ) -> None:
        self._resources, self.identity, self._limited = resources, identity, limited
        self._serve, self._peer, self._trace_id, self._stay = serve, peer, trace_id, stay

    @property
    def _database(self) -> Database:
        # refused when the account is no longer what it was when this connection was proved
        database = self._resources.database
        return self._stay.database(database) if self._stay is not None else database

    def may(self, command: str) -> bool:
        return not self._limited or command in self._limited

    async def run(self, command: str, terminal: Terminal) -> int:
        """Every error becomes a sentence and an exit code of sysexits."""
        try:
            return await self._run(command, terminal)
        except UsageFault as fault:
            return _say(terminal, EX_USAGE, str(fault))
        except StoreError as error:
            return _say(terminal, EX_UNAVAILABLE, str(error))
        except StreamClosed:
            return EX_UNAVAILABLE
        except StreamTimeout:
            return _say(terminal, EX_TEMPFAIL, "nothing was said for too long")
        except Exception as error:  # our bug: it ends this command alone
            self._resources.telemetry.event("session.bug", self._trace_id, service="ssh", error=repr(error))
            return _say(terminal, EX_SOFTWARE, "an error on our side")

    async def _run(self, command: str, terminal: Terminal) -> int:
        terminal.idle_seconds = self._resources.limits.imap_idle_seconds
        try:
            words = shlex.split(command)
        except ValueError as error:
            raise UsageFault(f"the command cannot be read: {error}") from None
        if words[:1] == ["exec"]:
            words = words[1:]
        name = words[0].rpartition("/")[2] if words else ""
        name = {"imap": "imapd", "pop3": "pop3d", "smtp": "smtpd", "submission": "smtpd"}.get(name, name)
        work = _COMMANDS.get(name)
        if work is None or not (self.may(name) or name in _HARMLESS):
            self._resources.telemetry.event("ssh.refused", self._trace_id, peer=self._peer, what=visible(command[:200]))
            why = "cannot be run here" if work is None else "is nothing that this key may be used for"
            return _say(terminal, EX_NOPERM, f"{name!r} {why}; `help` tells what can")
        if name not in _HARMLESS and self._stay is not None:
            watched = self._stay.watched
            await self._resources.database.read(lambda tx: require(tx, watched))
        if name not in _HARMLESS:
            self._resources.telemetry.event("ssh.command", self._trace_id, peer=self._peer, command=name)
        return await work(self, terminal, words[1:])

    async def _help(self, terminal: Terminal, _words: list[str]) -> int:
        terminal.write(HELP.encode())
        await terminal.drain()
        return EX_OK

    async def _shell(self, terminal: Terminal, _words: list[str]) -> int:
        """Whoever asks for a shell gets to know what there is; the connection stays, for what is forwarded, until he leaves."""
        address = self.identity.account.address
        terminal.complain(f"You are {address}. {HELP}Ctrl-D or `exit` ends this connection.\n")
        while True:
            line = await _line(terminal)
            if line is None or line.strip() in (b"exit", b"quit", b"logout"):
                return EX_OK
            if line.strip():
                terminal.complain(
                    f"{HELP if line.strip() == b'help' else 'Say it when you connect: ssh ... COMMAND'}\n"
                )

    async def _sleep(self, terminal: Terminal, words: list[str]) -> int:
        try:
            seconds = float(words[0])
        except (IndexError, ValueError):
            raise UsageFault("sleep SECONDS") from None
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, min(seconds, SLEEP_SECONDS_MAX))):
                while True:  # a client that is gone need not be waited for
                    if not await terminal.read():
                        await asyncio.sleep(SLEEP_SECONDS_MAX)
        return EX_OK

    async def _session(self, terminal: Terminal, _words: list[str], *, service: str) -> int:
        await self._serve(terminal, service, self.identity, True)
        return EX_OK

    # -- letters

    async def _sendmail(self, terminal: Terminal, words: list[str]) -> int:
        request = callers.sendmail(words)
        if request.mode == "smtp":
            return await self._session(terminal, [], service="submission")
        if request.mode != "send":
            raise UsageFault("only letters are taken here; the queue is the administrator's")
        content = await self._letter(terminal)
        if request.dot_ends:
            content = callers.until_dot(content)
        return await self._send(terminal, request, content)

    async def _rmail(self, terminal: Terminal, words: list[str]) -> int:
        """The From lines of a letter tell who sent it; here that is known better."""
        recipients = [callers.unbanged(one) for one in callers.rmail(words)]
        content = await self._letter(terminal)
        with suppress(ValueError):
            _, content = callers.rmail_sender(content)
        return await self._send(terminal, Request(recipients=recipients, dot_ends=False), content)

    async def _letter(self, terminal: Terminal) -> bytes:
        octets_max = self._resources.limits.smtp.message
        chunks, octets = [], 0
        while chunk := await terminal.read():
            chunks.append(chunk)
            octets += len(chunk)
            if octets > octets_max:
                raise UsageFault(f"the letter is longer than {octets_max} octets")
        return b"".join(chunks)

    async def _send(self, terminal: Terminal, request: Request, octets: bytes) -> int:
        own = parse_address(self.identity.account.address)
        letter = compose.draft(octets)
        given = [_address(one, own.domain) for one in request.recipients]
        named = compose.recipients(letter, own.domain) if request.from_header else []
        recipients = list(dict.fromkeys((*given, *named)))
        if not recipients:
            raise UsageFault("there is no recipient")
        sender = own if request.sender is None else (_address(request.sender, own.domain) if request.sender else NULL)
        env, hostname = self._resources.env, self._resources.hostname
        letter = compose.complete(letter, compose.Given(own, request.name, hostname, env.clock.now(), env.trace_id()))
        accepted, refused = await self._submitted(terminal, request, sender, recipients, letter.content)
        for address, status in refused:
            _say(terminal, 0, f"{address}: {status}")
        if accepted is not None and accepted.ok:
            return EX_NOUSER if refused else EX_OK
        if accepted is not None:
            _say(terminal, 0, str(accepted))
            return EX_TEMPFAIL if accepted.code < 500 else (EX_NOPERM if accepted.code in (550, 553) else EX_DATAERR)
        return EX_TEMPFAIL if all(status.code < 500 for _, status in refused) else EX_NOUSER

    async def _submitted(
        self, terminal: Terminal, request: Request, sender: Address, recipients: list[Address], content: bytes
    ) -> tuple[Status | None, list[tuple[Address, Status]]]:
        """(what was said of the letter, None when it had no recipient left; the recipients that were refused)."""
        ours, theirs = memory.pair(peer=self._peer)
        ours.ssh = terminal.ssh
        arrival = Arrival(ours, "submission", None, proved=self.identity)
        session = asyncio.get_running_loop().create_task(SmtpSession(self._resources, arrival).run())
        engine = SmtpClient()
        line: Line[Reply] = Line(engine, theirs)
        refused: list[tuple[Address, Status]] = []

        async def heard() -> Status:
            return (await line.event()).status

        try:
            await heard()
            engine.command("EHLO", self._resources.hostname)
            await heard()
            engine.mail(sender, _mail_parameters(request, sender, recipients, content))
            status = await heard()
            if not status.ok:
                return status, []
            for recipient in recipients:
                engine.rcpt(recipient, [f"NOTIFY={request.notify}"] if request.notify else [])
                status = await heard()
                if not status.ok:
                    refused.append((recipient, status))
            if len(refused) == len(recipients):
                return None, refused
            engine.command("DATA")
            status = await heard()
            if status.code != 354:
                return status, refused
            engine.content(content)
            return await heard(), refused
        except ValueError as error:  # a parameter with a control character
            raise UsageFault(str(error)) from None
        except (ProtocolError, StreamClosed):
            return Status(451, "4.3.0", "the letter was not taken, try again later"), refused
        finally:
            theirs.close()
            await asyncio.wait([session])

    # -- the account

    async def _passwd(self, terminal: Terminal, words: list[str]) -> int:
        if words not in ([], ["--random"]):
            raise UsageFault("passwd [--random]; the new password is read from standard input")
        new = None
        if not words:
            terminal.complain("New password, as one line (your terminal may show it; `passwd --random` makes one): ")
            line = await _line(terminal)
            new = line.decode("utf-8", "replace") if line else ""
            if not new:
                return _say(terminal, EX_NOINPUT, "no password was given; nothing was changed")
        database, env = self._database, self._resources.env
        address = self.identity.account.address
        password = await enrol.set_password(database, env, address, new)
        self._resources.telemetry.event("password.changed", self._trace_id, user=address, peer=self._peer)
        text = (
            f"The password of {address} was changed.\n"
            if new
            else f"password of {address}, shown only now: {password}\n"
        )
        terminal.write(text.encode())
        await terminal.drain()
        return EX_OK

    async def _own_keys(self, terminal: Terminal, words: list[str]) -> int:
        database, address = self._database, self.identity.account.address
        match words:
            case [] | ["list"]:
                found = await enrol.list_keys(database, address)
                for one in found:
                    only = f" only {','.join(one['commands'])}" if one["commands"] else ""
                    text = f"{one['fingerprint']} {one['type']} since {one['since']}{only} {one['label']}"
                    terminal.write((text.rstrip() + "\n").encode())
            case ["add"]:
                line = await _line(terminal)
                if not line:
                    return _say(terminal, EX_NOINPUT, "no key on standard input")
                made = await enrol.add_keys(database, self._resources.env, address, line.decode("utf-8", "replace"))
                terminal.write("".join(f"added {key.fingerprint}\n" for key in made).encode())
                self._resources.telemetry.event(
                    "key.added", self._trace_id, user=address, keys=[key.fingerprint for key in made]
                )
            case ["remove", fingerprint]:
                await enrol.remove_key(database, address, fingerprint)
                self._resources.telemetry.event("key.removed", self._trace_id, user=address, key=fingerprint)
            case _:
                raise UsageFault("keys list | keys add < key.pub | keys remove SHA256:...")
        await terminal.drain()
        return EX_OK

    async def _trace(self, terminal: Terminal, words: list[str]) -> int:
        if len(words) != 1:
            raise UsageFault("trace ID")
        address = self.identity.account.address
        copies = await journey.trace(self._resources.database, words[0], address)
        sent = await journey.outgoing(self._resources.database, words[0], address)
        out = []
        for one in sent:
            out.append(f"{one['recipient']}: {one['state']}{': ' + one['reply'] if one['reply'] else ''}")
            out += [f"  {line}" for line in journey.lines([journey.hop_from_dict(facts) for facts in one["journey"]])]
        for one in copies:
            out.append(
                f"{one['mailbox']} UID {one['uid']}: {one['octets']} octets, {one['seal']}, {mail_date(one['received'])}"
            )
            out += [f"  {line}" for line in journey.lines([journey.hop_from_dict(facts) for facts in one["journey"]])]
        if not out:
            return _say(terminal, EX_NOINPUT, f"no letter of yours with the id {visible(words[0])} is kept here")
        terminal.write("".join(f"{visible(line)}\n" for line in out).encode())
        await terminal.drain()
        return EX_OK


_Work = Callable[[Commands, Terminal, list[str]], Awaitable[int]]
_COMMANDS: dict[str, _Work] = {
    "": Commands._shell,
    "help": Commands._help,
    "sleep": Commands._sleep,
    "imapd": partial(Commands._session, service="imap"),
    "pop3d": partial(Commands._session, service="pop3"),
    "smtpd": partial(Commands._session, service="submission"),
    "sendmail": Commands._sendmail,
    "rmail": Commands._rmail,
    "passwd": Commands._passwd,
    "keys": Commands._own_keys,
    "trace": Commands._trace,
}
_HARMLESS = ("", "help", "sleep")


def _say(terminal: Terminal, code: int, text: str) -> int:
    terminal.complain(f"fubako: {visible(text)}\n")
    return code


def _address(text: str, domain: str) -> Address:
    """An address as its user writes it; without a domain it is his own one's. Raises UsageFault."""
    text = text.strip("<>")
    try:
        return parse_address(text if "@" in text else f"{text}@{domain}")
    except AddressError as error:
        raise UsageFault(f"{text} is no mail address: {error}") from None


def _mail_parameters(request: Request, sender: Address, recipients: list[Address], content: bytes) -> list[str]:
    found = [f"SIZE={len(content)}"]
    if not content.isascii():
        found.append("BODY=8BITMIME")
    if not (sender.ascii and all(one.ascii for one in recipients)):
        found.append("SMTPUTF8")
    if request.ret:
        found.append(f"RET={request.ret}")
    if request.envid:
        found.append(f"ENVID={request.envid}")
    return found


async def _line(terminal: Terminal) -> bytes | None:
    """The next line without its end; None at the end of input."""
    heard = b""
    while b"\n" not in heard:
        octets = await terminal.read()
        if not octets:
            return heard.rstrip(b"\r") or None
        heard += octets
        if len(heard) > LINE_OCTETS_MAX:
            raise UsageFault("the line is too long")
    line, _, rest = heard.partition(b"\n")
    terminal.put_back(rest)
    return line.rstrip(b"\r")
