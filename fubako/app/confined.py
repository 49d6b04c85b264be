"""What a serving process keeps once it speaks to strangers, told from the configuration and the store.

Invariant: what strangers' octets could make of such a process reads no file but the program's own, those that the configuration
and aliases name and the store, writes nothing but the store, and starts no program: the spawner does, what it knows to be named.
"""

import os
import ssl
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from fubako.accounts import aliases
from fubako.config import Config
from fubako.confine import Confinement, Network, Report, confine
from fubako.message.target import Include
from fubako.store.sqlite import SqliteCore

# settings that name files; each is read again at SIGHUP, or when it is needed
FILE_SETTINGS = frozenset(
    {
        "chain", "key", "client_ca_files", "host_keys", "access", "keys", "client_secret_file", "password_file",
        "socks_password_file", "ca_files", "path", "dsn_file", "bind_password_file", "ca_file", "keytab",
    }
)  # fmt: skip
BACKEND_FILES = {"shadow": Path("/etc/shadow"), "sasldb": Path("/etc/sasldb2")}  # where the setting names none
# the machine's own: public, and needed to look up names and to load what is loaded late. Not all of /etc: there are passwords in it
SYSTEM = tuple(
    map(
        Path,
        (
            "/usr", "/lib", "/lib64", "/bin", "/etc/resolv.conf", "/run/systemd/resolve", "/run/resolvconf",
            "/run/NetworkManager", "/etc/hosts", "/etc/host.conf", "/etc/gai.conf", "/etc/nsswitch.conf", "/etc/services",
            "/etc/protocols", "/etc/passwd", "/etc/group", "/etc/localtime", "/etc/timezone", "/etc/mime.types", "/etc/ssl/certs",
            "/etc/ssl/openssl.cnf", "/etc/pki/tls/certs", "/etc/pki/tls/openssl.cnf", "/etc/pki/ca-trust/extracted",
            "/etc/ca-certificates", "/etc/crypto-policies", "/etc/krb5.conf", "/etc/krb5.conf.d", "/etc/ld.so.cache",
            "/proc/self", "/proc/sys/kernel", "/proc/meminfo", "/sys/devices/system/cpu", "/dev/urandom", "/dev/random",
        ),
    )
)  # fmt: skip
ROOT = Path("/")
NULL = Path("/dev/null")
KERBEROS_REPLAYS = Path("/var/tmp")  # noqa: S108  # libkrb5 notes there which tickets were shown
ANY_SOURCE = 0  # a port that the kernel chooses


def lists(config: Config, base: Path) -> list[Path]:
    """Files of addresses that aliases include, as they are now."""
    path = base / config.directory / "mail.sqlite"
    if not path.exists():
        return []
    core = SqliteCore(str(path))
    try:
        found = core.read(aliases.everything)
    finally:
        core.close()
    return [Path(one.path) for alias in found for one in alias.targets if isinstance(one, Include)]


def confinement(config: Config, base: Path, included: Sequence[Path] = ()) -> Confinement:
    """Of one worker. It is applied before the store is opened and before any thread is made."""
    kinds = {one.kind for one in config.password_backend}
    written = [base / config.directory, NULL]
    written += [KERBEROS_REPLAYS] if config.kerberos.keytab or "kerberos" in kinds else []
    # SQLite writes beside a database that it only reads, where others write it
    written += [(base / one.path).resolve().parent for one in config.password_backend if one.kind == "sqlite"]
    named = [*_named(config, base), *included, *(BACKEND_FILES[kind] for kind in kinds & BACKEND_FILES.keys())]
    return Confinement(
        read=(*SYSTEM, *_own_files(), base, *_folders(named)), write=tuple(written), network=Network.ANY,
        bind_ports=(ANY_SOURCE,), new_code=True, modes=True,
    )  # fmt: skip


Reach = frozenset[tuple[str, int, int]]


def reach(config: Config, base: Path) -> Reach:
    """Paths as they are now, with what lies there (device and number): whether a worker that was confined before still has all."""
    wanted = confinement(config, base, lists(config, base))
    found = set()
    for path in (*wanted.read, *wanted.write):
        try:
            facts = path.stat()
        except OSError:
            continue
        found.add((str(path), facts.st_dev, facts.st_ino))
    return frozenset(found)


def confine_worker(config: Config, base: Path) -> Report:
    """This process, for good. Raises ConfinementFailed."""
    return confine(confinement(config, base, lists(config, base)))


def _own_files() -> Iterator[Path]:
    """Python, this program and what it loads, and the authorities of the machine, Kerberos's too."""
    for one in (sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix, *sys.path):
        if one and Path(one) != ROOT:
            yield Path(one).absolute()
    yield Path(__file__).parents[1]
    yield from map(Path, filter(None, os.environ.get("KRB5_CONFIG", "").split(":")))  # kerberos(7)
    found = ssl.get_default_verify_paths()
    for place in (found.cafile, found.capath, os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")):
        if place:
            yield Path(place)


def _named(settings: Any, base: Path) -> Iterator[Path]:
    """Every file that a setting names, whatever section it stands in."""
    for name, value in zip(settings.__struct_fields__, msgspec.structs.astuple(settings), strict=True):
        for one in value if isinstance(value, tuple) else (value,):
            if isinstance(one, msgspec.Struct):
                yield from _named(one, base)
            elif name in FILE_SETTINGS and isinstance(one, str) and one and "://" not in one:
                yield base / one


def _folders(paths: list[Path]) -> Iterator[Path]:
    """Folders, as files are replaced under the same name, and those that links lead to. Of / the file alone."""
    for path in paths:
        for one in (path.absolute(), path.resolve()):
            yield one if one.parent == ROOT else one.parent
