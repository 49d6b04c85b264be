"""Addresses and networks as a configuration writes them, and the error that names the place of a fault."""

import ipaddress

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Networks = tuple[str, ...]
LOOPBACK = ("127.0.0.0/8", "::1/128")


class ConfigError(Exception):
    """The configuration cannot be used; the message names the place."""


def split_address(address: str, place: str = "", what: str = "listen.addresses") -> tuple[str, int]:
    """`host:port` or `[v6]:port`. Raises ConfigError."""
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise ConfigError(f"{place}: {what}: {address} is not host:port")
    return host.strip("[]"), int(port)


def networks(given: Networks, place: str = "", what: str = "") -> tuple[Network, ...]:
    """Raises ConfigError."""
    found = []
    for text in given:
        try:
            found.append(ipaddress.ip_network(text))
        except ValueError:
            raise ConfigError(f"{place}: {what}: {text} is no network like 192.0.2.0/24") from None
    return tuple(found)


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
