"""kill -9 of workers and of the whole server while letters are relayed: each one that was answered 250 goes out, and hardly any
twice: only those whose end of data was under way."""

import contextlib
import json
import os
import re
import signal
import smtplib
import socketserver
import subprocess
import threading
import time

import pytest
from server import FUBAKO, free_offset

KILLS = 6
SENDERS = 4
LINE = "x" * 70 + "\r\n"


class Sink(socketserver.ThreadingTCPServer):
    """Takes every letter and remembers its marker."""

    daemon_threads = allow_reuse_address = True
    request_queue_size = 500

    def __init__(self) -> None:
        self.markers: list[str] = []
        super().__init__(("127.0.0.1", 0), SinkSession)
        self.port = self.server_address[1]
        threading.Thread(target=self.serve_forever, daemon=True).start()


class SinkSession(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):
            self.talk()

    def talk(self) -> None:
        self.wfile.write(b"220 sink\r\n")
        content: list[bytes] | None = None
        for line in self.rfile:
            if content is not None and line != b".\r\n":
                content.append(line)
                continue
            if content is not None:
                found = re.search(rb"X-Marker: (\S+)", b"".join(content))
                self.server.markers.append(found.group(1).decode())
                content = None
                self.wfile.write(b"250 2.0.0 ok\r\n")
            elif line.upper().startswith(b"DATA"):
                content = []
                self.wfile.write(b"354 go\r\n")
            elif line.upper().startswith(b"QUIT"):
                self.wfile.write(b"221 bye\r\n")
                return
            else:
                self.wfile.write(b"250 PIPELINING\r\n" if line.upper().startswith(b"EHLO") else b"250 2.0.0 ok\r\n")


def send(port: int, name: str, accepted: list[str], stop: threading.Event) -> None:
    count = 0
    while not stop.is_set():
        try:
            with smtplib.SMTP("127.0.0.1", port, timeout=10) as client:
                while not stop.is_set():
                    count += 1
                    marker = f"{name}.{count}"
                    client.sendmail("a@here.test", ["b@far.test"], f"X-Marker: {marker}\r\n\r\n{LINE * 14}")
                    accepted.append(marker)
        except (OSError, smtplib.SMTPException):
            time.sleep(0.05)


def workers(pid: int) -> list[int]:
    return [int(one) for one in open(f"/proc/{pid}/task/{pid}/children").read().split()]


@pytest.mark.timeout(300)
def test_every_letter_that_was_accepted_goes_out(tmp_path):
    sink, port = Sink(), 25 + free_offset()
    config = tmp_path / "fubako.toml"
    (tmp_path / "access").write_text("Connect:127.0.0.1 RELAY\n")
    config.write_text(
        f'hostname = "here.test"\nworkers = 2\naccess = "access"\n[queue]\nfirst_gap_seconds = 1\nlongest_gap_seconds = 2\n'
        f'[[route]]\nto = "smtp://127.0.0.1:{sink.port}"\n[[listen]]\nservice = "smtp"\naddresses = ["127.0.0.1:{port}"]\n'
    )

    def start() -> subprocess.Popen:
        return subprocess.Popen([FUBAKO, "serve", "--config", str(config)], stderr=(tmp_path / "log").open("ab"))

    server, accepted, stop = start(), [], threading.Event()
    threads = [threading.Thread(target=send, args=(port, f"s{i}", accepted, stop)) for i in range(SENDERS)]
    try:
        for thread in threads:
            thread.start()
        for number in range(KILLS):
            before = len(accepted)
            while len(accepted) < before + 100:
                time.sleep(0.01)
            if number % 3 == 2:  # the whole server
                victims = [server.pid, *workers(server.pid)]
                for pid in victims:
                    os.kill(pid, signal.SIGKILL)
                server.wait()
                time.sleep(0.2)
                server = start()
            else:
                while not (alive := workers(server.pid)):
                    time.sleep(0.05)
                os.kill(alive[number % len(alive)], signal.SIGKILL)
        stop.set()
        for thread in threads:
            thread.join()
        end = time.monotonic() + 90
        waiting: list[dict] = [{}]
        while waiting and time.monotonic() < end:
            time.sleep(0.5)
            done = subprocess.run(
                [FUBAKO, "queue", "list", "--json", "--config", str(config)], capture_output=True, text=True, check=True
            )
            waiting = json.loads(done.stdout)
        assert not waiting
        assert len(accepted) >= 100 * KILLS
        assert not set(accepted) - set(sink.markers), "accepted and lost"
        twice = len(sink.markers) - len(set(sink.markers))
        assert twice <= KILLS * 2 * 20, "more were sent twice than could be under way"
    finally:
        stop.set()
        server.terminate()
        server.wait(30)
        sink.shutdown()
        sink.server_close()
    done = subprocess.run(
        [FUBAKO, "store", "verify", "--config", str(config)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
