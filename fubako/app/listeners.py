"""Sockets that listen, bound before privileges are dropped."""

import grp
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from fubako.app.privileges import ROOT, owner_of
from fubako.config import SERVICES, UNIX_SERVICES, Config, ConfigError, Listen, Network, networks, split_address
from fubako.net import tcp, unix

_FIRST_HANDED_OVER = 3  # SD_LISTEN_FDS_START


@dataclass(frozen=True, slots=True)
class Bound:
    """A socket that listens for a service."""

    service: str
    socket: socket.socket
    implicit_tls: bool
    proxies: tuple[Network, ...] = ()  # who must say for whom it speaks
    mechanisms: tuple[str, ...] = ()  # instead of those of all services
    certificate_login: bool = False


def bound(listen: Listen, listener: socket.socket) -> Bound:
    """A socket with all that its `[[listen]]` says, whoever made it."""
    return Bound(
        listen.service,
        listener,
        SERVICES.get(listen.service, (0, False))[1],
        networks(listen.proxy_networks),
        listen.mechanisms,
        listen.certificate_login,
    )


def bind(config: Config, base: Path, *, reuse_port: bool = False) -> list[Bound]:
    """Every listener of the configuration. Raises ConfigError in words: which address, and why not."""
    return bind_ports(config, base, reuse_port=reuse_port) + bind_paths(config, base)


def bind_ports(config: Config, base: Path, *, reuse_port: bool = False) -> list[Bound]:
    """The ports, for which one may have to be root. Raises ConfigError."""
    return _bind([one for one in config.listen if one.service not in UNIX_SERVICES], base, reuse_port)


def bind_paths(config: Config, base: Path) -> list[Bound]:
    """The Unix sockets, made by the user who serves: they lie where he can write. Raises ConfigError."""
    return _bind([one for one in config.listen if one.service in UNIX_SERVICES], base, False)


def _bind(wanted: Sequence[Listen], base: Path, reuse_port: bool) -> list[Bound]:
    made: list[Bound] = []
    try:
        for listen in wanted:
            for address in listen.addresses:
                listener = _bind_one(listen, address, base, reuse_port)
                made.append(bound(listen, listener))
    except BaseException:
        for one in made:
            one.socket.close()
        raise
    return made


def inherited(config: Config, base: Path) -> list[Bound]:
    """Sockets from systemd (sd_listen_fds), named by their service. Raises ConfigError."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return []
    names = os.environ.get("LISTEN_FDNAMES", "").split(":")
    found = []
    for number in range(int(os.environ.get("LISTEN_FDS", "0"))):
        listener = socket.socket(fileno=_FIRST_HANDED_OVER + number)
        listener.setblocking(False)
        os.set_inheritable(listener.fileno(), False)
        found.append(bound(_listen_of(config, base, names[number] if number < len(names) else "", listener), listener))
    return found


def _listen_of(config: Config, base: Path, service: str, listener: socket.socket) -> Listen:
    """The `[[listen]]` whose settings a socket gets: the one with its address, else the only one of its service."""
    if service not in (*SERVICES, *UNIX_SERVICES):
        raise ConfigError(f"systemd handed over a socket named {service!r}, which is no service")
    named = [one for one in config.listen if one.service == service]
    where = listener.getsockname()
    matching = [one for one in named if any(_is_at(one, address, where, base) for address in one.addresses)]
    if len({msgspec.structs.replace(one, addresses=()) for one in matching or named}) > 1:
        raise ConfigError(
            f"systemd handed over a socket named {service} at {where}, which is at the address of no [[listen]]; there are"
            f" several of {service} with different settings, so the address has to stand in one of them"
        )
    return (matching or named or [Listen(service=service, addresses=())])[0]


def _is_at(listen: Listen, address: str, where: Any, base: Path) -> bool:
    if listen.service in UNIX_SERVICES:
        return isinstance(where, str) and Path(where).resolve() == (base / address).resolve()
    return isinstance(where, tuple) and split_address(address) == tuple(where[:2])


def _bind_one(listen: Listen, address: str, base: Path, reuse_port: bool) -> socket.socket:
    service = listen.service
    try:
        if service in UNIX_SERVICES:
            return _bind_unix(base / address, listen)
        host, port = split_address(address)
        return tcp.bound_socket(host, port, reuse_port=reuse_port)
    except OSError as error:
        raise ConfigError(f"{service} cannot listen on {address}: {error.strerror or error}") from None


def _bind_unix(path: Path, listen: Listen) -> socket.socket:
    """A Unix socket that those can reach whom `listen` names; one left over by a dead server is replaced. Raises OSError,
    ConfigError."""
    if os.geteuid() == ROOT and owner_of(path)[0] != ROOT:
        raise ConfigError(f"{listen.service}: {path.parent} belongs to another user, and nothing is made there as root")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    if path.is_socket():
        probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with unix.address(path) as name:
                probe.connect(name)
        except OSError:
            path.unlink(missing_ok=True)
        finally:
            probe.close()
    mask = os.umask(0o177)
    try:
        with unix.address(path) as name:
            listener.bind(name)
        if listen.socket_group:
            os.chown(path, -1, _group(listen), follow_symlinks=False)
        path.chmod(int(listen.socket_mode, 8))
    except BaseException:
        listener.close()
        raise
    finally:
        os.umask(mask)
    listener.listen(256)
    listener.setblocking(False)
    return listener


def _group(listen: Listen) -> int:
    try:
        return grp.getgrnam(listen.socket_group).gr_gid
    except KeyError:
        raise ConfigError(f"listen.socket_group of {listen.service}: there is no group {listen.socket_group}") from None
