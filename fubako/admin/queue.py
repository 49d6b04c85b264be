"""The queue as an administrator sees it: what waits, why, and what can be done about it."""

from dataclasses import asdict
from typing import Any

from fubako.clock import Env
from fubako.message.trace import mail_date
from fubako.store import peers, waiting
from fubako.store.interface import Database, StoreError, Transaction
from fubako.store.waiting import Entry, Selection

AGES_MINUTES = (5, 10, 20, 40, 80, 160, 320, 640, 1280)


async def listed(database: Database, selection: Selection, limit: int) -> list[dict[str, Any]]:
    """One row a recipient; JSON values, times in seconds since the epoch."""
    found = await database.read(lambda tx: waiting.entries(tx, selection, limit))
    return [asdict(one) | {"held": bool(one.held)} for one in found]


async def why(database: Database, env: Env, name: str) -> list[dict[str, Any]]:
    """For each recipient of a letter a sentence: what happened, what happens next, and when. Raises StoreError."""
    found = await database.read(lambda tx: waiting.entries(tx, Selection(queue_id=name)))
    if not found:
        raise StoreError(f"there is no letter {name} in the queue")
    now = int(env.clock.now())
    return [{"queue_id": one.queue_id, "recipient": one.recipient, "why": sentence(one, now)} for one in found]


def sentence(one: Entry, now: int) -> str:
    """Why a recipient is still in the queue, in words."""
    past = "it has not been tried yet"
    if one.attempts:
        times = "once" if one.attempts == 1 else f"{one.attempts} times"
        by = f" by {one.peer}" if one.peer else ""
        past = f"it was tried {times}; the last answer{by} was: {one.status}"
    if one.held:
        return f"{past}. It is held, and stays until `fubako queue release {one.queue_id}`."
    wait = one.next_attempt - now
    when = "now" if wait <= 0 else f"in {_span(wait)}, on {mail_date(one.next_attempt)}"
    return f"{past}. It is tried {'next ' if wait > 0 else ''}{when}."


def _span(seconds: int) -> str:
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} seconds"


async def change(database: Database, env: Env, action: str, selection: Selection) -> int:
    """`retry`, `requeue`, `hold`, `release` or `drop` what is selected; how many recipients that were."""

    def unit(tx: Transaction) -> int:
        now = int(env.clock.now())
        match action:
            case "retry":
                return waiting.retry(tx, selection, now)
            case "requeue":
                return waiting.requeue(tx, selection, now)
            case "drop":
                return waiting.drop(tx, selection, now)
            case _:
                return waiting.hold(tx, selection, held=action == "hold")

    return await database.write(unit)


async def hold_rules(database: Database) -> list[dict[str, Any]]:
    rows = await database.read(waiting.hold_rules)
    return [{"field": row[0], "value": row[1], "reason": row[2], "since": mail_date(row[3])} for row in rows]


async def add_hold_rule(database: Database, env: Env, field: str, value: str, reason: str) -> None:
    await database.write(lambda tx: waiting.add_hold_rule(tx, field, value, reason, int(env.clock.now())))


async def remove_hold_rule(database: Database, field: str, value: str) -> None:
    """Raises StoreError."""
    if not await database.write(lambda tx: waiting.remove_hold_rule(tx, field, value)):
        raise StoreError(f"there is no rule for the {field} {value}")


async def summary(database: Database, env: Env) -> list[dict[str, Any]]:
    """How many recipients wait for each domain, by age in minutes."""
    now, edges = int(env.clock.now()), [minutes * 60 for minutes in AGES_MINUTES]
    rows = await database.read(lambda tx: waiting.summary(tx, now, edges))
    heads = [*(str(minutes) for minutes in AGES_MINUTES), f"{AGES_MINUTES[-1]}+"]
    total = ("total", sum(row[1] for row in rows), [sum(ages) for ages in zip(*(row[2] for row in rows), strict=True)])
    shown = [total, *rows] if rows else []
    return [{"domain": name, "recipients": count, **dict(zip(heads, ages, strict=True))} for name, count, ages in shown]


async def known_peers(database: Database) -> list[dict[str, Any]]:
    """What servers were seen to offer, and whether less will be refused."""
    words = ("no encryption", "encrypted", "encrypted and believed")
    best: dict[str, list[peers.Sighting]] = {}
    for one in await database.read(peers.listed):
        best.setdefault(one.endpoint, []).append(one)
    return [
        {
            "server": server,
            "best": words[seen[-1].level],
            "demanded": words[max((one.level for one in seen if one.proved), default=0)],
            "first_seen": seen[0].since,
            "last_seen": max(one.last for one in seen),
        }
        for server, seen in best.items()
    ]


async def forget_peer(database: Database, server: str) -> None:
    """`server` as `known_peers` names it. Raises StoreError."""
    if not await database.write(lambda tx: peers.forget(tx, server.lower())):
        raise StoreError(f"nothing is remembered of {server}")
