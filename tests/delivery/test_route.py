"""Routes in the order written; MX by RFC 5321 §5.1, null MX, loops; what cannot be answered is tried again."""

import asyncio

import pytest
from zone import Zone

from fubako.delivery.route import NoRoute, Route, Router
from fubako.message.target import Way


def router(zone, *routes, hostname="us.test"):
    return Router(routes or (Route("*", "mx"),), zone, hostname, lambda names: names.sort())


def hosts(zone, domain):
    hop = asyncio.run(router(zone).next_hop(Way.ROUTE, domain))
    return [(host.name, host.addresses) for host in hop.hosts]


def refused(zone, domain):
    with pytest.raises(NoRoute) as caught:
        asyncio.run(router(zone).next_hop(Way.ROUTE, domain))
    return caught.value.status.code, caught.value.status.enhanced


ADDRESSES = {"a.test": ["192.0.2.1"], "b.test": ["2001:db8::2", "192.0.2.2"], "c.test": ["192.0.2.3"]}


def test_mx_in_order_of_preference():
    zone = Zone({"d.test": [(20, "c.test"), (10, "b.test"), (10, "a.test")]}, ADDRESSES)
    assert hosts(zone, "d.test") == [
        ("a.test", ("192.0.2.1",)), ("b.test", ("2001:db8::2", "192.0.2.2")), ("c.test", ("192.0.2.3",))
    ]  # fmt: skip


def test_without_mx_the_domain_is_the_host():
    assert hosts(Zone({}, ADDRESSES), "a.test") == [("a.test", ("192.0.2.1",))]


def test_null_mx_takes_no_mail():
    assert refused(Zone({"d.test": [(0, "")]}), "d.test") == (556, "5.1.10")


def test_a_domain_that_does_not_exist_and_one_that_does_not_answer():
    assert refused(Zone(), "d.test") == (550, "5.1.2")
    assert refused(Zone(fails=["d.test"]), "d.test") == (451, "4.4.3")


def test_a_host_that_does_not_answer_is_no_reason_to_give_up():
    zone = Zone({"d.test": [(10, "gone.test"), (20, "slow.test")]}, {}, fails=["slow.test"])
    assert refused(zone, "d.test") == (451, "4.4.3")
    zone = Zone({"d.test": [(10, "gone.test"), (20, "a.test")]}, ADDRESSES)
    assert hosts(zone, "d.test") == [("a.test", ("192.0.2.1",))]


def test_never_to_ourselves_or_behind_us():
    zone = Zone({"d.test": [(10, "a.test"), (20, "us.test"), (30, "b.test")]}, {**ADDRESSES, "us.test": ["192.0.2.9"]})
    assert hosts(zone, "d.test") == [("a.test", ("192.0.2.1",))]
    assert refused(Zone({"d.test": [(10, "us.test")]}), "d.test") == (554, "5.4.6")


def test_an_address_literal():
    assert hosts(Zone(), "[192.0.2.7]") == [("192.0.2.7", ("192.0.2.7",))]


def test_the_first_rule_that_matches_holds():
    rules = (
        Route("here.test", "lmtp:/run/lmtp"),
        Route(".here.test", "smtps://hub.test"),
        Route("uucp.test", "program", program=("uux",)),
        Route("*", "smtp://[2001:db8::1]:2525"),
    )
    one = router(Zone(), *rules)
    hop = asyncio.run(one.next_hop(Way.ROUTE, "here.test"))
    assert (hop.kind, hop.socket) == ("lmtp-socket", "/run/lmtp")
    hop = asyncio.run(one.next_hop(Way.ROUTE, "sub.here.test"))
    assert (hop.kind, hop.hosts[0].name, hop.hosts[0].port) == ("smtps", "hub.test", 465)
    assert asyncio.run(one.next_hop(Way.ROUTE, "uucp.test")).kind == "program"
    hop = asyncio.run(one.next_hop(Way.ROUTE, "else.test"))
    assert (hop.kind, hop.hosts[0].name, hop.hosts[0].port) == ("smtp", "2001:db8::1", 2525)
    assert one.key(Way.ROUTE, "sub.here.test") != one.key(Way.ROUTE, "else.test") == one.key(Way.ROUTE, "third.test")


def test_without_a_rule_nothing_leaves():
    assert router(Zone(), Route("a.test", "mx")).rule("b.test") is None
    with pytest.raises(NoRoute):
        asyncio.run(router(Zone(), Route("a.test", "mx")).next_hop(Way.ROUTE, "b.test"))


def test_letters_that_waited_for_a_filter_go_on_without_it():
    """Not by a route for every domain, and not back to their senders."""
    way = router(Zone(), Route("*", "smtp://127.0.0.1:10025", "may", way=Way.FILTER), Route("*", "mx"))
    assert asyncio.run(way.next_hop(Way.FILTER, "a.test")).kind == "smtp"
    way.follow(router(Zone(), Route("*", "mx")))
    hop = asyncio.run(way.next_hop(Way.FILTER, "a.test"))
    assert hop.kind == "again" and hop.key == way.key(Way.FILTER, "a.test")
