"""What is told to other domains, and what they tell us: counts by day of TLS sessions (RFC 8460) and of letters (RFC 9990)."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from fubako.store.interface import Row, Transaction

KEEP_DAYS = 14
DAY = 86_400


def day_of(now: int) -> str:
    """YYYY-MM-DD in UTC."""
    return datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%d")


def begin_of(day: str) -> int:
    """The first second of a day."""
    return int(datetime.strptime(day, "%Y-%m-%d").replace(tzinfo=UTC).timestamp())


@dataclass(frozen=True, slots=True)
class Seen:
    """One letter, for the report to its author's domain. `signatures` are (domain, selector, result)."""

    domain: str
    source: str
    disposition: str  # none, quarantine or reject
    dkim_aligned: bool
    spf_aligned: bool
    spf_domain: str
    spf_result: str
    signatures: tuple[tuple[str, str, str], ...]
    found: str  # the domain whose policy it was


def note_letter(tx: Transaction, seen: Seen, now: int) -> None:
    facts = json.dumps(asdict(seen), sort_keys=True, ensure_ascii=False)
    tx.run("INSERT INTO dmarc_result (day, domain, source, facts, letters) VALUES (?,?,?,?,1)"
           " ON CONFLICT (day, domain, source, facts) DO UPDATE SET letters=dmarc_result.letters+1",
           (day_of(now), seen.found, seen.source, facts))  # fmt: skip


def letters(tx: Transaction, day: str, domain: str) -> list[tuple[Seen, int]]:
    rows = tx.rows(
        "SELECT facts, letters FROM dmarc_result WHERE day=? AND domain=? ORDER BY source, facts", (day, domain)
    )
    found = []
    for facts, count in rows:
        raw = json.loads(facts)
        raw["signatures"] = tuple(tuple(one) for one in raw["signatures"])
        found.append((Seen(**raw), int(count)))
    return found


@dataclass(frozen=True, slots=True)
class Session:
    """One TLS session, or the lack of one, on the way to a domain. `kind` is sts, tlsa or no-policy-found; `fault` is a result
    type of RFC 8460 §4.3, empty when it went well."""

    domain: str
    kind: str
    policy: str  # JSON: the policy as strings
    mx: str
    fault: str = ""
    reason: str = ""


def note_sessions(tx: Transaction, seen: Mapping[Session, int], now: int) -> None:
    day = day_of(now)
    tx.many("INSERT INTO tls_result (day, domain, kind, policy, mx, fault, reason, sessions) VALUES (?,?,?,?,?,?,?,?)"
            " ON CONFLICT (day, domain, kind, policy, mx, fault, reason) DO UPDATE"
            " SET sessions=tls_result.sessions+excluded.sessions",
            [(day, s.domain, s.kind, s.policy, s.mx, s.fault, s.reason, count) for s, count in seen.items()])  # fmt: skip


def sessions(tx: Transaction, day: str, domain: str) -> list[Row]:
    """(kind, policy, mx, fault, reason, sessions)."""
    return tx.rows("SELECT kind, policy, mx, fault, reason, sessions FROM tls_result WHERE day=? AND domain=?"
                   " ORDER BY kind, policy, mx, fault, reason", (day, domain))  # fmt: skip


def unsent(tx: Transaction, kind: str, before: str) -> list[tuple[str, str]]:
    """(day, domain) of whole days that nobody was told of yet."""
    table = "tls_result" if kind == "tls" else "dmarc_result"
    rows = tx.rows(f"SELECT DISTINCT day, domain FROM {table} AS r WHERE day<? AND NOT EXISTS (SELECT 1 FROM report_sent AS s"
                   " WHERE s.kind=? AND s.day=r.day AND s.domain=r.domain) ORDER BY day, domain", (before, kind))  # fmt: skip
    return [(row[0], row[1]) for row in rows]


def note_sent(tx: Transaction, kind: str, day: str, domain: str) -> bool:
    """Whether it was not noted yet: one worker of several sends it."""
    if tx.row("SELECT 1 FROM report_sent WHERE kind=? AND day=? AND domain=?", (kind, day, domain)):
        return False
    tx.run("INSERT INTO report_sent (kind, day, domain) VALUES (?,?,?)", (kind, day, domain))
    return True


def summary(tx: Transaction, kind: str) -> list[Row]:
    """TLS: (day, domain, kind, mx, fault, reason, sessions). DMARC: (day, domain, source, facts, letters)."""
    if kind == "tls":
        return tx.rows("SELECT day, domain, kind, mx, fault, reason, sessions FROM tls_result"
                       " ORDER BY day DESC, domain, fault")  # fmt: skip
    return tx.rows("SELECT day, domain, source, facts, letters FROM dmarc_result ORDER BY day DESC, domain, source")


def keep_received(tx: Transaction, kind: str, report_id: str, domain: str, now: int, report: str) -> bool:
    """A report that somebody sent us; whether it is new."""
    if tx.row("SELECT 1 FROM report_received WHERE kind=? AND id=?", (kind, report_id)):
        return False
    tx.run("INSERT INTO report_received (kind, id, domain, received, report) VALUES (?,?,?,?,?)",
           (kind, report_id, domain, now, report))  # fmt: skip
    return True


def received(tx: Transaction, kind: str) -> list[Row]:
    return tx.rows(
        "SELECT id, domain, received, report FROM report_received WHERE kind=? ORDER BY received, id", (kind,)
    )


def forget(tx: Transaction, now: int) -> None:
    before = day_of(now - KEEP_DAYS * DAY)
    for table in ("tls_result", "dmarc_result", "report_sent"):
        tx.run(f"DELETE FROM {table} WHERE day<?", (before,))
