"""`make siege`: everything that strangers can do at once, and an ordinary client each second beside it.

One server (`fubako serve`, two workers) on loopback, attackers in processes of their own, each at addresses of its own in
127.0.0.0/8: guesses with real argon2, idle connections, connections that drip one octet every ten seconds, pipeliners that
repeat commands and read slowly or not at all, and strangers' messages made to be costly. An ordinary client with an account
logs in, selects, fetches and logs out once a second; the 99th percentile of that, and the most memory of all the server's
processes (PSS), are the result. Exit code 1 when either is over its limit.

What it leaves out: attackers with processors of their own (they share these cores with the server, at a lower priority),
a distant network's delays and losses, DNS that an attacker slows (loopback has none), and TLS of attackers but for guessers.
"""

import argparse
import asyncio
import base64
import contextlib
import json
import multiprocessing
import os
import resource
import signal
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent.parent / "tests")]
from server import FUBAKO, STANDARD, free_offset  # noqa: E402  # the tests' folder is named above

LATENCY_SECONDS_MAX = 1.0
MEMORY_MIB_MAX = 512
CLIENT = "127.0.0.1"  # the network from which the ordinary client always came
MESSAGE_OCTETS = 1_000_000


@dataclass
class Plan:
    """How many of each; the brief's numbers are the default."""

    offset: int
    until: float  # time.time()
    address: str
    idle: int = 5000
    drips: int = 100
    pipeliners: int = 20
    guesses: int = 10_000
    guessers: int = 60
    senders: int = 4
    counts: Counter = field(default_factory=Counter)

    def port(self, service: str) -> int:
        return STANDARD[service] + self.offset


def source(kind: int, number: int) -> str:
    """An address of an attacker's own: 127.kind.x.y."""
    return f"127.{kind}.{number // 250 % 250}.{number % 250 + 1}"


async def open_from(address: str, port: int, tls: ssl.SSLContext | None = None):
    return await asyncio.wait_for(
        asyncio.open_connection("127.0.0.1", port, ssl=tls, local_addr=(address, 0), limit=2**20), 60
    )


def unverified() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


async def again(plan: Plan, name: str, once: Callable[[], Awaitable[None]]) -> None:
    """Until the end, whatever happens; a connection that is refused or ended is tried again after a second."""
    while time.time() < plan.until:
        try:
            await once()
            plan.counts[name] += 1
        except (OSError, TimeoutError, asyncio.IncompleteReadError, ssl.SSLError, ValueError):
            plan.counts[f"{name} ended"] += 1
        await asyncio.sleep(1)


# -- what strangers do


async def idle(plan: Plan, number: int) -> None:
    service = ("smtp", "imap", "pop3", "submission")[number % 4]
    reader, writer = await open_from(source(10, number // 20), plan.port(service))
    try:
        while time.time() < plan.until and await asyncio.wait_for(reader.read(4096), plan.until - time.time() + 1):
            pass
    finally:
        writer.close()


async def drip(plan: Plan, number: int) -> None:
    """One octet every ten seconds: of a command, or of a message."""
    service = ("smtp", "imap", "pop3")[number % 3]
    reader, writer = await open_from(source(11, number), plan.port(service))
    try:
        await reader.readline()
        if service == "smtp" and number % 2:
            writer.write(f"EHLO x\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<{plan.address}>\r\nDATA\r\n".encode())
        while time.time() < plan.until:
            writer.write(b"a")
            await writer.drain()
            if reader.at_eof():
                return
            await asyncio.sleep(10)
    finally:
        writer.close()


async def pipeline(plan: Plan, number: int) -> None:
    """The same command as fast as it is taken; every other one reads nothing."""
    service, said = (("imap", b"a CAPABILITY\r\n"), ("pop3", b"CAPA\r\n"), ("smtp", b"EHLO x\r\n"))[number % 3]
    reader, writer = await open_from(source(12, number), plan.port(service))

    async def read() -> None:
        while await reader.read(65536):
            pass

    reading = asyncio.ensure_future(read()) if number % 2 else None
    try:
        while time.time() < plan.until:
            writer.write(said * 2000)
            await asyncio.wait_for(writer.drain(), 30)
            plan.counts["pipelined commands"] += 2000
    finally:
        writer.close()
        if reading is not None:
            reading.cancel()


async def guess(plan: Plan, number: int, left: list[int]) -> None:
    """Passwords for a real account, and for names that nobody has."""
    tls = unverified()
    reader, writer = await open_from(source(13, number), plan.port("submissions"), tls)
    try:
        await reader.readline()
        writer.write(b"EHLO x\r\n")
        while (await reader.readline())[3:4] == b"-":
            pass
        while time.time() < plan.until and left[0] > 0:
            left[0] -= 1
            name = plan.address if left[0] % 2 else f"nobody{left[0]}@fubako.test"
            words = base64.b64encode(f"\0{name}\0guess{left[0]}".encode())
            writer.write(b"AUTH PLAIN " + words + b"\r\n")
            answer = await asyncio.wait_for(reader.readline(), 120)
            plan.counts[f"guess {answer[:3].decode() or 'ended'}"] += 1
            if not answer.startswith(b"5"):
                return
    finally:
        writer.close()


def costly() -> list[bytes]:
    """Messages whose parts were made for parsers: blanks, nesting, folding, parameters, comments, addresses, dates."""
    size = MESSAGE_OCTETS
    head = b"From: a@b.test\r\nSubject: x\r\nMIME-Version: 1.0\r\n"
    deep = b"".join(
        b"Content-Type: multipart/mixed; boundary=" + b"a" * n + b"\r\n\r\n--" + b"a" * n + b"\r\n"
        for n in range(1, 50)
    )
    inner = b"Content-Type: message/rfc822\r\n\r\n" * 50
    signature = b"DKIM-Signature: v=1; a=rsa-sha256; d=b.test; s=s; h=from; bh=AA==; b=AA==\r\n"
    return [
        head + b"Content-Transfer-Encoding: quoted-printable\r\n\r\n" + b" " * (size // 20) + b"x\r\n",
        head + deep + (b"--" + b"a" * 60 + b"\r\n") * (size // 62),
        head + b"X-Long: a\r\n" + b" folded\r\n" * (size // 40) + b"\r\nbody\r\n",
        head + inner + b"X: y\r\n" + b" z\r\n" * (size // 40) + b"\r\nbody\r\n",
        head + b"Content-Type: text/plain" + b";\r\n " * (size // 40) + b"\r\n\r\nbody\r\n",
        head + b"Cc: " + b";\r\n " * (size // 40) + b"\r\n\r\nbody\r\n",
        head + b"To: " + b"(" * 900 + b"\r\n" + b"Authentication-Results: x; y=z\r\n" * 3000 + b"\r\nbody\r\n",
        head + b"Date: 1 Jan 99999999999999999999 00:00:00 +9999\r\n\r\n" + b"=?utf-8?q?" * 90 + b"\r\n",
        head + signature * 20 + b"\r\n" + b" \t \r\n" * (size // 5),
    ]  # fmt: skip


async def send(plan: Plan, number: int, messages: list[bytes]) -> None:
    reader, writer = await open_from(source(14, number), plan.port("smtp"))
    try:
        await reader.readline()
        for content in messages[number:] + messages[:number]:
            writer.write(f"EHLO x\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<{plan.address}>\r\nDATA\r\n".encode())
            while not (answer := await asyncio.wait_for(reader.readline(), 120)).startswith((b"354", b"5", b"4")):
                if not answer:
                    return
            if not answer.startswith(b"354"):
                plan.counts[f"costly {answer[:3].decode()}"] += 1
                return
            writer.write(content + b".\r\n")
            await writer.drain()
            answer = await asyncio.wait_for(reader.readline(), 120)
            plan.counts[f"costly {answer[:3].decode() or 'ended'}"] += 1
            if not answer.startswith((b"2", b"5")):
                return
    finally:
        writer.close()


async def attack(plan: Plan, share: int, shares: int) -> None:
    left, messages = [plan.guesses // shares], costly()
    tasks = []
    for count, name, once in (
        (plan.idle, "idle", idle),
        (plan.drips, "drip", drip),
        (plan.pipeliners, "pipeline", pipeline),
    ):
        tasks += [again(plan, name, lambda n=n, once=once: once(plan, n)) for n in range(share, count, shares)]
    tasks += [again(plan, "guesser", lambda n=n: guess(plan, n, left)) for n in range(share, plan.guessers, shares)]
    tasks += [again(plan, "sender", lambda n=n: send(plan, n, messages)) for n in range(share, plan.senders, shares)]
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(max(1.0, plan.until - time.time() + 5)):
            await asyncio.gather(*tasks)


def attacker(plan: Plan, share: int, shares: int, told: multiprocessing.Queue) -> None:
    os.nice(10)  # others' machines are elsewhere
    _descriptors()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(attack(plan, share, shares))
    told.put(dict(plan.counts))


# -- who only wants to read


async def ordinary(port: int, ca: str, address: str, password: str) -> None:
    """A login, a mailbox, a FETCH."""
    tls = ssl.create_default_context(cafile=ca)
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=tls, server_hostname="localhost", local_addr=(CLIENT, 0)
    )
    try:
        await reader.readline()
        words = base64.b64encode(f"\0{address}\0{password}".encode()).decode()
        for tag, said in enumerate(
            (f"AUTHENTICATE PLAIN {words}", "SELECT INBOX", "FETCH 1:* (FLAGS ENVELOPE)", "LOGOUT")
        ):
            writer.write(f"a{tag} {said}\r\n".encode())
            while not (line := await reader.readline()).startswith(f"a{tag} ".encode()):
                if not line:
                    raise OSError("the server ended the connection")
            if b" OK" not in line[:8]:
                raise OSError(line.decode())
    finally:
        writer.close()


async def watch(seconds: float, once: Callable[[], Awaitable[None]], pids: Callable[[], list[int]]):
    """Once a second: (seconds each took, failures, most memory in MiB)."""
    took: list[float] = []
    failed: list[str] = []
    memory = 0.0

    async def one() -> None:
        began = time.monotonic()
        try:
            await asyncio.wait_for(once(), 60)
            took.append(time.monotonic() - began)
        except (OSError, TimeoutError) as error:
            failed.append(f"after {time.monotonic() - began:.1f} s: {error!r}"[:200])
            took.append(time.monotonic() - began)

    async with asyncio.TaskGroup() as group:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            group.create_task(one())
            memory = max(memory, await asyncio.to_thread(_memory, pids()))
            await asyncio.sleep(1)
    return took, failed, memory


def _memory(pids: list[int]) -> float:
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1])
    return total / 1024


def tree(root: int) -> list[int]:
    found, at = [root], 0
    while at < len(found):
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{found[at]}/task").iterdir():
                found += map(int, (task / "children").read_text().split())
        at += 1
    return found


def _descriptors() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


# -- the whole


def serve(root: Path, offset: int) -> subprocess.Popen:
    subprocess.run([FUBAKO, "up", str(root), "--offset", str(offset), "--once"], check=True, capture_output=True)
    config = root / "fubako.toml"
    config.write_text(config.read_text().replace("workers = 1", "workers = 2"))
    log = (root / "log").open("wb")
    server = subprocess.Popen([FUBAKO, "serve", "--config", str(config)], stdout=log, stderr=log)
    end = time.monotonic() + 60
    while b"serve.started" not in (root / "log").read_bytes():
        if time.monotonic() > end or server.poll() is not None:
            raise RuntimeError((root / "log").read_text()[-3000:])
        time.sleep(0.2)
    return server


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--minutes", type=float, default=10)
    for name in ("idle", "drips", "pipeliners", "guesses", "guessers", "senders"):
        options.add_argument(f"--{name}", type=int, default=getattr(Plan, name))
    given = options.parse_args()
    _descriptors()
    with tempfile.TemporaryDirectory() as folder:
        root, offset = Path(folder, "up"), free_offset()
        server = serve(root, offset)
        try:
            return besiege(given, root, offset, server)
        finally:
            server.send_signal(signal.SIGTERM)
            try:
                server.wait(60)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def besiege(given: argparse.Namespace, root: Path, offset: int, server: subprocess.Popen) -> int:
    facts = json.loads((root / "quickstart.json").read_text())
    victim, reader = facts["accounts"][0], facts["accounts"][1]
    seconds = given.minutes * 60
    once = lambda: ordinary(STANDARD["imaps"] + offset, facts["ca_file"], reader["address"], reader["password"])  # noqa: E731
    quiet, _, _ = asyncio.run(watch(5, once, lambda: tree(server.pid)))
    numbers = {name: getattr(given, name) for name in ("idle", "drips", "pipeliners", "guesses", "guessers", "senders")}
    plan = Plan(offset=offset, until=time.time() + seconds, address=victim["address"], **numbers)
    told: multiprocessing.Queue = multiprocessing.Queue()
    shares = 2
    attackers = [multiprocessing.Process(target=attacker, args=(plan, n, shares, told)) for n in range(shares)]
    for one in attackers:
        one.start()
    took, failed, memory = asyncio.run(watch(seconds, once, lambda: tree(server.pid)))
    counts: Counter = Counter()
    for _ in attackers:
        counts.update(told.get(timeout=60))
    for one in attackers:
        one.join(30)
    after, lost, _ = asyncio.run(watch(5, once, lambda: tree(server.pid)))
    ordered = sorted(took)
    p99 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    events: Counter = Counter()
    for line in (root / "log").read_text(errors="replace").splitlines():
        with contextlib.suppress(ValueError):
            events[json.loads(line)["event"]] += 1
    print(f"siege {given.minutes:g} min: login + FETCH p50 {statistics.median(took):.3f} s, p99 {p99:.3f} s,"
          f" most {ordered[-1]:.3f} s ({len(took)} of them, {len(failed)} failed); alone {statistics.median(quiet):.3f} s,"
          f" afterwards {statistics.median(after):.3f} s; memory at most {memory:.0f} MiB")  # fmt: skip
    print("attackers:", ", ".join(f"{name} {count}" for name, count in sorted(counts.items())))
    print("server:", ", ".join(f"{name} {count}" for name, count in sorted(events.items())))
    for one in [*failed[:5], *lost[:2]]:
        print("failed", one)
    well = p99 < LATENCY_SECONDS_MAX and memory < MEMORY_MIB_MAX and not failed and not lost and server.poll() is None
    print("held" if well else "DID NOT HOLD")
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
