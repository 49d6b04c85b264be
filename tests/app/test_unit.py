"""The unit that ships: how exposed it leaves the server, by systemd's own reckoning.

Left out: that a systemd starts it; there is none here. `launch_unit` says what it holds of the unit and what it cannot.
"""

import imaplib
import os
import re
import shutil
import signal
import smtplib
import socket
import ssl
import subprocess
import sys
from pathlib import Path

from server import FUBAKO, Server, without

UNIT = Path(__file__).parents[2] / "docs" / "fubako.service"
EXPOSURE_MAX = 2.5


def test_the_unit_leaves_little_exposed():
    if shutil.which("systemd-analyze") is None:
        without("systemd-analyze is not installed")
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(UNIT)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    found = re.search(r"exposure level for \S+: ([0-9.]+)", done.stdout)
    assert found is not None, done.stderr
    assert float(found.group(1)) <= EXPOSURE_MAX
    assert "ignoring" not in done.stderr, done.stderr


def test_the_unit_leaves_one_capability_and_a_private_umask():
    lines = UNIT.read_text().splitlines()
    for line in ("UMask=0077", "CapabilityBoundingSet=CAP_NET_BIND_SERVICE", "NoNewPrivileges=yes", "ProtectSystem=strict",
                 "StateDirectoryMode=0700"):  # fmt: skip
        assert line in lines


def test_the_server_lives_with_what_the_unit_leaves(tmp_path):
    if os.getuid() != 0 or shutil.which("systemd-analyze") is None:
        without("only root can take these rights away, and systemd-analyze names the calls")
    root = tmp_path / "d"
    server = Server(root).start()
    assert server.stop() == 0
    notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notify.bind(str(root / "notify"))
    notify.settimeout(15)
    launcher = [sys.executable, str(Path(__file__).with_name("launch_unit.py")), str(UNIT), str(root)]
    serve = [FUBAKO, "serve", "--config", str(root / "fubako.toml"), "--workers", "1"]
    process = subprocess.Popen(
        [*launcher, *serve], stderr=subprocess.PIPE, text=True,
        env={**os.environ, "NOTIFY_SOCKET": str(root / "notify"), "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    try:
        assert notify.recv(4096) == b"READY=1"
        address, password, _ = server.account("bob")
        with smtplib.SMTP("localhost", server.port("smtp")) as sender:
            sender.sendmail("a@elsewhere.test", [address], "Subject: confined\r\n\r\nfindthisword\r\n")
        context = ssl.create_default_context(cafile=server.ca)
        client = imaplib.IMAP4_SSL("localhost", server.port("imaps"), ssl_context=context, timeout=20)
        client.login(address, password)
        client.select()
        assert client.search(None, "BODY", "findthisword")[1] != [b""]
        client.logout()
        status = Path(f"/proc/{process.pid}/status").read_text()
        assert "Seccomp:\t2" in status and "CapBnd:\t0000000000000400" in status
    finally:
        process.send_signal(signal.SIGTERM)
        code = process.wait(60)
        told = process.stderr.read()
        process.stderr.close()
        notify.close()
    assert code == 0, told
    assert "bug" not in told and "unavailable" not in told, told
    assert '"event": "worker.confined"' in told and '"event": "spawner.died"' not in told, told
