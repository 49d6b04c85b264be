"""SIGTERM under load, of real processes: what was answered 250 is there once, and what was not answered is not there.

STOPS in the environment asks for more of them. Left out: machines that are so slow that a commit takes longer than a stop waits.
"""

import os
import signal
import smtplib
import subprocess
import threading

import pytest
from server import FUBAKO, Server

STOPS = int(os.environ.get("STOPS", "4"))
SENDERS = 5


def send_until_stopped(port: int, address: str, name: str, answers: dict[str, bool]) -> None:
    """Markers, and whether they were answered 250. The connection that ends without an answer leaves its letter out: nobody was
    told anything of it."""
    count = 0
    try:
        with smtplib.SMTP("localhost", port, timeout=30) as client:
            while True:
                count += 1
                marker = f"{name}-{count}"
                client.sendmail(f"{marker}@elsewhere.test", [address], f"Subject: x\r\n\r\n{marker}\r\n")
                answers[marker] = True
    except smtplib.SMTPServerDisconnected:
        return
    except smtplib.SMTPException:
        answers[marker] = False  # told 421
    except OSError:
        return


@pytest.mark.timeout(120 + 30 * STOPS)
def test_sigterm_doubles_nothing(tmp_path):
    server = Server(tmp_path / "d").start()
    assert server.stop() == 0
    address = server.account("bob")[0]
    answers: dict[str, bool] = {}
    for number in range(STOPS):
        process = subprocess.Popen(
            [FUBAKO, "serve", "--config", str(server.root / "fubako.toml"), "--workers", "2"],
            stderr=subprocess.PIPE,
            text=True,
        )
        while "serve.started" not in (line := process.stderr.readline()):
            assert line, "it did not start"
        drained = threading.Thread(target=process.stderr.read)
        drained.start()
        before = sum(answers.values())
        threads = [
            threading.Thread(
                target=send_until_stopped, args=(server.port("smtp"), address, f"r{number}s{one}", answers)
            )
            for one in range(SENDERS)
        ]
        for thread in threads:
            thread.start()
        while sum(list(answers.values())) < before + 25 and any(thread.is_alive() for thread in threads):
            threads[0].join(0.001)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        for thread in (*threads, drained):
            thread.join()
        process.stderr.close()
    exported = server.fubako("store", "export", str(tmp_path / "out"), address)
    assert exported.returncode == 0, exported.stderr
    found = [
        line.removeprefix("Return-Path: <").split("@")[0]
        for path in (tmp_path / "out").rglob("*")
        if path.is_file()
        for line in path.read_text(errors="replace").splitlines()
        if line.startswith("Return-Path: <r")
    ]
    assert len(found) == len(set(found))
    told = {marker for marker, kept in answers.items() if kept}
    refused = {marker for marker, kept in answers.items() if not kept}
    assert told <= set(found), "told 250 and not there"
    assert not refused & set(found), "told 421 and there: it will come again"
    assert len(told) >= 25 * STOPS
    assert server.fubako("store", "verify").returncode == 0
