"""A man in the middle, between a mail program and a server: what does the program say when its protection is taken away?

It listens on this machine only, and ends with the program that it was started for. Each attack is one run of the program: what
it says that a stranger should not hear is told, with secrets masked.
"""

import asyncio
import re
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from fubako.net import tcp
from fubako.net.interface import Stream, StreamClosed, StreamTimeout, TlsError
from fubako.net.tls import Certificate, ClientTls, ServerTls
from fubako.telemetry import visible
from fubako.trust.authority import ensure_authority, ensure_server

RUN_SECONDS = 30.0
HEARD_OCTETS_MAX = 1024 * 1024
ATTACKS = {
    "strip": "STARTTLS is hidden, and refused",
    "certificate": "another certificate, for the right name, signed by nobody",
    "name": "a certificate for another name",
    "inject": "answers are put in behind STARTTLS, before TLS begins",
    "preauth": "the greeting says that the login is done (IMAP)",
}


@dataclass(frozen=True, slots=True)
class _Words:
    """What a false server says. `offers` in the clear; `within` its false TLS, where a program would say its password."""

    greeting: bytes
    offers: bytes
    within: bytes
    go: bytes
    refused: bytes
    injected: bytes
    hidden: re.Pattern[bytes]


_WORDS = {
    "imap": _Words(
        b"* OK ready\r\n", b"* CAPABILITY IMAP4rev1 STARTTLS AUTH=PLAIN\r\n", b"* CAPABILITY IMAP4rev1 AUTH=PLAIN\r\n",
        b"%s OK go\r\n", b"%s BAD no TLS here\r\n", b"* CAPABILITY IMAP4rev1 AUTH=PLAIN\r\n* OK injected\r\n",
        re.compile(rb" STARTTLS"),
    ),
    "pop3": _Words(
        b"+OK ready\r\n", b"STLS\r\nUSER\r\nSASL PLAIN\r\n", b"USER\r\nSASL PLAIN\r\n", b"+OK go\r\n", b"-ERR no TLS here\r\n",
        b"+OK injected\r\n", re.compile(rb"STLS\r\n"),
    ),
    "smtp": _Words(
        b"220 here ESMTP\r\n", b"250-here\r\n250-STARTTLS\r\n250 AUTH PLAIN LOGIN\r\n", b"250-here\r\n250 AUTH PLAIN LOGIN\r\n",
        b"220 go\r\n", b"502 5.5.1 no TLS here\r\n", b"250-injected\r\n250 AUTH PLAIN LOGIN\r\n", re.compile(rb"250-STARTTLS\r\n"),
    ),
}  # fmt: skip
PROTOCOLS = tuple(_WORDS)
# what nobody in between may hear: (pattern on one line of the program, what it is)
_SECRETS = (
    (
        re.compile(rb"^(\S+ )?(AUTHENTICATE|AUTH)\s+(PLAIN|LOGIN|XOAUTH2|OAUTHBEARER)\b", re.IGNORECASE),
        "a password or token",
    ),
    (re.compile(rb"^\S+ LOGIN\s", re.IGNORECASE), "a password"),
    (re.compile(rb"^PASS\s", re.IGNORECASE), "a password"),
    (re.compile(rb"^(USER|APOP)\s", re.IGNORECASE), "a user's name"),
    (re.compile(rb"^(\S+ )?(AUTHENTICATE|AUTH)\s+\S+", re.IGNORECASE), "a login"),
    (re.compile(rb"^(MAIL FROM|RCPT TO):", re.IGNORECASE), "who writes to whom"),
    (re.compile(rb"^DATA\b|^BDAT\b", re.IGNORECASE), "a letter"),
    (re.compile(rb"^\S+ APPEND\s", re.IGNORECASE), "a letter"),
    (
        re.compile(rb"^\S+ (SELECT|EXAMINE|STORE|UID|FETCH|LIST)\b|^(RETR|DELE|LIST|UIDL)\b", re.IGNORECASE),
        "what is done in the mailbox",
    ),
)


@dataclass(slots=True)
class Told:
    """One attack: what the program let out, its exit code (None: it did not end in time), and a transcript with secrets masked."""

    attack: str
    leaks: list[str] = field(default_factory=list)
    code: int | None = None
    met: bool = False  # the program came at all
    transcript: list[str] = field(default_factory=list)


class Middle:
    """One run of an attack, against whatever connects. `host` and `port`: the real server, for its greeting."""

    def __init__(self, attack: str, protocol: str, host: str, port: int, *, implicit: bool, tls: ServerTls) -> None:
        self.told = Told(attack)
        self._protocol, self._host, self._port, self._implicit, self._tls = protocol, host, port, implicit, tls
        self._words = _WORDS[protocol]
        self._tag = b""
        self._asked = False  # the last thing said was a question: what follows is a login's answer, or a letter

    async def serve(self, near: Stream) -> None:
        """One connection of the program."""
        self.told.met = True
        try:
            if self._implicit:
                near.begin_tls(self._tls.pump(), from_start=True)
                await near.handshake()
            await self._talk(near)
        except (StreamClosed, StreamTimeout, TlsError, OSError) as error:
            self._note("--", str(error) or type(error).__name__)
        finally:
            near.close()

    def _note(self, sign: str, text: str) -> None:
        if len(self.told.transcript) < 500:
            self.told.transcript.append(f"{sign} {visible(text)[:200]}")

    async def _talk(self, near: Stream) -> None:
        greeting = b"* PREAUTH welcome\r\n" if self.told.attack == "preauth" else await self._greeting()
        self._say(near, greeting)
        buffer, heard = b"", 0
        while octets := await near.read():
            heard += len(octets)
            if heard > HEARD_OCTETS_MAX:
                return
            buffer += octets
            while b"\n" in buffer:
                line, _, buffer = buffer.partition(b"\n")
                if await self._line(near, line.rstrip(b"\r")):
                    buffer = b""

    def _say(self, near: Stream, octets: bytes) -> None:
        for line in octets.splitlines():
            self._note("<~" if near.tls is not None else "<-", line.decode("utf-8", "replace"))
        self._asked = octets.startswith((b"+ ", b"334", b"354"))
        near.write(octets)

    async def _line(self, near: Stream, line: bytes) -> bool:
        """Answer to one line; whether TLS began."""
        self._heard(line, sealed=near.tls is not None)
        answered, self._asked = self._asked, False
        if answered and self._protocol == "imap":
            line = self._tag + b" ANSWERED"
        tag, _, rest = line.partition(b" ")
        self._tag = tag
        words = (rest if self._protocol == "imap" else line).upper().split()
        verb = words[0] if words else b""
        if verb in (b"STARTTLS", b"STLS") and near.tls is None:
            if self.told.attack in ("strip", "preauth"):
                self._say(near, self._words.refused.replace(b"%s", tag))
                return False
            behind = self._words.injected if self.told.attack == "inject" else b""
            self._say(near, self._words.go.replace(b"%s", tag) + behind)
            await near.drain()
            near.begin_tls(self._tls.pump())
            await near.handshake()
            return True
        self._say(near, _reply(self._protocol, tag, verb, words, self._offers(near)))
        await near.drain()
        return False

    def _offers(self, near: Stream) -> bytes:
        if near.tls is not None:
            return self._words.within
        return self._words.hidden.sub(b"", self._words.offers) if self.told.attack == "strip" else self._words.offers

    def _heard(self, line: bytes, *, sealed: bool) -> None:
        sign = "~>" if sealed else "->"
        if self._asked:
            self._note(sign, "***")
            self._leak("a login's answer, or a letter")
            return
        what = next((words for pattern, words in _SECRETS if pattern.search(line)), "")
        kept = line if not what else b" ".join(line.split(b" ")[: 2 if self._protocol == "imap" else 1]) + b" ***"
        self._note(sign, kept.decode("utf-8", "replace"))
        self._leak(what)

    def _leak(self, what: str) -> None:
        if what and what not in self.told.leaks:
            self.told.leaks.append(what)

    async def _greeting(self) -> bytes:
        """The real server's, where it is there: some programs go by it."""
        with suppress(OSError, TimeoutError, StreamClosed, StreamTimeout, TlsError):
            async with asyncio.timeout(5):
                far = await tcp.connect(self._host, self._port)
                try:
                    if self._implicit:
                        await far.start_tls(ClientTls().pump(self._host))
                    line = (await far.read()).partition(b"\n")[0].rstrip(b"\r")
                    if line.startswith((b"* OK", b"+OK", b"220 ")):
                        return re.sub(rb" ?\[CAPABILITY [^\[\]]*\]", b"", line) + b"\r\n"
                finally:
                    far.close()
        return self._words.greeting


def _reply(protocol: str, tag: bytes, verb: bytes, words: Sequence[bytes], offers: bytes) -> bytes:
    if protocol == "imap":
        if verb == b"CAPABILITY":
            return offers + tag + b" OK done\r\n"
        if verb == b"AUTHENTICATE" and len(words) == 2:
            return b"+ \r\n"
        if verb == b"APPEND":
            return b"+ go on\r\n"
        return tag + (b" BYE\r\n" if verb == b"LOGOUT" else b" OK done\r\n")
    if protocol == "pop3":
        if verb == b"CAPA":
            return b"+OK\r\n" + offers + b".\r\n"
        if verb == b"AUTH" and len(words) == 2:
            return b"+ \r\n"
        return b"+OK\r\n"
    if verb in (b"EHLO", b"LHLO"):
        return offers
    if verb == b"AUTH" and len(words) == 2:
        return b"334 \r\n"
    return {b"DATA": b"354 go on\r\n", b"QUIT": b"221 bye\r\n", b"AUTH": b"235 done\r\n"}.get(verb, b"250 done\r\n")


async def attack(
    name: str,
    protocol: str,
    host: str,
    port: int,
    command: Sequence[str],
    *,
    implicit: bool,
    seconds: float = RUN_SECONDS,
) -> Told:
    """One attack on one run of the program; {host} and {port} in its arguments are where it should connect to. Raises OSError where
    it cannot be started."""
    with tempfile.TemporaryDirectory(prefix="fubako-mitm-") as folder:
        tls = await asyncio.to_thread(_false, Path(folder), name, host)
        middle = Middle(name, protocol, host, port, implicit=implicit, tls=tls)
        tasks: set[asyncio.Task[None]] = set()

        def came(stream: tcp.TcpStream) -> None:
            task = asyncio.get_running_loop().create_task(middle.serve(stream))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

        listener = tcp.bound_socket("127.0.0.1", 0)
        here = listener.getsockname()[1]
        server = await tcp.listen(listener, came)
        try:
            words = [word.replace("{host}", "localhost").replace("{port}", str(here)) for word in command]
            process = await asyncio.create_subprocess_exec(
                *words,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
            )
            try:
                async with asyncio.timeout(seconds):
                    middle.told.code = await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()
        finally:
            server.close()
            for task in list(tasks):
                task.cancel()
    return middle.told


def _false(folder: Path, name: str, host: str) -> ServerTls:
    """A certificate that nobody vouches for; for the right name, or another."""
    now = time.time()
    authority = (folder / "ca.pem", folder / "ca.key")
    ensure_authority(*authority, "Nobody", now)
    names = ["elsewhere.invalid"] if name == "name" else sorted({host, "localhost", "127.0.0.1"})
    ensure_server(folder / "s.pem", folder / "s.key", authority, names, now)
    return ServerTls([Certificate.load(folder / "s.pem", folder / "s.key")])
