"""Who speaks for others: XCLIENT, PROXY, and the names of clients."""

import asyncio
import json

from memory_server import certificates
from peer import House
from test_proxy import SSL, V4, v2
from zone import Zone

from fubako import app
from fubako.config import Certificate, Inbound, Listen, Tls, networks
from fubako.net import tcp
from fubako.net.tls import ClientTls

SPEAKERS = {"inbound": Inbound(xclient_networks=("192.0.2.0/24",))}
LETTER = ("MAIL FROM:<eve@evil.test>", "RCPT TO:<alice@here.test>", "DATA", "Subject: x", "", "body", ".")


def run(tmp_path, test, **house):
    async def inside():
        async with House(tmp_path, **house) as made:
            return await test(made)

    return asyncio.run(inside())


def test_xclient_is_offered_to_speakers_alone(tmp_path):
    async def test(house):
        words = ["XCLIENT ADDR=198.51.100.7 NAME=far.test", "EHLO far.test", *LETTER]
        good = await house.said(*words)
        return good, await house.said(words[0], peer="203.0.113.1"), (await house.inbox())[0]

    good, bad, letter = run(tmp_path, test, more=SPEAKERS)
    assert good[0] == "220 here.test ESMTP Fubako" and good[-1].startswith("250")
    assert bad == ["550 5.7.0 XCLIENT is not for you"]
    assert "Received: from far.test ([198.51.100.7])" in letter


def test_xclient_login_is_a_user_and_begins_anew(tmp_path):
    async def test(house):
        return await house.said(
            "MAIL FROM:<eve@evil.test>", "XCLIENT ADDR=198.51.100.7", "RSET", "XCLIENT ADDR=IPV6:2001:db8::1 LOGIN=alice@here.test",
            "MAIL FROM:<x@y.test>", "EHLO x", "MAIL FROM:<alice@here.test>", "RCPT TO:<bob@far.test>", "XCLIENT ADDR=nonsense",
            "XCLIENT COLOUR=blue", "RSET", "XCLIENT ADDR=nonsense",
        )  # fmt: skip

    replies = run(tmp_path, test, more=SPEAKERS)
    assert replies[1].startswith("503") and replies[3].startswith("220") and replies[4].startswith("503")
    assert replies[7] == "550 5.4.4 no route leads to this domain"  # a user, not a stranger
    assert (
        replies[8].startswith("503") and replies[9].startswith("503") and replies[-1] == "501 5.5.4 ADDR is no address"
    )


def test_an_access_table_knows_clients_by_names_that_lead_back(tmp_path):
    (tmp_path / "access").write_text("Connect:dialup.test REJECT\n")
    zone = Zone(
        addresses={"a.dialup.test": ["192.0.2.1"], "liar.dialup.test": ["192.0.2.99"]},
        names={"1.2.0.192.in-addr.arpa": ["a.dialup.test"], "2.2.0.192.in-addr.arpa": ["liar.dialup.test"]},
    )

    async def test(house):
        return [(await house.said(LETTER[0], peer=f"192.0.2.{n}"))[0][:3] for n in (1, 2, 3)]

    assert run(tmp_path, test, zone=zone, access=str(tmp_path / "access")) == ["550", "250", "250"]


async def talk(port, octets):
    stream = await tcp.connect("127.0.0.1", port)
    stream.write(octets)
    said = b""
    while octets := await stream.read():
        said += octets
    return said.decode()


def test_proxy_says_who_comes_and_how_it_was_encrypted(tmp_path):
    async def test(house):
        listen = (
            Listen(service="smtp", addresses=("127.0.0.1:1",), proxy_networks=("127.0.0.1/32",)),
            Listen(service="submissions", addresses=("127.0.0.1:1",), proxy_networks=("127.0.0.1/32",)),
            Listen(service="smtp", addresses=("127.0.0.1:1",), proxy_networks=("192.0.2.0/24",)),
        )
        bound, ports = [], []
        for one in listen:
            socket = tcp.bound_socket("127.0.0.1", 0)
            ports.append(socket.getsockname()[1])
            bound.append(app.Bound(one.service, socket, one.service == "submissions", networks(one.proxy_networks)))
        await house.app.listen(bound)
        letter = "\r\n".join(["EHLO x", *LETTER, "QUIT", ""]).encode()
        first = await talk(ports[0], b"PROXY TCP4 198.51.100.7 127.0.0.1 5000 25\r\n" + letter)
        tls = await talk(ports[1], v2(body=V4, tlvs=SSL) + b"EHLO x\r\nQUIT\r\n")
        refused = [await talk(ports[0], b"EHLO x\r\n"), await talk(ports[2], b"PROXY UNKNOWN\r\nQUIT\r\n")]
        journey = await house.store.database.read(lambda tx: tx.rows("SELECT journey FROM message"))
        return first, tls, refused, json.loads(journey[0][0]), house.app.telemetry.counters["proxy.refused"]

    first, tls, refused, journey, counted = run(tmp_path, test)
    assert "250 2.0.0 ok" in first and journey[0]["peer"] == "198.51.100.7:5000"
    assert "AUTH" in tls and "STARTTLS" not in tls  # encrypted already, by the proxy
    assert refused == ["", ""] and counted == 2


def test_a_proxy_that_says_the_first_octets_of_tls_with_its_header(tmp_path):
    async def test(house):
        socket = tcp.bound_socket("127.0.0.1", 0)
        bound = app.Bound("submissions", socket, True, networks(("127.0.0.1/32",)))
        await house.app.listen([bound])
        pump = ClientTls(ca_files=[certificates() / "ca.pem"]).pump("localhost")
        stream = await tcp.connect("127.0.0.1", socket.getsockname()[1])
        stream.write(v2(body=V4) + pump.outgoing())
        stream.begin_tls(pump)
        await stream.handshake()
        return stream.tls.version, await stream.read()

    chain = Certificate(chain=str(certificates() / "s.pem"), key=str(certificates() / "s.key"))
    version, greeting = run(tmp_path, test, more={"tls": Tls(certificates=(chain,))})
    assert version == "TLSv1.3" and greeting.startswith(b"220 ")


def test_a_connection_is_counted_off_where_it_was_counted(tmp_path):
    """XCLIENT names another client: the place that the speaker took is his own."""

    async def test(house):
        listener = tcp.bound_socket("127.0.0.1", 0)
        port = listener.getsockname()[1]
        await house.app.listen([app.Bound("smtp", listener, False)])
        said = [await talk(port, b"XCLIENT ADDR=198.51.100.7\r\nQUIT\r\n") for _ in range(2)]
        while house.app._sessions:
            await asyncio.sleep(0.01)
        return said, house.app.connections.total, dict(house.app.connections._open)

    said, total, still_open = run(tmp_path, test, more={"inbound": Inbound(xclient_networks=("127.0.0.1/32",))})
    assert all("\r\n220 " in one for one in said)
    assert (total, still_open) == (0, {})
