"""Bodies that signatures cover, hashed once for all of them: small ones where they are asked for, large ones by a worker."""

import asyncio

from fubako.message.canonical import BodyHashes, Wanted
from fubako.policy.dkim import DkimError, Letter, canonical_forms, number, parse_tags
from fubako.scan.jobs import JobFailed
from fubako.scan.pool import Pool
from fubako.scan.turns import Asker

LARGE_OCTETS = 1024 * 1024
SIGNATURES_MAX = 64  # of one message, DKIM's and ARC's together
OURS: Wanted = ("relaxed", None)  # what we sign and seal
_SIGNATURES = (b"dkim-signature", b"arc-message-signature")


async def hash_large(letter: Letter, pool: Pool | None, *, ours: bool = False) -> None:
    """Afterwards `letter` answers at once whatever a signature asks of its body (`ours`: and what our own says).

    Where no worker can be had, or one fails, it is done here, a slice at a time, and others have their turns in between.
    """
    if len(letter.body) <= LARGE_OCTETS:
        return
    wanted = tuple(dict.fromkeys(([OURS] if ours else []) + asked(letter)))
    if not wanted:
        return
    if pool is not None:
        try:
            hashed = await pool.hash_body(letter.body, wanted, Asker())
            letter.know(dict(zip(wanted, hashed.digests, strict=True)), dict(hashed.sizes))
            return
        except (JobFailed, ValueError) as failed:
            pool.telemetry.event("scan.hashed_here", reason=str(failed), octets=len(letter.body))
    made = BodyHashes(wanted)
    for _ in made.steps(letter.body):
        await asyncio.sleep(0)
    letter.know(made.digests(), made.sizes())


def asked(letter: Letter) -> list[Wanted]:
    """What the signatures of a message cover of its body; one that cannot be read asks nothing."""
    found: list[Wanted] = []
    signatures = [raw for name, raw in letter.fields if name in _SIGNATURES]
    for raw in signatures[:SIGNATURES_MAX]:
        try:
            tags = parse_tags(raw.partition(b":")[2])
            found.append(letter.wanted(canonical_forms(tags.get("c", ""))[1], number(tags, "l")))
        except DkimError:
            continue
    return found
