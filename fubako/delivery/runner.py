"""`Runner`: leases lanes of the queue and carries what is due, fairly between senders and as fast as each peer bears.

Invariant: an outcome is written only under the epoch of a lease that was not lost; a letter leaves the queue in the transaction
that records what became of it, and puts its report.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from fubako.clock import Env
from fubako.delivery import pipe
from fubako.delivery.again import Again
from fubako.delivery.assurance import Assurance
from fubako.delivery.bounce import Reports, Unit
from fubako.delivery.connecting import Connector
from fubako.delivery.outcome import by_action, outcome_of
from fubako.delivery.remote import Answered, Carrier, Unreachable
from fubako.delivery.route import NextHop, NoRoute, Router
from fubako.delivery.schedule import Schedule
from fubako.delivery.site import Job, Site
from fubako.message.hop import Hop
from fubako.message.report import Reported
from fubako.message.status import Status
from fubako.message.target import File
from fubako.message.trace import journey_with
from fubako.net.interface import StreamClosed, StreamTimeout, TlsError
from fubako.protocol.engine import ProtocolError
from fubako.store import queue
from fubako.store.interface import Blobs, Changes, Database, StoreError, StoreUnavailable, Transaction
from fubako.store.lease import LEASE_SECONDS, LeaseLost, Sightings
from fubako.store.ownership import SegmentLost
from fubako.store.queue import LANES, QUEUE_ACCOUNT, Outcome, Outgoing, Placed, Queued, Target
from fubako.telemetry import Telemetry

LEASE_MARGIN_SECONDS = 10.0  # no letter is begun when the lease ends sooner
LOADED_MAX = 2000  # recipients in memory
FRESH_MAX = 500
OFFERED_MAX = 200  # recipients in memory, up to which new letters are taken without a look
RECENT_MAX = 200
RECENT_OCTETS = 64 * 1024
SESSIONS_MAX = 100
LETTERS_A_CONNECTION = 100
LINGER_SECONDS = 0.2  # a connection waits so long for another letter
GATHER_SECONDS = 0.02  # hints of new letters are looked into together
MISSED_SECONDS = 5
LOOK_SECONDS = 0.25  # a lane is not asked more often for all that is due
REST_SECONDS = 30.0  # after the disk was full
SETTLE_TRIES = 5  # of what was sent already
SETTLE_GAP_SECONDS = 2.0
CLOCK_SECONDS = 10  # a wall clock that went back by less is let be
CLOSE_SECONDS = 5.0  # for what is being said when the server stops


@dataclass(slots=True)
class Lane:
    epoch: int
    until: float  # monotonic
    seen: int = 0  # the newest letter looked at
    look_at: float = 0.0  # monotonic: when something is due that is not in memory
    looked: float = float("-inf")  # on the loop's clock


class Runner:
    """One a process. `owner` names it in the leases."""

    def __init__(
        self, database: Database, blobs: Blobs, changes: Changes, env: Env, telemetry: Telemetry, router: Router,
        reports: Reports, assurance: Assurance, again: Again, hostname: str, owner: str, schedule: Schedule | None = None,
        share: int = LANES,
    ) -> None:  # fmt: skip
        self._database, self._blobs, self._changes = database, blobs, changes
        self._env, self._telemetry, self._router = env, telemetry, router
        self._owner = owner
        self._schedule = schedule or Schedule()
        self._reports, self._again = reports, again
        self._connector = Connector(database, env, telemetry, assurance, hostname)
        self._sightings = Sightings()
        self._offset = float("-inf")  # of the wall clock from the one that nobody sets
        self._share = share  # how many lanes the first look takes; later everything that nobody else has
        self._lanes: dict[int, Lane] = {}
        self._loaded: set[tuple[int, int, int]] = set()
        self._recent: OrderedDict[int, bytes] = OrderedDict()  # contents of letters that have just come in, by blob
        self._sites: dict[str, Site] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self._hinted: set[int] = set()
        self._asked = float("-inf")  # when lanes were last asked for
        self._resting = float("-inf")  # until then nothing is sent, because its outcome could not be written
        self._closing = self._gathering = False
        self._main: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._end_hints = self._changes.subscribe(QUEUE_ACCOUNT, self._hint)
        self._main = asyncio.get_running_loop().create_task(self._run())

    def _hint(self, lane_id: int) -> None:
        self._hinted.add(lane_id)
        self._wake.set()

    async def close(self) -> None:
        """Let what is being said be finished, for a moment; give the lanes back."""
        self._closing = True
        self._wake.set()
        if self._main is None:
            return
        self._end_hints()
        await self._main
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=CLOSE_SECONDS)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        with suppress(StoreError):
            await self._connector.results.write(now=True)
            await self._database.write(lambda tx: queue.release(tx, self._owner))

    # -- what has just come in

    def lanes(self) -> tuple[int, ...]:
        """Where a letter may be put that is offered right after its commit; none while this worker has enough to do."""
        if self._closing or len(self._loaded) >= OFFERED_MAX or asyncio.get_running_loop().time() < self._resting:
            return ()
        margin = self._env.clock.monotonic() + LEASE_MARGIN_SECONDS
        return tuple(lane_id for lane_id, lane in self._lanes.items() if lane.until > margin and lane.seen)

    def offer(self, placed: Placed, letter: Outgoing, targets: Sequence[Target], content: bytes) -> None:
        """A letter whose rows were committed a moment ago, into a lane of ours: no need to read them again."""
        lane = self._lanes.get(placed.lane_id)
        if lane is None or self._closing or placed.queue_id <= lane.seen:  # a look was quicker, or will be
            self._hint(placed.lane_id)
            return
        ways: dict[str, list[Queued]] = {}
        for number, one in enumerate(targets):
            queued = Queued(
                placed.lane_id, placed.queue_id, number, one.address, one.domain, one.notify, one.orcpt, 0, 0, one.way, one.target
            )  # fmt: skip
            ways.setdefault(self._router.key(one.way, one.domain), []).append(queued)
        if len(content) <= RECENT_OCTETS:
            self._recent[letter.blob.blob_id] = content
            if len(self._recent) > RECENT_MAX:
                self._recent.popitem(last=False)
        for recipients in ways.values():
            self._add(Job(placed.lane_id, lane.epoch, letter, tuple(recipients)))
        if not self._gathering:  # what comes in together goes out together, and is settled together
            self._gathering = True
            asyncio.get_running_loop().call_later(GATHER_SECONDS, self._gathered)

    def _gathered(self) -> None:
        self._gathering = False
        self._dispatch()

    # -- what is due

    async def _run(self) -> None:
        loop, last = asyncio.get_running_loop(), 0.0
        while not self._closing:
            await asyncio.sleep(max(0.0, last + GATHER_SECONDS - loop.time()))
            self._wake.clear()
            last = loop.time()
            pause = LEASE_SECONDS / 4
            try:
                await self._lease()
                pause = min(pause, await self._load())
            except StoreError as error:
                self._telemetry.event("queue.error", reason=str(error))
            except Exception as error:  # our bug: the queue goes on
                self._telemetry.event("queue.bug", error=repr(error))
            self._dispatch()
            with suppress(StoreError):
                await self._connector.results.write()
            with suppress(TimeoutError):
                async with asyncio.timeout(max(pause, 0.05)):
                    await self._wake.wait()

    async def _lease(self) -> None:
        monotonic = self._env.clock.monotonic()
        at = asyncio.get_running_loop().time()
        fresh = all(lane.until - monotonic > LEASE_SECONDS * 0.7 for lane in self._lanes.values())
        if fresh and at - self._asked < LEASE_SECONDS / 4:
            return
        self._asked = at
        self._sightings.note(await self._database.read(queue.lanes), monotonic)
        gone = {lane_id: self._sightings.gone(lane_id, monotonic) for lane_id in range(LANES)}

        def unit(tx: Transaction) -> dict[int, int]:
            epochs: dict[int, int] = {}
            for lane_id in range(LANES):
                epoch = None
                if len(epochs) < self._share:
                    epoch = queue.take(tx, lane_id, self._owner, gone[lane_id])
                if epoch is not None:
                    epochs[lane_id] = epoch
            return epochs

        epochs = await self._database.write(unit)
        self._share = LANES
        for lane_id in list(self._lanes):
            if lane_id not in epochs:
                del self._lanes[lane_id]
        for lane_id, epoch in epochs.items():
            lane = self._lanes.get(lane_id)
            if lane is not None and lane.epoch == epoch:
                lane.until = monotonic + LEASE_SECONDS
            else:
                self._lanes[lane_id] = Lane(epoch, monotonic + LEASE_SECONDS)

    async def _load(self) -> float:
        """Take what is due into memory; how long it is until something else will be."""
        now, pause = self._env.clock.monotonic(), LEASE_SECONDS
        await self._follow_clock(now)
        hinted, self._hinted = self._hinted, set()
        for lane_id, lane in list(self._lanes.items()):
            if lane_id in hinted:
                lane.look_at = 0.0
            if lane.look_at <= now or lane_id in hinted:
                await self._look(lane_id, lane, fresh=lane_id in hinted)
            pause = min(pause, max(lane.look_at - now, LOOK_SECONDS))
        return pause

    async def _look(self, lane_id: int, lane: Lane, *, fresh: bool) -> None:
        """New letters at a hint; everything that is due when it is time, but not too often."""
        now, monotonic = int(self._env.clock.now()), self._env.clock.monotonic()
        at = asyncio.get_running_loop().time()
        everything = lane.look_at <= monotonic and at - lane.looked >= LOOK_SECONDS
        if everything:
            await self._bring_back(lane_id, now)
        room = len(self._loaded) < LOADED_MAX // 2

        def unit(tx: Transaction) -> tuple[list[Job], int, int | None, bool]:
            found = queue.due(tx, lane_id, now, LOADED_MAX + len(self._loaded)) if everything and room else []
            full = len(found) >= LOADED_MAX
            if lane.seen and fresh:
                found += queue.fresh(tx, lane_id, lane.seen, now, FRESH_MAX)
            wanted = {one.key: one for one in found if one.key not in self._loaded}
            later = queue.next_due(tx, lane_id, now) if everything else None
            return self._jobs(tx, lane, wanted.values()), queue.newest(tx, lane_id), later, full

        jobs, newest, later, full = await self._database.read(unit)
        if everything or lane.seen:
            lane.seen = newest
        if everything:
            lane.looked = at
            wait = (
                0 if full or not room else min((later or now + MISSED_SECONDS) - now, MISSED_SECONDS)
            )  # hints are missed
            lane.look_at = monotonic + wait
        for job in jobs:
            self._add(job)

    async def _follow_clock(self, monotonic: float) -> None:
        """When the wall clock goes back under our eyes, what was planned by it is planned anew."""
        now = self._env.clock.now()
        offset, before = now - monotonic, self._offset
        self._offset = offset
        back = int(before - offset) if before > float("-inf") else 0
        if back < CLOCK_SECONDS:
            return
        for lane_id, lane in self._lanes.items():
            await self._database.write(lambda tx, one=lane_id: queue.shift_back(tx, one, int(now), back))  # type: ignore[misc]  # binds the loop's value
            lane.look_at = 0.0
        self._telemetry.event("queue.clock_went_back", seconds=back)

    async def _bring_back(self, lane_id: int, now: int) -> None:
        """The wall clock may have gone back while nobody looked, too; no letter waits longer than any schedule says."""
        longest = self._schedule.longest_wait
        displaced = await self._database.read(lambda tx: queue.displaced(tx, lane_id, now, longest))
        if displaced:
            await self._database.write(lambda tx: queue.bring_back(tx, lane_id, displaced, now))
            self._telemetry.event("queue.brought_back", lane=lane_id, recipients=len(displaced))

    def _jobs(self, tx: Transaction, lane: Lane, found: Iterable[Queued]) -> list[Job]:
        ways: dict[tuple[int, int, str], list[Queued]] = {}
        for one in found:
            ways.setdefault((one.lane_id, one.queue_id, self._router.key(one.way, one.domain)), []).append(one)
        jobs, letters = [], dict[tuple[int, int], Outgoing | None]()
        for (lane_id, queue_id, _), recipients in ways.items():
            if (lane_id, queue_id) not in letters:
                letters[lane_id, queue_id] = queue.letter(tx, lane_id, queue_id)
            letter = letters[lane_id, queue_id]
            if letter is not None:
                jobs.append(Job(lane_id, lane.epoch, letter, tuple(recipients)))
        return jobs

    def _add(self, job: Job) -> None:
        way, domain = job.recipients[0].way, job.recipients[0].domain
        key = self._router.key(way, domain)
        self._loaded.update(one.key for one in job.recipients)
        self._sites.setdefault(key, Site(key, way, domain)).add(job)

    def _dispatch(self) -> None:
        if self._closing or asyncio.get_running_loop().time() < self._resting:
            return
        for key, site in list(self._sites.items()):
            while site.waiting > site.idle and site.active < int(site.limit) and len(self._tasks) < SESSIONS_MAX:
                site.active += 1
                task = asyncio.get_running_loop().create_task(self._serve(site))
                self._tasks.add(task)
                task.add_done_callback(self._ended)
                if site.active >= site.waiting + site.idle:
                    break  # one session for each letter is enough
            if not site.jobs and not site.active:
                del self._sites[key]

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._dispatch()

    # -- one way out

    async def _serve(self, site: Site) -> None:
        carrier: Carrier | None = None
        job = site.take()
        try:
            hop = await self._router.next_hop(site.way, site.domain) if job else None
            if hop is not None and hop.key != site.key:  # the routes were written anew meanwhile
                self._let_go([*([job] if job else []), *site.take_all()])
                return
            while job is not None and hop is not None:
                if hop.kind in ("program", "file"):
                    await self._by_program(job, hop)
                elif hop.kind == "again":
                    await self._by_intake(job)
                else:
                    if carrier is None:
                        carrier = await self._connector.connect(hop, job.letter)
                    await self._carry(job, hop, carrier)
                    site.went_well()
                job = None
                if not self._closing and (carrier is None or carrier.carried < LETTERS_A_CONNECTION):
                    job = await site.next(LINGER_SECONDS) if carrier is not None else site.take()
        except NoRoute as problem:
            await self._all([*([job] if job else []), *site.take_all()], problem.status)
        except Unreachable as problem:
            site.went_badly()
            alone = carrier is not None or (problem.weak and job is not None and job.letter.require_tls)
            rest = [] if alone else site.take_all()
            await self._all([*([job] if job else []), *rest], problem.status)
        except (LeaseLost, StoreUnavailable) as error:
            if isinstance(error, StoreUnavailable):
                self._resting = asyncio.get_running_loop().time() + REST_SECONDS
            self._let_go([job] if job is not None else [])
            self._telemetry.event("queue.error", reason=str(error))
        except StoreError as error:  # the content cannot be read
            await self._all(
                [job] if job is not None else [], Status(451, "4.3.0", f"the store cannot be read: {error}")
            )
        except Exception as error:  # our bug: this letter waits, the others go on
            self._telemetry.event("queue.bug", job.letter.trace_id if job else "", error=repr(error))
            await self._all([job] if job is not None else [], Status(451, "4.3.0", "an error on our side"))
        finally:
            site.active -= 1
            if carrier is not None:
                await carrier.quit()

    def _let_go(self, jobs: Iterable[Job]) -> None:
        """Out of memory again; what is still due is found at the next look."""
        for job in jobs:
            self._loaded.difference_update(one.key for one in job.recipients)
        for lane in self._lanes.values():
            lane.look_at = 0.0

    async def _by_program(self, job: Job, hop: NextHop) -> None:
        self._held(job, LEASE_MARGIN_SECONDS)
        content = await self._content(job.letter)
        for target, together in pipe.ways(hop.route, job.recipients):
            status = await pipe.hand(target, job.letter, together, content)
            name = target.path if isinstance(target, File) else target.words[0]
            done = Hop(hop.kind, "out", name, self._env.clock.now(), True, trace_id=job.letter.trace_id)
            await self._settle(job, [Answered(one, status) for one in together], name, done)

    async def _by_intake(self, job: Job) -> None:
        """Letters whose time has come, or that somebody wants anew, go through the intake, in the transaction that ends them."""
        self._held(job, LEASE_MARGIN_SECONDS)
        statuses, unit = await self._again.plan(job.letter, job.recipients, await self._content(job.letter))
        answers = [
            Answered(one, status, reports=True, again=status.ok)
            for one, status in zip(job.recipients, statuses, strict=True)
        ]
        await self._settle(job, answers, "", None, unit)

    async def _carry(self, job: Job, hop: NextHop, carrier: Carrier) -> None:
        """One letter over an open connection. Raises Unreachable when the connection fails."""
        self._held(job, LEASE_MARGIN_SECONDS)
        name = carrier.peer.server_name
        await self._connector.enough(carrier, hop, job.letter)
        try:
            content = await self._content(job.letter)
            answers = await carrier.deliver(job.letter, job.recipients, content, lambda: self._held(job, 0.0))
        except (ProtocolError, StreamClosed, StreamTimeout, TlsError) as error:
            raise Unreachable(Status(451, "4.4.2", f"{name}: the connection failed: {error}")) from None
        await self._settle(job, answers, name, carrier.hop(job.letter.trace_id))

    def _held(self, job: Job, seconds: float) -> Lane:
        """The lane of a job, when it is still ours, and for that much longer. Raises LeaseLost."""
        lane = self._lanes.get(job.lane_id)
        if lane is None or lane.epoch != job.epoch or lane.until - self._env.clock.monotonic() <= seconds:
            raise LeaseLost(f"lane {job.lane_id} is not ours for long enough")
        return lane

    async def _content(self, letter: Outgoing) -> bytes:
        """The letter as it goes on: Return-Path belongs to final delivery alone (RFC 5321 §4.4)."""
        content = self._recent.get(letter.blob.blob_id) or await self._blobs.read(letter.blob)
        return content[content.index(b"\r\n") + 2 :] if content.startswith(b"Return-Path:") else content

    # -- outcomes

    async def _all(self, jobs: Sequence[Job], status: Status) -> None:
        for job in jobs:
            try:
                await self._settle(job, [Answered(one, status) for one in job.recipients], "", None)
            except StoreError as error:
                self._telemetry.event("queue.error", job.letter.trace_id, reason=str(error))

    async def _settle(
        self, job: Job, answers: Sequence[Answered], peer: str, hop: Hop | None, also: Unit | None = None
    ) -> None:
        """Write what became of each recipient, and the reports, in one transaction."""
        now, letter = int(self._env.clock.now()), job.letter
        try:
            lane = self._held(job, 0.0)
            journey = letter.journey
            if hop is not None:
                journey = journey_with(letter.journey, hop)
            judged = [outcome_of(letter, one, peer, now, journey, self._schedule, self._chance) for one in answers]
            told = [(outcome.queued.notify, reported) for outcome, reported in judged if reported is not None]
            content = await self._blobs.read(letter.blob) if told else b""

            async def written() -> None:
                units = [await self._reports.prepare(letter, content, group) for group in by_action(told)]

                def unit(tx: Transaction, epoch: int = lane.epoch) -> None:
                    queue.settle(tx, job.lane_id, epoch, letter.trace_id, [outcome for outcome, _ in judged], now)
                    for report in [*units, also]:
                        if report is not None:
                            report(tx)

                await self._written(unit)

            try:
                await written()
            except SegmentLost:  # of a report: nobody is to get the message again for that
                await written()
            for outcome, reported in judged:
                if outcome.again_at is not None:
                    lane.look_at = min(lane.look_at, self._env.clock.monotonic() + outcome.again_at - now)
                self._tell(letter, outcome, reported)
        except LeaseLost:
            self._lanes.pop(job.lane_id, None)
            raise
        finally:
            self._recent.pop(letter.blob.blob_id, None)
            self._loaded.difference_update(one.queued.key for one in answers)

    async def _written(self, unit: Callable[[Transaction], None]) -> None:
        """What was sent is sent: that it cannot be written just now, or that the server ends, is no reason to send it again."""
        for left in reversed(range(SETTLE_TRIES)):
            try:
                await asyncio.shield(self._database.write(unit, patient=True))
                return
            except SegmentLost:
                raise
            except StoreUnavailable:
                if not left:
                    raise
                await asyncio.sleep(SETTLE_GAP_SECONDS)

    def _chance(self) -> float:
        return self._env.random(1)[0] / 256

    def _tell(self, letter: Outgoing, outcome: Outcome, reported: Reported | None) -> None:
        what = "deferred" if outcome.again_at is not None else ("sent" if outcome.status.ok else "failed")
        self._telemetry.event(
            f"letter.{what}", letter.trace_id, recipient=outcome.queued.shown, peer=outcome.peer, reply=str(outcome.status),
            reported=reported.action if reported else "",
        )  # fmt: skip
