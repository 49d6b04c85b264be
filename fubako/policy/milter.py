"""`Milter`: one filter beside one SMTP session, told of each stage as it happens; and what it changes in a letter."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from fubako.message.headers import header_end
from fubako.message.status import Status
from fubako.net import tcp
from fubako.net.interface import Stream, StreamClosed, StreamTimeout
from fubako.policy.verdict import ACCEPT, Verdict, refuse
from fubako.protocol import milter
from fubako.protocol.milter import Answer, MilterError, Packets, macros, packet, texts

CONNECT_SECONDS = 10.0
COMMAND_SECONDS = 30.0
CONTENT_SECONDS = 300.0

DISCARD = "discard"


@dataclass(frozen=True, slots=True)
class Filter:
    """`address` is host:port, or the path of a Unix socket. `fallback` is what happens without it: tempfail, accept or reject."""

    address: str
    fallback: str = "tempfail"

    def absent(self, reason: str) -> Verdict:
        if self.fallback == "accept":
            return ACCEPT
        text = "a filter does not answer"
        if self.fallback == "reject":
            return refuse(550, "5.7.1", text, f"milter {self.address}: {reason}")
        return refuse(451, "4.7.1", f"{text}; try again later", f"milter {self.address}: {reason}")


@dataclass(frozen=True, slots=True)
class Client:
    """Who speaks."""

    address: str
    port: int
    name: str = ""
    hello: str = ""
    user: str = ""
    tls: str = ""
    cipher: str = ""


@dataclass(slots=True)
class Changes:
    """What a filter wants of a letter, in its order. Header changes are (what, index, name, value)."""

    headers: list[tuple[str, int, str, str]] = field(default_factory=list)
    body: list[bytes] | None = None
    sender: str | None = None
    added: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    quarantine: str = ""

    def apply(self, content: bytes) -> bytes:
        """The letter with its header and body as the filter wants them."""
        end = header_end(content)
        header, body = content[:end], content[end:]
        fields = _fields(header)
        for what, index, name, value in self.headers:
            made = (name.lower(), _field(name, value))
            same = [at for at, (key, _) in enumerate(fields) if key == name.lower()]
            if what == "add":
                fields.append(made)
            elif what == "insert":
                # 0 is above the server's own Received field, which a filter does not see, and 1 is right below it: both are our top
                fields.insert(min(max(index - 1, 0), len(fields)), made)
            elif 1 <= index <= len(same):  # change
                if value:
                    fields[same[index - 1]] = made
                else:
                    del fields[same[index - 1]]
            elif value:
                fields.append(made)
        if self.body is not None:
            body = b"".join(self.body)
        return b"".join(whole for _, whole in fields) + b"\r\n" + body


def _fields(header: bytes) -> list[tuple[str, bytes]]:
    found: list[tuple[str, bytes]] = []
    for line in header.split(b"\r\n"):
        if not line:
            continue
        if line[:1] in (b" ", b"\t") and found:
            found[-1] = (found[-1][0], found[-1][1] + line + b"\r\n")
        else:
            found.append((line.partition(b":")[0].strip().decode("utf-8", "replace").lower(), line + b"\r\n"))
    return found


def _field(name: str, value: str) -> bytes:
    """A field with CRLF and proper folds, whatever line ends the filter writes."""
    lines = value.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    folded = [lines[0], *(line if line[:1] in (" ", "\t") else "\t" + line for line in lines[1:] if line.strip())]
    space = "" if folded[0][:1] in (" ", "\t") else " "
    plain = "".join(sign for sign in name if "!" <= sign <= "~" and sign != ":") or "X-Filter"
    return f"{plain}:{space}".encode() + "\r\n".join(folded).encode("utf-8", "surrogateescape") + b"\r\n"


class Milter:
    """A connection to one filter, opened at the first letter. Any fault ends it, and the fallback holds for the session."""

    def __init__(self, settings: Filter, hostname: str, client: Client) -> None:
        self._settings, self._hostname, self._client = settings, hostname, client
        self._stream: Stream | None = None
        self._packets, self._ready = Packets(), deque[Answer]()
        self._protocol = 0
        self._failed = ""
        self._begun = False  # a letter was announced, and its content has not come yet
        self._passes = False  # the filter wants to hear nothing more of this letter
        self._session_passes = False  # nor of this session

    async def mail(self, sender: str) -> Verdict:
        async def work() -> Verdict:
            self._passes = self._session_passes
            if self._begun:  # the letter before never came to its end
                self._send(packet("A"))
            self._begun = True
            if self._stream is None:
                verdict = await self._begin()
                if not verdict.accepted or self._passes:
                    return verdict
            names = (("mail_addr", sender), ("auth_authen", self._client.user))
            return await self._stage("M", texts(f"<{sender}>"), milter.NO_MAIL, names)

        return await self._guarded(work)

    async def rcpt(self, recipient: str) -> Verdict:
        async def work() -> Verdict:
            return await self._stage("R", texts(f"<{recipient}>"), milter.NO_RCPT, (("rcpt_addr", recipient),))

        return await self._guarded(work)

    async def content(self, content: bytes, trace_id: str) -> tuple[Verdict, Changes]:
        """The whole letter. A verdict whose rule is DISCARD throws it away."""
        changes = Changes()

        async def work() -> Verdict:
            self._begun = False
            end = header_end(content)
            verdict = await self._stage("T", b"", milter.NO_DATA, (("i", trace_id),))
            for _, whole in _fields(content[:end]):
                if not verdict.accepted or self._passes:
                    return verdict
                verdict = await self._stage("L", self._header(whole), milter.NO_HEADERS)
            if verdict.accepted and not self._passes:
                verdict = await self._stage("N", b"", milter.NO_EOH)
            if verdict.accepted and not self._passes and not self._protocol & milter.NO_BODY:
                verdict = await self._body(content[end:])
            if not verdict.accepted or self._passes:
                return verdict
            self._send(macros("E", (("i", trace_id),)) + packet("E"))
            return await self._end(changes)

        return await self._guarded(work), changes

    def _header(self, whole: bytes) -> bytes:
        name, _, value = whole.removesuffix(b"\r\n").partition(b":")
        if not self._protocol & milter.LEADING_SPACE:
            value = value.removeprefix(b" ")
        return texts(name.strip(), value.replace(b"\r\n", b"\n"))

    async def _body(self, body: bytes) -> Verdict:
        for at in range(0, len(body), milter.BODY_OCTETS):
            self._send(packet("B", body[at : at + milter.BODY_OCTETS]))
            if self._protocol & milter.NO_REPLY["B"]:
                continue
            answer = await self._answer(COMMAND_SECONDS)
            if answer.kind == "s":
                break
            verdict = self._verdict(answer)
            if not verdict.accepted or self._passes:
                return verdict
        return ACCEPT

    def close(self) -> None:
        if self._stream is not None:
            self._send(packet("Q"))
            self._stream.close()
            self._stream = None

    # -- the conversation

    async def _guarded(self, work: Callable[[], Awaitable[Verdict]]) -> Verdict:
        if self._failed:
            return self._settings.absent(self._failed)
        try:
            return await work()
        except (OSError, TimeoutError, MilterError, StreamClosed, StreamTimeout) as error:
            self._failed = str(error) or type(error).__name__
            if self._stream is not None:
                self._stream.close()
            return self._settings.absent(self._failed)

    async def _begin(self) -> Verdict:
        address = self._settings.address
        async with asyncio.timeout(CONNECT_SECONDS):
            if address.startswith("/"):
                self._stream = await tcp.connect_unix(address)
            else:
                host, _, port = address.rpartition(":")
                self._stream = await tcp.connect(host.strip("[]"), int(port))
        self._send(milter.negotiate())
        _, self._protocol = milter.negotiated(await self._answer(COMMAND_SECONDS))
        client = self._client
        names = (
            ("j", self._hostname), ("daemon_name", "fubako"), ("v", "Fubako"), ("client_addr", client.address),
            ("client_port", str(client.port)), ("client_name", client.name or f"[{client.address}]"),
        )  # fmt: skip
        data = milter.connected(client.name, client.address, client.port)[5:]
        verdict = await self._stage("C", data, milter.NO_CONNECT, names)
        if verdict.accepted and not self._passes:
            protection = (("tls_version", client.tls), ("cipher", client.cipher))
            verdict = await self._stage("H", texts(client.hello), milter.NO_HELO, protection)
        self._session_passes = self._passes
        return verdict

    def _send(self, octets: bytes) -> None:
        if self._stream is not None:
            self._stream.write(octets)

    async def _answer(self, seconds: float) -> Answer:
        assert self._stream is not None
        await self._stream.drain()
        self._stream.idle_seconds = seconds
        while True:
            while not self._ready:
                octets = await self._stream.read()
                if not octets:
                    raise MilterError("it hung up")
                self._ready.extend(self._packets.feed(octets))
            answer = self._ready.popleft()
            if answer.kind != "p":  # it is still working
                return answer

    async def _stage(self, kind: str, data: bytes, unwanted: int, names: Sequence[tuple[str, str]] = ()) -> Verdict:
        if self._passes or self._protocol & unwanted:
            return ACCEPT
        self._send((macros(kind, names) if names else b"") + packet(kind, data))
        if self._protocol & milter.NO_REPLY.get(kind, 0):
            return ACCEPT
        return self._verdict(await self._answer(COMMAND_SECONDS))

    def _verdict(self, answer: Answer) -> Verdict:
        rule = f"milter {self._settings.address}"
        match answer.kind:
            case "c" | "s":
                return ACCEPT
            case "a":
                self._passes = True
                return ACCEPT
            case "r":
                return refuse(550, "5.7.1", "refused by a filter", rule)
            case "t" | "4" | "f":
                return refuse(451, "4.7.1", "refused by a filter for now; try again later", rule)
            case "d":
                return Verdict(Status(250, "2.0.0", "ok"), DISCARD)
            case "y":
                return _reply(answer.texts[0], rule)
        raise MilterError(f"it answers {answer.kind!r}")

    async def _end(self, changes: Changes) -> Verdict:
        while True:
            answer = await self._answer(CONTENT_SECONDS)
            match answer.kind:
                case "h":
                    name, value = (*answer.texts, "")[:2]
                    changes.headers.append(("add", 0, name, value))
                case "i" | "m":
                    name, value = (*Answer("", answer.data[4:]).texts, "")[:2]
                    changes.headers.append(("insert" if answer.kind == "i" else "change", answer.number, name, value))
                case "b":
                    changes.body = [*(changes.body or []), answer.data]
                case "e":
                    changes.sender = answer.texts[0].strip("<>")
                case "+" | "2":
                    changes.added.append(answer.texts[0].strip("<>"))
                case "-":
                    changes.removed.append(answer.texts[0].strip("<>"))
                case "q":
                    changes.quarantine = answer.texts[0] or "a filter"
                case _:
                    return self._verdict(answer)


def _reply(text: str, rule: str) -> Verdict:
    """A reply of the filter's own: `550 5.7.1 words`."""
    line = " ".join(text.replace("\r", " ").replace("\n", " ").split())
    code, _, rest = line.partition(" ")
    if not (len(code) == 3 and code.isdigit() and code[0] in "45"):
        raise MilterError("its reply has no code")
    enhanced, _, words = rest.partition(" ")
    if enhanced.count(".") != 2 or not enhanced.replace(".", "").isdigit() or enhanced[0] != code[0]:
        enhanced, words = f"{code[0]}.7.1", rest
    shown = "".join(sign for sign in words if " " <= sign <= "~")[:400] or "refused by a filter"
    return Verdict(Status(int(code), enhanced, shown), rule)
