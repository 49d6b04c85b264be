"""What `fubako up` prints to be copied works as it is printed."""

import pytest
from test_programs import Terminal, kept, run

from fubako.admin.recipes import recipes


@pytest.fixture
def recipe(server):
    return dict(recipes(server.facts))


@pytest.mark.parametrize("program", ["msmtp", "swaks", "curl", "fetchmail"])
def test_recipe(server, recipe, home, needs, program):
    needs(program)
    (home / "letter.txt").write_text("Subject: by the recipe\n\nbody\n")
    before = len(kept(server, server.account("bob")[:2]))
    done = run("sh", "-c", recipe[program], home=home, FETCHMAILHOME=str(home))
    assert done.returncode == 0, done.stdout + done.stderr
    after = len(kept(server, server.account("bob")[:2]))
    assert after == before + (program in ("msmtp", "swaks"))
    if program == "fetchmail":
        assert (home / "letters.mbox").read_bytes().count(b"Message-ID:") >= 1


def test_mutt_recipe(recipe, home, needs):
    needs("mutt", "tmux")
    terminal = Terminal(home, "recipe", recipe["mutt"])
    try:
        terminal.wait("carries a letter")
    finally:
        terminal.close()
