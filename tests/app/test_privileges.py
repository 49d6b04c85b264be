"""Which groups a process keeps that gives root up. The calls are recorded; left out: what the kernel makes of them."""

import pytest

from fubako.app import privileges
from fubako.config import ConfigError


@pytest.fixture
def calls(monkeypatch):
    made = []
    for name in ("setgroups", "setresgid", "setresuid"):
        monkeypatch.setattr(privileges.os, name, lambda *given, name=name: made.append((name, given)))
    monkeypatch.setattr(privileges.os, "geteuid", lambda: 0)
    monkeypatch.setattr(privileges, "no_new_privileges", lambda: None)
    monkeypatch.setattr(privileges, "_home_of", lambda _user: {})
    return made


def known(monkeypatch, group, groups):
    entry = privileges.pwd.struct_passwd(("carol", "x", 1000, group, "", "/", ""))
    monkeypatch.setattr(privileges.pwd, "getpwnam", lambda _name: entry)
    monkeypatch.setattr(privileges.os, "getgrouplist", lambda _user, _group: groups)


def test_a_user_in_roots_group_serves_without_it(monkeypatch, calls):
    known(monkeypatch, 1000, [1000, 0, 7])
    privileges.become_user("carol")
    assert calls[:2] == [("setgroups", ([1000, 7],)), ("setresgid", (1000, 1000, 1000))]


def test_a_user_whose_own_group_is_roots_is_refused_by_name(monkeypatch, calls):
    known(monkeypatch, 0, [0])
    with pytest.raises(ConfigError, match="group of carol is root's"):
        privileges.become_user("carol")
    assert not calls


def test_an_owner_whom_nobody_knows_is_in_no_group_of_roots(monkeypatch, calls, tmp_path):
    """A store of a user without a name in a folder of root's group."""
    monkeypatch.setattr(privileges, "owner_of", lambda _path: (4711, 0))
    privileges.act_as_owner(tmp_path)
    assert calls[:2] == [("setgroups", ([],)), ("setresgid", (4711, 4711, 4711))]
