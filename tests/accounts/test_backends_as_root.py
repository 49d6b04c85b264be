"""A password back end that is a program runs as the user who is named with it, and never as root.

Left out: what the programs do with a password (tests/contracts/test_backends.py)."""

import asyncio
import os

import pytest
from server import without

from fubako import app
from fubako.accounts.backends.interface import BackendDown, Verdict
from fubako.accounts.backends.ldap import Ldap, LdapSettings
from fubako.accounts.backends.programs import CheckPassword, JsonProgram, Pam
from fubako.config import load
from fubako.net import become


@pytest.fixture
def _root(monkeypatch):
    monkeypatch.setattr(become, "_effective_uid", lambda: 0)


@pytest.mark.usefixtures("_root")
@pytest.mark.parametrize("user", ["", "root"])
@pytest.mark.parametrize("kind", ["checkpassword", "program", "pam", "ldap"])
def test_none_runs_as_root(tmp_path, kind, user):
    mark = tmp_path / "ran"
    words = ("/bin/sh", "-c", f"touch {mark}")
    backend = {
        "checkpassword": lambda: CheckPassword(words, user), "program": lambda: JsonProgram(words, user),
        "pam": lambda: Pam("other", run_as=user), "ldap": lambda: Ldap(LdapSettings("ldapi://none", "x"), user),
    }[kind]()  # fmt: skip
    with pytest.raises((BackendDown, OSError), match="as root"):
        asyncio.run(backend.check("alice@here.test", "password"))
    assert not mark.exists()


def test_it_runs_as_the_user_who_is_named():
    if os.geteuid() != 0:
        without("only root can become another user")
    script = """test "$(id -un)" = nobody && echo '{"result": "held"}'"""
    backend = JsonProgram(("/bin/sh", "-c", script), "nobody")
    assert asyncio.run(backend.check("alice@here.test", "password")) is Verdict.HELD


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('[[password_backend]]\nkind = "pam"\n', "[[password_backend]] pam: run_as is needed"),
        ('[[password_backend]]\nkind = "program"\nprogram = ["/x"]\nrun_as = "nobody"\n', ""),
        ('[[route]]\nto = "smtp://x"\ntls = "verify"\nuser = "u"\npassword_command = ["/x"]\n', "password_command /x"),
        ('[filter]\nprogram = ["/x"]\n', "[filter] program: /x"),
    ],
)
def test_a_server_that_is_root_is_told_of_all_that_it_would_run(tmp_path, text, told):
    (tmp_path / "fubako.toml").write_text(f'hostname = "here.test"\ndirectory = "store"\n{text}')
    found = app.runs_as_root(load(tmp_path / "fubako.toml"), tmp_path / "store")
    assert told in "; ".join(found) and bool(found) is bool(told)
