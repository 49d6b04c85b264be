"""Where the mail of an address is: whose word counts for what, and what a hostile description can do."""

import asyncio

import pytest
from zone import Zone

from fubako.client import discover
from fubako.client.discover import AutoconfigFault, Checked, Endpoint, parse_autoconfig
from fubako.message.address import Address
from fubako.net.interface import Fetched, HttpsFailure

ANN = Address("ann", "example.test")
XML = b"""<?xml version="1.0"?><clientConfig version="1.1"><emailProvider id="example.test">
<incomingServer type="imap"><hostname>imap.%EMAILDOMAIN%</hostname><port>993</port><socketType>SSL</socketType>
<username>%EMAILLOCALPART%</username></incomingServer>
<incomingServer type="imap"><hostname>old.example.test</hostname><port>143</port><socketType>plain</socketType></incomingServer>
<incomingServer type="pop3"><hostname>pop.example.test</hostname><port>110</port><socketType>STARTTLS</socketType></incomingServer>
<outgoingServer type="smtp"><hostname>smtp.example.test</hostname><port>465</port><socketType>SSL</socketType>
<username>%EMAILADDRESS%</username></outgoingServer></emailProvider></clientConfig>"""


class Web:
    def __init__(self, pages=()) -> None:
        self.pages, self.asked = dict(pages), []

    async def get(self, host, path, _octets_max):
        self.asked.append(host + path)
        if host not in self.pages:
            raise HttpsFailure("no answer")
        return Fetched(200, "text/xml", self.pages[host])


def found(zone, web):
    return asyncio.run(discover.discover(ANN, zone, web))


def test_the_domains_description_comes_first():
    web = Web({"autoconfig.example.test": XML})
    zone = Zone(services={"_imaps._tcp.example.test": [(0, 0, 993, "imap.elsewhere.test")]})
    made = found(zone, web)
    first, second, third, fourth = made.endpoints[:4]
    assert first == Endpoint("imap", "imap.example.test", 993, "implicit", "autoconfig", "ann", told=True)
    assert (second.protocol, second.tls, second.user) == ("smtp", "implicit", "ann@example.test")
    assert (third.protocol, third.tls) == ("pop3", "starttls")
    assert (fourth.source, fourth.told, fourth.inside("example.test")) == ("srv", False, False)
    assert not any(one.host == "old.example.test" for one in made.endpoints)  # no TLS
    assert all("ann" not in asked for asked in web.asked)  # nobody is told who asks


def test_dnssec_makes_a_service_record_the_domains_word():
    zone = Zone(services={"_imaps._tcp.example.test": [(0, 0, 993, "imap.elsewhere.test")]}, secure=True)
    assert found(zone, Web()).endpoints[0].told


def test_services_that_are_said_not_to_be_there():
    zone = Zone(services={"_imaps._tcp.example.test": [(0, 0, 0, "")]})
    assert all(one.source == "guess" for one in found(zone, Web()).endpoints)


def test_usual_names_and_the_machine_that_takes_the_mail():
    zone = Zone(mx={"example.test": [(10, "mx.example.test"), (20, "mx.elsewhere.test")]})
    hosts = {one.host for one in found(zone, Web()).endpoints}
    assert {"imap.example.test", "mail.example.test", "mx.example.test"} <= hosts and "mx.elsewhere.test" not in hosts
    assert [one.tls for one in found(zone, Web()).endpoints] == sorted(one.tls for one in found(zone, Web()).endpoints)


@pytest.mark.parametrize(
    "content",
    [
        b"", b"<", b"<!DOCTYPE x [<!ENTITY a 'b'>]><x/>", b"<!doctype x><x/>", b"<clientConfig/>", b"x" * 300_000,
        XML.replace(b"imap.%EMAILDOMAIN%", b"a b").replace(b"pop.example.test", b"-").replace(b"465", b"0"),
        XML.replace(b"<port>", b"<port>x"),
    ],
)  # fmt: skip
def test_descriptions_that_say_nothing(content):
    try:
        made = parse_autoconfig(content, ANN)
    except AutoconfigFault:
        return
    assert all(one.host == "-" or one.host.endswith("example.test") for one in made) and len(made) < 3


def test_the_best_is_the_first_that_is_believed(monkeypatch):
    told = [
        Endpoint("imap", f"h{n}.test", 993, "implicit", source, "u") for n, source in enumerate(["srv", "srv", "guess"])
    ]
    said = {"h0.test": Checked(told[0], "expired", "TLSv1.3"), "h1.test": Checked(told[1], "no answer"),
            "h2.test": Checked(told[2], "", "TLSv1.3")}  # fmt: skip

    async def check(one, _files=()):
        return said[one.host]

    monkeypatch.setattr(discover, "check", check)
    assert asyncio.run(discover.best(told, ["imap"])) == said["h2.test"]
    assert asyncio.run(discover.best(told[:2], ["imap"])) == said["h0.test"]
    assert asyncio.run(discover.best(told[1:2], ["imap"])) is None
    assert asyncio.run(discover.best(told, ["pop3"])) is None
