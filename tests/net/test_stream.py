"""What every stream promises: the same suite over memory, TCP, Unix sockets and channels of SSH, plain and under TLS."""

import asyncio
import os
import socket
from pathlib import Path

import pytest
from memory_server import certificates

from fubako.net import memory, ssh, ssh_client, tcp
from fubako.net.interface import StreamTimeout, TlsError
from fubako.net.tls import Certificate, ClientTls, ServerTls

KINDS = ["memory", "tcp", "unix", "ssh"]


class Door:
    """Lets one key in, and gives what is forwarded to whoever waits for it."""

    passwords = False

    def __init__(self, line: str, arrived: asyncio.Future) -> None:
        self.line, self.arrived = line, arrived

    def came(self, _peer: str) -> bool:
        return True

    def left(self) -> None:
        pass

    async def keys(self, _user: str) -> list[tuple[str, str, bool]]:
        return [(ssh.fingerprints(self.line)[0], self.line, False)]

    async def refused(self, _user: str) -> None:
        pass

    async def entered(self, _facts) -> bool:
        return True

    def leads(self, _host: str, _port: int):
        async def serve(stream) -> None:
            self.arrived.set_result(stream)
            await asyncio.Event().wait()  # the test ends it

        return serve


async def over_ssh(tmp_path):
    """(server's end, client's end) of a forwarded connection: our door, and our own client."""
    loop = asyncio.get_running_loop()
    arrived, tasks = loop.create_future(), []
    host, user = tmp_path / "host", tmp_path / "user"
    for path in (host, user):
        ssh.ensure_host_key(path)
    listener = tcp.bound_socket("127.0.0.1", 0)
    port = listener.getsockname()[1]
    door = Door(ssh.public_host_key(user), arrived)
    await ssh.listen(listener, [host], lambda: door, lambda work: tasks.append(loop.create_task(work)), 10)
    known = tmp_path / "known_hosts"
    known.write_text(f"[127.0.0.1]:{port} {ssh.public_host_key(host)}\n")
    ways = ssh_client.SshWays([str(known)], [str(user)], Path(os.devnull))
    client = await ways.forward(f"ann@127.0.0.1:{port}", "localhost", 143)
    server = await arrived
    server.kept = (ways, tasks)  # as long as the stream
    return server, client


async def joined(kind: str, tmp_path):
    """(server's end, client's end)."""
    if kind == "memory":
        return memory.pair()
    if kind == "ssh":
        return await over_ssh(tmp_path)
    arrived: asyncio.Future = asyncio.get_running_loop().create_future()
    if kind == "tcp":
        listener = tcp.bound_socket("127.0.0.1", 0)
        await tcp.listen(listener, arrived.set_result)
        client = await tcp.connect("127.0.0.1", listener.getsockname()[1])
    else:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        listener.setblocking(False)
        await tcp.listen(listener, arrived.set_result)
        client = await tcp.connect_unix(str(tmp_path / "s"))
    return await arrived, client


def server_tls() -> ServerTls:
    root = certificates()
    return ServerTls([Certificate.load(root / "s.pem", root / "s.key")], alpn=("imap",))


def client_tls() -> ClientTls:
    return ClientTls(ca_files=[certificates() / "ca.pem"], system_authorities=False)


def run(test, *arguments):
    asyncio.run(asyncio.wait_for(test(*arguments), 20))


async def read_all(stream, count: int) -> bytes:
    out = b""
    while len(out) < count:
        octets = await stream.read()
        assert octets
        out += octets
    return out


async def both(server, client, server_pump, client_pump):
    await asyncio.gather(server.start_tls(server_pump), client.start_tls(client_pump))


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("kind", KINDS)
def test_octets_go_both_ways_and_an_end_is_an_end(kind, tls, tmp_path):
    async def test():
        server, client = await joined(kind, tmp_path)
        if tls:
            await both(server, client, server_tls().pump(), client_tls().pump("localhost"))
            assert server.tls.version == client.tls.version == "TLSv1.3"
            assert server.tls.bindings == client.tls.bindings
            assert set(server.tls.bindings) == {"tls-exporter", "tls-server-end-point"}
            assert client.tls.peer.chain_error == "" and "localhost" in client.tls.peer.dns_names
        big = bytes(range(256)) * 4000
        client.write(big)
        assert await read_all(server, len(big)) == big
        server.write(b"answer")
        await server.drain()
        assert await read_all(client, 6) == b"answer"
        client.close()
        assert await server.read() == b""
        server.close()

    run(test)


@pytest.mark.parametrize("kind", KINDS)
def test_bytes_behind_starttls_are_an_error(kind, tmp_path):
    async def test():
        server, client = await joined(kind, tmp_path)
        client.write(b"STARTTLS\r\n")
        assert await server.read() == b"STARTTLS\r\n"
        client.write(b"injected")
        while not server.pending:
            await asyncio.sleep(0)
        with pytest.raises(TlsError, match="behind STARTTLS"):
            await server.start_tls(server_tls().pump())
        server.close()
        client.close()

    run(test)


@pytest.mark.parametrize("kind", KINDS)
def test_garbage_instead_of_a_handshake(kind, tmp_path):
    async def test():
        server, client = await joined(kind, tmp_path)
        client.write(b"EHLO there\r\n" * 3)
        with pytest.raises(TlsError):
            await server.start_tls(server_tls().pump())
        server.close()
        client.close()

    run(test)


def test_silence_and_dripping_end_a_handshake():
    async def test():
        server, client = memory.pair()
        server.idle_seconds = 0.2

        async def drip():
            pump = client_tls().pump("localhost")
            for octet in pump.outgoing():
                client.write(bytes([octet]))
                await asyncio.sleep(0.01)

        dripping = asyncio.ensure_future(drip())
        with pytest.raises(StreamTimeout):
            await server.start_tls(server_tls().pump())
        dripping.cancel()
        await asyncio.gather(dripping, return_exceptions=True)
        server.close()

    run(test)


def test_a_nudge_wakes_and_does_not_count_as_a_word():
    async def test():
        server, client = memory.pair()
        server.idle_seconds = 0.3
        loop = asyncio.get_running_loop()
        loop.call_later(0.05, server.nudge)
        assert await server.read_or_nudge() is None
        loop.call_later(0.2, server.nudge)
        assert await server.read_or_nudge() is None
        with pytest.raises(StreamTimeout):
            await server.read_or_nudge()
        client.write(b"x")
        assert await server.read_or_nudge() == b"x"
        server.close()

    run(test)


def test_another_protocol_at_the_door_is_refused():
    """ALPACA: a client that names only other protocols is not served (RFC 7301 §3.2)."""

    async def test():
        server, client = memory.pair()
        with pytest.raises(TlsError):
            await both(server, client, server_tls().pump(), client_tls().pump("localhost", ["http/1.1"]))
        server.close()
        client.close()

    run(test)


def test_tls_1_1_is_not_spoken():
    from OpenSSL import SSL

    async def test():
        server, client = memory.pair()
        context = SSL.Context(SSL.TLS_METHOD)
        context.set_max_proto_version(SSL.TLS1_1_VERSION)
        context.set_cipher_list(b"ALL:@SECLEVEL=0")
        old = SSL.Connection(context, None)
        old.set_connect_state()
        with pytest.raises(SSL.WantReadError):
            old.do_handshake()
        client.write(old.bio_read(4096))
        with pytest.raises(TlsError):
            await server.start_tls(server_tls().pump())
        server.close()

    run(test)
