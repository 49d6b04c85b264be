"""The queue meets servers of every kind: kind, slow, false, and one that used to be better."""

import asyncio
import os

import pytest
from memory_server import certificates
from peer import House, Peer
from zone import Zone

from fubako.config import Route
from fubako.delivery import journey
from fubako.delivery.remote import Carrier
from fubako.delivery.runner import Runner
from fubako.store import peers, queue, waiting
from fubako.store.interface import StoreFull
from fubako.store.peers import PROOF_SECONDS

CA = str(certificates() / "ca.pem")


def run(test):
    asyncio.run(test())


def to(peer, **options):
    return Route(domain="*", to=f"smtp://localhost:{peer.port}", ca_files=(CA,), **options)


def test_a_letter_goes_out_and_leaves_the_queue(tmp_path):
    async def test():
        async with Peer(starttls=True) as peer, House(tmp_path, to(peer)) as house:
            await house.send("bob@far.test", "carol@far.test")
            house.run()
            await house.until(lambda: peer.letters)
            await house.quiet()
            assert peer.letters == [
                ("alice@here.test", ["bob@far.test", "carol@far.test"], b"Subject: out\r\n\r\n.dots and body")
            ]
            assert peer.encrypted == [True]
            assert not await house.entries()
            assert not await house.inbox()
            sent = await house.store.database.read(
                lambda tx: tx.rows("SELECT address, code, journey FROM sent ORDER BY 1")
            )
            assert [row[:2] for row in sent] == [("bob@far.test", 250), ("carol@far.test", 250)]
            assert "TLSv1.3" in sent[0][2]
            assert not await house.store.database.read(lambda tx: tx.rows("SELECT 1 FROM queue_letter"))

    run(test)


def test_what_is_refused_for_now_is_tried_again_and_reported_when_it_takes_long(tmp_path):
    async def test():
        says = {"END": ["451 4.2.0 busy", "451 4.2.0 busy", "250 2.0.0 ok"]}
        async with Peer(says=says) as peer:  # noqa: SIM117
            async with House(tmp_path, to(peer), first_gap_seconds=3600, warn_hours=1) as house:
                await house.send("bob@far.test")
                house.run()
                (one,) = await house.until(lambda: _tried(house, 1))
                assert (one.status, one.peer) == ("451 4.2.0 busy", "localhost")
                assert 0.7 * 3600 < one.next_attempt - house.clock.at < 1.3 * 3600
                assert not await house.inbox()
                house.clock.at += 2 * 3600
                house.app._runner._wake.set()
                await house.until(lambda: _tried(house, 2))
                (report,) = await house.inbox()
                assert "Action: delayed" in report
                assert "Will-Retry-Until" in report
                house.clock.at += 4 * 3600
                house.app._runner._wake.set()
                await house.until(lambda: peer.letters)
                await house.quiet()
                assert not await house.entries()
                assert len(await house.inbox()) == 1

    async def _tried(house, times):
        entries = await house.entries()
        return entries if entries and entries[0].attempts == times else None

    run(test)


def test_each_recipient_has_its_own_end(tmp_path):
    async def test():
        says = {"bad@far.test": ["550 5.1.1 no such user"], "later@far.test": ["450 4.2.1 greylisted"]}
        async with Peer(says=says) as peer, House(tmp_path, to(peer)) as house:
            await house.send("good@far.test", "bad@far.test", "later@far.test")
            house.run()
            await house.until(house.inbox)
            await house.quiet()
            assert peer.letters[0][1] == ["good@far.test"]
            assert [(one.recipient, one.attempts) for one in await house.entries()] == [("later@far.test", 1)]
            (report,) = await house.inbox()
            assert "Final-Recipient: rfc822; bad@far.test\r\nAction: failed\r\nStatus: 5.1.1" in report
            assert "good@far.test" not in report

    run(test)


def test_it_goes_back_when_its_days_are_over(tmp_path):
    async def test():
        async with (
            Peer(says={"CONNECT": ["421 4.3.2 closed"]}) as peer,
            House(tmp_path, to(peer), give_up_days=1) as house,
        ):
            await house.send("bob@far.test")
            await house.store.database.write(lambda tx: tx.run("UPDATE queue_recipient SET attempts=9"))
            house.clock.at += 86401
            house.run()
            (report,) = await house.until(house.inbox)
            assert "Status: 5.4.7" in report
            assert "given up after 1 days" in report
            await house.quiet()
            assert not await house.entries()

    run(test)


@pytest.mark.parametrize(("sender", "notify"), [("", ""), ("alice@here.test", "NEVER"), ("alice@here.test", "SUCCESS")])
def test_nobody_is_told_who_did_not_ask(tmp_path, sender, notify):
    async def test():
        async with Peer(says={"RCPT": ["550 5.1.1 no"]}) as peer, House(tmp_path, to(peer)) as house:
            await house.send("bob@far.test", sender=sender, notify=notify)
            house.run()
            await house.until(lambda: peer.said)
            await house.quiet()
            assert not await house.entries()
            assert not await house.inbox()

    run(test)


def test_a_success_is_reported_by_us_where_the_peer_does_not(tmp_path):
    async def test():
        async with Peer() as peer, House(tmp_path, to(peer)) as house:
            await house.send("bob@far.test", notify="SUCCESS", envid="id=1")
            house.run()
            (report,) = await house.until(house.inbox)
            assert "Action: relayed" in report
            assert "Original-Envelope-Id: id=1" in report

    run(test)


def test_dsn_is_passed_on_to_a_peer_that_knows_it(tmp_path):
    async def test():
        async with Peer(offers=["DSN", "SIZE 10000"]) as peer, House(tmp_path, to(peer)) as house:
            await house.send("bob@far.test", notify="SUCCESS,DELAY", envid="id=1", ret="HDRS")
            house.run()
            await house.until(lambda: peer.letters)
            await house.quiet()
            assert "MAIL FROM:<alice@here.test> SIZE=32 RET=HDRS ENVID=id+3D1" in peer.said
            assert "RCPT TO:<bob@far.test> NOTIFY=SUCCESS,DELAY" in peer.said
            assert not await house.inbox()

    run(test)


def test_a_peer_that_hides_starttls_gets_nothing(tmp_path):
    async def test():
        async with Peer(starttls=True) as peer, House(tmp_path, to(peer)) as house:
            await house.send("bob@far.test")
            house.run()
            await house.until(lambda: peer.letters)
            await house.quiet()
            house.clock.at += PROOF_SECONDS
            await house.send("bob@far.test")
            await house.until(lambda: len(peer.letters) == 2)
            await house.quiet()
            peer.starttls = False  # somebody on the way took the line out of the EHLO reply
            peer.said.clear()
            await house.send("bob@far.test")
            (one,) = await house.until(lambda: _tried(house))
            assert one.status.startswith("451 4.7.10 localhost: localhost offers no encryption")
            assert not any(line.startswith(("MAIL", "DATA", "RCPT")) for line in peer.said)
            assert len(peer.letters) == 2
            server = peers.endpoint("smtp", "localhost", peer.port)
            await house.store.database.write(lambda tx: peers.forget(tx, server))
            await house.store.database.write(lambda tx: waiting.retry(tx, waiting.Selection(), int(house.clock.at)))
            await house.until(lambda: len(peer.letters) == 3)

    async def _tried(house):
        entries = await house.entries()
        return entries if entries and entries[0].attempts else None

    run(test)


@pytest.mark.parametrize(
    ("tls", "starttls", "ca", "goes"),
    [
        ("may", False, (), True),
        ("encrypt", False, (), False),
        ("encrypt", True, (), True),
        ("verify", True, (), False),  # an authority that we do not know
        ("verify", True, (CA,), True),
    ],
)
def test_the_administrators_demand(tmp_path, tls, starttls, ca, goes):
    async def test():
        async with Peer(starttls=starttls) as peer:
            route = Route(domain="*", to=f"smtp://localhost:{peer.port}", tls=tls, ca_files=ca)
            async with House(tmp_path, route) as house:
                await house.send("bob@far.test")
                house.run()
                await house.until(lambda: peer.letters if goes else _tried(house))
                assert bool(peer.letters) is goes
                assert goes or not any(line.startswith("MAIL") for line in peer.said)

    async def _tried(house):
        entries = await house.entries()
        return entries and entries[0].attempts

    run(test)


def test_a_refused_starttls_never_goes_on_in_the_clear(tmp_path):
    async def test():
        async with (
            Peer(starttls=True, says={"STARTTLS": ["454 4.7.0 not now"]}) as peer,
            House(tmp_path, to(peer)) as house,
        ):
            await house.send("bob@far.test")
            house.run()
            await house.until(lambda: "STARTTLS" in peer.said)
            await house.quiet()
            assert not any(line.startswith("MAIL") for line in peer.said)
            assert (await house.entries())[0].attempts == 1

    run(test)


def test_requiretls_goes_only_to_who_knows_it_and_proved_itself(tmp_path):
    async def test():
        async with Peer(starttls=True, offers=["REQUIRETLS"]) as knows, Peer(starttls=True) as does_not:
            routes = (
                Route(domain="knows.test", to=f"smtp://localhost:{knows.port}", ca_files=(CA,)),
                Route(domain="not.test", to=f"smtp://localhost:{does_not.port}", ca_files=(CA,)),
                Route(domain="unproved.test", to=f"smtp://127.0.0.1:{knows.port}"),
            )
            async with House(tmp_path, *routes) as house:
                await house.send("a@knows.test", "b@not.test", "c@unproved.test", require_tls=True)
                house.run()
                (report,) = await house.until(house.inbox)
                await house.quiet()
                assert "MAIL FROM:<alice@here.test> REQUIRETLS" in knows.said
                assert [letter[1] for letter in knows.letters] == [["a@knows.test"]]
                assert not does_not.letters
                assert "Status: 5.7.30" in report
                assert [(one.recipient, "REQUIRETLS" in one.status) for one in await house.entries()] == [
                    ("c@unproved.test", True)
                ]

    run(test)


def test_the_next_server_is_tried_and_the_last_reason_told(tmp_path):
    async def test():
        async with Peer() as peer:
            zone = Zone({"far.test": [(10, "dead.test"), (20, "alive.test")]},
                        {"dead.test": ["127.0.0.2"], "alive.test": ["127.0.0.1"]})  # fmt: skip
            async with House(tmp_path, Route(to="mx", port=peer.port), zone=zone) as house:
                await house.send("bob@far.test")
                house.run()
                await house.until(lambda: peer.letters)

    run(test)


def test_connections_are_used_again_and_never_too_many(tmp_path):
    async def test():
        async with Peer() as peer, House(tmp_path, to(peer)) as house:
            for number in range(60):
                await house.send(f"u{number}@far.test")
            house.run()
            await house.until(lambda: len(peer.letters) == 60)
            await house.quiet()
            assert peer.connections < 30
            assert peer.most <= 20
            assert not await house.entries()

    run(test)


def test_a_single_letter_does_not_wait_behind_a_bulk_sender(tmp_path):
    async def test():
        async with Peer() as peer, House(tmp_path, to(peer)) as house:
            for number in range(300):
                await house.send(f"u{number}@far.test", submitter="bulk@here.test")
            await house.send("single@far.test", submitter="alice@here.test")
            house.run()
            await house.until(lambda: len(peer.letters) == 301)
            order = [letter[1][0] for letter in peer.letters]
            assert order.index("single@far.test") < 30

    run(test)


def test_who_lost_the_lease_writes_nothing(tmp_path, monkeypatch):
    async def test():
        async with Peer(says={"END": ["250 2.0.0 ok"]}) as peer, House(tmp_path, to(peer)) as house:
            name = await house.send("bob@far.test")
            lane = waiting.parse_name(name)[0]
            real = Runner._carry

            async def carry(*arguments):
                await house.store.database.write(
                    lambda tx: tx.run("UPDATE lane SET owner='x', epoch=epoch+1 WHERE lane_id=?", (lane,))
                )
                await real(*arguments)

            monkeypatch.setattr(Runner, "_carry", carry)
            house.run()
            await house.until(lambda: peer.letters)
            await house.quiet()
            (one,) = await house.entries()  # the letter is the new owner's, untouched
            assert one.attempts == 0

    run(test)


def test_an_unanswered_end_of_data_is_tried_again(tmp_path):
    async def test():
        async with (
            Peer(says={"END": ["DROP", "250 2.0.0 ok"]}) as peer,
            House(tmp_path, to(peer), first_gap_seconds=1) as house,
        ):
            await house.send("bob@far.test")
            house.run()
            await house.until(lambda: peer.connections)
            for _ in range(20):
                await asyncio.sleep(0.02)
                house.clock.at += 1
                house.app._runner._wake.set()
            await house.until(lambda: peer.letters)
            await house.quiet()
            assert not await house.entries()

    run(test)


def test_held_letters_stay(tmp_path):
    async def test():
        async with Peer() as peer, House(tmp_path, to(peer)) as house:
            await house.send("bob@far.test")
            everything = waiting.Selection()
            await house.store.database.write(lambda tx: waiting.hold(tx, everything, held=True))
            house.run()
            await asyncio.sleep(0.2)
            assert not peer.connections
            await house.store.database.write(lambda tx: waiting.hold(tx, everything, held=False))
            await house.until(lambda: peer.letters)

    run(test)


def test_what_an_administrator_throws_away_is_told_to_who_asks_for_its_way(tmp_path):
    async def test():
        async with House(tmp_path) as house:
            await house.send("bob@far.test", "carol@far.test")
            (one, _) = await house.entries()
            chosen = waiting.Selection(recipient="bob@far.test")
            assert await house.store.database.write(lambda tx: waiting.drop(tx, chosen, int(house.clock.at))) == 1
            assert [entry.recipient for entry in await house.entries()] == ["carol@far.test"]
            states = await journey.outgoing(house.store.database, one.trace_id)
            assert {state["recipient"]: (state["state"], state["reply"]) for state in states} == {
                "bob@far.test": ("dropped", "thrown away by an administrator"),
                "carol@far.test": ("queued", ""),
            }
            everything = waiting.Selection(sender=one.sender)
            assert await house.store.database.write(lambda tx: waiting.drop(tx, everything, int(house.clock.at))) == 1
            rows = await house.store.database.read(
                lambda tx: tx.rows("SELECT 1 FROM queue_letter UNION ALL SELECT 1 FROM queue_letter")
            )
            assert rows == []

    run(test)


def test_lmtp_answers_for_each_recipient(tmp_path):
    async def test():
        async with Peer(says={"END": ["250 2.0.0 ok", "552 5.2.2 full", "250 2.0.0 ok"]}) as peer:  # noqa: SIM117
            async with House(tmp_path, Route(to=f"lmtp://127.0.0.1:{peer.port}")) as house:
                await house.send("a@far.test", "b@far.test", "c@far.test")
                house.run()
                (report,) = await house.until(house.inbox)
                assert "Final-Recipient: rfc822; b@far.test" in report
                assert "Status: 5.2.2" in report
                assert "a@far.test" not in report

    run(test)


def test_a_password_is_only_said_to_a_server_that_proved_itself(tmp_path):
    async def test():
        secret = tmp_path / "secret"
        secret.write_text("hunter2\n")
        secret.chmod(0o600)
        async with Peer(starttls=True, offers=["AUTH PLAIN"], says={"AUTH": ["235 2.7.0 ok"]}) as peer:
            login = {"user": "us", "password_file": str(secret)}
            believed = Route(domain="a.test", to=f"smtp://localhost:{peer.port}", ca_files=(CA,), **login)
            unknown = Route(domain="b.test", to=f"smtp://127.0.0.1:{peer.port}", **login)
            async with House(tmp_path, believed, unknown) as house:
                await house.send("x@b.test")
                house.run()
                await house.until(lambda: peer.said)
                await house.quiet()
                assert not any(line.startswith("AUTH") for line in peer.said)
                await house.send("x@a.test")
                await house.until(lambda: peer.letters)
                assert any(line.startswith("AUTH PLAIN ") for line in peer.said)

    run(test)


def test_when_outcomes_cannot_be_written_nothing_more_is_sent(tmp_path, monkeypatch):
    """A full disk: what was sent is still in the queue, so sending on would send it again and again. Once there is room it is
    written down, and goes out no second time."""

    async def test():
        async with Peer() as peer, House(tmp_path, to(peer)) as house:
            for number in range(30):
                await house.send(f"u{number}@far.test")
            real = queue.settle

            def settle(*_arguments):
                raise StoreFull("no room")

            monkeypatch.setattr("fubako.store.queue.settle", settle)
            house.run()
            await house.until(lambda: peer.letters)
            await asyncio.sleep(0.6)
            sent = len(peer.letters)
            assert sent < 10
            assert len(await house.entries()) == 30
            monkeypatch.setattr("fubako.store.queue.settle", real)
            await house.until(lambda: len(peer.letters) == 30)
            await house.quiet()
            assert len(peer.letters) == 30
            assert not await house.entries()

    run(test)


def test_a_letter_whose_content_is_gone_is_deferred_not_lost(tmp_path):
    async def test():
        async with Peer() as peer, House(tmp_path, to(peer)) as house:
            await house.send("bob@far.test")
            (segment,) = (house.root / "store" / "segments").glob("*.segment")
            content = segment.read_bytes()
            os.truncate(segment, 10)
            house.run()
            (one,) = await house.until(lambda: _tried(house))
            assert one.status.startswith("451 4.3.0")
            segment.write_bytes(content)
            house.clock.at += 3600
            house.app._runner._wake.set()
            await house.until(lambda: peer.letters)

    async def _tried(house):
        entries = await house.entries()
        return entries if entries and entries[0].attempts else None

    run(test)


def test_a_connection_serves_one_route_alone(tmp_path):
    """Two routes to the same server: what one demands, and its login, are not the other's."""

    async def test():
        secret = tmp_path / "secret"
        secret.write_text("hunter2\n")
        secret.chmod(0o600)
        async with Peer(says={"AUTH": ["235 2.7.0 ok"]}) as peer:
            server = f"smtp://127.0.0.1:{peer.port}"
            careless = Route(domain="may.test", to=server, tls="may")
            strict = Route(domain="strict.test", to=server, tls="verify")
            login = Route(domain="login.test", to=server, user="us", password_file=str(secret))
            async with House(tmp_path, careless, strict, login) as house:
                for number in range(5):
                    await house.send(f"a{number}@may.test", f"b{number}@strict.test", f"c{number}@login.test")
                house.run()
                await house.until(lambda: len(peer.letters) == 5)
                await house.quiet()
                assert {address for _, to, _ in peer.letters for address in to} == {f"a{n}@may.test" for n in range(5)}
                assert len(await house.entries()) == 10

    run(test)


def test_a_program_for_one_recipient_runs_for_each(tmp_path):
    async def test():
        script, out = tmp_path / "mda", tmp_path / "out"
        script.write_text(f'#!/bin/sh\ncat >/dev/null\n[ "$1" = bad@far.test ] && exit 67\necho "$1" >> {out}\n')
        script.chmod(0o755)
        async with House(tmp_path, Route(to="program", program=(str(script), "{recipient}"))) as house:
            await house.send("a@far.test", "bad@far.test", "b@far.test")
            house.run()
            (report,) = await house.until(house.inbox)
            await house.quiet()
            assert sorted(out.read_text().split()) == ["a@far.test", "b@far.test"]
            assert "bad@far.test" in report
            assert "Status: 5.1.1" in report
            assert not await house.entries()

    run(test)


def test_what_a_peer_says_cannot_shape_a_terminal_or_a_report(tmp_path):
    async def test():
        hostile = "550 5.1.1 \x1b[2Jgone\x07 <script>"
        async with Peer(says={"RCPT": [hostile]}) as peer, House(tmp_path, to(peer)) as house:
            await house.send("bob@far.test")
            house.run()
            (report,) = await house.until(house.inbox)
            (row,) = await house.store.database.read(lambda tx: tx.rows("SELECT reason FROM sent"))
            assert row[0] == "[2Jgone <script>"
            assert "\x1b" not in report

    run(test)


def test_a_letter_that_meets_a_fault_of_ours_waits_and_the_others_go(tmp_path, monkeypatch):
    async def test():
        async with Peer() as peer, House(tmp_path, to(peer)) as house:
            await house.send("broken@far.test")
            await house.send("good@far.test")
            real = Carrier.deliver

            async def deliver(self, letter, recipients, content, *still):
                if recipients[0].address.startswith("broken"):
                    raise RuntimeError("a fault")
                return await real(self, letter, recipients, content, *still)

            monkeypatch.setattr(Carrier, "deliver", deliver)
            house.run()
            await house.until(lambda: peer.letters)
            await house.quiet()
            (one,) = await house.entries()
            assert (one.recipient, one.attempts) == ("broken@far.test", 1)
            assert house.app.telemetry.counters.pop("queue.bug") == 1

    run(test)


def test_an_international_recipient_needs_smtputf8(tmp_path):
    async def test():
        async with Peer() as peer, House(tmp_path, to(peer)) as house:
            await house.send("用户@far.test", smtputf8=True)
            house.run()
            (report,) = await house.until(house.inbox)
            assert "Status: 5.6.7" in report
            assert not any(line.startswith("MAIL") for line in peer.said)

    run(test)
