"""A configuration that is read anew: all of it, or nothing; housekeeping outlives its own faults."""

import asyncio

import pytest
from memory_server import certificates
from msgspec.structs import replace

from fubako import app
from fubako.app import application
from fubako.clock import Env
from fubako.config import Config, ConfigError, Dns, Route
from fubako.telemetry import Telemetry


def inside(tmp_path, test):
    async def run():
        config, store = Config(hostname="here.test", quiet=True), app.open_store(tmp_path / "store", shared=False)
        made = app.Application(config, certificates(), store, Telemetry(quiet=True), Env())
        try:
            return await test(made)
        finally:
            await made.close()

    return asyncio.run(run())


def test_what_asks_dns_follows_even_when_nothing_asked_before(tmp_path):
    """DANE and MTA-STS of the first route that a reload brings."""

    async def test(made):
        made.run_queue()
        assured = made._runner._connector._assurance._resolver
        made.reload(replace(made.config, dns=Dns(servers=("127.0.0.1:5353",)), route=(Route(domain="*", to="mx"),)))
        return assured is made.resolver, assured is made.router._resolver, assured._servers

    assert inside(tmp_path, test) == (True, True, [("127.0.0.1", 5353)])


def test_a_fault_in_one_part_changes_nothing(tmp_path):
    async def test(made):
        before = made.config
        route = Route(domain="*", to="mx", socks="127.0.0.1:9", socks_user="us", socks_password_file="missing")
        with pytest.raises(ConfigError):
            made.reload(replace(before, hostname="other.test", route=(route,)))
        return made.config is before, made.routed("far.test")

    assert inside(tmp_path, test) == (True, False)


def test_housekeeping_goes_on_after_a_fault(tmp_path, monkeypatch):
    monkeypatch.setattr(application, "COMPACT_SECONDS", 0.01)

    async def test(made):
        asked = []

        async def broken(_self):
            asked.append(1)
            raise ValueError("a bug")

        monkeypatch.setattr(app.Application, "report", broken)
        made.keep_house()
        async with asyncio.timeout(10):
            while len(asked) < 2:
                await asyncio.sleep(0.01)
        return made.telemetry.counters["housekeeping.bug"]

    assert inside(tmp_path, test) >= 1
