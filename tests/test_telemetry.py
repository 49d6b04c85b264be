"""Nobody who tells of something waits for whoever reads it, or fails with him.

Pipes and /dev/full are the real ones. Left out: a terminal, and a reader that is slow instead of stuck.
"""

import asyncio
import json
import os
import subprocess
import sys
import threading

import pytest
from memory_server import MemoryServer

from fubako import telemetry
from fubako.telemetry import Log, Telemetry


def closed_pipe() -> int:
    ours, theirs = os.pipe()
    os.close(ours)
    return theirs


def full_disk() -> int:
    return os.open("/dev/full", os.O_WRONLY)


def stuck_pipe() -> int:
    """Nobody reads; it is full already. Its other end stays open as long as the process."""
    _, theirs = os.pipe()
    os.set_blocking(theirs, False)
    try:
        while True:
            os.write(theirs, b"x" * 4096)
    except BlockingIOError:
        os.set_blocking(theirs, True)
    return theirs


FAULTS = [closed_pipe, full_disk, stuck_pipe]


@pytest.mark.parametrize("made", FAULTS, ids=lambda made: made.__name__)
def test_letters_and_logins_do_not_depend_on_the_log(monkeypatch, made):
    """Told 250 once and kept once, however many events were told before that nobody reads."""
    log = Log(made(), lines_max=50)

    async def test():
        async with MemoryServer("smtp", {"service": "smtp"}) as server:
            for part in (server.app.telemetry, server.app.resources.telemetry):
                monkeypatch.setattr(part, "_write", log.put)
                monkeypatch.setattr(part, "_quiet", False)
            client = await server.connect()
            client.send(b"EHLO x\r\n")
            while not (await client.line()).startswith("250 "):
                pass
            for _ in range(60):
                for line in (b"MAIL FROM:<a@b.test>", b"RCPT TO:<bob@gcd.org>", b"DATA"):
                    client.send(line + b"\r\n")
                    await client.line()
                client.send(b"Subject: x\r\n\r\nx\r\n.\r\n")
                assert (await client.line()).startswith("250 ")
            assert await server.store.database.read(lambda tx: tx.row("SELECT count(*) FROM message")) == (60,)
            counted = server.app.telemetry.counters
            assert counted["letter.accepted"] == 60 and not counted["session.bug"]

    asyncio.run(asyncio.wait_for(test(), 60))


def test_every_line_is_written_or_counted_as_lost():
    reads, writes = os.pipe()
    log = Log(writes, lines_max=100)
    told = Telemetry(log.put)
    for number in range(5000):
        told.event("something", number=number, text="y" * 100)
    assert log.lost > 1000  # the pipe is stuck: nobody has read yet
    lines: list[str] = []

    def reader():
        with os.fdopen(reads) as file:
            lines.extend(file)

    thread = threading.Thread(target=reader)
    thread.start()
    while not log.flush():
        pass
    told.event("something", number=5000)
    while not log.flush():
        pass
    os.close(writes)
    thread.join()
    events = [json.loads(line) for line in lines]
    lost = sum(event["lines"] for event in events if event["event"] == "log.lost")
    written = [event["number"] for event in events if event["event"] == "something"]
    assert lost == log.lost
    assert len(written) + lost == 5001
    assert written == sorted(set(written))


def test_a_line_that_was_cut_off_does_not_spoil_the_next(monkeypatch):
    reads, writes = os.pipe()
    log, write, calls = Log(writes), os.write, []

    def failing(fd, octets):
        calls.append(len(octets))
        if len(calls) == 1:
            return write(fd, octets[:5])
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        return write(fd, octets)

    monkeypatch.setattr(os, "write", failing)
    told = Telemetry(log.put)
    told.event("first")
    assert log.flush()
    told.event("second")
    assert log.flush()
    monkeypatch.undo()
    os.close(writes)
    with os.fdopen(reads) as file:
        lines = file.read().split("\n")
    assert lines[0] == '{"at"'
    assert [json.loads(line)["event"] for line in lines[1:] if line] == ["second", "log.lost"]
    assert log.lost == 1


def test_the_end_of_a_program_waits_for_its_lines_but_not_for_ever():
    code = "from fubako.telemetry import Telemetry; [Telemetry().event('x', number=n) for n in range(500)]"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, timeout=60)
    assert len(done.stderr.splitlines()) == 500
    fd = stuck_pipe()
    assert subprocess.run([sys.executable, "-c", code], stderr=fd, check=False, timeout=60).returncode == 0


def test_a_forked_process_writes_its_own_lines_and_no_others(tmp_path):
    code = (
        "import os, fubako.telemetry as t\n"
        "t.Telemetry().event('before'); pid = os.fork(); t.Telemetry().event('after', child=not pid); t.flush()\n"
        "os._exit(0) if not pid else os.waitpid(pid, 0)"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, check=True, timeout=60)
    told = sorted((event["event"], event.get("child")) for event in map(json.loads, done.stderr.splitlines()))
    assert told == [("after", False), ("after", True), ("before", None)]


def test_facts_that_no_json_can_hold_are_no_fault():
    lines = []
    facts: list = []
    facts.append(facts)
    Telemetry(lines.append).event("odd", facts=facts)
    Telemetry(lines.append).event("odd", facts=object(), octets=b"\xff")
    assert len(lines) == 1
    assert telemetry.LINES_MAX > 0
