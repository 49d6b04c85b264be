"""The OpenSPF suite, whole; and what it does not ask."""

import asyncio
import ipaddress
from pathlib import Path

import pytest
import yaml

from fubako.net.interface import Answer, DnsFailure, NoSuchName
from fubako.policy import spf

SUITE = Path(__file__).parent.parent / "suites" / "spf" / "rfc7208-tests.yml"


class SuiteZone:
    """Zone data as the suite writes it: TIMEOUT for what is not answered, SPF records that stand for TXT where none are given."""

    def __init__(self, data):
        self.data = {str(name).lower(): entries for name, entries in data.items()}

    def _records(self, name, kind, depth=0):
        name = name.lower().rstrip(".")
        if name not in self.data:
            raise NoSuchName(name)
        alias = next((one["CNAME"] for one in self.data[name] if not isinstance(one, str) and "CNAME" in one), None)
        if alias is not None:
            if depth > 8:
                raise DnsFailure(f"{name}: its aliases run in circles")
            return self._records(alias, kind, depth + 1)
        entries = [one for one in self.data[name] if not isinstance(one, str)]
        kinds = {next(iter(one)) for one in entries}
        wanted = "SPF" if kind == "TXT" and "TXT" not in kinds else kind
        found = [one[wanted] for one in entries if wanted in one and one[wanted] != "NONE"]
        if any(value == "TIMEOUT" for value in found) or ("TIMEOUT" in self.data[name] and not found):
            raise DnsFailure(f"{name}: no answer")
        return found

    async def texts(self, name):
        found = self._records(name, "TXT")
        return Answer(tuple(("".join(v) if isinstance(v, list) else v).encode("latin-1") for v in found))

    async def ipv4(self, name):
        return Answer(tuple(self._records(name, "A")))

    async def ipv6(self, name):
        return Answer(tuple(self._records(name, "AAAA")))

    async def mx(self, name):
        return Answer(tuple((p, host.rstrip(".")) for p, host in self._records(name, "MX")))

    async def names(self, address):
        return Answer(tuple(self._records(ipaddress.ip_address(address).reverse_pointer, "PTR")))


def cases():
    for scenario in yaml.safe_load_all(SUITE.read_text(encoding="utf-8")):
        if not scenario:
            continue
        for name, case in scenario["tests"].items():
            yield pytest.param(scenario["zonedata"], case, id=f"{scenario['description']}: {name}".replace(" ", "-"))


@pytest.mark.parametrize(("zone", "case"), list(cases()))
def test_the_suite(zone, case):
    wanted = case["result"] if isinstance(case["result"], list) else [case["result"]]
    found = asyncio.run(
        spf.check(SuiteZone(zone), str(case["host"]), case["mailfrom"] or "", str(case["helo"]), "receiver.test")
    )
    assert found.result in wanted, (found, case.get("description"))
    if "explanation" in case:
        assert (found.explanation or "DEFAULT") == case["explanation"]


def test_there_are_as_many_cases_as_the_suite_has():
    assert len(list(cases())) == 203
