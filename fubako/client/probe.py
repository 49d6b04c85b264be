"""Looking at a mail server as a man in the middle would: every port, STARTTLS, certificate, mechanisms with and without TLS,
and whether commands can be slipped in behind STARTTLS. Nothing secret is ever said, and nothing is changed there."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fubako.net import tcp
from fubako.net.interface import CertificateFacts, Stream, StreamClosed, StreamTimeout, TlsError
from fubako.net.tls import ClientTls, trial
from fubako.trust.judge import NotBelieved, judge

CONNECT_SECONDS = 8.0
ANSWER_SECONDS = 8.0
LINE_OCTETS_MAX = 16 * 1024
LINES_MAX = 200
SERVICES: dict[str, tuple[int, str, bool]] = {
    # name: (port, protocol, TLS from the first byte)
    "smtp": (25, "smtp", False), "submissions": (465, "smtp", True), "submission": (587, "smtp", False),
    "pop3": (110, "pop3", False), "pop3s": (995, "pop3", True), "imap": (143, "imap", False), "imaps": (993, "imap", True),
    "sieve": (4190, "sieve", False),
}  # fmt: skip
_SAY_TLS = {"smtp": b"STARTTLS", "pop3": b"STLS", "imap": b"x2 STARTTLS", "sieve": b"STARTTLS"}
_NOOP = {"smtp": b"NOOP", "pop3": b"CAPA", "imap": b"x3 NOOP", "sieve": b"NOOP"}


@dataclass(slots=True)
class Seen:
    """What one port showed. `clear` and `sealed`: mechanisms announced without and under TLS. `slipped`: a command that was
    sent before TLS was carried out inside it. `relays` and `smuggled` are only looked at where asked for."""

    service: str
    port: int
    open: bool = False
    problem: str = ""
    greeting: str = ""
    starttls: bool = False
    tls: str = ""
    cipher: str = ""
    certificate: CertificateFacts | None = None
    not_believed: str = ""
    clear: list[str] = field(default_factory=list)
    sealed: list[str] = field(default_factory=list)
    slipped: bool = False
    versions: list[str] = field(default_factory=list)  # TLS versions that it takes, oldest first
    relays: bool = False  # it takes a stranger's letter for another domain
    smuggled: list[str] = field(default_factory=list)  # ends of a letter that are none, and that it takes for one


class _Odd(Exception):
    """The server does not speak as it should."""


class _Talk:
    """Lines, with a limit for each wait."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        stream.idle_seconds = ANSWER_SECONDS
        self._buffer = b""

    async def line(self) -> str:
        while b"\n" not in self._buffer:
            octets = await self.stream.read()
            if not octets:
                raise _Odd("it ended the connection")
            self._buffer += octets
            if len(self._buffer) > LINE_OCTETS_MAX:
                raise _Odd("its line is too long")
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.rstrip(b"\r").decode("utf-8", "replace")

    def say(self, octets: bytes) -> None:
        self.stream.write(octets + b"\r\n")

    async def smtp(self) -> list[str]:
        lines: list[str] = []
        while len(lines) < LINES_MAX:
            lines.append(await self.line())
            if lines[-1][3:4] != "-":
                return lines
        raise _Odd("its reply does not end")

    async def listing(self) -> list[str]:
        first = await self.line()
        lines = [first]
        while first.startswith("+OK") and len(lines) < LINES_MAX:
            lines.append(await self.line())
            if lines[-1] == ".":
                break
        return lines

    async def tagged(self, tag: str) -> list[str]:
        lines: list[str] = []
        while len(lines) < LINES_MAX:
            lines.append(await self.line())
            if lines[-1].startswith(tag + " "):
                return lines
        raise _Odd("its reply does not end")

    async def capabilities(self) -> list[str]:
        """Of ManageSieve (RFC 5804 §1.7): the lines, and the OK behind them."""
        lines: list[str] = []
        while len(lines) < LINES_MAX:
            lines.append(await self.line())
            if lines[-1].upper().startswith(("OK", "NO", "BYE")):
                return lines
        raise _Odd("its reply does not end")

    async def greeting(self, protocol: str) -> str:
        if protocol == "smtp":
            return (await self.smtp())[-1]
        if protocol == "sieve":
            lines = await self.capabilities()
            return next((line for line in lines if line.upper().startswith('"IMPLEMENTATION"')), lines[-1])
        return await self.line()


VERSIONS = ("1.0", "1.1", "1.2", "1.3")
ENDS = {
    "LF . LF": b"\n.\n", "LF . CR LF": b"\n.\r\n", "CR . CR": b"\r.\r", "CR LF . CR": b"\r\n.\r", "CR . CR LF": b"\r.\r\n",
    "CR LF . LF": b"\r\n.\n", "CR LF NUL . CR LF": b"\r\n\x00.\r\n",
}  # fmt: skip
FAR_AWAY = "probe@example.net"


async def look_closer(seen: Seen, host: str, server_name: str, *, relay: bool = False, own_mailbox: str = "") -> None:
    """TLS versions; with `relay` whether a letter for another domain would be taken (none is sent); with the address of a
    mailbox of one's own there, ends of a letter that are none (CVE-2023-51764): where one is taken for an end, an empty letter
    arrives there."""
    if seen.open and (SERVICES[seen.service][2] or seen.starttls):
        took = await asyncio.gather(*(_takes(seen, host, server_name, version) for version in VERSIONS))
        seen.versions = [version for version, good in zip(VERSIONS, took, strict=True) if good]
    if seen.open and SERVICES[seen.service][1] == "smtp" and not SERVICES[seen.service][2]:
        if relay:
            seen.relays = await _relays(host, seen.port)
        if own_mailbox:
            took = await asyncio.gather(*(_smuggles(host, seen.port, own_mailbox, end) for end in ENDS.values()))
            seen.smuggled = [name for name, taken in zip(ENDS, took, strict=True) if taken]


async def _takes(seen: Seen, host: str, server_name: str, version: str) -> bool:
    _, protocol, implicit = SERVICES[seen.service]
    try:
        async with asyncio.timeout(2 * ANSWER_SECONDS):
            stream = await tcp.connect(host, seen.port)
            try:
                talk = _Talk(stream)
                if not implicit:
                    await talk.greeting(protocol)
                    await _offers(talk, protocol)
                    await _begin(talk, protocol)
                await stream.start_tls(trial(server_name, version))
                return True
            finally:
                stream.close()
    except (_Odd, TlsError, StreamClosed, StreamTimeout, TimeoutError, OSError):
        return False


async def _letter(talk: _Talk, recipient: str) -> str:
    """As far as the recipient; what the server said to it."""
    await talk.smtp()
    talk.say(b"EHLO probe.invalid")
    await talk.smtp()
    talk.say(b"MAIL FROM:<>")
    await talk.smtp()
    talk.say(b"RCPT TO:<%s>" % recipient.encode())
    return (await talk.smtp())[-1]


async def _relays(host: str, port: int) -> bool:
    try:
        async with asyncio.timeout(4 * ANSWER_SECONDS):
            stream = await tcp.connect(host, port)
            try:
                talk = _Talk(stream)
                taken = (await _letter(talk, FAR_AWAY)).startswith("25")
                talk.say(b"RSET")
                talk.say(b"QUIT")
                await stream.drain()
                return taken
            finally:
                stream.close()
    except (_Odd, StreamClosed, StreamTimeout, TimeoutError, OSError):
        return False


async def _smuggles(host: str, port: int, recipient: str, end: bytes) -> bool:
    """Whether the server answers to an end that is none. Where it does not, the letter is never finished."""
    try:
        async with asyncio.timeout(4 * ANSWER_SECONDS):
            stream = await tcp.connect(host, port)
            try:
                talk = _Talk(stream)
                if not (await _letter(talk, recipient)).startswith("25"):
                    return False
                talk.say(b"DATA")
                if not (await talk.smtp())[-1].startswith("354"):
                    return False
                stream.write(
                    b"Subject: fubako probe\r\n\r\nThis server takes for an end of a letter what is none." + end
                )
                stream.idle_seconds = SMUGGLE_SECONDS
                return (await talk.smtp())[-1].startswith("250")
            finally:
                stream.close()
    except (_Odd, StreamClosed, StreamTimeout, TimeoutError, OSError):
        return False


SMUGGLE_SECONDS = 3.0


async def look(
    host: str, service: str, port: int, server_name: str, ca_files: Sequence[Path] = (), *, system: bool = True
) -> Seen:
    """One port. What goes wrong is part of the answer."""
    _, protocol, implicit = SERVICES[service]
    seen = Seen(service, port)
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            stream = await tcp.connect(host, port)
    except (OSError, TimeoutError) as error:
        seen.problem = str(error) or "no answer"
        return seen
    seen.open = True
    tls = ClientTls(ca_files=ca_files, system_authorities=system)
    try:
        await _one(seen, _Talk(stream), tls, protocol, server_name, implicit=implicit)
    except (_Odd, TlsError, StreamClosed, StreamTimeout, OSError) as error:
        seen.problem = str(error) or type(error).__name__
    finally:
        stream.close()
    if seen.starttls and seen.tls:
        seen.slipped = await _slips(host, port, protocol, tls, server_name)
    return seen


async def _one(seen: Seen, talk: _Talk, tls: ClientTls, protocol: str, server_name: str, *, implicit: bool) -> None:
    stream = talk.stream
    if implicit:
        await stream.start_tls(tls.pump(server_name))
        _judged(seen, stream, server_name)
    seen.greeting = await talk.greeting(protocol)
    offered, seen.starttls = await _offers(talk, protocol)
    if implicit:
        seen.sealed, seen.starttls = offered, False
        return
    seen.clear = offered
    if not seen.starttls:
        return
    await _begin(talk, protocol)
    await stream.start_tls(tls.pump(server_name))
    _judged(seen, stream, server_name)
    if protocol == "sieve":
        await talk.greeting(protocol)  # it is said again (RFC 5804 §2.2)
    seen.sealed = (await _offers(talk, protocol))[0]


def _judged(seen: Seen, stream: Stream, server_name: str) -> None:
    facts = stream.tls
    assert facts is not None
    seen.tls, seen.cipher, seen.certificate = facts.version, facts.cipher, facts.peer
    try:
        judge(facts.peer, server_name)
    except NotBelieved as reason:
        seen.not_believed = str(reason)


async def _offers(talk: _Talk, protocol: str) -> tuple[list[str], bool]:
    """(mechanisms, and LOGIN or USER where a password can be said so; whether STARTTLS is offered)."""
    match protocol:
        case "smtp":
            talk.say(b"EHLO probe.invalid")
            words = [line[4:].strip().upper() for line in await talk.smtp()]
            return next((line.split()[1:] for line in words if line.startswith("AUTH ")), []), "STARTTLS" in words
        case "pop3":
            talk.say(b"CAPA")
            words = [line.strip().upper() for line in await talk.listing()]
            found = next((line.split()[1:] for line in words if line.startswith("SASL ")), [])
            return found + (["USER"] if "USER" in words else []), "STLS" in words
        case "sieve":
            talk.say(b"CAPABILITY")
            words = [line.strip().upper() for line in await talk.capabilities()]
            found = next((line.partition(" ")[2].strip('"').split() for line in words if line.startswith('"SASL"')), [])
            return found, '"STARTTLS"' in words
        case _:
            talk.say(b"x1 CAPABILITY")
            lines = await talk.tagged("x1")
            words = next((line.upper().split()[2:] for line in lines if line.upper().startswith("* CAPABILITY")), [])
            login = [] if "LOGINDISABLED" in words else ["LOGIN command"]
            return [word[5:] for word in words if word.startswith("AUTH=")] + login, "STARTTLS" in words


async def _begin(talk: _Talk, protocol: str, behind: bytes = b"") -> None:
    """Raises _Odd where the server does not go on."""
    talk.stream.write(_SAY_TLS[protocol] + b"\r\n" + behind)
    reply = (
        (await talk.smtp())[-1]
        if protocol == "smtp"
        else (await talk.tagged("x2"))[-1]
        if protocol == "imap"
        else await talk.line()
    )
    good = {"smtp": "220", "pop3": "+OK", "imap": "x2 OK", "sieve": "OK"}[protocol]
    if not reply.upper().startswith(good.upper()):
        raise _Odd(f"it offers STARTTLS and does not begin it: {reply[:80]}")


async def _slips(host: str, port: int, protocol: str, tls: ClientTls, server_name: str) -> bool:
    """Whether a command behind STARTTLS, in one segment with it, is answered inside TLS (CVE-2011-0411)."""
    try:
        async with asyncio.timeout(3 * ANSWER_SECONDS):
            stream = await tcp.connect(host, port)
            talk = _Talk(stream)
            try:
                await talk.greeting(protocol)
                await _offers(talk, protocol)
                await _begin(talk, protocol, _NOOP[protocol] + b"\r\n")
                await stream.start_tls(tls.pump(server_name))
                stream.idle_seconds = 2.0
                if protocol == "sieve":
                    await talk.greeting(protocol)
                return bool(await talk.line())
            finally:
                stream.close()
    except (_Odd, TlsError, StreamClosed, StreamTimeout, OSError):
        return False  # it closed, said nothing, or refused: as it should be
