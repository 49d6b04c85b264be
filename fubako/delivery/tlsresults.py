"""`TlsResults`: how TLS went on the way to other domains, counted for their reports (RFC 8460)."""

import json
from collections import Counter

from fubako.clock import Env
from fubako.delivery.assurance import Promise
from fubako.delivery.route import Host, NextHop
from fubako.message.report import visible
from fubako.store import reports
from fubako.store.interface import Database
from fubako.store.reports import Session
from fubako.trust.demand import Known

WRITE_SECONDS = 30.0
KINDS_MAX = 1000  # different results in memory


class TlsResults:
    """Counts in memory and writes now and then: a statistic, not an account."""

    def __init__(self, database: Database, env: Env) -> None:
        self._database, self._env = database, env
        self._seen: Counter[Session] = Counter()
        self._written = float("-inf")

    def note(self, hop: NextHop, host: Host, known: Known, promise: Promise, fault: str, reason: str) -> None:
        """`fault` empty: it went well. Hosts that no DNS named are nobody's business."""
        if not hop.domain or len(self._seen) >= KINDS_MAX:
            return
        if known.tlsa:
            kind = "tlsa"
            policy = [f"{one.usage} {one.selector} {one.matching} {one.data.hex()}" for one in known.tlsa]
        elif promise.policy is not None:
            kind, policy = "sts", promise.text.splitlines()
        else:
            kind, policy = "no-policy-found", []
            fault, reason = promise.fault or fault, promise.reason or reason
        words = visible(reason) if fault else ""
        self._seen[Session(hop.domain, kind, json.dumps(policy), host.name, fault, words)] += 1

    async def write(self, *, now: bool = False) -> None:
        at = self._env.clock.monotonic()
        if not self._seen or (at - self._written < WRITE_SECONDS and not now):
            return
        self._written = at
        seen, self._seen = self._seen, Counter()
        await self._database.write(lambda tx: reports.note_sessions(tx, seen, int(self._env.clock.now())))
