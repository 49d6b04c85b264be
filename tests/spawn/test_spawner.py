"""The spawner at the end of its door: what it starts, for how long, and what it refuses.

Its world: the real process with a real store and configuration, and this process as the worker that asks. Left out: Landlock and
seccomp of who asks (tests/app/test_confined.py, tests/cli/test_serve.py), and programs of other users, which need root.
"""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from server import without

from fubako.accounts import aliases
from fubako.app import spawner
from fubako.app.asking import AskingLoop
from fubako.config import load
from fubako.message.target import File, Program
from fubako.net import become
from fubako.spawn import commands, launcher, names, requests
from fubako.spawn.door import ASK, Asking
from fubako.spawn.process import REQUEST_OCTETS_MAX, Spawner
from fubako.spawn.requests import (
    Append,
    Checker,
    CheckerKind,
    FilterProgram,
    Handover,
    PasswordCommand,
    Purpose,
    Request,
)
from fubako.store.sqlite import SqliteCore

NOBODY = "nobody" if os.geteuid() == 0 else ""
PRINTS = ("/bin/sh", "-c", 'cat; echo "$SENDER $RECIPIENT" >&2; exit 3')
CONFIG = f"""
hostname = "here.test"
directory = "store"
[[route]]
domain = "*"
to = "program"
program = ["/bin/sh", "-c", 'cat; echo "$SENDER $RECIPIENT" >&2; exit 3']
run_as = "{NOBODY}"
"""


class World:
    """A spawner of a folder with a configuration and a store, and a worker's end of its door."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "fubako.toml"
        self.config.write_text(CONFIG)
        (folder / "store").mkdir()
        self.ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.ours.setblocking(False)
        self.pid = self.start()

    def start(self) -> int:
        return spawner.start(load(self.config), self.config, self.theirs)

    def alias(self, target: Program | File) -> None:
        core = SqliteCore(str(self.folder / "store" / "mail.sqlite"))
        core.commit([lambda tx: aliases.add(tx, "x@here.test", [target])])
        core.close()

    def ask(self, request: Request, given: bytes = b"") -> tuple[int, bytes, bytes]:
        return asyncio.run(self.asking(request, given))

    async def asking(self, request: Request, given: bytes = b"") -> tuple[int, bytes, bytes]:
        return await asyncio.wait_for(Asking(self.ours).run(request, given), 60)

    def close(self) -> None:
        self.ours.close()
        self.theirs.close()
        os.waitpid(self.pid, 0)


@pytest.fixture
def world(tmp_path):
    made = World(tmp_path)
    yield made
    made.close()


def handover(*words: str, recipients: tuple[str, ...] = ("bob@here.test",)) -> Handover:
    return Handover(program=Program(words, NOBODY), sender="alice@there.test", recipients=recipients)


def test_what_the_configuration_names_is_started_and_its_end_told(world):
    code, said, wrong = world.ask(handover(*PRINTS), b"the content" * 100_000)
    assert (code, said, wrong) == (3, b"the content" * 100_000, b"alice@there.test bob@here.test\n")


@pytest.mark.parametrize(
    "request_",
    [
        handover("/bin/touch", "made"), handover(*PRINTS, "more"), PasswordCommand(PRINTS, NOBODY), FilterProgram(words=PRINTS),
        Checker(kind=CheckerKind.PROGRAM, words=PRINTS, run_as=NOBODY), Checker(kind=CheckerKind.LDAP, run_as=NOBODY),
        Append(file=File("/nowhere/none", NOBODY), sender="", created=0, trace_id="x"),
        Handover(program=Program(PRINTS, "daemon"), sender="", recipients=("x@y.test",)),
    ],
)  # fmt: skip
def test_what_nobody_named_is_refused(world, request_):
    """The same words for another purpose, or as another user, are another program."""
    with pytest.raises(become.NotAllowed, match="neither the configuration nor an alias"):
        world.ask(request_)


def test_an_alias_that_is_made_later_is_followed_and_one_that_is_gone_is_not(world):
    request = handover("/bin/echo", "said")
    with pytest.raises(become.NotAllowed):
        world.ask(request)
    world.alias(request.program)
    assert world.ask(request)[:2] == (0, b"said\n")
    world.alias(Program(("/bin/true",), NOBODY))
    with pytest.raises(become.NotAllowed):
        world.ask(request)


def test_a_configuration_that_was_written_anew_is_read_and_the_one_before_still_holds(world):
    """Sessions go on with what they began with; a broken file takes nothing away."""
    world.config.write_text(CONFIG.replace("exit 3", "exit 4"))
    assert world.ask(handover("/bin/sh", "-c", PRINTS[2].replace("3", "4")))[0] == 4
    assert world.ask(handover(*PRINTS))[0] == 3
    world.config.write_text("broken = [")
    assert world.ask(handover(*PRINTS))[0] == 3


def test_nothing_runs_as_root(world):
    if os.geteuid() != 0:
        without("only root could")
    world.alias(Program(("/bin/true",)))
    with pytest.raises(become.NotAllowed, match="root"):
        world.ask(Handover(program=Program(("/bin/true",)), sender="", recipients=("x@y.test",)))


def test_an_address_is_never_an_option(world):
    world.alias(Program(("/bin/echo", "{recipient}"), NOBODY))
    with pytest.raises(OSError, match="hyphen"):
        world.ask(handover("/bin/echo", "{recipient}", recipients=("-rf@here.test",)))


def test_a_program_that_is_not_there_says_so(world):
    world.alias(Program(("/no/such",), ""))
    with pytest.raises((OSError, become.NotAllowed)):
        world.ask(Handover(program=Program(("/no/such",)), sender="", recipients=("x@y.test",)))


def running(mark: str) -> list[int]:
    found = subprocess.run(["pgrep", "-f", mark], capture_output=True, text=True, check=False).stdout.split()
    return [int(pid) for pid in found if int(pid) != os.getpid()]


def begun(world: World, folder: Path, then: str = "sleep 120") -> Handover:
    """A program that tells its process id into a pipe of this folder, and sleeps."""
    os.mkfifo(folder / "begun", 0o666)
    (folder / "begun").chmod(0o666)
    for parent in (folder, *folder.parents):
        if parent.stat().st_uid == os.geteuid() and not parent.stat().st_mode & 0o001 and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o011)
    program = handover("/bin/sh", "-c", f"sleep 121 & echo $$ $! > {folder}/begun; {then}")
    world.alias(program.program)
    return program


async def pids(folder: Path) -> list[int]:
    text = await asyncio.to_thread((folder / "begun").read_text)
    return [int(word) for word in text.split()]


def ended(pid: int) -> bool:
    try:
        return b"\nState:\tZ" in Path(f"/proc/{pid}/status").read_bytes()
    except FileNotFoundError:
        return True


async def all_ended(found: list[int]) -> None:
    while not all(map(ended, found)):
        await asyncio.sleep(0.01)


def test_what_nobody_waits_for_any_more_is_ended_with_what_it_started(world, tmp_path):
    async def main() -> None:
        asked = asyncio.create_task(world.asking(begun(world, tmp_path)))
        found = await pids(tmp_path)
        asked.cancel()
        await asyncio.wait([asked])
        await asyncio.wait_for(all_ended(found), 20)

    asyncio.run(main())


def test_a_spawner_that_dies_is_told_of_and_its_programs_end(world, tmp_path):
    """Whoever asked tries later; the next spawner answers at the same door."""

    async def main() -> None:
        asked = asyncio.create_task(world.asking(begun(world, tmp_path)))
        found = await pids(tmp_path)
        os.kill(world.pid, signal.SIGKILL)
        await asyncio.to_thread(os.waitpid, world.pid, 0)
        waits = asyncio.create_task(world.asking(handover(*PRINTS)))  # asked while there is none
        with pytest.raises(OSError, match="has ended"):
            await asked
        world.pid = world.start()
        assert (await waits)[0] == 3
        await asyncio.wait_for(all_ended(found[:1]), 20)

    asyncio.run(main())


def test_nonsense_at_the_door_ends_nothing(world):
    reading, writing = os.pipe()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    huge = os.memfd_create("huge")
    os.truncate(huge, REQUEST_OCTETS_MAX + 1)
    empty = os.memfd_create("empty")
    world.ours.send(b"x")
    socket.send_fds(world.ours, [ASK], [reading])
    for asked in (reading, huge, empty):
        socket.send_fds(world.ours, [ASK], [theirs.fileno(), asked, reading, writing, writing])
        assert requests.outcome(ours.recv(4096)).end is not requests.End.EXITED
    assert world.ask(handover(*PRINTS))[0] == 3
    for one in (reading, writing, huge, empty):
        os.close(one)


def test_a_conversation_goes_on_until_it_is_ended(tmp_path):
    async def main() -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        theirs.setblocking(False)
        spawning = asyncio.create_task(Spawner(theirs, lambda _request: "").serve())
        talker = await Asking(ours).converse(Checker(kind=CheckerKind.PROGRAM, words=("/bin/cat",), run_as=NOBODY))
        assert [await talker.ask(b"one\n"), await talker.ask(b"two\n")] == [b"one\n", b"two\n"]
        await talker.end()
        ours.close()
        await asyncio.wait_for(spawning, 20)

    asyncio.run(main())


def test_programs_of_one_purpose_take_turns_and_leave_others_theirs(monkeypatch, tmp_path):
    """One place for each purpose: the second delivery waits for the first, and a filter for neither."""

    async def main() -> list[str]:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        theirs.setblocking(False)
        spawning = asyncio.create_task(Spawner(theirs, lambda _request: "").serve())
        door, order = Asking(ours), []

        async def one(name: str, request: Request, given: bytes = b"") -> None:
            await door.run(request, given)
            order.append(name)

        if NOBODY:
            monkeypatch.setattr(become, "_effective_uid", lambda: 1000)
        password = partial(PasswordCommand, run_as="")
        first = asyncio.create_task(one("first", password(("/bin/sh", "-c", f"cat < {fifo}"))))
        with await asyncio.to_thread(open, fifo, "wb"):
            second = asyncio.create_task(one("second", password(("/bin/true",))))
            await one("filter", FilterProgram(words=("/bin/true",)))
        await asyncio.gather(first, second)
        ours.close()
        await spawning
        return order

    monkeypatch.setattr("fubako.spawn.process.AT_ONCE", dict.fromkeys(Purpose, 1))
    fifo = str(tmp_path / "turns")
    os.mkfifo(fifo)
    assert asyncio.run(main()) == ["filter", "first", "second"]


def test_each_request_has_a_limit_of_time():
    for request in (handover("x"), PasswordCommand(("x",)), FilterProgram(words=("x",)), Checker(kind=CheckerKind.PAM)):
        assert 0 < commands.seconds(request) <= commands.DELIVERY_SECONDS


def test_a_program_past_its_time_is_ended(monkeypatch, tmp_path):
    async def main() -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        theirs.setblocking(False)
        spawning = asyncio.create_task(Spawner(theirs, lambda _request: "").serve())
        with pytest.raises(TimeoutError):
            await Asking(ours).run(PasswordCommand((sys.executable, "-c", "import time; time.sleep(120)"), NOBODY), b"")
        ours.close()
        await spawning

    monkeypatch.setattr("fubako.spawn.process.seconds", lambda _request: 0.01)
    asyncio.run(main())


# -- names


def test_the_systems_names_are_answered_and_what_has_none_is_told(world):
    """Left out: files that are replaced (tests/app/test_confined.py)."""
    launcher.use(Asking(world.ours))
    try:
        assert "nameserver" in asyncio.run(names.resolver_file()) or not Path("/etc/resolv.conf").exists()
        with asyncio.Runner(loop_factory=AskingLoop) as runner:
            loop = runner.get_loop()
            found = runner.run(loop.getaddrinfo("localhost", 25, type=socket.SOCK_STREAM))
            assert {one[4][0] for one in found} <= {"127.0.0.1", "::1"} and found
            assert {one[4][1] for one in found} == {25}
            with pytest.raises(socket.gaierror):
                runner.run(loop.getaddrinfo("no.such.invalid", 25))
            with pytest.raises(OSError):
                runner.run(loop.getaddrinfo("-h", 25))
            assert runner.run(loop.getaddrinfo("192.0.2.1", 25, type=socket.SOCK_STREAM))[0][4] == ("192.0.2.1", 25)
    finally:
        launcher.use(launcher.Direct())
