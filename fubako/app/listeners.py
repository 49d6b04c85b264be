"""Sockets that listen, bound before privileges are dropped."""

import os
import socket
from dataclasses import dataclass
from pathlib import Path

from fubako.config import SERVICES, UNIX_SERVICES, Config, ConfigError, Network, networks, split_address
from fubako.net import tcp, unix


@dataclass(frozen=True, slots=True)
class Bound:
    """A socket that listens for a service."""

    service: str
    socket: socket.socket
    implicit_tls: bool
    proxies: tuple[Network, ...] = ()  # who must say for whom it speaks
    mechanisms: tuple[str, ...] = ()  # instead of those of all services
    certificate_login: bool = False


def bind(config: Config, base: Path, *, reuse_port: bool = False) -> list[Bound]:
    """Every listener of the configuration. Raises ConfigError in words: which address, and why not."""
    bound: list[Bound] = []
    try:
        for listen in config.listen:
            implicit = SERVICES.get(listen.service, (0, False))[1]
            for address in listen.addresses:
                listener = _bind_one(listen.service, address, base, reuse_port)
                proxies = networks(listen.proxy_networks)
                bound.append(
                    Bound(listen.service, listener, implicit, proxies, listen.mechanisms, listen.certificate_login)
                )
    except BaseException:
        for one in bound:
            one.socket.close()
        raise
    return bound


def _bind_one(service: str, address: str, base: Path, reuse_port: bool) -> socket.socket:
    try:
        if service in UNIX_SERVICES:
            return _bind_unix(base / address)
        host, port = split_address(address)
        return tcp.bound_socket(host, port, reuse_port=reuse_port)
    except OSError as error:
        raise ConfigError(f"{service} cannot listen on {address}: {error.strerror or error}") from None


def _bind_unix(path: Path) -> socket.socket:
    """A Unix socket only its owner and group can reach; one left over by a dead server is replaced."""
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
    mask = os.umask(0o117)
    try:
        with unix.address(path) as name:
            listener.bind(name)
    except OSError:
        listener.close()
        raise
    finally:
        os.umask(mask)
    listener.listen(256)
    listener.setblocking(False)
    return listener
