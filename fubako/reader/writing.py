"""`Writer`: a letter from the editor to the outbox, the server, and the copy in Sent; or into the drafts."""

import asyncio
import shlex
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, TypeVar

from textual.screen import Screen

from fubako import modes
from fubako.client.connection import ClientError
from fubako.client.handing import account_of, carrier
from fubako.client.mailbox import Entry, Folder
from fubako.client.outbox import Outbox, Postponed, Waiting, settle
from fubako.client.roads import Roads
from fubako.client.settings import Account, SettingsError
from fubako.clock import Env
from fubako.message import answer
from fubako.message import compose as drafting
from fubako.message.address import Address, AddressError, parse_address
from fubako.message.display import line
from fubako.net.interface import StreamClosed, StreamTimeout, TlsError
from fubako.protocol.engine import ProtocolError
from fubako.protocol.imap import utf7
from fubako.protocol.sasl import SaslFailure
from fubako.reader.letters import ANSWERED, SEEN
from fubako.reader.road import Road
from fubako.reader.screens import Compose, Outgoing, Prompt, Question
from fubako.trust.judge import NotBelieved

T = TypeVar("T")
ATTACHMENT_OCTETS_MAX = 50 * 1024 * 1024
FAULTS = (ClientError, ProtocolError, SaslFailure, SettingsError, StreamClosed, StreamTimeout, TlsError, OSError)


class Desk(Protocol):
    """What a writer needs of the reader around it."""

    @property
    def road(self) -> Road: ...
    @property
    def said(self) -> str:
        """The line that the user sees now."""
        ...

    def say(self, words: str) -> None:
        """One line for the user."""
        ...

    async def shown(self, screen: Screen[T]) -> T | None:
        """What the user answered to a screen."""
        ...

    def suspend(self) -> AbstractContextManager[None]:
        """The terminal is another program's meanwhile."""
        ...

    async def known_folders(self) -> list[Folder]: ...
    def mark(self, entries: Sequence[Entry], flag: str, on: bool) -> None: ...


@dataclass(slots=True)
class Writer:
    """`sender`: who stands in From of a new letter; `senders`: accounts to send by; `sent`: a folder, not the server's own."""

    desk: Desk
    roads: Roads
    senders: list[Account]
    sender: str
    home: Path
    editor: str
    sent: str
    env: Env

    async def blank(self, to: str) -> None:
        subject = await self.desk.shown(Prompt("Subject: "))
        if subject is not None:
            await self.write(answer.blank(self.sender, to, subject), None)

    async def reply(self, entry: Entry, content: bytes, *, everybody: bool = False) -> None:
        await self.write(answer.reply(content, self.sender, everybody=everybody), entry)

    async def forward(self, content: bytes) -> None:
        await self.write(answer.forward(content, self.sender), None)

    def _edit(self, text: str) -> str | None:
        """The user's editor on a file that only the user reads; None when the editor failed."""
        modes.folder(self.home)
        with tempfile.NamedTemporaryFile("w+", suffix=".eml", dir=self.home, encoding="utf-8") as file:
            file.write(text)
            file.flush()
            try:
                with self.desk.suspend():
                    code = subprocess.run([*shlex.split(self.editor), file.name], check=False).returncode  # noqa: S603 (the user's own)
            except (OSError, ValueError) as error:
                self.desk.say(f"the editor {self.editor}: {error}")
                return None
            if code:
                self.desk.say(f"the editor ended with {code}")
                return None
            # an editor may have made the file anew
            return Path(file.name).read_text(encoding="utf-8", errors="replace")

    async def write(self, text: str, answered: Entry | None) -> None:
        edited = self._edit(text)
        if edited is None:
            return
        outgoing = Outgoing(edited, [], answers=answered.uid if answered else None)
        while True:
            by = self._by(outgoing)
            how = (
                f"{by.name}: {by.host}, TLS {by.tls}" if by else "no account of protocol smtp: it can only be postponed"
            )
            match await self.desk.shown(Compose(outgoing, how)):
                case "y":
                    if by is not None and await self._send(outgoing, by, answered):
                        return
                case "e":
                    edited = self._edit(outgoing.text)
                    outgoing.text = edited if edited is not None else outgoing.text
                case "a":
                    await self._add_file(outgoing)
                case "S":
                    outgoing.sealed = not outgoing.sealed
                case "p":
                    if await self._postpone(outgoing):
                        return
                case _:
                    if await self.desk.shown(Question("Throw this letter away? (y/[n]) ", "ny")) == "y":
                        self.desk.say("thrown away")
                        return

    def _by(self, outgoing: Outgoing) -> Account | None:
        """The account that is for who stands in From."""
        rows = outgoing.text.partition("\n\n")[0].split("\n")
        author = next((row[5:].rpartition("<")[2].strip("> ") for row in rows if row.lower().startswith("from:")), "")
        return account_of(self.senders, author) if self.senders else None

    async def _add_file(self, outgoing: Outgoing) -> None:
        given = await self.desk.shown(Prompt("Attach file: "))
        if not given:
            return
        found = await asyncio.to_thread(_file, given)
        if isinstance(found, str):
            self.desk.say(found)
        else:
            outgoing.attachments.append(found)

    def _made(self, outgoing: Outgoing) -> tuple[Waiting, bytes] | None:
        """As it leaves; None, and a sentence, where it cannot."""
        try:
            letter = drafting.draft(answer.letter(outgoing.text, outgoing.attachments))
            sender = self._address(letter)
        except (answer.DraftFault, AddressError) as fault:
            self.desk.say(str(fault))
            return None
        to = drafting.recipients(letter, sender.domain)
        now, number = self.env.clock.now(), self.env.trace_id()
        done = drafting.complete(letter, drafting.Given(sender, "", sender.domain, now, number))
        by = self._by(outgoing)
        return Waiting(
            number, by.name if by else "", str(sender), tuple(map(str, to)), int(now), outgoing.sealed
        ), done.content

    def _address(self, letter: drafting.Draft) -> Address:
        """The envelope's sender: who stands in From. Raises AddressError."""
        named = drafting.recipients(drafting.Draft([(b"to", b"To:" + value) for value in letter.values(b"from")]), "")
        sender = named[0] if named else parse_address(self.sender.rpartition("<")[2].rstrip("> "))
        if not sender.domain:
            raise AddressError("From holds no address with a domain")
        return sender

    async def _send(self, outgoing: Outgoing, by: Account, answered: Entry | None) -> bool:
        """Into the outbox, then to the server; the copy in Sent is a matter of its own. Whether it is off the user's hands."""
        made = self._made(outgoing)
        if made is None:
            return False
        waiting, content = made
        if not waiting.recipients:
            self.desk.say("there is no recipient")
            return False
        outbox = Outbox(self.home / "outbox")
        outbox.put(waiting, content)
        try:
            with outbox.alone():
                async with carrier(self.roads, by) as (carry, hop):
                    done = await settle(outbox, carry, waiting)
        except (*FAULTS, NotBelieved, Postponed) as error:
            outbox.change(replace(waiting, attempts=1, problem=line(str(error))))
            self.desk.say(f"not sent: {error}; it waits in the outbox (fubako send --flush)")
            return True
        if done.held:
            outbox.drop(waiting)
            self.desk.say(f"not sent: {done.held}")
            return False
        refused = "".join(f"; {who} was refused: {why}" for who, why in done.refused)
        way = f"{hop.seal.value} up to {by.host}" if hop is not None else f"by {by.name}"
        self.desk.say(f"waits in the outbox: {done.later}" if done.later else f"sent, {way}{refused}")
        if answered is not None:
            self.desk.mark([answered], ANSWERED, True)
        await self._keep_copy(content)
        return True

    async def _keep_copy(self, content: bytes) -> None:
        folders = await self.desk.known_folders()
        wire = (
            next((one.wire for one in folders if one.role == "sent"), "") if not self.sent else utf7.encode(self.sent)
        )
        if not wire:
            return
        try:
            await self.desk.road.use(lambda box: box.append(wire, content, SEEN), again=False)
        except (*FAULTS, NotBelieved) as error:
            self.desk.say(f"{self.desk.said}; but no copy could be kept: {error}")

    async def _postpone(self, outgoing: Outgoing) -> bool:
        made = self._made(outgoing)
        folders = await self.desk.known_folders()
        wire = next((one.wire for one in folders if one.role == "drafts"), "")
        if made is None or not wire:
            self.desk.say("there is no folder for drafts" if made else self.desk.said)
            return False
        await self.desk.road.use(lambda box: box.append(wire, made[1], "\\Draft \\Seen"), again=False)
        self.desk.say("postponed")
        return True


def _file(given: str) -> tuple[str, bytes] | str:
    path = Path(given).expanduser()
    try:
        if path.stat().st_size > ATTACHMENT_OCTETS_MAX:
            return f"{path} is larger than {ATTACHMENT_OCTETS_MAX} octets"
        return path.name, path.read_bytes()
    except OSError as error:
        return f"{path}: {error.strerror}"
