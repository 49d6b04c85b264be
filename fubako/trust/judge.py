"""`judge`: the facts of a handshake -> believed and by what, or NotBelieved with every reason (RFC 9525)."""

import ipaddress
from dataclasses import dataclass
from typing import Protocol


class Facts(Protocol):
    """What a handshake showed of the peer's certificate."""

    @property
    def dns_names(self) -> tuple[str, ...]: ...
    @property
    def ip_names(self) -> tuple[str, ...]: ...
    @property
    def sha256(self) -> str: ...
    @property
    def chain_error(self) -> str: ...
    @property
    def chain_fault(self) -> str: ...
    @property
    def chain(self) -> tuple[bytes, ...]: ...


class NotBelieved(Exception):
    """Nobody vouches for this peer; the message says why, in words a user understands. `fault`: a result type of RFC 8460 §4.3."""

    def __init__(self, reason: str, fault: str = "validation-failure") -> None:
        super().__init__(reason)
        self.fault = fault


@dataclass(frozen=True, slots=True)
class Believed:
    """By what a peer was believed: in words, and as it is remembered; an empty kind is for now only."""

    by: str
    kind: str = "authority"  # authority, pin, dane, signer, always, first-use


def judge(
    facts: Facts | None, host: str, *, authority: str = "a public authority", pins: frozenset[str] = frozenset()
) -> Believed:
    """Raises NotBelieved. A pin (SHA-256 of the certificate, hexadecimal) is enough by itself, and then the only way."""
    if facts is None:
        raise NotBelieved(f"{host} showed no certificate")
    if pins:
        if facts.sha256 in pins:
            return Believed("its pinned certificate")
        raise NotBelieved(
            f"{host} shows another certificate than the one that is pinned: {facts.sha256}", "certificate-not-trusted"
        )
    reasons = [facts.chain_error] if facts.chain_error else []
    if not names_host(facts, host):
        shown = ", ".join((*facts.dns_names, *facts.ip_names)) or "no name at all"
        reasons.append(f"the certificate is for {shown}, not for {host}")
    if reasons:
        raise NotBelieved("; ".join(reasons), facts.chain_fault or "certificate-host-mismatch")
    return Believed(authority)


def names_host(facts: Facts, host: str) -> bool:
    """Subject alternative names only; the common name counts for nothing (RFC 9525 §6.3)."""
    try:
        address = str(ipaddress.ip_address(host))
    except ValueError:
        wanted = host.rstrip(".").lower()
        return any(_matches(name, wanted) for name in facts.dns_names)
    return address in facts.ip_names


def _matches(name: str, host: str) -> bool:
    """A wildcard stands for one whole leftmost label, never for a top level. A NUL in a name spoils it (CVE-2009-2666)."""
    name = name.rstrip(".").lower()
    if "\x00" in name or not name:
        return False
    if not name.startswith("*."):
        return name == host and "*" not in name
    suffix = name[2:]
    if "*" in suffix or suffix.count(".") < 1 or suffix.replace(".", "").isdigit():
        return False
    label, dot, rest = host.partition(".")
    return bool(label and dot) and rest == suffix
