"""The dialogues with a real front between client and session (SMTP), and TLS in a process of its own (all): what can be said says
the same on both roads.

Its world: a store in a temporary folder, a front made by a nursery, connections that are pairs of Unix sockets called by an
address of TCP. Left out: ports, workers, and LMTP, which no front holds.
"""

import asyncio

import pytest
from fronted_server import FrontedServer
from memory_server import MemoryServer
from test_dialogues import dialogues, play

from fubako.scan.nursery import Nursery

PATHS = [
    path for path in dialogues() if path.parent.name == "smtp" or "tls" in path.read_text(encoding="utf-8").lower()
]


@pytest.fixture(scope="module")
def nursery():
    made = Nursery.start("fubako.app.births")
    yield made
    made.close()


@pytest.mark.parametrize("fragment", [0, 7])
@pytest.mark.parametrize("path", PATHS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_dialogue_through_a_front(path, fragment, nursery, monkeypatch):
    def fronted(protocol, given):
        return FrontedServer(protocol, given, nursery)

    monkeypatch.setattr("test_dialogues.MemoryServer", fronted)
    asyncio.run(asyncio.wait_for(play(path.parent.name, path.read_text(encoding="utf-8"), fragment), 60))
    assert MemoryServer is not fronted
