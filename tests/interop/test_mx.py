"""`fubako mx` by a real resolver with DNSSEC, and what it would demand."""

import json

import pytest
from internet import Dns
from server import FUBAKO
from test_programs import run

from fubako.admin.lookup import NoMail, lookup
from fubako.net.interface import Fetched, HttpsFailure

KEY = "3 1 1 " + "ab" * 32


@pytest.fixture(scope="module")
def resolver(tmp_path_factory):
    from server import have, without

    if not have("unbound"):
        without("not installed: unbound")
    dns = Dns(tmp_path_factory.mktemp("dns") / "u")
    hosts = "@ IN MX 10 a\n@ IN MX 20 b\na IN A 192.0.2.1\na IN AAAA 2001:db8::1\nb IN A 192.0.2.2\n"
    dns.zone("signed.test", f"{hosts}_25._tcp.a IN TLSA {KEY}\n", signed=True)
    dns.zone("plain.test", f"@ IN MX 10 a\na IN A 192.0.2.3\n_25._tcp.a IN TLSA {KEY}\n")
    dns.zone("nothing.test", "@ IN MX 0 .\n")
    dns.zone("bare.test", "@ IN A 192.0.2.4\n")
    dns.zone("spoiled.test", "@ IN MX 10 a\na IN A 192.0.2.53\n", spoiled=True)
    yield dns.start()
    dns.stop()


def ask(resolver, home, domain: str):
    done = run(FUBAKO, "mx", domain, "--dns", f"127.0.0.1:{resolver.port}", "--no-https", "--json", home=home)
    return done.returncode, json.loads(done.stdout) if done.stdout else {}, done.stderr.decode()


def test_hosts_in_their_order_with_their_demands(resolver, home):
    code, facts, _ = ask(resolver, home, "Signed.test.")
    assert (
        code == 0 and facts["dnssec"] and [one["host"] for one in facts["hosts"]] == ["a.signed.test", "b.signed.test"]
    )
    first, second = facts["hosts"]
    assert (
        set(first["addresses"]) == {"192.0.2.1", "2001:db8::1"}
        and "DANE" in first["demand"]
        and "this very key" in first["demand"]
    )
    assert "TLS where it is offered" in second["demand"]
    code, facts, _ = ask(resolver, home, "plain.test")
    assert code == 0 and not facts["dnssec"] and "DANE" not in facts["hosts"][0]["demand"]  # nobody signed it
    code, facts, _ = ask(resolver, home, "bare.test")
    assert code == 0 and facts["implicit"] and facts["hosts"][0]["addresses"] == ["192.0.2.4"]
    done = run(FUBAKO, "mx", "signed.test", "--dns", f"127.0.0.1:{resolver.port}", "--no-https", home=home)
    assert b"   10 a.signed.test  " in done.stdout and b"DNSSEC holds" in done.stdout


def test_nowhere_to_go(resolver, home):
    for domain, words in (("nothing.test", "null MX"), ("none.signed.test", "does not exist")):
        code, _, error = ask(resolver, home, domain)
        assert code == 68 and words in error
    assert ask(resolver, home, "spoiled.test")[0] == 75  # DNSSEC says that somebody changed it


class Web:
    def __init__(self, content: bytes, status: int = 200) -> None:
        self.answer = Fetched(status, "text/plain", content)

    async def get(self, host, path, octets_max):
        if not self.answer.content:
            raise HttpsFailure("it cannot be reached")
        return self.answer


@pytest.mark.parametrize(
    ("content", "words", "problem"),
    [
        (b"version: STSv1\nmode: enforce\nmx: a.x.test\nmax_age: 60\n", "public authority for a.x.test (MTA-STS)", ""),
        (b"version: STSv1\nmode: enforce\nmx: *.other.test\nmax_age: 60\n", "nothing is sent there", ""),
        (b"version: STSv1\nmode: testing\nmx: a.x.test\nmax_age: 60\n", "testing", ""),
        (b"nonsense", "TLS where it is offered", "no colon"), (b"", "TLS where it is offered", "cannot be reached"),
    ],
)  # fmt: skip
def test_policies(content, words, problem):
    import asyncio

    from zone import Zone

    zone = Zone(
        {"x.test": [(10, "a.x.test")]}, {"a.x.test": ["192.0.2.1"]}, texts={"_mta-sts.x.test": [b"v=STSv1; id=1"]}
    )
    facts = asyncio.run(lookup(zone, Web(content), "x.test"))
    assert words in facts["hosts"][0]["demand"] and problem in facts["mta_sts_problem"]
    with pytest.raises(NoMail):
        asyncio.run(lookup(zone, None, "a.nowhere.test"))
