"""An address that a message is sent to is one word of a program, here and in the shell of another machine; never an option.

Left out: what a program does with a word, and shells whose quotes are not those of sh (csh expands `!` in them).
"""

import asyncio
import json
import shlex
import subprocess
import sys

import pytest
from hostile import ROUTED, hostile
from hypothesis import given
from hypothesis import strategies as st

from fubako.client.connection import ClientError
from fubako.client.handing import _by_program, arguments, command_there
from fubako.client.outbox import Waiting
from fubako.client.settings import Account, SettingsError, blanks_are_words, check
from fubako.message.address import AddressError, parse_address

SENDERS = ["ann@here.test", '"a b%T"@here.test', "%T@here.test", "%F%T@here.test", '"\'%T"@x.test', '";%T"@x.test']


def written(texts) -> list[str]:
    """As addresses stand in the outbox."""
    found = []
    for text in texts:
        try:
            found.append(str(parse_address(text)))
        except AddressError:
            continue
    return found


def account(**more) -> Account:
    return Account(name="out", protocol="smtp", user="ann@here.test", **more)


def letter(sender, recipients) -> Waiting:
    return Waiting("1", "out", sender, tuple(recipients), 1_800_000_000)


@pytest.fixture
def program(tmp_path):
    """Writes its arguments, a line each time."""
    script = tmp_path / "program"
    script.write_text(
        f"#!{sys.executable}\nimport json, sys\nopen({str(tmp_path / 'heard')!r}, 'a').write(json.dumps(sys.argv[1:]) + '\\n')\n"
    )
    script.chmod(0o755)

    def heard() -> list[list[str]]:
        path = tmp_path / "heard"
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return [json.loads(line) for line in lines]

    return str(script), heard


@pytest.mark.parametrize("sender", SENDERS)
def test_every_address_is_one_argument(tmp_path, program, sender):
    words, heard = program
    mine = account(program=(words, "-f", "%F", "--", "(%T)"))
    check(mine, "accounts.toml")
    good = [one for one in written([*hostile(tmp_path), *ROUTED]) if not one.startswith("-")]
    assert len(good) > 100 and parse_address(sender)
    asyncio.run(_by_program(None, mine, letter(sender, good), b"x\r\n"))
    assert heard() == [["-f", sender, "--", *(f"({one})" for one in good)]]
    assert not list(tmp_path.glob("pwned*"))


def test_an_option_and_a_control_character_are_given_to_no_program(tmp_path, program):
    words, heard = program
    for sender, recipient in (("a@b.test", "-oQ/tmp@x.test"), ("-X@x.test", "a@b.test"), ("a@b.test", "a\x9b@x.test")):
        with pytest.raises(ClientError, match="option"):
            asyncio.run(_by_program(None, account(program=(words, "%T")), letter(sender, [recipient]), b"x\r\n"))
    assert heard() == []


@pytest.mark.parametrize("sender", SENDERS)
@pytest.mark.parametrize("template", ["{} -f %F -- %T", "{} --from=%F %T", "exec {} %T %F"])
def test_every_address_is_one_word_of_the_other_machines_shell(tmp_path, program, sender, template):
    """The shell is a real one, on this machine."""
    words, heard = program
    command = template.format(words)
    check(account(ssh="host", ssh_command=command), "accounts.toml")
    people = [one for one in written([*hostile(tmp_path), *ROUTED]) if not one.startswith("-")]
    subprocess.run(["/bin/sh", "-c", command_there(command, sender, people)], check=True, timeout=60, cwd=tmp_path)
    expected = []
    for word in command.split()[command.split().index(words) + 1 :]:
        expected += people if word == "%T" else [word.replace("%F", sender)]
    assert heard() == [expected]
    assert not list(tmp_path.glob("pwned*"))


SHELLS = [
    ("/bin/sh", "-c", "rmail %T"), ("/bin/sh", "-c", "%T"), ("/bin/bash", "-lc", "x;%F"), ("/usr/bin/env", "sh", "-ec", "%F"),
    ("/bin/rmail", "to %T"),
]  # fmt: skip
QUOTED = [
    "rmail '%T'", 'rmail "%T"', "sh -c 'rmail %T'", 'sh -c "rmail %T x"', "rmail \\%T",
    "rmail x%T", "rmail %T;id", "rmail `echo %T `",
    'rmail "$(echo" %T ")"', "cat <<x\n %T \nx", "rmail ' '%T", "uux - 'far!rmail' '(%T)'", "rmail \"=%T \"", "rmail 'a %F",
]  # fmt: skip


@pytest.mark.parametrize("words", SHELLS)
def test_a_program_that_would_read_an_address_as_commands_is_refused(words):
    with pytest.raises(SettingsError, match="a shell would read"):
        check(account(program=words), "accounts.toml")


@pytest.mark.parametrize("command", QUOTED)
def test_a_command_whose_quotes_an_address_could_end_is_refused(command):
    with pytest.raises(SettingsError, match="outside of quotes"):
        check(account(ssh="host", ssh_command=command), "accounts.toml")


@given(st.lists(st.sampled_from([*"'\"\\ =ax;\t", "%T", "%F", "--"]), max_size=12).map("".join))
def test_a_command_that_is_taken_keeps_addresses_whole(command):
    """Whatever quotes it has: as a shell splits it, each address is there, whole, as often as it was asked for."""
    if not blanks_are_words(command) or not ("%T" in command or "%F" in command):
        return
    evil = "'$(id)'%T\"@x.test"
    words = shlex.split(command_there(command, evil, [evil]))
    assert sum(word in (evil, f"{word.partition('=')[0]}={evil}") for word in words) == command.count(
        "%T"
    ) + command.count("%F")


def test_a_word_stands_for_each_recipient():
    assert arguments(["p", "%F>%T", "%F", "x"], "s", ["a", "b"]) == ["p", "s>a", "s>b", "s", "x"]
