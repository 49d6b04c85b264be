"""Reports of others, read and kept; what we saw ourselves, summed up."""

import json
from collections.abc import Sequence
from typing import Any

from fubako.accounts import directory
from fubako.clock import Env
from fubako.scan.jobs import JobFailed, ReadReport
from fubako.scan.pool import Pool
from fubako.scan.turns import Asker
from fubako.store import reports
from fubako.store.interface import BlobRef, Blobs, Database, Transaction
from fubako.store.mailboxes import INBOX_ID


async def seen(database: Database, kind: str) -> list[dict[str, Any]]:
    rows = await database.read(lambda tx: reports.summary(tx, kind))
    if kind == "tls":
        heads = ("day", "domain", "policy", "mx", "fault", "reason", "sessions")
        return [dict(zip(heads, row, strict=True)) for row in rows]
    found = []
    for day, domain, source, facts, letters in rows:
        one = json.loads(facts)
        found.append(
            {
                "day": day, "domain": domain, "source": source, "disposition": one["disposition"],
                "dkim": "pass" if one["dkim_aligned"] else "fail", "spf": "pass" if one["spf_aligned"] else "fail",
                "letters": letters,
            }
        )  # fmt: skip
    return found


async def read(
    database: Database, blobs: Blobs, pool: Pool, env: Env, given: Sequence[tuple[str, bytes]], *, mailbox: str
) -> list[dict[str, Any]]:
    """`given` are (name, octets): messages, or reports as they were attached. A worker reads them. One row each."""
    waiting = list(given)
    if mailbox:
        waiting += [
            (f"{mailbox} UID {uid}", await blobs.read(ref))
            for uid, ref in await database.read(lambda tx: _inbox(tx, mailbox))
        ]
    rows = []
    for name, octets in waiting:
        try:
            read = await pool.reports(octets, Asker())
        except JobFailed as failed:
            rows.append(_unread(name, str(failed)))
            continue
        rows += [_unread(name, read.problem)] if read.problem else []
        rows += [await _keep(database, env, name, one) for one in read.found]
    return rows


def _unread(name: str, problem: str) -> dict[str, Any]:
    return {"from": name, "kind": "", "organization": "", "domain": "", "new": False, "problem": problem}


def _inbox(tx: Transaction, mailbox: str) -> list[tuple[int, BlobRef]]:
    account_id = directory.account(tx, mailbox).account_id
    rows = tx.rows(
        "SELECT uid, blob_id, segment, place, size FROM message WHERE account_id=? AND mailbox_id=? ORDER BY uid",
        (account_id, INBOX_ID),
    )
    return [(row[0], BlobRef(*row[1:])) for row in rows]


async def _keep(database: Database, env: Env, name: str, one: ReadReport) -> dict[str, Any]:
    identity, now = f"{one.organization}/{one.id}", int(env.clock.now())
    new = await database.write(lambda tx: reports.keep_received(tx, one.kind, identity, one.domain, now, one.text))
    return {
        "from": name, "kind": one.kind, "organization": one.organization, "domain": one.domain, "new": new, "problem": "",
    }  # fmt: skip


async def received(database: Database, kind: str) -> list[dict[str, Any]]:
    rows = []
    for identity, domain, _, text in await database.read(lambda tx: reports.received(tx, kind)):
        one = json.loads(text)
        row = {
            "organization": identity.partition("/")[0],
            "domain": domain,
            "day": reports.day_of(one["head"]["begin"]),
        }
        if kind == "tls":
            faults = [fault for policy in one["policies"] for fault in policy["faults"]]
            row |= {
                "good": sum(policy["successes"] for policy in one["policies"]),
                "failed": sum(fault[3] for fault in faults),
                "faults": ", ".join(sorted({fault[0] for fault in faults})),
            }
        else:
            letters = one["letters"]
            good = sum(each["count"] for each in letters if each["dkim_aligned"] or each["spf_aligned"])
            row |= {
                "good": good,
                "failed": sum(each["count"] for each in letters) - good,
                "sources": ", ".join(
                    sorted({each["source"] for each in letters if not (each["dkim_aligned"] or each["spf_aligned"])})[
                        :5
                    ]
                ),
            }
        rows.append({**row, "details": one})
    return rows
