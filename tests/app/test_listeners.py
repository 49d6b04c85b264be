"""Unix sockets have the mode and the group of their setting; sockets from systemd all that their [[listen]] says.

Left out: systemd itself; descriptors are handed over as it hands them over.
"""

import grp
import os
import socket
import stat

import pytest
from server import without

from fubako.app import listeners
from fubako.config import Config, ConfigError, Listen


def config(*listens: Listen) -> Config:
    return Config(hostname="h.test", directory="store", listen=listens)


@pytest.mark.parametrize("mode", ["0600", "0660", "666"])
def test_a_unix_socket_has_its_own_mode(tmp_path, mode):
    group = grp.getgrgid(os.getegid()).gr_name
    given = Listen(service="lmtp", addresses=("l.sock",), socket_mode=mode, socket_group=group)
    (made,) = listeners.bind_paths(config(given), tmp_path)
    made.socket.close()
    assert stat.S_IMODE((tmp_path / "l.sock").stat().st_mode) == int(mode, 8)


def test_a_group_that_is_not_there_is_named(tmp_path):
    given = Listen(service="lmtp", addresses=("l.sock",), socket_group="no-such-group")
    with pytest.raises(ConfigError, match="no-such-group"):
        listeners.bind_paths(config(given), tmp_path)


def test_root_makes_no_socket_in_the_folder_of_another_user(tmp_path):
    if os.getuid() != 0:
        without("only root could be misled")
    os.chown(tmp_path, 65534, 65534)
    with pytest.raises(ConfigError, match="another user"):
        listeners.bind_paths(config(Listen(service="lmtp", addresses=("l.sock",))), tmp_path)
    assert not list(tmp_path.iterdir())


def handed_over(monkeypatch, found: socket.socket, service: str) -> None:
    monkeypatch.setattr(listeners, "_FIRST_HANDED_OVER", os.dup(found.fileno()))
    for name, value in (("LISTEN_PID", str(os.getpid())), ("LISTEN_FDS", "1"), ("LISTEN_FDNAMES", service)):
        monkeypatch.setenv(name, value)


def test_a_socket_from_systemd_has_the_settings_of_its_address(tmp_path, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
        ours = Listen(service="imaps", addresses=(f"127.0.0.1:{port}",), mechanisms=("PLAIN",), proxy_networks=("10.0.0.0/8",),
                      certificate_login=True)  # fmt: skip
        other = Listen(service="imaps", addresses=("127.0.0.1:1",))
        handed_over(monkeypatch, found, "imaps")
        (made,) = listeners.inherited(config(other, ours), tmp_path)
    with made.socket:
        assert made.mechanisms == ("PLAIN",) and len(made.proxies) == 1 and made.certificate_login and made.implicit_tls


def test_a_socket_from_systemd_that_could_be_either_is_refused(tmp_path, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as found:
        handed_over(monkeypatch, found, "imaps")
        given = (
            Listen(service="imaps", addresses=(f"127.0.0.1:{n}",), mechanisms=("PLAIN",) * (n == 1)) for n in (1, 2)
        )
        with pytest.raises(ConfigError, match="several of imaps"):
            listeners.inherited(config(*given), tmp_path)
