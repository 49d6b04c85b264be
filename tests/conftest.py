"""Fixtures: one real server a run; letters that break careless programs; loud skips."""

import os
import secrets
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from letters import hostile_letter
from server import Server, have, without

from fubako.app import storage

# A store opened in a test's own process must not turn the whole run into the store's owner, for
# good; commands are processes of their own here, and do.
storage.act_as_owner = lambda _directory: None

settings.register_profile("short", max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
settings.register_profile(
    "long", max_examples=20_000, deadline=None, suppress_health_check=list(HealthCheck)
)  # make fuzz
settings.load_profile("short")  # --hypothesis-profile comes later, and holds


@pytest.fixture(autouse=True)
def _mask():
    """What a test's own process may do to files it makes is the same for the next test."""
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    running = Server(tmp_path_factory.mktemp("up") / "data").start()
    yield running
    assert running.stop() == 0


@pytest.fixture
def user(server):
    """(address, password) of a fresh account."""
    return server.new_user("u" + secrets.token_hex(4))


@pytest.fixture
def letter() -> bytes:
    return hostile_letter()


@pytest.fixture
def needs():
    """needs("mutt"): skip loudly without the program; under CI that is a failure."""

    def check(*programs: str) -> None:
        missing = [program for program in programs if not have(program)]
        if missing:
            without(f"not installed: {', '.join(missing)}")

    return check


@pytest.fixture
def home(tmp_path) -> Path:
    """A private home folder for a program under test."""
    path = tmp_path / "home"
    path.mkdir(mode=0o700)
    return path
