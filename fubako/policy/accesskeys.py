"""Keys of an access table: `forms(stage, key)` gives those under which a rule is found, for what the administrator wrote. Pure.

A rule that can never match is worse than none, because somebody relies on it. So a key is read as one of five kinds (an
address, a user anywhere, a domain, a network, the null sender) and written in the one form that look-ups use; what is of
none of them is refused, with the form that was probably meant.
"""

import ipaddress
import re

from fubako.message.address import Address
from fubako.message.authors import forms as both_labels

STAGES = ("connect", "from", "to")
SPREAD_MAX = 128  # keys of one network whose end is inside an octet or a group
_LABEL = re.compile(r"[a-z0-9_\x80-\U0010ffff](?:[a-z0-9_\x80-\U0010ffff-]{0,61}[a-z0-9_\x80-\U0010ffff])?")
_OCTETS = re.compile(r"[0-9]+(?:\.[0-9]+){0,3}")
_GROUPS = re.compile(r"[0-9a-f]{1,4}(?::[0-9a-f]{1,4}){0,7}")


class KeyFault(ValueError):
    """The key can match nothing; the message says what would."""


def forms(stage: str, key: str) -> list[str]:
    """`key` in lower case, without its tag; `stage` is its tag, or empty. Raises KeyFault."""
    if key == "<>":
        return _only(("", "from", "to"), stage, [key], "<>")
    bare = key.removeprefix("[").removesuffix("]") if key.startswith("[") else key
    if "@" in bare:
        return _only(("", "from", "to"), stage, _mail(bare), bare)
    network = _network(bare)
    if network is not None:
        return _only(("", "connect"), stage, network, bare)
    return _domain(bare)


def _only(stages: tuple[str, ...], stage: str, found: list[str], key: str) -> list[str]:
    if stage not in stages:
        tag = "Connect" if "connect" in stages else "From"
        raise KeyFault(f"{stage.capitalize()}: never meets {key}; {tag}:{key} does")
    return found


def _mail(key: str) -> list[str]:
    local, _, domain = key.rpartition("@")
    if not local:
        raise KeyFault(f"{key} names nobody; for everybody there write {domain or 'a domain'}")
    if any(char.isspace() or not char.isprintable() for char in local):
        raise KeyFault(f"{key} is no address")
    if local == "*":
        raise KeyFault(f"{key} is no pattern; for everybody there write {domain}")
    return [f"{local}@{one}" for one in _domain(domain)] if domain else [key]


def _domain(key: str) -> list[str]:
    name = key.removesuffix(".")
    meant = name.lstrip("*.")
    if meant != name and _is_domain(meant):
        raise KeyFault(f"{key} is no pattern; {meant} is that domain and all below it")
    if not _is_domain(name):
        raise KeyFault(f"{key} is no address, domain or network")
    return list(dict.fromkeys(one.domain.lower() for one in both_labels(Address("x", name))))


def _is_domain(name: str) -> bool:
    labels = name.split(".")
    return len(name) <= 253 and all(map(_LABEL.fullmatch, labels)) and not labels[-1].isdigit()


# -- networks


def _network(key: str) -> list[str] | None:
    """None: it does not look like one."""
    text, slash, length = key.partition("/")
    six = text.startswith("ipv6:") or ":" in text
    if not slash and not six and _OCTETS.fullmatch(text.removesuffix(".")):
        return [_octets(text.removesuffix("."), key)]
    if not six and not slash:
        return None
    text = text.removeprefix("ipv6:")
    if not slash and _GROUPS.fullmatch(text.removesuffix(":")) and "::" not in text:
        return ["ipv6:" + ":".join(f"{int(group, 16):x}" for group in text.removesuffix(":").split(":"))]
    if not slash and text.endswith("::") and text != "::":
        raise KeyFault(f"{key} is the address of a network; write {text}/{16 * (text.count(':') - 1)}")
    written = f"{text}/{length}" if slash else text
    try:
        network = ipaddress.ip_network(written, strict=False)
    except ValueError:
        raise KeyFault(f"{key} is no network; 192.0.2.0/24, 192.0.2 and 2001:db8::/32 are") from None
    if network.network_address != ipaddress.ip_address(text):
        raise KeyFault(f"{key} is an address inside a network; write {network}")
    return _spread(network)


def _octets(text: str, key: str) -> str:
    octets = text.split(".")
    if any(int(octet) > 255 or octet != str(int(octet)) for octet in octets if len(octet) < 9) or len(text) > 15:
        raise KeyFault(f"{key} is no network: an octet is 0 to 255, without zeros in front")
    return text


def _spread(network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> list[str]:
    """The keys of whole octets, or groups, that make it up."""
    step, prefix, separator = (8, "", ".") if network.version == 4 else (16, "ipv6:", ":")
    whole = max(step, -(-network.prefixlen // step) * step)
    if 2 ** (whole - network.prefixlen) > SPREAD_MAX:
        raise KeyFault(f"{network} is too many keys; write networks of /{whole}, or /{whole - 7} at the least")
    return [
        prefix + separator.join(_parts(one.network_address)[: whole // step])
        for one in network.subnets(new_prefix=whole)
    ]


def _parts(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> list[str]:
    if address.version == 4:
        return str(address).split(".")
    return [f"{int(group, 16):x}" for group in address.exploded.split(":")]
