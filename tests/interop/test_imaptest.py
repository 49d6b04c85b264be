"""Every group of ImapTest whose capability is announced."""

import imaptest
import pytest

# what these groups ask for is not announced; a capability that comes later takes its groups off this list
NOT_ANNOUNCED = {"CATENATE", "ESORT", "NOTIFY", "CONTEXT=SEARCH", "CONTEXT=SORT", "SORT", "SORT=DISPLAY",
                 "THREAD=REFERENCES", "THREAD=ORDEREDSUBJECT", "URLAUTH", "URLAUTH=BINARY"}  # fmt: skip


@pytest.fixture(scope="module")
def run(server):
    address, password = server.new_user("imaptest")
    return imaptest.Run("127.0.0.1", server.port("imaps"), address, password, server.ca)


def announced(group: str) -> bool:
    settings, _ = imaptest.parse_script(imaptest.SUITE / group)
    return not set(settings.get("capabilities", "").upper().split()) & NOT_ANNOUNCED


@pytest.mark.parametrize("group", [g for g in imaptest.groups() if announced(g)])
def test_group(run, group):
    run.group(group)  # raises Skip (a failure here) if an announced capability went missing


def test_what_is_left_out_is_not_announced(run):
    client = run.connect()
    run.login(client)
    assert not NOT_ANNOUNCED & {str(word).upper() for word in run.capabilities(client)}
    assert sum(announced(g) for g in imaptest.groups()) == 42
