"""Through a SOCKS proxy, from an address of ours, with a password that a program knows."""

import asyncio
import shutil
import socket
import subprocess
import sys
import time

import pytest
from memory_server import certificates
from peer import House, Peer
from peers import free_port
from server import without

from fubako.config import Config, ConfigError, Route, parse
from fubako.net import socks, tcp
from fubako.net.socks import Proxy

CA = str(certificates() / "ca.pem")


@pytest.fixture
def proxy():
    program = shutil.which("microsocks")
    if program is None:
        without("microsocks is not installed")
    port = free_port()
    running = subprocess.Popen(
        [program, "-i", "127.0.0.1", "-p", str(port), "-u", "us", "-P", "hunter2"], stderr=subprocess.DEVNULL
    )
    for _ in range(500):
        with socket.socket() as one:
            if one.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.01)
    yield port
    running.terminate()
    running.wait(10)


def one_letter(tmp_path, route, *, starttls=False, says=None, offers=("PIPELINING",)):
    async def test():
        async with Peer(starttls=starttls, says=says, offers=offers) as peer:
            made = route(peer.port)
            async with House(tmp_path, made) as house:
                house.run()
                await house.send("bob@far.test")

                async def over():
                    tried = [one.status for one in await house.entries() if one.attempts]
                    return tried or peer.letters

                found = await house.until(over)
                return found, peer

    return asyncio.run(test())


def test_a_letter_goes_through_a_socks_proxy(tmp_path, proxy):
    (tmp_path / "secret").write_text("hunter2\n")
    (tmp_path / "secret").chmod(0o600)
    login = {"socks": f"127.0.0.1:{proxy}", "socks_user": "us", "socks_password_file": str(tmp_path / "secret")}
    letters, peer = one_letter(
        tmp_path,
        lambda port: Route(to=f"smtp://localhost:{port}", ca_files=(CA,), tls="verify", **login),
        starttls=True,
    )
    assert letters and peer.encrypted == [True]


def test_a_proxy_that_refuses_keeps_the_letter(tmp_path, proxy):
    (tmp_path / "secret").write_text("wrong\n")
    (tmp_path / "secret").chmod(0o600)
    login = {"socks": f"127.0.0.1:{proxy}", "socks_user": "us", "socks_password_file": str(tmp_path / "secret")}
    (status,), _ = one_letter(tmp_path, lambda port: Route(to=f"smtp://localhost:{port}", **login))
    assert status.startswith("451 4.4.1") and "refuses the login" in status
    (status,), _ = one_letter(
        tmp_path / "b", lambda port: Route(to=f"smtp://localhost:{port}", socks=f"127.0.0.1:{proxy}")
    )
    assert "wants another login" in status


def test_a_destination_that_a_proxy_cannot_reach(proxy):
    with pytest.raises(OSError, match=r"cannot reach 127\.0\.0\.1"):
        asyncio.run(socks.connect(Proxy("127.0.0.1", proxy, "us", "hunter2"), "127.0.0.1", free_port()))


@pytest.mark.parametrize(
    "answer",
    [
        b"\x04\x00",
        b"\x05\xff",
        b"\x05",
        b"HTTP/1.1 400\r\n",
        b"\x05\x00\x05\x00\x00\x09",
        b"\x05\x00\x05\x00\x00\x01abc",
    ],
)
def test_what_is_no_socks_proxy(answer):
    async def test():
        listener = tcp.bound_socket("127.0.0.1", 0)

        def connected(stream):
            stream.write(answer)
            asyncio.get_running_loop().call_later(0.05, stream.close)

        server = await tcp.listen(listener, connected)
        try:
            with pytest.raises(OSError, match="proxy"):
                await socks.connect(Proxy("127.0.0.1", listener.getsockname()[1]), "192.0.2.1", 25)
        finally:
            server.close()

    asyncio.run(test())


def test_from_an_address_of_ours(tmp_path):
    heard = []

    async def test():
        listener = tcp.bound_socket("127.0.0.1", 0)

        def connected(stream):
            heard.append(stream.peer)
            stream.close()

        server = await tcp.listen(listener, connected)
        made = Route(to=f"smtp://127.0.0.1:{listener.getsockname()[1]}", sources=("::1", "127.0.0.77"))
        async with House(tmp_path, made) as house:
            house.run()
            await house.send("bob@far.test")
            await house.until(lambda: heard)
        server.close()

    asyncio.run(test())
    assert heard[0].startswith("127.0.0.77:")


def test_a_program_knows_the_password(tmp_path):
    says = {"AUTH": ["235 2.7.0 ok"]}

    def route(*command):
        return lambda port: Route(to=f"smtp://localhost:{port}", ca_files=(CA,), user="us", password_command=command)

    write = (sys.executable, "-c", "print('hunter2')")
    letters, peer = one_letter(tmp_path / "a", route(*write), starttls=True, says=says, offers=("AUTH PLAIN",))
    assert letters and any(line == "AUTH PLAIN AHVzAGh1bnRlcjI=" for line in peer.said)
    for name, command in (
        ("b", (sys.executable, "-c", "raise SystemExit(1)")),
        ("c", ("/nowhere",)),
        ("d", (sys.executable, "-c", "")),
    ):
        (status,), _ = one_letter(tmp_path / name, route(*command), starttls=True, offers=("AUTH PLAIN",))
        assert status.startswith("451 4.3.5 the password of the route cannot be had")


@pytest.mark.parametrize(
    "route",
    [
        {"to": "mx", "user": "us"},
        {"to": "mx", "user": "us", "password_file": "x", "password_command": ["y"]},
        {"to": "mx", "sources": ["here"]},
        {"to": "mx", "socks": "nowhere"},
        {"to": "mx", "socks_user": "us"},
        {"to": "mx", "socks": "a:1", "socks_user": "us"},
    ],
)
def test_settings_that_do_not_go_together(route):
    assert isinstance(parse({"hostname": "x", "route": [{"to": "mx"}]}, "here"), Config)
    with pytest.raises(ConfigError, match=r"^here: route\."):
        parse({"hostname": "x", "route": [route]}, "here")


def test_a_password_file_that_others_can_read_is_not_read(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("hunter2\n")
    secret.chmod(0o644)
    (status,), peer = one_letter(
        tmp_path / "house", lambda port: Route(to=f"smtp://localhost:{port}", ca_files=(CA,), user="us", password_file=str(secret)),
        starttls=True, offers=("AUTH PLAIN",),
    )  # fmt: skip
    assert "can be read by others" in status and not any(line.startswith("AUTH") for line in peer.said)
