"""Letters through a small internet: real DNS with DNSSEC, Postfix and chasquid as sites, a policy host, a man in the middle."""

import asyncio
import os
import subprocess

import pytest
from internet import Chasquid, Dns, Middle, PolicyHost, own_certificate, record_text, tlsa
from memory_server import certificates
from peer import House
from peers import Postfix, free_port
from server import without
from test_gate import KEY, RECORD

from fubako import app
from fubako.accounts import directory
from fubako.admin import domains
from fubako.config import DnsListing, Inbound, Reports, Route
from fubako.net import tcp
from fubako.net.dns import DnsResolver
from fubako.net.https import HttpsClient
from fubako.policy import dkim
from fubako.store import reports

CA = certificates() / "ca.pem"


@pytest.fixture
def world(tmp_path, needs):
    """Everything that is not ours; `world.house()` is."""
    needs("unbound", "postfix", "chasquid", "swaks")
    if os.getuid() != 0:
        without("Postfix starts only as root")
    for folder in (tmp_path, *tmp_path.parents):
        if "pytest-of" in str(folder):
            folder.chmod(0o755)
    made = World(tmp_path)
    try:
        made.start()
        yield made
    finally:
        made.stop()


class OnTheNet(House):
    def __init__(self, *arguments, web, **settings):
        super().__init__(*arguments, **settings)
        self.web = web

    async def __aenter__(self):
        house = await super().__aenter__()
        house.app.https = self.web
        return house


class World:
    def __init__(self, root):
        self.root, self.running = root, []

    def start(self):
        root = self.root
        self.certificate = certificates() / "s.pem", certificates() / "s.key"
        self.postfix = Postfix(root / "postfix", *self.certificate)
        self.running.append(self.postfix)
        self.postfix.start()
        self.port = self.postfix.ports["smtp"]
        self.sts_certificate = own_certificate(root, "mx.sts.test", "mta-sts.sts.test", "reports.sts.test")
        self.chasquid = Chasquid(root / "chasquid", "127.0.2.1", self.port, "sts.test", *self.sts_certificate)
        self.running.append(self.chasquid)
        self.web = PolicyHost(*self.sts_certificate)
        self.running.append(self.web)
        self.rogue = own_certificate(root, "rogue.test")
        self.dns = Dns(root / "dns")
        good = tlsa(self.certificate[0])
        self.dns.zone(
            "fubako.test",
            f"@ IN MX 10 mx\nmx IN A 127.0.0.1\n_{self.port}._tcp.mx IN TLSA {good}\n"
            f"middle IN MX 10 mitm\nmitm IN A 127.0.3.1\n_{self.port}._tcp.mitm IN TLSA {good}\n",
            signed=True,
        )
        self.dns.zone(
            "wrong.test",
            f"@ IN MX 10 mx\nmx IN A 127.0.0.1\n_{self.port}._tcp.mx IN TLSA {tlsa(self.rogue[0])}\n",
            signed=True,
        )
        self.dns.zone("bogus.test", "@ IN MX 10 mx\nmx IN A 192.0.2.53\n", spoiled=True)
        self.dns.zone("plain.test", "@ IN MX 10 mx\nmx IN A 127.0.0.1\n")
        self.dns.zone(
            "sts.test",
            "@ IN MX 10 mx\nmx IN A 127.0.2.1\nmta-sts IN A 127.0.0.1\nreports IN A 127.0.0.1\n"
            '_mta-sts IN TXT "v=STSv1; id=1"\n_smtp._tls IN TXT "v=TLSRPTv1; rua=https://reports.sts.test/tls"\n',
        )
        self.dns.zone(
            "half.test", '@ IN MX 10 mx\nmx IN A 127.0.4.1\nmta-sts IN A 127.0.0.1\n_mta-sts IN TXT "v=STSv1; id=1"\n'
        )
        self.dns.zone("null.test", "@ IN MX 0 .\n")
        self.dns.zone("test", "")
        self.dns.zone("dul.test", '66.0.0.127 IN A 127.0.0.2\n66.0.0.127 IN TXT "Dial-up, see https://dul.test/"\n')
        self.dns.zone(
            "author.test",
            '@ IN TXT "v=spf1 ip4:127.0.5.5 -all"\n_dmarc IN TXT "v=DMARC1; p=reject"\n'
            f"k._domainkey IN TXT {record_text(RECORD.decode())}\n",
            signed=True,
        )
        self.running.append(self.dns.start())
        policy = b"version: STSv1\nmode: enforce\nmx: mx.sts.test\nmax_age: 86400\n"
        self.web.pages["mta-sts.sts.test", "/.well-known/mta-sts.txt"] = (200, "text/plain", policy)

    def stop(self):
        for one in reversed(self.running):
            one.stop()

    def house(self, **settings):
        resolver = DnsResolver([("127.0.0.1", self.dns.port)])
        (self.root / "ours").mkdir(exist_ok=True)
        route = Route(to="mx", port=self.port, ca_files=(str(CA),))
        web = HttpsClient(resolver, [CA], self.web.port)
        return OnTheNet(self.root / "ours", route, zone=resolver, web=web, **settings)

    def postfix_has(self, name):
        return list((self.postfix.root / "mail").glob(f"{name}/new/*"))


async def why(house, recipient):
    """The status of a recipient after its first attempt."""

    async def tried():
        return [one.status for one in await house.entries() if one.recipient == recipient and one.attempts]

    (status,) = await house.until(tried, 30)
    return status


def test_each_site_gets_its_letters_as_it_promises_and_each_why_says_so(world):
    async def test():
        async with (
            world.house() as house,
            Middle("127.0.3.1", world.port, ("127.0.0.1", world.port), world.rogue) as middle,
        ):
            house.run()
            await house.send(
                "user1@fubako.test",
                "user@sts.test",
                "x@wrong.test",
                "x@bogus.test",
                "x@null.test",
                "x@nowhere.test",
            )
            await house.until(lambda: world.postfix_has("user1") and world.chasquid.letters(), 30)
            wrong, bogus = await why(house, "x@wrong.test"), await why(house, "x@bogus.test")

            async def bounced():
                texts = await house.inbox()
                return texts if sum(text.count("Final-Recipient") for text in texts) == 2 else None

            bounces = "".join(await house.until(bounced, 30))
            sent = await house.store.database.read(
                lambda tx: tx.rows("SELECT address, journey FROM sent WHERE code=250 ORDER BY address")
            )
            kept = await house.store.database.read(lambda tx: tx.rows("SELECT domain FROM sts_policy"))
            return wrong, bogus, bounces, dict(sent), kept, middle.seen

    wrong, bogus, bounces, journeys, kept, _ = asyncio.run(test())
    assert "another key than DNSSEC says" in wrong and "(DANE)" in wrong
    assert bogus.startswith("451 4.4.3 DNS does not answer")
    assert "null MX" in bounces and "the domain nowhere.test does not exist" in bounces
    assert "DANE (TLSA 3 1 1)" in journeys["user1@fubako.test"] and "TLSv1.3" in journeys["user1@fubako.test"]
    assert "an authority of the route" in journeys["user@sts.test"] and kept == [("sts.test",)]


@pytest.mark.parametrize("mode", ["pass", "delay", "strip", "lie", "swap", "cut"])
def test_a_man_in_the_middle_reads_nothing_and_gets_nothing(world, mode):
    async def test():
        async with (
            world.house() as house,
            Middle("127.0.3.1", world.port, ("127.0.0.1", world.port), world.rogue) as middle,
        ):
            middle.mode = mode
            house.run()
            await house.send("user2@middle.fubako.test")

            async def over():
                tried = [one.status for one in await house.entries() if one.attempts]
                return tried or await house.store.database.read(lambda tx: tx.rows("SELECT enhanced, reason FROM sent"))

            return await house.until(over, 30), middle.seen

    found, seen = asyncio.run(test())
    assert b".dots and body" not in seen and b"MAIL FROM" not in seen
    if mode in ("pass", "delay"):  # it got through, to a site that does not keep this domain
        assert b"STARTTLS" in seen and "Relay access denied" in str(found)
    elif mode == "cut":
        assert "Relay access denied" in str(found)  # it cannot see where to cut
    else:
        (status,) = found
        words = {"strip": "no encryption", "lie": "no encryption", "swap": "another key than DNSSEC says"}[mode]
        assert words in status and "DANE" in status


def test_what_a_policy_promises_holds_against_a_stripper_and_is_reported(world):
    async def test():
        policy = b"version: STSv1\nmode: enforce\nmx: mx.half.test\nmax_age: 86400\n"
        world.web.pages["mta-sts.half.test", "/.well-known/mta-sts.txt"] = (200, "text/plain", policy)
        settings = {"reports": Reports(sender="postmaster@here.test")}
        async with world.house(more=settings) as house:
            house.run()
            await house.send("user@sts.test", "x@half.test")
            await house.until(world.chasquid.letters, 30)
            half = await why(house, "x@half.test")
            await house.app._runner._connector.results.write(now=True)
            day = reports.day_of(int(house.clock.at))
            seen = {
                name: await house.store.database.read(lambda tx, n=name: reports.sessions(tx, day, n))
                for name in ("sts.test", "half.test")
            }
            house.clock.at += 86400
            return half, seen, await house.app.report()

    half, seen, count = asyncio.run(test())
    # the certificate of the policy host is for mta-sts.sts.test: nobody can promise in the name of half.test
    assert half.startswith("451 4.4.1")
    assert [(one[0], one[3]) for one in seen["half.test"]] == [("no-policy-found", "sts-webpki-invalid")]
    ((kind, policy, mx, fault, _, sessions),) = seen["sts.test"]
    assert (kind, mx, fault, sessions) == ("sts", "mx.sts.test", "", 1) and "mode: enforce" in policy
    assert count == 1 and world.web.posted[0][0] == "/tls"


def test_letters_of_strangers_are_proved_by_real_dns(world):
    content = (
        "From: <a@author.test>\r\nTo: <alice@here.test>\r\nSubject: x\r\nMessage-ID: <1@author.test>\r\n\r\nbody\r\n"
    )
    signed = (
        dkim.sign(dkim.take_apart(content.encode()), dkim.Signer("author.test", "k", KEY), 1_800_000_000).decode()
        + content
    )
    (world.root / "signed").write_text(signed.replace("\r\n", "\n"))
    (world.root / "plain").write_text(content.replace("\r\n", "\n"))

    async def swaks(port, source, file, sender):
        process = await asyncio.create_subprocess_exec(
            "swaks", "--server", f"127.0.0.1:{port}", "--local-interface", source, "--from", sender, "--to", "alice@here.test",
            "--data", f"@{world.root}/{file}", stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        return (await process.communicate())[0].decode()

    async def test():
        settings = {"inbound": Inbound(exempt_networks=()), "dns_list": (DnsListing(zone="dul.test"),)}
        async with world.house(more=settings) as house:
            port = free_port()
            await house.app.listen([app.Bound("smtp", tcp.bound_socket("127.0.0.1", port), False)])
            said = [
                await swaks(port, "127.0.5.5", "signed", "a@author.test"),
                await swaks(port, "127.0.5.6", "signed", "a@author.test"),
                await swaks(port, "127.0.5.6", "plain", "a@author.test"),
                await swaks(port, "127.0.0.66", "signed", "a@author.test"),
            ]
            return said, await house.inbox()

    said, inbox = asyncio.run(test())
    assert "spf=pass" in inbox[0] and "dkim=pass" in inbox[0] and "dmarc=pass" in inbox[0]
    assert "spf=fail" in inbox[1] and "dkim=pass" in inbox[1] and "dmarc=pass" in inbox[1]
    assert len(inbox) == 2
    assert "550 5.7.26 neither SPF nor DKIM shows that it comes from author.test" in said[2]
    assert "550 5.7.1 127.0.0.66 is listed by dul.test: Dial-up, see https://dul.test/" in said[3]


def test_what_domain_dns_prints_is_what_it_finds_again(world, tmp_path):
    async def records():
        async with world.house(hostname="mx.ours.test") as house:
            database = house.store.database
            await database.write(lambda tx: directory.add_domain(tx, "ours.test", 1))
            await domains.rotate(database, house.app.env, "ours.test", None)
            return await domains.records(database, house.config, "ours.test", [world.certificate[0].read_bytes()])

    wanted = asyncio.run(records())
    other = Dns(tmp_path / "ours-dns")
    zone = "\n".join(one.zone_line for one in wanted if one.type != "CNAME")
    other.zone("ours.test", f"{zone}\nmta-sts IN A 127.0.0.1\nmx IN A 127.0.0.1\n", signed=True)
    other.start()
    try:
        rows = asyncio.run(domains.check(DnsResolver([("127.0.0.1", other.port)]), wanted, "ours.test"))
    finally:
        other.stop()
    assert {row["state"] for row in rows} == {"ok"}, [row for row in rows if row["state"] != "ok"]
    assert any(row["type"] == "TLSA" for row in rows)
