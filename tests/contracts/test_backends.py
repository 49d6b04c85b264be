"""One suite for everything that checks passwords."""

import asyncio
import os
import socket
from collections.abc import Callable

import checkers
import pytest
from checkers import ALICE, BOB
from server import without

from fubako.accounts.backends.interface import Backend, BackendDown, Verdict
from fubako.app import confined
from fubako.config import Config
from fubako.config.logins import PasswordBackend
from fubako.confine import landlock
from fubako.net import become
from fubako.spawn import launcher
from fubako.spawn.door import Asking
from fubako.spawn.process import Spawner


@pytest.fixture(autouse=True)
def _not_root(monkeypatch):
    """Programs run as nobody's root; tests/accounts/test_backends_as_root.py judges that."""
    monkeypatch.setattr(become, "_effective_uid", lambda: 1000)


KINDS: list[Callable] = [
    checkers.fake, checkers.passwd_file, checkers.shadow, checkers.sasldb, checkers.checkpassword, checkers.json_program,
    checkers.pam, checkers.sqlite, checkers.postgres, checkers.slapd, checkers.slapd_compare, checkers.saslauthd, checkers.kerberos,
]  # fmt: skip


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: kind.__name__)
def backend(request, tmp_path_factory):
    with request.param(tmp_path_factory.mktemp(request.param.__name__)) as made:
        yield made


def ask(backend: Backend, *questions: tuple[str, str]) -> list[Verdict]:
    async def run():
        try:
            return await asyncio.wait_for(asyncio.gather(*(backend.check(*one) for one in questions)), 60)
        finally:
            await backend.close() if backend.name in (
                "postgresql",
                "ldap",
            ) else None  # what they hold belongs to this loop

    return asyncio.run(run())


def test_the_right_password_holds(backend):
    assert ask(backend, ("alice@here.test", ALICE), ("bob@here.test", BOB)) == [Verdict.HELD] * 2


@pytest.mark.parametrize("kind", [checkers.checkpassword, checkers.json_program, checkers.pam, checkers.slapd])
def test_programs_are_asked_by_a_spawner(kind, tmp_path):
    """As workers do that may start none: two questions at once, and one that fails."""

    async def run(backend: Backend) -> list[Verdict]:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for one in (ours, theirs):
            one.setblocking(False)
        spawning = asyncio.create_task(Spawner(theirs, lambda _request: "").serve())
        launcher.use(Asking(ours))
        try:
            return await asyncio.gather(
                backend.check("alice@here.test", ALICE),
                backend.check("bob@here.test", BOB),
                backend.check("bob@here.test", ALICE),
            )
        finally:
            await backend.close()
            launcher.use(launcher.Direct())
            ours.close()
            await spawning

    with kind(tmp_path) as backend:
        assert asyncio.run(run(backend)) == [Verdict.HELD, Verdict.HELD, Verdict.WRONG]


@pytest.mark.parametrize(
    "kind",
    [checkers.passwd_file, checkers.shadow, checkers.sasldb, checkers.sqlite, checkers.saslauthd, checkers.kerberos],
)
def test_those_without_a_program_are_asked_by_a_confined_process(kind, tmp_path):
    """A child that has confined itself as a worker does, for a configuration that names the backend's file. Left out: PostgreSQL,
    which is a connection."""
    if not landlock.version():
        without("the kernel has no Landlock")
    with kind(tmp_path) as backend:
        named = PasswordBackend(kind=backend.name, path=str(getattr(backend, "_path", getattr(backend, "_keytab", ""))))
        config = Config(hostname="here.test", directory="store", password_backend=(named,))
        (tmp_path / "store" / "run").mkdir(parents=True)
        reading, writing = os.pipe()
        pid = os.fork()
        if not pid:
            try:
                report = confined.confine_worker(config, tmp_path / "store")
                verdicts = ask(backend, ("alice@here.test", ALICE), ("alice@here.test", "wrong"))
                os.write(writing, f"{[one.value for one in verdicts]} {report.landlock > 0}".encode())
            except BaseException as error:
                os.write(writing, repr(error).encode())
            finally:
                os._exit(0)
        os.waitpid(pid, 0)
        os.close(writing)
        with open(reading, "rb") as pipe:
            assert pipe.read().decode() == "['held', 'wrong'] True"


@pytest.mark.parametrize(
    "password", ["wrong", "", BOB, ALICE + " ", ALICE[:-1], ALICE.upper(), "*", "%", "\0", ALICE + "\0x"]
)
def test_another_password_does_not(backend, password):
    assert ask(backend, ("alice@here.test", password)) == [Verdict.WRONG]


@pytest.mark.parametrize(
    "user",
    ["nobody@here.test", "*@here.test", "alice@here.test)(mail=*", "alice@here.test' OR '1'='1", "x' OR 1=1 --", "", "a" * 200,
     "alice@here.test,dc=x", "日本@here.test", "../alice@here.test", "alice@here.test\nbob@here.test", "imap/localhost@here.test"],
)  # fmt: skip
def test_nobody_else_is_known(backend, user):
    (verdict,) = ask(backend, (user, ALICE))
    assert verdict is not Verdict.HELD


def test_many_at_once(backend):
    questions = [("alice@here.test", ALICE), ("alice@here.test", "wrong"), ("nobody@here.test", "x")] * 10
    verdicts = ask(backend, *questions)
    assert verdicts[::3] == [Verdict.HELD] * 10 and Verdict.HELD not in verdicts[1::3] + verdicts[2::3]


def test_a_dead_one_is_not_a_refusal(backend, tmp_path):
    """Everything that is behind the backend is taken away."""
    dead = broken(backend, tmp_path)
    for questions in (("alice@here.test", ALICE), ("nobody@here.test", "x")):
        with pytest.raises((BackendDown, OSError)):
            ask(dead, questions)


def broken(backend: Backend, nowhere) -> Backend:
    from fubako.accounts.backends.files import FileBackend
    from fubako.accounts.backends.kerberos import Kerberos
    from fubako.accounts.backends.ldap import Ldap, LdapSettings
    from fubako.accounts.backends.postgres import Postgres
    from fubako.accounts.backends.programs import CheckPassword, JsonProgram, Pam
    from fubako.accounts.backends.saslauthd import Saslauthd
    from fubako.accounts.backends.sasldb import SaslDb
    from fubako.accounts.backends.sql import Sqlite

    match backend.name:
        case "passwd-file" | "shadow":
            return FileBackend(nowhere / "none", shadow=backend.name == "shadow")
        case "sasldb":
            (nowhere / "bad").write_bytes(b"no database" * 100)
            return SaslDb(nowhere / "bad")
        case "checkpassword":
            return CheckPassword(("/no/such/program", "/bin/true"))
        case "program":
            return JsonProgram(("/bin/echo", "no JSON"))
        case "pam":
            return Pam("none", str(nowhere))
        case "sqlite":
            return Sqlite(nowhere / "none.db", "SELECT 1 WHERE 'x'=?")
        case "postgresql":
            return Postgres("host=127.0.0.1 port=1 connect_timeout=2", "SELECT 1 WHERE 'x'=?")
        case "ldap":
            return Ldap(LdapSettings("ldap://localhost:1", "dc=x", seconds=1.0))
        case "saslauthd":
            return Saslauthd(nowhere / "none")
        case "kerberos":
            return Kerberos(nowhere / "none", "imap", "localhost", "HERE.TEST")
    backend.down = "broken"
    return backend


def silent(kind: str, port: int, path, folder) -> Backend:
    """A backend whose server takes connections and says nothing."""
    from fubako.accounts.backends.ldap import Ldap, LdapSettings
    from fubako.accounts.backends.postgres import Postgres
    from fubako.accounts.backends.programs import CheckPassword, JsonProgram
    from fubako.accounts.backends.saslauthd import Saslauthd

    match kind:
        case "ldap":
            return Ldap(LdapSettings(f"ldap://127.0.0.1:{port}", "dc=x", seconds=1.0))
        case "ldaps":
            return Ldap(LdapSettings(f"ldaps://127.0.0.1:{port}", "dc=x", seconds=1.0))
        case "postgres":
            return Postgres(f"host=127.0.0.1 port={port}", "SELECT 1 WHERE 'x'=?")
        case "saslauthd":
            return Saslauthd(path)
        case "checkpassword":
            return CheckPassword(("/bin/sleep", "60"))
        case _:
            return JsonProgram(("/bin/sleep", "60"))


@pytest.mark.parametrize("kind", ["ldap", "ldaps", "postgres", "saslauthd", "checkpassword", "program"])
def test_one_that_says_nothing_is_left_and_leaves_nothing_behind(kind, tmp_path):
    import socket
    import tempfile
    import time
    from pathlib import Path

    from fubako.accounts.backends.chain import Chain, Checker, Question
    from fubako.telemetry import Telemetry

    path = Path(tempfile.mkdtemp(prefix="si")) / "mux"
    with socket.socket() as listener, socket.socket(socket.AF_UNIX) as local:
        listener.bind(("127.0.0.1", 0))
        listener.listen(50)
        local.bind(str(path))
        local.listen(50)

        async def run():
            backend = silent(kind, listener.getsockname()[1], path, tmp_path)
            at = [0.0]
            chain = Chain([Checker(backend, seconds=1.0)], lambda: at[0], Telemetry(quiet=True))
            began = time.monotonic()
            for _ in range(2):
                with pytest.raises(
                    BackendDown, match="no answer in 1 seconds|connect|Can't contact|Timed out|timed out|error"
                ):
                    await chain.check(Question(address="alice@here.test", password="words", only_domain="here.test"))
                at[0] += 60
            seconds = time.monotonic() - began
            await chain.close()
            threads = getattr(backend, "_threads", None)
            if threads is not None:  # its threads end by the library's own time limits
                await asyncio.wait_for(asyncio.to_thread(threads.shutdown), 15)
            return seconds

        assert asyncio.run(run()) < 6
