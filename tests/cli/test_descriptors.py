"""A server whose descriptors are few serves those it has taken; the store's are never the ones that are missing.

Left out: a system that has none left for anybody (ENFILE).
"""

import resource
import signal
import smtplib
import socket
import subprocess

from server import FUBAKO, Server

FILES = 300
PEERS = 400


def greeted(address: tuple[str, int]) -> bool:
    with socket.create_connection(address, timeout=20) as peer:
        return peer.recv(64).startswith(b"220")


def test_idle_peers_leave_descriptors_to_the_store(tmp_path):
    root = tmp_path / "d"
    server = Server(root).start()
    assert server.stop() == 0
    process = subprocess.Popen(
        [FUBAKO, "serve", "--config", str(root / "fubako.toml"), "--workers", "1"],
        stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (64, FILES)),
    )  # fmt: skip
    peers = []
    try:
        lines = iter(process.stderr.readline, "")
        told = [next(line for line in lines if name in line) for name in ('"limits.lowered"', '"serve.started"')]
        assert f'"files": {FILES}' in told[0]
        address, _password, _ = server.account("bob")
        with smtplib.SMTP("127.0.0.1", server.port("smtp"), timeout=20) as first:
            first.ehlo()
            smtp = ("127.0.0.1", server.port("smtp"))
            peers += [socket.create_connection(smtp, timeout=20) for _ in range(PEERS)]
            answered = sum(bool(peer.recv(64)) for peer in peers)
            assert 100 < answered < FILES
            first.sendmail("a@elsewhere.test", [address], "Subject: taken\r\n\r\nwith few descriptors\r\n")
        for peer in peers:
            peer.close()
        assert any(greeted(smtp) for _ in range(PEERS))  # those that went are noticed one by one
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        rest = process.stderr.read()
        process.stderr.close()
    assert "Too many open files" not in rest and "store.error" not in rest and "bug" not in rest
