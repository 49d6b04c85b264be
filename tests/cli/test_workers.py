"""Workers that do not start, that die, and that die again: what is said, with which code, and how soon others follow.

The workers are real processes of a program of this test's own. Left out: what they would serve (`test_serve.py`).
"""

import json
import os
import subprocess
import sys
from itertools import pairwise

import apsw
import pytest
from server import FUBAKO, Server

from fubako.cli import workers
from fubako.cli.workers import Backoff

PROGRAM = """
import os, signal, sys, time
from fubako.cli import workers
from fubako.store import faults
from fubako.store.interface import StoreUnavailable
from fubako.telemetry import Telemetry

signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD})

def serve(ready):
    ready()
    signal.sigwait({signal.SIGTERM})
    return 0

%s
held = workers.Workers(work, 2, Telemetry())
try:
    print(held.start())
except workers.NoWorker as error:
    print(error.code, error)
    sys.exit(error.code)
%s
held.stop()
"""
GO_ON = """
for _ in range(6):
    if held.next_signal({signal.SIGCHLD}) == signal.SIGCHLD:
        held.look()
"""


def run(work: str, then: str = "") -> tuple[int, str, list[dict]]:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM % (work, then)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout.strip(), [json.loads(line) for line in done.stderr.splitlines()]


def test_a_fault_of_all_workers_is_one_sentence_and_its_code():
    work = "def work(ready): raise StoreUnavailable('the disk fails\\nbadly', faults.DISK_FAILED)"
    assert run(work) == (os.EX_IOERR, f"{os.EX_IOERR} the disk fails badly", [])


def test_workers_that_are_killed_or_end_by_themselves():
    code, said, _ = run("def work(ready): os.kill(os.getpid(), signal.SIGKILL)")
    assert (code, said) == (os.EX_SOFTWARE, f"{os.EX_SOFTWARE} a worker was ended by SIGKILL")
    code, said, _ = run("def work(ready): return 3")
    assert (code, said) == (3, "3 a worker ended with the exit code 3")
    code, said, _ = run("def work(ready): return 0")
    assert code == os.EX_SOFTWARE


def test_workers_that_are_never_ready_are_not_taken_for_ready_ones():
    code, said, _ = run("workers.READY_SECONDS = 0.3\ndef work(ready): return bool(signal.sigwait({signal.SIGTERM}))")
    assert (code, said) == (os.EX_TEMPFAIL, f"{os.EX_TEMPFAIL} no worker was ready within 0 seconds")


def test_one_that_is_ready_is_enough_and_the_other_is_started_again():
    work = (
        "reads, writes = os.pipe(); os.write(writes, b'x'); os.set_blocking(reads, False)\n"
        "def work(ready):\n"
        "    try: os.read(reads, 1)\n"
        "    except BlockingIOError: return serve(ready)\n"
        "    return 5"
    )
    code, said, events = run(work)
    assert (code, said) == (0, "True")
    assert [(one["event"], one["code"], one["again_in"]) for one in events] == [("worker.died", 5, 1.0)]


def test_who_goes_on_dying_is_started_more_and_more_rarely():
    work = (
        "workers.Backoff.__init__ = lambda self: setattr(self, '_next', 0.01)\n"
        "def work(ready):\n"
        "    ready(); raise StoreUnavailable('no files', faults.NO_FILES)"
    )
    code, _, events = run(work, GO_ON)
    assert code in (0, os.EX_OSERR)
    waits = [one["again_in"] for one in events if one["event"] == "worker.died"]
    assert {one["reason"] for one in events} == {"no files"}
    assert all(later == 2 * sooner for sooner, later in pairwise(waits))


def test_the_pause_grows_to_a_limit_and_begins_anew_after_a_good_time():
    backoff = Backoff()
    waits = [backoff.after(0.1) for _ in range(9)]
    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]
    assert backoff.after(workers.WELL_SECONDS) == workers.RESTART_SECONDS
    assert backoff.after(0.1) == 2 * workers.RESTART_SECONDS


def test_a_stop_amid_the_start_is_heard():
    program = PROGRAM % ("def work(ready): signal.sigwait({signal.SIGTERM})", "")
    program = program.replace("print(held.start())", "os.kill(os.getpid(), signal.SIGTERM); print(held.start())")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, "False")


DAMAGES = {
    "newer": (os.EX_CONFIG, "a newer Fubako wrote it"),
    "empty": (os.EX_DATAERR, "is empty, and there are segments"),
    "missing": (os.EX_NOINPUT, "is missing, and there are segments"),
    "malformed": (os.EX_DATAERR, "malformed"),
    "locked": (os.EX_TEMPFAIL, "is locked"),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("damaged") / "d").start()
    assert server.stop() == 0
    path = server.root / "store" / "mail.sqlite"
    return server, path, path.read_bytes()


@pytest.mark.parametrize("damage", DAMAGES)
def test_serve_on_a_store_that_cannot_be_used_says_why_and_ends(made, damage):
    server, path, octets = made
    path.write_bytes(octets)
    keep = None
    match damage:
        case "newer":
            apsw.Connection(str(path)).execute("UPDATE format SET version=99")
        case "empty":
            path.write_bytes(b"")
        case "missing":
            path.unlink()
        case "malformed":
            path.write_bytes(octets[:100] + b"\xff" * 3996 + octets[4096:])
        case "locked":
            keep = apsw.Connection(str(path))
            keep.execute("PRAGMA locking_mode=EXCLUSIVE")
            keep.execute("BEGIN EXCLUSIVE")
    command = [FUBAKO, "serve", "--config", str(server.root / "fubako.toml"), "--workers", "2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    del keep
    code, words = DAMAGES[damage]
    said = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    assert done.returncode == code, done.stderr
    assert len(said) == 1 and words in said[0]
    assert "serve.started" not in done.stderr
