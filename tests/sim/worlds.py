"""Whole systems on a virtual clock: a Fubako with two workers that takes letters and relays them to another Fubako and to a moody
server, while power, network, DNS and a man in the middle do what they like; real engines, sessions, queue, SQLite and OpenSSL.

Every recipient that was accepted ends in exactly one of delivered, bounced and queued; a letter comes twice only where its end of
data went unanswered; nothing goes in the clear where TLS is demanded.

python tests/sim/worlds.py --worlds 300 --seed 0 [--mutant NAME]
"""

import argparse
import asyncio
import contextlib
import logging
import os
import random
import re
import sys
import tempfile
import time
import warnings
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import apsw
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

sys.path.insert(0, str(Path(__file__).parent.parent))
sys.path.insert(0, str(Path(__file__).parent))

from keeping import put
from simdisk import PowerCut, SimDisk, SimVfs
from simloop import PROCESS, NothingLeft, Process, SimClock, SimLoop
from simnet import SimNet
from zone import Zone

from fubako import app
from fubako.accounts import directory
from fubako.app import application
from fubako.clock import Env
from fubako.config import Certificate as CertificateSettings
from fubako.config import Config, Queue, Route, Tls
from fubako.delivery import connecting, remote
from fubako.delivery.bounce import Reports
from fubako.delivery.runner import Lane, Runner
from fubako.message.status import Status
from fubako.net import tcp
from fubako.net.interface import DnsFailure
from fubako.net.tls import Certificate, ServerTls
from fubako.store import queue
from fubako.store.changes import LocalChanges
from fubako.store.compaction import Keeper
from fubako.store.interface import StoreError
from fubako.store.segments import SegmentCore
from fubako.store.sqlite import PATIENCE_SECONDS, SqliteCore
from fubako.telemetry import Telemetry
from fubako.trust.demand import Demand, Level

A, B, C = "10.0.0.1", "10.0.0.2", "10.0.0.3"
CHAOS_SECONDS = 900.0
CALM_SECONDS = 4 * 3600.0
USERS = 3
MARK = "SECRET-WORDS"


class Violation(AssertionError):
    pass


class NoLogins:
    """Nobody logs in here, and each argon2 would cost as much as ten hours of the world."""

    def __init__(self, *_facts, **_more) -> None:
        pass

    def mechanisms(self, _bindings) -> list[str]:
        return ["PLAIN"]

    def close(self) -> None:
        pass


application.Logins = NoLogins


# -- certificates: Ed25519, so that nothing depends on the length of a signature


def _certificate(folder: Path, name: str, names: list[str], issuer=None):
    key = Ed25519PrivateKey.generate()
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    start = datetime.fromtimestamp(0, UTC)
    builder = (
        x509.CertificateBuilder().subject_name(subject).public_key(key.public_key()).serial_number(x509.random_serial_number())
        .not_valid_before(start).not_valid_after(start + timedelta(days=40_000))
        .issuer_name(issuer[1].subject if issuer else subject)
        .add_extension(x509.BasicConstraints(ca=not names, path_length=None), critical=True)
    )  # fmt: skip
    if names:
        builder = builder.add_extension(
            x509.SubjectAlternativeName([x509.DNSName(one) for one in names]), critical=False
        )
    made = builder.sign(issuer[0] if issuer else key, None)
    (folder / f"{name}.pem").write_bytes(made.public_bytes(Encoding.PEM))
    (folder / f"{name}.key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    (folder / f"{name}.key").chmod(0o600)
    return key, made


FOLDER = Path(tempfile.mkdtemp(prefix="worlds"))
_CA = _certificate(FOLDER, "ca", [])
_certificate(FOLDER, "good", ["mx.a.test", "mx.b.test"], _CA)
_certificate(FOLDER, "rogue", ["mx.b.test"])


# -- a store on a simulated disk


class SimDatabase:
    """The rows on the loop's own thread, a moment later, as the real one has it."""

    def __init__(self, host: "Host", core: SqliteCore, changes: LocalChanges) -> None:
        self.host, self.core, self.changes = host, core, changes

    async def write(self, unit, *, patient=False):
        await asyncio.sleep(self.host.rng.uniform(0.0005, 0.02 + patient * PATIENCE_SECONDS))
        (result,), places = self.host.on_disk(lambda: self.core.commit([unit]))
        self.changes.publish(places)
        await asyncio.sleep(self.host.rng.uniform(0.0, 0.005))
        if isinstance(result, Exception):
            raise result
        return result

    async def read(self, unit):
        return self.host.on_disk(lambda: self.core.read(unit))

    async def close(self) -> None:
        pass


class SimBlobs:
    def __init__(self, host: "Host", core: SegmentCore) -> None:
        self.host, self.core = host, core

    def expect(self, _change: int) -> None:
        pass

    async def put(self, chunks):
        await asyncio.sleep(self.host.rng.uniform(0.0005, 0.02))
        (ref,) = self.host.on_disk(lambda: put(self.host.core, self.core, [chunks], f"life {self.host.crashes}"))
        return ref

    async def read(self, ref, start=0, length=None):
        return self.read_here(ref, start, length)

    def read_here(self, ref, start=0, length=None):
        return self.host.on_disk(lambda: self.core.read(ref, start, length))

    async def close(self) -> None:
        pass


class SimResolver(Zone):
    """Does not always answer."""

    world = None

    async def _late(self, look, name):
        await asyncio.sleep(self.world.rng.uniform(0.001, 0.05))
        if self.world.chaos and self.world.rng.random() < 0.05:
            raise DnsFailure(f"{name}: no answer")
        return await look(name)

    async def mx(self, domain):
        return await self._late(super().mx, domain)

    async def addresses(self, host):
        return await self._late(super().addresses, host)


# -- hosts


class Host:
    """A machine: a disk, a store on it, and workers that serve it. The power may go at any operation of the disk."""

    count = 0

    def __init__(self, world: "World", address: str, domain: str, workers: int, routes: tuple[Route, ...]) -> None:
        self.world, self.address, self.domain, self.routes = world, address, domain, routes
        self.workers, self.rng = workers, world.rng
        self.disk = SimDisk(self.rng)
        if world.mutant == "no-directory-sync":
            self.disk.lazy_directory = "/segments"
        if world.mutant == "reply-before-sync":
            self.disk.lazy_sync = True
        Host.count += 1
        self.vfs_name = f"world-{os.getpid()}-{Host.count}"
        self.vfs = SimVfs(self.vfs_name)
        self.vfs.disk = self.disk
        self.processes: list[Process] = []
        self.apps: list[app.Application] = []
        self.crashes = 0
        self.up = False
        self.open(first=True)
        self.serve()

    def open(self, *, first: bool = False) -> None:
        self.core = SqliteCore("/db/mail.sqlite", vfs=self.vfs_name, exclusive=True, checkpoint_pages=200)
        self.segments = SegmentCore(self.disk, "/segments", segment_max=100_000)
        if first:
            lazy, self.disk.lazy_sync = self.disk.lazy_sync, False

            def setup(tx):
                directory.add_domain(tx, self.domain, 1)
                for number in range(USERS):
                    directory.add_account(tx, f"u{number}@{self.domain}", 1)

            self.core.commit([setup])
            self.disk.lazy_sync = lazy
        else:
            Keeper(self.core, self.segments).seal()

    def serve(self) -> None:
        self.up = True
        changes = LocalChanges()
        self.apps, self.processes = [], []
        for number in range(self.workers):
            process = Process(f"{self.domain} {self.crashes}.{number}")
            self.processes.append(process)
            process.run(self._start, process, changes)
        first = self.processes[0], self.apps[0]
        self.world.net.listeners[self.address] = first[0], first[1]._connected(app.Bound("smtp", None, False))
        self.world.net.listeners[f"lmtp {self.address}"] = first[0], first[1]._connected(app.Bound("lmtp", None, False))

    def _start(self, _process: Process, changes: LocalChanges) -> None:
        config = Config(
            hostname=f"mx.{self.domain}", quiet=True, route=self.routes,
            queue=Queue(first_gap_seconds=30, longest_gap_seconds=300, warn_hours=1, give_up_days=1),
            tls=Tls(certificates=(CertificateSettings(chain="good.pem", key="good.key"),)),
        )  # fmt: skip
        # nobody searches here, and no message is long enough for a worker
        indexer, pool = SimpleNamespace(), SimpleNamespace()
        store = app.Store(
            SimDatabase(self, self.core, changes), SimBlobs(self, self.segments), changes, indexer, pool, FOLDER
        )
        env = Env(SimClock(self.world.loop), self.rng.randbytes)
        made = app.Application(config, FOLDER, store, Telemetry(quiet=True), env, resolver=self.world.zone)
        changes.watch = None
        made.run_queue(self.workers)
        self.apps.append(made)

    def on_disk(self, work):
        process = PROCESS.get()
        if process is not None and process.dead:
            raise PowerCut
        try:
            return work()
        except PowerCut:
            self.die()
            raise
        except Exception:
            if self.disk.dead:
                self.die()
            raise

    def die(self) -> None:
        if self.up:
            self.up = False
            self.disk.dead = True
            self.world.graveyard += [*self.apps, *self.processes, self.core, self.segments]
            for process in self.processes:
                process.dead = True
            self.world.net.later(self.world.loop.time() + self.rng.uniform(0.5, 60.0), self.return_)
            for link in list(self.world.net.links):
                if (
                    self.address in (link.address, link.address.removeprefix("lmtp "))
                    or link.client.process in self.processes
                ):
                    link.cut()

    def return_(self) -> None:
        try:
            self._return()
        except BaseException as fault:
            self.world.loop.faults.append(fault)
            raise

    def _return(self) -> None:
        with contextlib.suppress(PowerCut, apsw.Error):
            self.core.close()
        self.disk.crash()
        self.disk.cut_at = None
        self.crashes += 1
        self.world.crashes += 1
        self.open()
        self.serve()

    def rows(self, sql: str):
        return self.core.read(lambda tx: tx.rows(sql))


class Moody:
    """A server without TLS that refuses now and then, and remembers every letter it took. With `cover`, the man in the middle."""

    def __init__(self, world: "World", address: str, cover: str = "") -> None:
        self.world, self.letters = world, []
        self.tls = ServerTls([Certificate.load(FOLDER / f"{cover}.pem", FOLDER / f"{cover}.key")]) if cover else None
        world.net.listeners[address] = (None, self.connected)
        self.tasks = set()

    def connected(self, stream) -> None:
        task = self.world.loop.create_task(self.talk(stream))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def talk(self, stream) -> None:
        with contextlib.suppress(Exception):
            await self.session(stream)
        with contextlib.suppress(Exception):
            stream.close()

    def mood(self, good: str = "250 2.0.0 ok") -> str:
        roll = self.world.rng.random()
        if self.tls is None and roll < 0.08:
            return "550 5.1.1 nobody"
        if self.tls is None and self.world.chaos and roll < 0.3:
            return "451 4.3.0 later"
        return good

    async def session(self, stream) -> None:
        buffer = b""

        async def line() -> str:
            nonlocal buffer
            while b"\r\n" not in buffer:
                octets = await stream.read()
                if not octets:
                    raise EOFError
                buffer += octets
            head, buffer = buffer.split(b"\r\n", 1)
            return head.decode()

        stream.write(b"220 moody ESMTP\r\n")
        recipients: list[str] = []
        while True:
            text = await line()
            verb = text[:4].upper()
            if verb == "EHLO":
                offers = "250-STARTTLS\r\n" if self.tls and stream.tls is None else ""
                stream.write(f"250-moody\r\n{offers}250 PIPELINING\r\n".encode())
            elif verb == "STAR":
                stream.write(b"220 go\r\n")
                await stream.start_tls(self.tls.pump())
            elif verb == "RCPT":
                answer = self.mood()
                recipients += [text.split("<")[1].split(">")[0]] if answer[0] == "2" else []
                stream.write(f"{answer}\r\n".encode())
            elif verb == "DATA":
                stream.write(b"354 go\r\n" if recipients else b"554 5.5.1 nobody\r\n")
                if not recipients:
                    continue
                content = []
                while (text := await line()) != ".":
                    content.append(text)
                answer = self.mood()
                if answer[0] == "2":
                    self.letters.append((list(recipients), "\n".join(content)))
                recipients = []
                stream.write(f"{answer}\r\n".encode())
            elif verb == "QUIT":
                stream.write(b"221 bye\r\n")
                return
            else:
                recipients = [] if verb in ("MAIL", "RSET") else recipients
                stream.write(b"250 2.0.0 ok\r\n")


# -- the world


class World:
    def __init__(self, seed: int, mutant: str = "") -> None:
        self.rng, self.mutant = random.Random(seed), mutant
        self.loop = SimLoop(self.rng)
        self.net = SimNet(self.loop, self.rng)
        self.chaos, self.crashes, self.cuts, self.letters = True, 0, 0, 0
        self.graveyard: list = []
        self.accepted: dict[tuple[str, str], bool] = {}
        self.ends: dict[tuple[str, str], list[list[str]]] = {}  # what became of each end of data, as host a knows it
        self.zone = SimResolver({"b.test": [(10, "mx.b.test")], "c.test": [(10, "mx.c.test")]},
                                {"mx.b.test": [B], "mx.c.test": [C], "mx.a.test": [A]})  # fmt: skip
        self.zone.world = self
        self.twice = 0
        self.a = self.b = None

    def build(self) -> None:
        ca = (str(FOLDER / "ca.pem"),)
        out = (Route(domain="b.test", to="mx", tls="verify", ca_files=ca), Route(to="mx", tls="may", ca_files=ca))
        self.a = Host(self, A, "a.test", 2, out)
        self.b = Host(self, B, "b.test", 1, ())
        tcp.connect = self.net.connect
        self.c = Moody(self, C)
        self.rogue = Moody(self, "rogue", "rogue")

    # -- what happens

    def run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_until_complete(self.story())
        except NothingLeft:
            raise Violation("the world stands still") from None
        self.check()

    def close(self) -> None:
        for host in (self.a, self.b):
            if host is not None:
                host.disk.dead = True
                for process in host.processes:
                    process.dead = True
                with contextlib.suppress(PowerCut, apsw.Error):
                    host.core.close()
        self.loop.close()
        asyncio.set_event_loop(None)

    async def story(self) -> None:
        self.build()
        clients = [asyncio.ensure_future(self.client(number)) for number in range(4)]
        trouble = asyncio.ensure_future(self.trouble())
        naps = asyncio.ensure_future(self.naps())
        await asyncio.wait([*clients, trouble, naps])
        for task in (*clients, trouble, naps):
            task.result()
        self.chaos, self.net.refuse, self.net.cut = False, 0.0, 0.0
        self.net.mode.clear()
        for host in (self.a, self.b):
            host.disk.cut_at = None
        end = self.loop.time() + CALM_SECONDS
        while self.loop.time() < end:
            await asyncio.sleep(20)
            if self.loop.faults:
                raise self.loop.faults[0]
            if self.a.up and self.b.up and not self.waiting():
                return
        raise Violation(f"it did not drain: {self.waiting()}")

    def waiting(self):
        return self.a.rows("SELECT address FROM queue_recipient") + self.b.rows("SELECT address FROM queue_recipient")

    async def trouble(self) -> None:
        """Until the chaos is over."""
        while self.loop.time() < CHAOS_SECONDS:
            await asyncio.sleep(self.rng.expovariate(1 / 25))
            roll = self.rng.random()
            if roll < 0.25:
                host = self.rng.choice((self.a, self.a, self.b))
                if host.up:
                    host.disk.cut_at = host.disk.operations + self.rng.randint(1, 400)
            elif roll < 0.45:
                for link in self.rng.sample(sorted(self.net.links, key=id), min(2, len(self.net.links))):
                    self.cuts += 1
                    link.cut()
            elif roll < 0.6:
                self.net.mode[B] = self.rng.choice(("strip", "refuse", "impersonate"))
            elif roll < 0.75:
                self.net.mode.pop(B, None)
            elif roll < 0.9:
                self.net.refuse = self.rng.choice((0.0, 0.2, 0.6))
                self.net.cut = self.rng.choice((0.0, 0.01, 0.1))

    async def naps(self) -> None:
        """A worker is not scheduled for longer than its lease, best of all in the middle of a letter."""
        while self.loop.time() < CHAOS_SECONDS:
            await asyncio.sleep(0.2)
            if self.a.up and self.a.apps[1]._runner._tasks and self.rng.random() < 0.12:
                self.a.processes[1].asleep_until = self.loop.time() + self.rng.uniform(5, 90)

    async def client(self, number: int) -> None:
        for _ in range(self.rng.randint(3, 7)):
            await asyncio.sleep(self.rng.expovariate(1 / 60))
            with contextlib.suppress(EOFError, OSError):
                await self.submit(f"u{number % USERS}@a.test")

    async def submit(self, sender: str) -> None:
        stream = await self.net.connect(f"lmtp {A}", 24, local=True)
        buffer = b""

        async def reply() -> str:
            nonlocal buffer
            while True:
                while b"\r\n" not in buffer:
                    octets = await stream.read()
                    if not octets:
                        raise EOFError
                    buffer += octets
                line, buffer = buffer.split(b"\r\n", 1)
                if line[3:4] != b"-":
                    return line.decode()

        try:
            self.letters += 1
            name = f"L{self.letters}"
            domains = ("a.test", "b.test", "b.test", "c.test")
            recipients = sorted(
                {f"u{self.rng.randrange(USERS)}@{self.rng.choice(domains)}" for _ in range(self.rng.randint(1, 3))}
            )
            await reply()
            for command in ("LHLO x", f"MAIL FROM:<{sender}>", *(f"RCPT TO:<{one}>" for one in recipients), "DATA"):
                stream.write(f"{command}\r\n".encode())
                answer = await reply()
                if answer[0] not in "23":
                    return
            body = f"From: <{sender}>\r\nX-Id: {name}.\r\nSubject: {MARK}\r\n\r\n{MARK}\r\n.\r\n"
            stream.write(body.encode())
            for one in recipients:
                if (await reply()).startswith("250"):
                    self.accepted[name, one] = True
        finally:
            stream.close()

    # -- what must be true

    def found(self, host: Host):
        """(name, recipient) of every letter in the mailboxes of a host; (name, recipient) of every failure that was reported."""
        delivered: dict[tuple[str, str], int] = {}
        bounced: dict[tuple[str, str], int] = {}
        rows = host.rows("SELECT address, segment, place, size, blob_id FROM message"
                         " JOIN account ON account.account_id=message.account_id")  # fmt: skip
        for address, segment, place, size, blob_id in rows:
            content = host.segments.read(queue.BlobRef(blob_id, segment, place, size)).decode()
            marked = re.search(r"X-Id: (L\d+)\.", content)
            if marked is None:
                raise Violation(f"a letter of {address} says not which one it is: {content!r}")
            name = marked.group(1)
            if "multipart/report" in content.partition("\r\n\r\n")[0]:
                failed = re.findall(r"Final-Recipient: rfc822; (\S+)\r\nAction: failed", content)
                for recipient in failed:
                    bounced[name, recipient] = bounced.get((name, recipient), 0) + 1
            else:
                delivered[name, address] = delivered.get((name, address), 0) + 1
        return delivered, bounced

    def check(self) -> None:
        for host in (self.a, self.b):
            for made in host.apps:
                bugs = [name for name in made.telemetry.counters if name.endswith(".bug")]
                if bugs:
                    raise Violation(f"a fault of ours in {host.domain}: {bugs}")
            broken = host.core.integrity()
            if broken:
                raise Violation(f"SQLite of {host.domain}: {broken}")
        delivered, bounced = self.found(self.a)
        delivered |= self.found(self.b)[0]
        for recipients, content in self.c.letters:
            name = re.search(r"X-Id: (L\d+)\.", content).group(1)
            for recipient in recipients:
                delivered[name, recipient] = delivered.get((name, recipient), 0) + 1
        for key in self.accepted:
            ends = delivered.get(key, 0) + bounced.get(key, 0)
            if ends == 0:
                raise Violation(f"lost: {key}")
        for key, count in [*delivered.items(), *bounced.items()]:
            ends = delivered.get(key, 0) + bounced.get(key, 0)
            unanswered = sum(end != ["settled"] for end in self.ends.get(key, []))
            if ends > 1 + unanswered:
                raise Violation(f"{key} ended {ends} times, and {unanswered} of its ends of data went unanswered")
            self.twice += count > 1
        if self.rogue.letters:
            raise Violation(f"a stranger has letters: {self.rogue.letters[0][0]}")
        for link in self.net.all:
            if link.address == B and MARK.encode() in link.clear:
                raise Violation("a letter went in the clear to a server that must be proved")


# -- what host a knows of its ends of data


def observe(world: World):
    """Follows every end of data of host a until its outcome is committed; returns the function that takes the wrap off."""
    real = Runner._carry

    async def carry(self, job, hop, carrier):
        name = re.search(rb"X-Id: (L\d+)\.", await self._content(job.letter)).group(1).decode()
        report = not job.letter.sender
        sent: list[list[str]] = []
        content = carrier._content

        async def sending(accepted, *rest):
            if not report:
                for one in accepted:
                    sent.append(["open"])
                    world.ends.setdefault((name, one.address), []).append(sent[-1])
            return await content(accepted, *rest)

        carrier._content = sending
        try:
            await real(self, job, hop, carrier)
        finally:
            del carrier._content
        for one in sent:
            one[0] = "settled"

    Runner._carry = carry

    def off() -> None:
        Runner._carry = real

    return off


# -- planted bugs


def _done_before_reply(patch):
    content = remote.Carrier._content

    async def hasty(self, accepted, *rest):
        waiting = asyncio.ensure_future(content(self, accepted, *rest))
        waiting.add_done_callback(lambda done: done.cancelled() or done.exception())
        await asyncio.sleep(0)
        self.carried = 10**6
        return [Status(250, "2.0.0", "surely")] * len(accepted)

    async def quit_(self):
        await asyncio.sleep(0.2)
        self.close()

    patch(remote.Carrier, "_content", hasty)
    patch(remote.Carrier, "quit", quit_)


def _optional_tls(patch):
    patch(connecting, "demand", lambda _known: Demand(Level.OPEN, ""))


def _no_fence(patch):
    patch(queue, "check", lambda _tx, _lane, _epoch: None)
    patch(Runner, "_held", lambda self, job, _seconds: self._lanes.get(job.lane_id) or Lane(job.epoch, 1e9))


def _lost_report(patch):
    async def prepare(_self, _letter, _content, _told):
        return None

    patch(Reports, "prepare", prepare)


def _one_answer_for_all(patch):
    deliver = remote.Carrier.deliver

    async def same(self, *arguments):
        answers = await deliver(self, *arguments)
        return [replace(one, status=answers[0].status) for one in answers]

    patch(remote.Carrier, "deliver", same)


MUTANTS = {
    "reply-before-sync": None, "no-directory-sync": None, "done-before-reply": _done_before_reply,
    "optional-tls": _optional_tls, "no-fence": _no_fence, "lost-report": _lost_report, "one-answer-for-all": _one_answer_for_all,
}  # fmt: skip


@contextlib.contextmanager
def planted(name: str):
    taken = []

    def patch(owner, attribute, value):
        taken.append((owner, attribute, getattr(owner, attribute)))
        setattr(owner, attribute, value)

    plant = MUTANTS.get(name)
    if plant is not None:
        plant(patch)
    try:
        yield
    finally:
        for owner, attribute, value in reversed(taken):
            setattr(owner, attribute, value)


def simulate(worlds: int, seed: int, mutant: str = "") -> dict:
    """Raises Violation with the seed that shows it again."""
    total = {"worlds": 0, "accepted": 0, "crashes": 0, "cuts": 0, "hours": 0.0, "twice": 0}
    for number in range(worlds):
        world_seed = seed * 1_000_003 + number
        with planted(mutant):
            world = World(world_seed, mutant)
            off = observe(world)
            try:
                world.run()
            except (Violation, StoreError) as violation:
                raise Violation(f"world {world_seed}: {violation}") from violation
            finally:
                off()
                world.close()
        total["worlds"] += 1
        total["accepted"] += len(world.accepted)
        total["crashes"] += world.crashes
        total["cuts"] += world.cuts + world.net.cuts
        total["hours"] += world.loop.at / 3600
        total["twice"] += world.twice
    return total


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--mutant", choices=sorted(MUTANTS), default="")
    options = parser.parse_args()
    logging.disable()
    sys.unraisablehook = lambda _facts: None
    warnings.simplefilter("ignore")
    start = time.process_time()
    try:
        facts = simulate(options.worlds, options.seed, options.mutant)
    except Violation as violation:
        print(f"VIOLATION {violation}")
        return 1
    print(
        f"{facts['worlds']} worlds, {facts['accepted']} recipients accepted, {facts['crashes']} crashes, {facts['cuts']} cuts,"
        f" {facts['hours']:.0f} hours; 0 lost, 0 in the clear, {facts['twice']} twice where an end of data went unanswered;"
        f" {time.process_time() - start:.1f} CPU-s"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
