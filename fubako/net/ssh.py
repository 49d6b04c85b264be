"""An SSH server whose users are a mail server's: commands and forwarded connections become streams (RFC 4251 to 4254).

Who may come in, what runs, and where a forwarded connection ends is asked of a `Doorkeeper`. Never gives a terminal, a shell,
a file, an agent, a display, or a connection to another machine.
"""

import asyncio
import base64
import hashlib
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

from fubako import modes
from fubako.net import libraries
from fubako.net.interface import Doorkeeper, SshFacts, Stream
from fubako.net.ssh_channel import CIPHERS, MACS, SIGNATURES, ChannelStream, available_kex

with libraries.found_without_programs():
    import asyncssh
    from asyncssh.constants import OPEN_ADMINISTRATIVELY_PROHIBITED, OPEN_RESOURCE_SHORTAGE

CHANNELS_MAX = 32  # open at once on one connection
KEYS_TRIED_MAX = 20  # an agent may hold many
PASSWORDS_TRIED_MAX = 3
KEEPALIVE_SECONDS = 60
COMMAND_OCTETS_MAX = 64 * 1024
_PATTERNS = frozenset('*?!,"\\[]')  # what would be a pattern in a list of principals

Spawn = Callable[[Coroutine[Any, Any, None]], "asyncio.Task[None]"]


def ensure_host_key(path: Path) -> None:
    """An Ed25519 key, made where there is none; only its owner can read it."""
    if path.exists():
        return
    modes.folder(path.parent)
    key = asyncssh.generate_private_key("ssh-ed25519").export_private_key()
    made = path.with_name(f".{path.name}.{os.getpid()}")
    handle = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, modes.FILE)
    with os.fdopen(handle, "wb") as file:
        file.write(key)
        file.flush()
        os.fsync(file.fileno())
    os.replace(made, path)


def public_host_key(path: Path) -> str:
    """`type base64` of a private key's file. Raises OSError, ValueError."""
    return asyncssh.read_private_key(path).export_public_key().decode().strip()


def fingerprints(line: str) -> tuple[str, str]:
    """(as OpenSSH prints it, the rest of an SSHFP record: algorithm, hash type, hexadecimal; RFC 4255, RFC 7479)."""
    kind, blob = line.split()[:2]
    octets = base64.b64decode(blob)
    algorithm = {"ssh-rsa": 1, "ssh-dss": 2, "ssh-ed25519": 4, "ssh-ed448": 6}.get(kind, 3)
    digest = hashlib.sha256(octets)
    shown = base64.b64encode(digest.digest()).decode().rstrip("=")
    return f"SHA256:{shown}", f"{algorithm} 2 {digest.hexdigest()}"


class _Joined:
    """What channels of commands and forwarded connections share: asyncssh's callbacks move bytes of the stream."""

    stream: ChannelStream
    early: list[bytes | None] | None = None  # what came before there was a session that may begin TLS; None at its end

    def data_received(self, data: bytes, datatype: int | None) -> None:
        if datatype is not None:
            return
        if self.early is not None:
            self.early.append(data)
        else:
            self.stream._arrived(data)

    def eof_received(self) -> bool:
        if self.early is not None:
            self.early.append(None)
        else:
            self.stream._ended()
        return True

    def _begin(self) -> None:
        early, self.early = self.early or [], None
        for data in early:
            if data is None:
                self.stream._ended()
            else:
                self.stream._arrived(data)

    def pause_writing(self) -> None:
        self.stream._writing_paused()

    def resume_writing(self) -> None:
        self.stream._writing_resumed()


class _Command(_Joined, asyncssh.SSHServerSession[bytes]):
    def __init__(self, guest: "_Guest") -> None:
        self._guest = guest
        self._line = ""

    def connection_made(self, chan: Any) -> None:
        self.stream = ChannelStream(chan, self._guest.peer, self._guest.facts)
        self.stream.command = True

    def pty_requested(self, *_: Any) -> bool:
        return False

    def shell_requested(self) -> bool:
        return True

    def exec_requested(self, command: str | bytes) -> bool:
        text = command.decode("utf-8", "replace") if isinstance(command, bytes) else command
        self._line = text
        return bool(text.strip()) and len(text) <= COMMAND_OCTETS_MAX

    def subsystem_requested(self, subsystem: str) -> bool:
        return self.exec_requested(subsystem)

    def session_started(self) -> None:
        self._guest.spawn(self._run())

    async def _run(self) -> None:
        code = 70
        try:
            code = await self._guest.door.run(self._line, self.stream)
        finally:
            self.stream.close()
            self.stream.finish(code)

    def connection_lost(self, exc: Exception | None) -> None:
        self._guest.channels -= 1
        self.stream._lost()


class _Forwarded(_Joined, asyncssh.SSHTCPSession[bytes]):
    def __init__(self, guest: "_Guest", serve: Callable[[Stream], Awaitable[None]]) -> None:
        self._guest = guest
        self._serve = serve

    def connection_made(self, chan: Any) -> None:
        self.stream = ChannelStream(chan, self._guest.peer, self._guest.facts)
        self.early = []

    def session_started(self) -> None:
        self._guest.spawn(self._run())

    async def _run(self) -> None:
        asyncio.get_running_loop().call_soon(self._begin)
        try:
            await self._serve(self.stream)
        finally:
            self.stream.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._guest.channels -= 1
        self.stream._lost()


class _Guest(asyncssh.SSHServer):
    """One connection."""

    def __init__(self, door: Doorkeeper, spawn: Spawn, nobody: str) -> None:
        self.door = door
        self.spawn = spawn
        self.peer = ""
        self.facts = SshFacts("", "", "", "")
        self.channels = 0
        self._nobody = nobody
        self._user = ""
        self._kinds: dict[str, str] = {}  # fingerprint -> how the proof is called
        self._by_password = False
        self._keys_tried = self._passwords_tried = 0
        self._here = False

    def connection_made(self, conn: Any) -> None:
        self._conn = conn
        name = conn.get_extra_info("peername") or ("", 0)
        self.peer = f"[{name[0]}]:{name[1]}" if ":" in name[0] else f"{name[0]}:{name[1]}"
        self.door.hang_up = lambda: conn.disconnect(
            asyncssh.DISC_BY_APPLICATION, "the account was changed: log in again"
        )
        self._here = self.door.came(self.peer)
        if not self._here:
            conn.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._here:
            self.door.left()

    # -- who it is

    async def begin_auth(self, username: str) -> bool:
        """The same for every name: who has no keys gets the key of nobody."""
        self._user = username
        self._kinds.clear()
        lines = [self._nobody]
        for fingerprint, line, authority in await self.door.keys(username):
            option = f'environment="FUBAKO_KEY={fingerprint}"'
            if authority:
                if _PATTERNS.intersection(username) or not username.isprintable() or " " in username:
                    continue  # it would be more than a name in the line
                option += f',cert-authority,principals="{username}"'
            lines.append(f"{option} {line}")
            kind = line.partition(" ")[0]
            self._kinds[fingerprint] = f"{'certificate by ' if authority else ''}{kind} {fingerprint}"
        self._conn.set_authorized_keys(asyncssh.import_authorized_keys("\n".join(lines)))
        return True

    def public_key_auth_supported(self) -> bool:
        return True

    async def validate_public_key(self, username: str, key: Any) -> bool:
        """Only asked about keys that are not the user's."""
        self._keys_tried += 1
        if self._keys_tried > KEYS_TRIED_MAX:
            self._conn.disconnect(asyncssh.DISC_PROTOCOL_ERROR, "too many keys were tried")
        await self.door.refused(username)
        return False

    def password_auth_supported(self) -> bool:
        return self.door.passwords

    async def validate_password(self, username: str, password: str) -> bool:
        self._passwords_tried += 1
        if self._passwords_tried > PASSWORDS_TRIED_MAX:
            self._conn.disconnect(asyncssh.DISC_PROTOCOL_ERROR, "too many passwords were tried")
            return False
        self._by_password = await self.door.password(username, password)
        return self._by_password

    async def auth_completed(self) -> None:
        """The options of the key that held are those that were looked at last; they name it."""
        cipher = str(self._conn.get_extra_info("send_cipher") or "")
        if self._by_password:
            self.facts = SshFacts(self._user, "password", "", cipher)
        else:
            key = (self._conn.get_key_option("environment") or {}).get("FUBAKO_KEY", "")
            self.facts = SshFacts(self._user, self._kinds[key], key, cipher)
        if not await self.door.entered(self.facts):
            self._conn.disconnect(asyncssh.DISC_BY_APPLICATION, "this user may not come in")

    # -- what he may do

    def _one_more(self) -> None:
        if self.channels >= CHANNELS_MAX:
            raise asyncssh.ChannelOpenError(OPEN_RESOURCE_SHORTAGE, "too many channels at once")
        self.channels += 1

    def session_requested(self) -> _Command:
        self._one_more()
        return _Command(self)

    def connection_requested(self, dest_host: str, dest_port: int, orig_host: str, orig_port: int) -> _Forwarded:
        serve = self.door.leads(dest_host, dest_port)
        if serve is None:
            raise asyncssh.ChannelOpenError(
                OPEN_ADMINISTRATIVELY_PROHIBITED, "only this server's own mail services can be reached"
            )
        self._one_more()
        return _Forwarded(self, serve)


async def listen(
    listener: socket.socket,
    host_keys: Sequence[Path],
    door: Callable[[], Doorkeeper],
    spawn: Spawn,
    login_seconds: float,
) -> asyncssh.SSHAcceptor:
    """Serve a bound socket. Raises OSError, ValueError for a host key that cannot be read."""
    asyncssh.set_log_level(logging.CRITICAL)  # what happens is told by our events
    nobody = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode().strip()
    first = door()
    return await asyncssh.create_server(
        lambda: _Guest(door(), spawn, nobody), sock=listener, server_host_keys=[str(path) for path in host_keys],
        server_version="Fubako", config=None, encoding=None, line_editor=False, allow_scp=False, allow_pty=False,
        agent_forwarding=False, x11_forwarding=False, gss_host=None, kbdint_auth=False, password_auth=first.passwords,
        host_based_auth=False, public_key_auth=True, login_timeout=login_seconds, keepalive_interval=KEEPALIVE_SECONDS,
        compression_algs=None, kex_algs=list(available_kex()), encryption_algs=list(CIPHERS), mac_algs=list(MACS),
        signature_algs=list(SIGNATURES),
    )  # fmt: skip
