"""What the world must know of a domain, and the day's reports to it."""

import asyncio
import gzip
import json

from memory_server import certificates
from peer import House
from zone import Zone

from fubako.admin import domains, reporting
from fubako.clock import Env
from fubako.config import Config, Listen, Reports, Route
from fubako.message import aggregate
from fubako.net.interface import Fetched, TlsaRecord
from fubako.store import domainkeys, reports

SERVICES = {"smtp": "127.0.0.1:2525", "imaps": "127.0.0.1:2993"}
CONFIG = Config(
    hostname="mx.here.test", listen=tuple(Listen(service=name, addresses=(at,)) for name, at in SERVICES.items())
)


def run(tmp_path, test, *routes, **house):
    async def inside():
        async with House(tmp_path, *routes, **house) as made:
            return await test(made)

    return asyncio.run(inside())


def published(rows):
    """A zone that holds the records as they were printed."""
    tables = {"mx": {}, "texts": {}, "services": {}, "tlsa": {}}
    zone = Zone(addresses={"mta-sts.here.test": ["192.0.2.1"]}, secure=True)
    for one in rows:
        if one.type == "MX":
            tables["mx"][one.name] = [(10, "mx.here.test")]
        elif one.type == "TXT":
            tables["texts"].setdefault(one.name, []).append("".join(one.value.split('"')[1::2]).encode())
        elif one.type == "SRV":
            a, b, port, host = one.value.split()
            tables["services"][one.name] = [(int(a), int(b), int(port), host.rstrip("."))]
        elif one.type == "TLSA":
            *numbers, digest = one.value.split()
            tables["tlsa"][one.name] = [TlsaRecord(*map(int, numbers), bytes.fromhex(digest))]
    zone.tables.update(tables)
    return zone


def test_what_is_printed_checks_out_and_what_is_missing_is_named(tmp_path):
    async def test(house):
        await domains.rotate(house.store.database, house.app.env, "here.test", never)
        chain = [(certificates() / "s.pem").read_bytes()]
        rows = await domains.records(house.store.database, CONFIG, "here.test", chain)
        good = await domains.check(published(rows), rows, "here.test")
        zone = published(rows)
        del zone.tables["mx"]["here.test"]
        zone.tables["texts"]["here.test"] = [b"v=spf1 -all", b"other"]
        zone.tables["texts"]["_dmarc.here.test"] = [b"v=DMARC1; p=reject; rua=mailto:me@here.test"]
        zone.fails.add("_smtp._tls.here.test")
        zone.secure = ()
        bad = await domains.check(zone, rows, "here.test")
        return rows, good, {row["name"] + " " + row["type"]: row["state"] for row in bad}

    rows, good, bad = run(tmp_path, test)
    assert {row["state"] for row in good} == {"ok"}, [row for row in good if row["state"] != "ok"]
    kinds = {(one.name, one.type) for one in rows}
    assert {
        ("_2525._tcp.mx.here.test", "TLSA"),
        ("_imaps._tcp.here.test", "SRV"),
        ("_mta-sts.here.test", "TXT"),
    } <= kinds
    assert sum("_domainkey" in one.name for one in rows) == 2
    assert bad["here.test MX"] == "missing" and bad["here.test TXT"] == "different"
    assert bad["_dmarc.here.test TXT"] == "ok" and bad["_smtp._tls.here.test TXT"] == "unanswered"
    assert bad["_2525._tcp.mx.here.test TLSA"] == "different"


async def never(_key):
    return False


async def always(_key):
    return True


def test_a_rotation_waits_until_the_world_knows_the_new_keys(tmp_path):
    async def test(house):
        def states(tx):
            return sorted(one.state for one in domainkeys.keys(tx, "here.test"))

        seen = []
        for told in (never, never, never, always):
            state, _ = await domains.rotate(house.store.database, house.app.env, "here.test", told)
            seen.append((state, await house.store.database.read(states)))
        return seen

    assert run(tmp_path, test) == [
        ("begun", ["active", "active"]),
        ("begun", ["active", "active", "new", "new"]),
        ("waits", ["active", "active", "new", "new"]),
        ("done", ["active", "active", "retired", "retired"]),
    ]


def test_a_key_counts_as_published_when_dns_has_it(tmp_path):
    async def test(house):
        _, (key, _) = await domains.rotate(house.store.database, house.app.env, "here.test", never)
        record = domains.signer(key).record.encode()
        name = f"{key.selector}._domainkey.here.test"
        return [
            await domains.is_published(zone, key)
            for zone in (Zone(texts={name: [record]}), Zone(texts={name: [record[:-9]]}), Zone())
        ]

    assert run(tmp_path, test) == [True, False, False]


class Web:
    def __init__(self):
        self.posted = []

    async def post(self, host, path, kind, content):
        self.posted.append((host, path, kind, content))
        return Fetched(201, "", b"")


def test_the_days_reports_go_out_once_and_can_be_read(tmp_path):
    zone = Zone(
        texts={
            "_smtp._tls.far.test": [b"v=TLSRPTv1; rua=mailto:tls@far.test,https://far.test/tls"],
            "_dmarc.bank.test": [
                b"v=DMARC1; p=reject; rua=mailto:dmarc@bank.test,mailto:all@elsewhere.test,mailto:x@spam.test"
            ],
            "bank.test._report._dmarc.elsewhere.test": [b"v=DMARC1"],
        }
    )

    async def test(house):
        house.app.https = web = Web()
        session = reports.Session("far.test", "sts", '["version: STSv1"]', "mx.far.test", "certificate-expired", "old")
        letter = reports.Seen(
            "bank.test",
            "192.0.2.1",
            "reject",
            False,
            False,
            "evil.test",
            "pass",
            (("evil.test", "s", "pass"),),
            "bank.test",
        )
        now = int(house.clock.at)
        await house.store.database.write(lambda tx: reports.note_sessions(tx, {session: 3}, now))
        await house.store.database.write(lambda tx: [reports.note_letter(tx, letter, now) for _ in range(2)])
        early = await house.app.report()
        house.clock.at += 86400
        sent, again = await house.app.report(), await house.app.report()
        queued = await house.queued()
        given = [(recipient, content) for _, recipient, content in queued]
        read = await reporting.read(house.store.database, house.store.blobs, house.store.pool, Env(), given, mailbox="")
        twice = await reporting.read(
            house.store.database, house.store.blobs, house.store.pool, Env(), given, mailbox=""
        )
        shown = {kind: await reporting.received(house.store.database, kind) for kind in ("tls", "dmarc")}
        return early, sent, again, queued, web.posted, read, twice, shown

    settings = {"reports": Reports(sender="postmaster@here.test", organization="Here")}
    route = Route(to="smtp://127.0.0.1:9")
    early, sent, again, queued, posted, read, twice, shown = run(tmp_path, test, route, zone=zone, more=settings)
    assert (early, sent, again) == (0, 4, 0)
    assert sorted(one[1] for one in queued) == ["all@elsewhere.test", "dmarc@bank.test", "tls@far.test"]
    tls = next(content for _, recipient, content in queued if recipient == "tls@far.test")
    assert b"TLS-Required: No" in tls and b'report-type="tlsrpt"' in tls
    ((host, path, kind, packed),) = posted
    assert (host, path, kind) == ("far.test", "/tls", "application/tlsrpt+gzip")
    raw = json.loads(gzip.decompress(packed))
    assert raw["policies"][0]["failure-details"][0]["result-type"] == "certificate-expired"
    assert [row["new"] for row in read].count(True) == 2 and not any(row["problem"] for row in read)
    assert not any(row["new"] for row in twice)
    assert (shown["tls"][0]["failed"], shown["tls"][0]["faults"]) == (3, "certificate-expired")
    assert shown["dmarc"][0]["sources"] == "192.0.2.1" and shown["dmarc"][0]["failed"] == 2
    assert aggregate.in_letter(tls)
