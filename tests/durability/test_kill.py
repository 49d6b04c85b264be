"""kill -9 under load: every letter that was answered 250 is there after the next start."""

import imaplib
import re
import smtplib
import ssl
import threading

import pytest
from server import Server

ROUNDS = 5
SENDERS = 6
LINE = "x" * 70 + "\r\n"


def send_until_killed(port: int, address: str, name: str, accepted: list[str], stop: threading.Event) -> None:
    count = 0
    try:
        with smtplib.SMTP("localhost", port, timeout=20) as client:
            while not stop.is_set():
                count += 1
                marker = f"{name}.{count}"
                client.sendmail("a@elsewhere.test", [address], f"X-Marker: {marker}\r\n\r\n{LINE * 28}")
                accepted.append(marker)
    except (OSError, smtplib.SMTPException):
        return


@pytest.mark.timeout(300)
def test_nothing_accepted_is_lost(tmp_path):
    server = Server(tmp_path / "data").start()
    address, password, _ = server.account("bob")
    accepted: list[str] = []
    try:
        for number in range(ROUNDS):
            stop = threading.Event()
            threads = [
                threading.Thread(
                    target=send_until_killed, args=(server.port("smtp"), address, f"m{number}x{i}", accepted, stop)
                )
                for i in range(SENDERS)
            ]
            before = len(accepted)
            for thread in threads:
                thread.start()
            while len(accepted) < before + 60:
                pass
            server.kill()
            stop.set()
            for thread in threads:
                thread.join()
            server.start()
        context = ssl.create_default_context(cafile=server.ca)
        client = imaplib.IMAP4_SSL("localhost", server.port("imaps"), ssl_context=context)
        client.login(address, password)
        client.select(readonly=True)
        _, data = client.fetch("1:*", "(UID BODY.PEEK[HEADER.FIELDS (X-MARKER)])")
        client.logout()
        found = [
            m.group(1).decode()
            for item in data
            if isinstance(item, tuple) and (m := re.search(rb"X-Marker: (\S+)", item[1]))
        ]
        assert len(accepted) >= 60 * ROUNDS
        assert not set(accepted) - set(found), "accepted and lost"
        assert len(found) == len(set(found)), "given twice"
        # what was not answered may be there or not; nothing else
        assert len(found) <= len(accepted) + ROUNDS * SENDERS
        assert server.fubako("store", "verify").returncode == 0
    finally:
        if server.process is not None:
            assert server.stop() == 0
