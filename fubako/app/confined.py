"""What a serving process keeps once it speaks to strangers, told from the configuration and the store: `Needs`, `confinement`.

Invariant: what strangers' octets could make of such a process reads no file but the program's own, those that the configuration
names and the store, writes nothing but the store, and starts no program. Where the configuration or an alias names programs (or
files outside), whoever starts them cannot be held to paths: that is in `Needs.programs`, and told in the event.
"""

import os
import ssl
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from fubako.accounts import aliases
from fubako.config import Config
from fubako.confine import Confinement, Network, Report, confine
from fubako.message.target import File, Include, Program
from fubako.net import become
from fubako.store.sqlite import SqliteCore

# settings that name files; each is read again at SIGHUP, or when it is needed
FILE_SETTINGS = frozenset(
    {
        "chain", "key", "client_ca_files", "host_keys", "access", "keys", "client_secret_file", "password_file",
        "socks_password_file", "ca_files", "path", "dsn_file", "bind_password_file", "ca_file", "keytab",
    }
)  # fmt: skip
BACKEND_FILES = {"shadow": Path("/etc/shadow"), "sasldb": Path("/etc/sasldb2")}  # where the setting names none
HELPED_BACKENDS = frozenset({"pam", "ldap", "checkpassword", "program"})  # asked by processes of their own
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
ALL = Path("/")
NULL = Path("/dev/null")
KERBEROS_REPLAYS = Path("/var/tmp")  # noqa: S108  # libkrb5 notes there which tickets were shown
ANY_SOURCE = 0  # a port that the kernel chooses


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """`programs`: why programs have to be started, in words; none: never. `lists`: files of addresses that aliases include.
    `rights`: programs gain rights by their files (PAM's unix_chkpwd), which a confined process keeps from them."""

    programs: tuple[str, ...] = ()
    lists: tuple[Path, ...] = ()
    rights: bool = False


def needs(config: Config, base: Path) -> Needs:
    """What the configuration and the aliases of the store name, as they are now."""
    programs = [f"[[route]] {one.domain}: program" for one in config.route if one.program]
    programs += [f"[[route]] {one.domain}: password_command" for one in config.route if one.password_command]
    programs += ["[filter] program"] if config.filter.program else []
    programs += [f"[[password_backend]] {one.kind}" for one in config.password_backend if one.kind in HELPED_BACKENDS]
    lists: list[Path] = []
    path = base / config.directory / "mail.sqlite"
    if path.exists():
        core = SqliteCore(str(path))
        try:
            for alias in core.read(aliases.everything):
                handed = [one.shown for one in alias.targets if isinstance(one, Program | File)]
                programs += [f"alias {alias.address}: {shown}" for shown in handed]
                lists += [Path(one.path) for one in alias.targets if isinstance(one, Include)]
        finally:
            core.close()
    rights = any(one.kind == "pam" for one in config.password_backend)
    return Needs(programs=tuple(programs), lists=tuple(lists), rights=rights)


def confinement(config: Config, base: Path, needed: Needs) -> Confinement:
    """Of one worker. It is applied before the store is opened and before any thread is made."""
    if needed.programs:
        everything = (ALL,)
        return Confinement(
            read=everything, write=everything, run=everything, network=Network.ANY, bind_ports=(ANY_SOURCE,),
            spawn=True, signals=True, new_code=True, modes=True, privileges=True,
        )  # fmt: skip
    kinds = {one.kind for one in config.password_backend}
    written = [base / config.directory, NULL]
    written += [KERBEROS_REPLAYS] if config.kerberos.keytab or "kerberos" in kinds else []
    # SQLite writes beside a database that it only reads, where others write it
    written += [(base / one.path).resolve().parent for one in config.password_backend if one.kind == "sqlite"]
    named = [*_named(config, base), *needed.lists, *(BACKEND_FILES[kind] for kind in kinds & BACKEND_FILES.keys())]
    return Confinement(
        read=(*SYSTEM, *_own_files(), base, *_folders(named)), write=tuple(written), network=Network.ANY,
        bind_ports=(ANY_SOURCE,), new_code=True, modes=True,
    )  # fmt: skip


def confine_worker(config: Config, base: Path, needed: Needs) -> Report | None:
    """This process, for good. None: it has to start programs that gain rights by their files, which confinement forbids.
    Raises ConfinementFailed."""
    if needed.rights:
        return None
    report = confine(confinement(config, base, needed))
    if not needed.programs:
        become.forbid(
            "the server was started when no alias named a program or a file, and has given up to start or write any;"
            " restart it, and it is tried again"
        )
    return report


def _own_files() -> Iterator[Path]:
    """Python, this program and what it loads, and the authorities of the machine."""
    for one in (sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix, *sys.path):
        if one and Path(one) != ALL:
            yield Path(one).absolute()
    yield Path(__file__).parents[1]
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
            yield one if one.parent == ALL else one.parent
