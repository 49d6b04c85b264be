"""Servers that a user's programs have met: which key, how it was accepted, the best protection seen. One file, 0600.

A changed key is told apart from a new one, and a server that could do more before is an alarm.
"""

import base64
import fcntl
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from fubako import modes
from fubako.net.interface import CertificateFacts
from fubako.trust.authority import write_private
from fubako.trust.judge import NotBelieved
from fubako.trust.rules import Rule

HISTORY_MAX = 20
# somebody else vouched for the key, and may vouch for the next one; "always" and "first-use" are about one key
_RENEWABLE = ("authority", "signer", "dane", "pin")
_VERSIONS = ("", "TLSv1.2", "TLSv1.3")


class CertificateChanged(NotBelieved):
    """Another key than the one that was accepted before."""


class Downgraded(NotBelieved):
    """The server could do better before."""


@dataclass(frozen=True, slots=True)
class KnownPeer:
    """One server. `accepted`: "authority", "always" (by the user), "first-use", "signer", "pin",
    "dane". `history`: certificates before this one."""

    host: str
    port: int
    protocol: str
    sha256: str
    spki_sha256: str
    subject: str
    issuer: str
    accepted: str
    first_seen: int
    last_seen: int
    tls: str = ""
    mechanism: str = ""
    history: tuple[str, ...] = ()
    certificate: str = ""  # the leaf's DER in base64


def _day(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")


class KnownPeers:
    """Raises ValueError, OSError when the file cannot be read: it is never taken for empty."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rules: list[Rule] = []
        self._stamp: tuple[int, ...] = ()
        self._peers: dict[tuple[str, int], KnownPeer] = {}
        self._refresh()

    def _refresh(self) -> None:
        """Read the file again where it is another one: every writer puts a new file in its place."""
        try:
            facts = self._path.stat()
        except FileNotFoundError:
            self._stamp, self._rules, self._peers = (), [], {}
            return
        stamp = (facts.st_ino, facts.st_mtime_ns, facts.st_size)
        if stamp != self._stamp:
            self._peers = self._read()
            self._stamp = stamp

    def _read(self) -> dict[tuple[str, int], KnownPeer]:
        found = {}
        kept = json.loads(self._path.read_text())
        self._rules = [Rule(**one) for one in kept.get("rules", [])]
        for facts in kept["peers"]:
            peer = KnownPeer(**{**facts, "history": tuple(facts["history"])})
            found[peer.host, peer.port] = peer
        return found

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """What other programs wrote meanwhile stays; then our change is written over it."""
        modes.folder(self._path.parent)
        lock = self._path.with_name(self._path.name + ".lock")
        with open(lock, "wb", opener=modes.opener) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            self._refresh()
            yield
            facts = {
                "peers": [asdict(peer) for peer in self._sorted()],
                "rules": [asdict(rule) for rule in self._rules],
            }
            write_private(self._path, json.dumps(facts, indent=1).encode())

    def all(self) -> list[KnownPeer]:
        self._refresh()
        return self._sorted()

    def _sorted(self) -> list[KnownPeer]:
        return sorted(self._peers.values(), key=lambda peer: (peer.host, peer.port))

    def find(self, host: str, port: int) -> KnownPeer | None:
        """As it stands in the file now: another program may have written since we looked."""
        self._refresh()
        return self._peers.get((host.lower(), port))

    # -- what a user decided of servers, whether they were met or not

    def rules(self, kind: str = "", host: str = "", port: int = 0) -> list[Rule]:
        """All, or those of a kind that speak of this server."""
        self._refresh()
        return [
            one
            for one in self._rules
            if (not kind or one.kind == kind) and (not host or one.covers(host.lower(), port))
        ]

    def add_rules(self, rules: Iterable[Rule]) -> int:
        """How many of them were new."""
        with self._changing():
            fresh = [one for one in dict.fromkeys(rules) if not any(one.same(known) for known in self._rules)]
            self._rules += fresh
        return len(fresh)

    def replace_rules(self, old: Sequence[Rule], new: Iterable[Rule]) -> None:
        with self._changing():
            self._rules = [one for one in self._rules if one not in old] + list(new)

    def adopt(self, peers: Iterable[KnownPeer]) -> tuple[int, list[KnownPeer]]:
        """Servers that another file knows: (how many are new here, those of whom that file says another key). None is replaced."""
        fresh, others = 0, []
        with self._changing():
            for peer in peers:
                known = self._peers.get((peer.host, peer.port))
                if known is None:
                    self._peers[peer.host, peer.port] = peer
                    fresh += 1
                elif known.sha256 != peer.sha256:
                    others.append(peer)
        return fresh, others

    def forget(self, host: str, port: int) -> bool:
        with self._changing():
            return self._peers.pop((host.lower(), port), None) is not None

    def check(self, host: str, port: int, facts: CertificateFacts, *, by_authority: bool) -> KnownPeer | None:
        """What is known of the server that showed this certificate, None for a new one. Raises CertificateChanged where a
        user's own decision was for another key; an authority's word is as good for a renewed key."""
        return self._checked(self.find(host, port), host, port, facts, by_authority=by_authority)

    @staticmethod
    def _checked(
        known: KnownPeer | None, host: str, port: int, facts: CertificateFacts, *, by_authority: bool
    ) -> KnownPeer | None:
        if known is None or known.sha256 == facts.sha256 or known.spki_sha256 == facts.spki_sha256:
            return known
        if by_authority and known.accepted in _RENEWABLE:
            return known
        raise CertificateChanged(
            f"{host}:{port} shows ANOTHER key than the one that was accepted ({known.accepted}, first seen on"
            f" {_day(known.first_seen)}): was SHA-256 {known.sha256} of {known.subject}, is {facts.sha256} of {facts.subject}"
            f" issued by {facts.issuer}. If the change is right: fubako trust forget {host} {port}"
        )

    def check_tls(self, host: str, port: int, version: str) -> None:
        """Raises Downgraded."""
        known = self.find(host, port)
        if known is not None and version in _VERSIONS and known.tls in _VERSIONS:
            if _VERSIONS.index(version) < _VERSIONS.index(known.tls):
                raise Downgraded(
                    f"{host}:{port} speaks {version}, and spoke {known.tls} before; fubako trust forget {host} {port}"
                )

    def check_starttls(self, host: str, port: int) -> None:
        """A server that had TLS and does not begin it any more. Raises Downgraded."""
        known = self.find(host, port)
        if known is not None and known.tls:
            raise Downgraded(
                f"{host}:{port} spoke {known.tls} before (last on {_day(known.last_seen)}), and does not begin TLS now: somebody on"
                f" the way may hide it; nothing was said. If the change is right: fubako trust forget {host} {port}"
            )

    def check_mechanisms(self, host: str, port: int, offered: list[str]) -> None:
        """A server that knew SCRAM and now wants the password itself. Raises Downgraded."""
        known = self.find(host, port)
        if (
            known is not None
            and known.mechanism.startswith("SCRAM")
            and not any(one.startswith("SCRAM") for one in offered)
        ):
            raise Downgraded(
                f"{host}:{port} offered {known.mechanism} before, and now only {', '.join(offered) or 'nothing'}; nothing was said."
                f" If the change is right: fubako trust forget {host} {port}"
            )

    def note(
        self, host: str, port: int, *, protocol: str, facts: CertificateFacts, accepted: str, tls: str, mechanism: str,
        now: int,
    ) -> None:  # fmt: skip
        """A good connection. What was seen best is kept. Whatever another program decided of this server since it was checked
        here holds: the same judgement is made once more, under the lock. Raises CertificateChanged, Downgraded."""
        fresh = KnownPeer(
            host.lower(),
            port,
            protocol,
            facts.sha256,
            facts.spki_sha256,
            facts.subject,
            facts.issuer,
            accepted,
            now,
            now,
            tls,
            mechanism,
            certificate=base64.b64encode(facts.chain[0]).decode() if facts.chain else "",
        )
        known = self.find(host, port)
        if known is not None and _nothing_new(known, _merged(known, fresh)):
            return
        with self._changing():
            known = self._peers.get((fresh.host, port))
            self._checked(known, host, port, facts, by_authority=accepted in _RENEWABLE)
            self._peers[fresh.host, port] = _merged(known, fresh)


def _merged(known: KnownPeer | None, fresh: KnownPeer) -> KnownPeer:
    """What is remembered after a good connection: the newest key, the best protection of all."""
    if known is None:
        return fresh
    best = max(fresh.tls, known.tls, key=lambda one: _VERSIONS.index(one) if one in _VERSIONS else 0)
    scram = known.mechanism.startswith("SCRAM") and not fresh.mechanism.startswith("SCRAM")
    if known.sha256 == fresh.sha256:
        history, accepted = known.history, fresh.accepted
        if known.accepted == "always":
            accepted = known.accepted  # a user's own decision for this very key outlives an authority's word for it
    else:
        history, accepted = (known.sha256, *known.history)[:HISTORY_MAX], fresh.accepted
    return replace(
        fresh, accepted=accepted, first_seen=known.first_seen, history=history, tls=best,
        mechanism=known.mechanism if scram else fresh.mechanism or known.mechanism,
    )  # fmt: skip


def _nothing_new(known: KnownPeer, merged: KnownPeer) -> bool:
    """Nothing but the time of the last visit, which is written once a day."""
    return replace(merged, last_seen=known.last_seen) == known and merged.last_seen - known.last_seen <= 86400
