"""`Road`: the connection of a reader, made again when it breaks, and the question about a certificate."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from typing import TypeVar

from fubako.client.connection import ClientError
from fubako.client.imap import ImapConnection
from fubako.client.mailbox import OpenMailbox
from fubako.client.maildrop import OpenMaildrop
from fubako.client.pop3 import Pop3Connection
from fubako.client.roads import Roads
from fubako.client.settings import Account
from fubako.message.hop import Hop
from fubako.net.interface import CertificateFacts, StreamClosed, StreamTimeout, TlsError

T = TypeVar("T")
_BROKEN = (StreamClosed, StreamTimeout, TlsError, ConnectionError)


@dataclass(slots=True)
class Asked:
    """Whom `Roads` asks about a certificate. It says no, keeps the question for the screen, and says the user's answer when it
    is asked again about the same certificate."""

    question: tuple[CertificateFacts, str, str] | None = None
    answers: dict[str, str] = field(default_factory=dict)

    def forget(self) -> None:
        self.question = None

    def __call__(self, facts: CertificateFacts, reason: str, signer: str) -> str:
        self.question = (facts, reason, signer)
        return self.answers.get(facts.sha256, "reject")


class FolderRenewed(ClientError):
    """Its letters have other numbers now (UIDVALIDITY): the list has to be read again."""


class Road:
    """`state` says in words how the connection is protected, or why there is none; `told` is called when it changes."""

    def __init__(self, account: Account, roads: Roads, told: Callable[[str], None] = lambda _state: None) -> None:
        self.account = account
        self.state = "no connection"
        self._roads, self._told = roads, told
        self._stack: AsyncExitStack | None = None
        self._box: OpenMailbox | None = None
        self._folder: tuple[str, bool, int] = ("", False, 0)
        self._alone = asyncio.Lock()

    def _say(self, state: str) -> None:
        self.state = state
        self._told(state)

    async def _open(self) -> OpenMailbox:
        async with self._alone:
            if self._box is not None:
                return self._box
            self._say(f"connecting to {self.account.host} …")
            stack = AsyncExitStack()
            try:
                connection = await stack.enter_async_context(self._roads.ready(self.account))
                if isinstance(connection, ImapConnection):
                    box = OpenMailbox(connection)
                elif isinstance(connection, Pop3Connection):
                    box = OpenMaildrop(connection)
                else:
                    raise ClientError(f"{self.account.name} is no mailbox that can be read")
                wire, read_only, validity = self._folder
                if wire:
                    await box.open(wire, read_only=read_only)
                    if box.uid_validity != validity:
                        self._folder = ("", False, 0)
                        raise FolderRenewed("the folder was made anew; open it again")
            except BaseException as error:
                self._say(f"no connection: {error or type(error).__name__}")
                await stack.aclose()
                raise
            self._stack, self._box = stack, box
            self._say(_in_words(connection.hop()))
            return box

    async def folder(self, wire: str, *, read_only: bool = False) -> OpenMailbox:
        """Open a folder; it is opened again after a broken connection."""
        self._folder = ("", False, 0)
        box = await self._open()
        try:
            await box.open(wire, read_only=read_only)
        except _BROKEN:
            await self._drop()
            box = await self._open()
            await box.open(wire, read_only=read_only)
        self._folder = (wire, read_only, box.uid_validity)
        return box

    async def use(self, work: Callable[[OpenMailbox], Awaitable[T]], *, again: bool = True) -> T:
        """`again`: it may be done twice, so it is tried once more on a fresh connection when this one breaks."""
        box = await self._open()
        try:
            return await work(box)
        except _BROKEN as error:
            await self._drop(str(error))
            if not again:
                raise
        return await work(await self._open())

    async def _drop(self, why: str = "") -> None:
        stack, self._stack, self._box = self._stack, None, None
        self._say(f"no connection: {why or 'it broke'}")
        if stack is not None:
            with suppress(Exception):
                await stack.aclose()

    async def close(self) -> None:
        if self._box is not None:
            with suppress(Exception):
                async with asyncio.timeout(3):
                    await self._box.leave()
        if self._stack is not None:
            with suppress(Exception):
                await self._stack.aclose()
        self._stack = self._box = None
        with suppress(Exception):
            await self._roads.close()


def _in_words(hop: Hop) -> str:
    """As short as it can be said, what matters first: the road is always in view."""
    how = f"{hop.tls_version} {hop.cipher}" if hop.tls_version else "local" if hop.local else "NO ENCRYPTION"
    if hop.ssh:
        how = f"SSH with {how} inside" if hop.tls_version else f"SSH {hop.cipher}"
    who = f", {hop.user} by {hop.mechanism}" if hop.user else ""
    return f"{hop.seal.value}: {how}, believed by {hop.believed or 'nobody'}{who}; {hop.peer}"
