"""When a letter goes: later, in time, before others, again; and where aliases lead."""

import asyncio

import pytest
from peer import House, Peer
from targets_named import add_alias

from fubako.accounts import directory
from fubako.admin import queue as admin
from fubako.config import ContentFilter, Route
from fubako.message.target import File, Program, RemoteAddress, Way
from fubako.store.interface import StoreError
from fubako.store.waiting import Selection


def run(tmp_path, test, *, offers=("PIPELINING",), says=None, **house):
    async def inside():
        async with (
            Peer(offers=offers, says=says) as peer,
            House(tmp_path, Route(to=f"smtp://127.0.0.1:{peer.port}"), **house) as made,
        ):
            made.run()
            return await test(made, peer)

    return asyncio.run(inside())


LETTER = b"From: alice@here.test\r\nSubject: x\r\n\r\nbody\r\n"


# -- later (RFC 4865)


def test_a_letter_of_the_future_waits_for_its_time_wherever_it_goes(tmp_path):
    async def test(house, peer):
        accepted = await house.submit(LETTER, "alice@here.test", "bob@far.test", at=int(house.clock.at) + 3600)
        await asyncio.sleep(0.2)
        before = list(peer.letters), await house.inbox(), sorted(one.recipient for one in await house.entries())
        house.clock.at += 3601
        house.app._runner._wake.set()
        await house.until(lambda: peer.letters)
        (inside,) = await house.until(house.inbox)
        rows = await house.store.database.read(lambda tx: tx.rows("SELECT trace_id FROM message"))
        assert rows[0][0] == accepted.status.text.split()[1]
        await house.quiet()
        return accepted, before, inside, peer.letters, await house.entries()

    accepted, before, inside, letters, left = run(tmp_path, test)
    assert accepted.status.ok and before == ([], [], ["alice@here.test", "bob@far.test"])
    assert inside.count("Received:") == 1 and inside.count("Return-Path:") == 1 and left == []
    assert letters[0][1] == ["bob@far.test"]


def test_only_submission_may_ask_for_a_later_time(tmp_path):
    async def test(house, _peer):
        return await house.said("MAIL FROM:<eve@evil.test> HOLDFOR=60", "MAIL FROM:<eve@evil.test> HOLDUNTIL=never")

    assert run(tmp_path, test) == [
        "555 5.5.4 letters to be sent later come by submission",
        "501 5.5.4 HOLDUNTIL is a time like 2026-12-24T18:00:00Z",
    ]


# -- in time (RFC 2852)


def test_return_means_that_it_goes_back_when_the_time_is_over(tmp_path):
    async def test(house, peer):
        await house.send("bob@far.test", deliver_by=int(house.clock.at) + 60, by_mode="R")

        async def tried():
            return [one for one in await house.entries() if one.attempts]

        await house.until(tried)
        house.clock.at += 400
        house.app._runner._wake.set()
        (report,) = await house.until(house.inbox)
        return report

    report = run(tmp_path, test, offers=("DELIVERBY",), says={"MAIL": ["451 4.3.0 later"]})
    assert "5.4.7" in report and "not there by the time the sender set" in report


def test_notify_tells_and_goes_on(tmp_path):
    async def test(house, peer):
        await house.send("bob@far.test", deliver_by=int(house.clock.at) + 60, by_mode="N")

        async def tried():
            return [one for one in await house.entries() if one.attempts]

        (first,) = await house.until(tried)
        house.clock.at += 61
        house.app._runner._wake.set()
        (report,) = await house.until(house.inbox)
        return first.next_attempt - (house.clock.at - 61), report, await house.entries()

    gap, report, left = run(tmp_path, test, says={"MAIL": ["451 4.3.0 later"]})
    assert gap <= 60 and "Action: delayed" in report and len(left) == 1


def test_a_server_that_knows_no_times_gets_no_letter_that_must_return(tmp_path):
    async def test(house, peer):
        await house.send("bob@far.test", deliver_by=int(house.clock.at) + 60, by_mode="R")
        (report,) = await house.until(house.inbox)
        await house.send("bob@far.test", deliver_by=int(house.clock.at) + 60, by_mode="N")
        await house.until(lambda: peer.letters)
        return report

    assert "5.3.3" in run(tmp_path, test)


def test_the_time_that_is_left_is_passed_on(tmp_path):
    async def test(house, peer):
        await house.send("bob@far.test", deliver_by=int(house.clock.at) + 60, by_mode="R", priority=4)
        await house.until(lambda: peer.letters)
        return next(line for line in peer.said if line.startswith("MAIL"))

    line = run(tmp_path, test, offers=("DELIVERBY", "MT-PRIORITY"))
    assert line == "MAIL FROM:<alice@here.test> MT-PRIORITY=4 BY=60;R"


# -- before others (RFC 6710)


def test_urgent_letters_go_first(tmp_path):
    async def test(house, peer):
        await house.app._runner.close()
        for number in range(20):
            await house.send(f"bob{number}@far.test", sender=f"s{number}@here.test", priority=-1)
        await house.send("urgent@far.test", sender="s0@here.test", priority=5)
        house.run()
        await house.until(lambda: len(peer.letters) == 21)
        return [letter[1][0] for letter in peer.letters]

    assert "urgent@far.test" in run(tmp_path, test)[:3]


def test_a_stranger_is_not_urgent(tmp_path):
    async def test(house, _peer):
        await house.store.database.write(lambda tx: add_alias(tx, "list@here.test", ["bob@far.test"]))
        await house.app._runner.close()
        words = ("RCPT TO:<list@here.test>", "DATA", "Subject: x", "", "x", ".")
        await house.said("MAIL FROM:<eve@evil.test> MT-PRIORITY=9", *words)
        await house.said("MAIL FROM:<eve@evil.test> MT-PRIORITY=-9", *words)
        bad = await house.said("MAIL FROM:<eve@evil.test> MT-PRIORITY=99")
        rows = await house.store.database.read(
            lambda tx: tx.rows("SELECT priority FROM queue_letter ORDER BY priority")
        )
        return rows, bad

    rows, bad = run(tmp_path, test)
    assert rows == [(-9,), (0,)] and bad[0].startswith("501")


# -- again


def test_requeue_follows_the_aliases_of_now_and_loses_nothing(tmp_path):
    async def test(house, peer):
        await house.send("alice@here.test", "nobody@here.test", "bob@far.test")

        async def tried():
            return all(one.attempts for one in await house.entries())

        await house.until(tried)
        count = await admin.change(house.store.database, house.app.env, "requeue", Selection())
        peer.says.clear()
        await house.until(lambda: peer.letters)
        await house.until(house._nothing_moves)
        await house.quiet()
        return count, await house.inbox(), peer.letters, await house.entries()

    count, inbox, letters, left = run(tmp_path, test, offers=(), says={"MAIL": ["451 4.3.0 later"]})
    assert count == 3 and left == [] and len(letters) == 1
    assert sorted("Delivery" in one or "could not be delivered" in one for one in inbox) == [False, True]


# -- rules that hold


@pytest.mark.parametrize("field", ["sender", "recipient", "domain"])
def test_a_rule_holds_letters_to_come(tmp_path, field):
    value = {"sender": "Alice@here.test", "recipient": "bob@far.test", "domain": "far.test"}[field]

    async def test(house, peer):
        database = house.store.database
        await admin.add_hold_rule(database, house.app.env, field, value, "under suspicion")
        await house.send("bob@far.test")
        await house.send("bob@other.test", sender="carol@here.test")
        await house.until(lambda: peer.letters)
        await house.quiet()
        (held,) = await house.entries()
        rules = await admin.hold_rules(database)
        await admin.remove_hold_rule(database, field, value)
        with pytest.raises(StoreError):
            await admin.remove_hold_rule(database, field, value)
        await admin.change(database, house.app.env, "release", Selection(recipient="bob@far.test"))
        await house.until(lambda: len(peer.letters) == 2)
        return held, rules

    held, rules = run(tmp_path, test)
    assert held.held == 1 and rules[0]["reason"] == "under suspicion"


# -- where aliases lead


def test_an_alias_leads_to_a_program_a_file_and_a_folder(tmp_path):
    out = tmp_path / "out"
    out.mkdir()

    async def test(house, _peer):
        targets = [f"|/bin/sh -c 'cat > {out}/program'", f"{out}/mbox", f"{out}/Maildir/", "alice@here.test"]
        await house.store.database.write(lambda tx: add_alias(tx, "list@here.test", targets))
        shown = await house.store.database.read(directory.aliases)
        for _ in range(2):
            await house.said(
                "MAIL FROM:<eve@evil.test>", "RCPT TO:<list@here.test>", "DATA", "Subject: x", "", "From here", "."
            )
        await house.until(lambda: len(list(out.glob("Maildir/new/*"))) == 2)
        await house.quiet()
        return shown, targets, len(await house.inbox()), await house.entries()

    shown, _, inbox, left = run(tmp_path, test)
    kinds = [Program, File, File, RemoteAddress]
    assert [type(one) for one in shown[0].targets] == kinds and inbox == 2 and left == []
    assert (out / "program").read_text().startswith("From eve@evil.test ")
    mbox = (out / "mbox").read_text()
    assert mbox.count("From eve@evil.test ") == 2 and ">From here\n" in mbox and mbox.endswith("\n\n")


@pytest.mark.parametrize("target", ["|procmail", "/path/with\nnewline", "|relative/x", "nobody", "/x\x00y"])
def test_targets_that_are_none(tmp_path, target):
    async def test(house, _peer):
        with pytest.raises(StoreError):
            await house.store.database.write(lambda tx: add_alias(tx, "list@here.test", [target]))

    run(tmp_path, test)


def test_a_file_that_cannot_be_written_is_tried_again(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")

    async def test(house, _peer):
        targets = [str(tmp_path / "link"), str(tmp_path)]
        await house.store.database.write(lambda tx: add_alias(tx, "list@here.test", targets))
        await house.said("MAIL FROM:<eve@evil.test>", "RCPT TO:<list@here.test>", "DATA", "Subject: x", "", "x", ".")

        async def tried():
            return [one.status for one in await house.entries() if one.attempts]

        return await house.until(tried)

    assert all(status.startswith("451 4.2.0") for status in run(tmp_path, test))
    assert not (tmp_path / "elsewhere").exists()


def test_everybody_else_of_a_domain(tmp_path):
    async def test(house, _peer):
        await house.store.database.write(lambda tx: add_alias(tx, "@here.test", ["alice@here.test"]))
        await house.said("MAIL FROM:<eve@evil.test>", "RCPT TO:<nobody@here.test>", "DATA", "Subject: x", "", "x", ".")
        other = await house.said("MAIL FROM:<eve@evil.test>", "RCPT TO:<nobody@sub.here.test>")
        return len(await house.inbox()), other[1][:3]

    assert run(tmp_path, test) == (1, "550")


def test_a_catch_all_of_a_circle_ends(tmp_path):
    async def test(house, _peer):
        await house.store.database.write(lambda tx: add_alias(tx, "@here.test", ["x@here.test"]))
        return (await house.said("MAIL FROM:<eve@evil.test>", "RCPT TO:<nobody@here.test>"))[1][:3]

    assert run(tmp_path, test) == "550"


def test_what_goes_to_the_filter_at_its_time(tmp_path):
    async def test(house, peer):
        await house.submit(LETTER, "alice@here.test", at=int(house.clock.at) + 60)
        (one,) = await house.entries()
        return one.way, one.recipient

    settings = {"filter": ContentFilter(next_hop="lmtp://127.0.0.1:9")}
    assert run(tmp_path, test, more=settings) == (Way.FILTER, "alice@here.test")
