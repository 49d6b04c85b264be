"""Real systems that check passwords, each in a private folder on loopback: what the contract of backends is run on.

Every maker gives a backend that knows alice@here.test with ALICE and bob@here.test with BOB, and nobody else.
"""

import base64
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from peers import free_port
from server import without

from fubako.accounts import secrets
from fubako.accounts.backends.files import FileBackend
from fubako.accounts.backends.interface import Backend, Fake
from fubako.accounts.backends.kerberos import Kerberos
from fubako.accounts.backends.ldap import Ldap, LdapSettings
from fubako.accounts.backends.postgres import Postgres
from fubako.accounts.backends.programs import CheckPassword, JsonProgram, Pam
from fubako.accounts.backends.saslauthd import Saslauthd
from fubako.accounts.backends.sasldb import SaslDb
from fubako.accounts.backends.sql import Sqlite
from fubako.clock import Env
from fubako.trust.authority import ensure_authority, ensure_server

ALICE, BOB = "right wörds 鍵 1", "Tr0ub4dor&3 %s\"'"
USERS = {"alice@here.test": ALICE, "bob@here.test": BOB}


def hashed(password: str) -> str:
    return secrets.make(password, "password", "", 1, os.urandom).argon2


def need(*programs: str) -> None:
    path = "/usr/sbin:/usr/bin:/sbin:/bin:/usr/lib/postgresql/15/bin"
    missing = [one for one in programs if not shutil.which(one, path=path)]
    if missing:
        without(f"not installed: {', '.join(missing)}")


def until(condition, seconds=20.0):
    end = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > end:
            raise AssertionError("it did not start")
        time.sleep(0.05)
    return found


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def running(*command: str, **options):
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


@contextmanager
def fake(_folder: Path) -> Iterator[Backend]:
    yield Fake(dict(USERS))


@contextmanager
def passwd_file(folder: Path) -> Iterator[Backend]:
    lines = [
        f"alice@here.test:{{ARGON2ID}}{hashed(ALICE)}:1000:1000::/home:",
        f"bob@here.test:{{PLAIN}}{BOB}",
        "locked:!:",
        "# no one",
    ]
    (folder / "users").write_text("\n".join(lines))
    yield FileBackend(folder / "users", shadow=False)


@contextmanager
def shadow(folder: Path) -> Iterator[Backend]:
    need("openssl")
    kept = [
        subprocess.run(
            ["openssl", "passwd", "-6", "-stdin"], input=one, capture_output=True, text=True, check=True
        ).stdout.strip()
        for one in (ALICE, BOB)
    ]
    (folder / "shadow").write_text(
        f"root:*:19000:0:99999:7:::\nalice@here.test:{kept[0]}:19000:0:99999:7:::\nbob@here.test:{kept[1]}:19000:0:99999:7:::\n"
        f"gone:{kept[0]}:19000:0:99999:7::19001:\n"
    )
    yield FileBackend(folder / "shadow", shadow=True)


@contextmanager
def sasldb(folder: Path) -> Iterator[Backend]:
    need("saslpasswd2")
    for address, password in USERS.items():
        name, _, realm = address.partition("@")
        subprocess.run(
            ["saslpasswd2", "-p", "-c", "-f", str(folder / "sasldb2"), "-u", realm, name],
            input=password.encode(),
            check=True,
        )
    yield SaslDb(folder / "sasldb2")


@contextmanager
def checkpassword(folder: Path) -> Iterator[Backend]:
    yield CheckPassword((sys.executable, "-I", str(script(folder, "checkpassword", CHECKPASSWORD)), "/bin/true"))


@contextmanager
def json_program(folder: Path) -> Iterator[Backend]:
    yield JsonProgram((sys.executable, "-I", str(script(folder, "answers", ANSWERS))))


def script(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text.replace("USERS", repr(USERS)))
    return path


CHECKPASSWORD = """
import os, sys
user, password, _ = os.fdopen(3, "rb").read(512).split(b"\\0")[:3]
known = USERS
if known.get(user.decode()) != password.decode():
    sys.exit(1)
os.execv(sys.argv[1], sys.argv[1:])
"""
ANSWERS = """
import json, sys
asked = json.load(sys.stdin)
known = USERS.get(asked["user"])
print(json.dumps({"result": "unknown" if known is None else "held" if known == asked["password"] else "wrong"}))
"""


@contextmanager
def pam(folder: Path) -> Iterator[Backend]:
    need("db5.3_load")
    lines = "".join(f"{name}\n{password}\n" for name, password in USERS.items())
    subprocess.run(["db5.3_load", "-T", "-t", "hash", str(folder / "users.db")], input=lines.encode(), check=True)
    (folder / "pam.d").mkdir()
    uses = f"required pam_userdb.so db={folder / 'users'} crypt=none"
    (folder / "pam.d" / "mail").write_text(f"auth {uses}\naccount {uses}\n")
    yield Pam("mail", str(folder / "pam.d"))


@contextmanager
def sqlite(folder: Path) -> Iterator[Backend]:
    database = sqlite3.connect(folder / "users.db")
    database.execute("CREATE TABLE users (name TEXT PRIMARY KEY, hash TEXT)")
    database.executemany("INSERT INTO users VALUES (?,?)", [(name, hashed(one)) for name, one in USERS.items()])
    database.commit()
    database.close()
    yield Sqlite(folder / "users.db", "SELECT hash FROM users WHERE name=?")


@contextmanager
def postgres(folder: Path) -> Iterator[Backend]:
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not programs:
        without("not installed: postgresql")
    place, port = Path(tempfile.mkdtemp(prefix="pg")), free_port()
    shutil.chown(place, "postgres") if os.getuid() == 0 else None
    become = ["setpriv", "--reuid", "postgres", "--regid", "postgres", "--clear-groups"] if os.getuid() == 0 else []
    made = [
        *become,
        str(programs[-1] / "initdb"),
        "-D",
        str(place / "data"),
        "-A",
        "trust",
        "-U",
        "postgres",
        "-E",
        "UTF8",
        "--no-sync",
    ]
    subprocess.run(made, check=True, capture_output=True, cwd="/", timeout=60)
    serve = (
        *become,
        str(programs[-1] / "postgres"),
        "-D",
        str(place / "data"),
        "-p",
        str(port),
        "-k",
        str(place),
        "-h",
        "127.0.0.1",
    )
    with running(*serve, cwd="/"):
        import psycopg

        dsn = f"host=127.0.0.1 port={port} user=postgres dbname=postgres connect_timeout=3"

        def connected():
            try:
                return psycopg.connect(dsn, autocommit=True)
            except psycopg.OperationalError:
                return None

        with until(connected) as connection:
            connection.execute("CREATE TABLE users (name TEXT PRIMARY KEY, hash TEXT)")
            for name, one in USERS.items():
                connection.execute("INSERT INTO users VALUES (%s, %s)", (name, hashed(one)))
        yield Postgres(dsn, "SELECT hash FROM users WHERE name=? AND name LIKE '%@%'")
    shutil.rmtree(place, ignore_errors=True)


@contextmanager
def directory(compare: bool = False) -> Iterator[LdapSettings]:
    """slapd with the two users."""
    need("slapd", "slapadd")
    place, port = Path(tempfile.mkdtemp(prefix="ld")), free_port()
    now = Env().clock.now()
    authority = (place / "ca.pem", place / "ca.key")
    ensure_authority(*authority, "test", now)
    ensure_server(place / "server.pem", place / "server.key", authority, ["localhost", "127.0.0.1"], now)
    (place / "db").mkdir()
    (place / "slapd.conf").write_text(
        "".join(f"include /etc/ldap/schema/{name}.schema\n" for name in ("core", "cosine", "inetorgperson"))
        + f"pidfile {place}/pid\nmodulepath /usr/lib/ldap\nmoduleload back_mdb\nTLSCACertificateFile {place}/ca.pem\n"
        f"TLSCertificateFile {place}/server.pem\nTLSCertificateKeyFile {place}/server.key\nsecurity simple_bind=128\n"
        f'database mdb\nsuffix "dc=here,dc=test"\nrootdn "cn=admin,dc=here,dc=test"\nrootpw secret\ndirectory {place}/db\n'
        'access to attrs=userPassword by dn.base="cn=search,dc=here,dc=test" compare by anonymous auth by * none\n'
        'access to * by dn.base="cn=search,dc=here,dc=test" read by * none\n'
    )
    search = "cn: search\nuserPassword: looks\n"
    entries = [
        "dn: dc=here,dc=test\nobjectClass: dcObject\nobjectClass: organization\no: here\ndc: here\n",
        f"dn: cn=search,dc=here,dc=test\nobjectClass: organizationalRole\nobjectClass: simpleSecurityObject\n{search}",
    ]
    for address, password in USERS.items():
        name = address.partition("@")[0]
        kept = base64.b64encode(password.encode()).decode()
        entries.append(
            f"dn: uid={name},dc=here,dc=test\nobjectClass: inetOrgPerson\nuid: {name}\ncn: {name}\nsn: {name}\nmail: {address}\n"
            f"userPassword:: {kept}\n"
        )
    (place / "all.ldif").write_text("\n".join(entries))
    path = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    subprocess.run(
        ["slapadd", "-f", str(place / "slapd.conf"), "-l", str(place / "all.ldif")],
        check=True,
        capture_output=True,
        env=path,
    )
    server = ("slapd", "-d", "0", "-f", str(place / "slapd.conf"), "-h", f"ldap://127.0.0.1:{port}")
    with running(*server, env=path):
        until(lambda: listens(port))
        yield LdapSettings(
            f"ldap://127.0.0.1:{port}", "dc=here,dc=test", "(&(objectClass=inetOrgPerson)(mail={user}))", "",
            "cn=search,dc=here,dc=test", "looks", "userPassword" if compare else "", place / "ca.pem", 3.0,
        )  # fmt: skip
    shutil.rmtree(place, ignore_errors=True)


@contextmanager
def slapd(_folder: Path) -> Iterator[Backend]:
    with directory() as settings:
        yield Ldap(settings)


@contextmanager
def slapd_compare(_folder: Path) -> Iterator[Backend]:
    with directory(compare=True) as settings:
        yield Ldap(settings)


@contextmanager
def saslauthd(_folder: Path) -> Iterator[Backend]:
    """Cyrus SASL's daemon, which asks slapd."""
    need("saslauthd")
    home = Path(tempfile.mkdtemp(prefix="sa"))  # a Unix socket's path is short
    with directory() as settings:
        (home / "conf").write_text(
            f"ldap_servers: {settings.uri}\nldap_start_tls: yes\nldap_tls_cacert_file: {settings.ca_file}\n"
            f"ldap_tls_check_peer: yes\nldap_search_base: {settings.base}\nldap_filter: (mail=%u@%r)\nldap_auth_method: bind\n"
            f"ldap_bind_dn: {settings.bind_dn}\nldap_bind_pw: {settings.bind_password}\n"
        )
        path = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
        daemon = ("saslauthd", "-a", "ldap", "-O", str(home / "conf"), "-m", str(home), "-n", "2", "-d")
        with running(*daemon, env=path, start_new_session=True):
            until(lambda: (home / "mux").is_socket())
            yield Saslauthd(home / "mux")
    shutil.rmtree(home, ignore_errors=True)


class Realm:
    """A key distribution centre of MIT's, with HERE.TEST and a keytab for imap, smtp, pop and host at localhost."""

    def __init__(self, folder: Path) -> None:
        need("krb5kdc", "kdb5_util", "kadmin.local", "kinit")
        self.folder, self.port = folder, free_port()
        self.keytab = folder / "keytab"
        self.env = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "KRB5_CONFIG": str(folder / "krb5.conf"),
            "KRB5_KDC_PROFILE": str(folder / "kdc.conf"), "KRB5CCNAME": f"FILE:{folder}/cc",
        }  # fmt: skip
        (folder / "krb5.conf").write_text(
            "[libdefaults]\n default_realm = HERE.TEST\n dns_lookup_kdc = false\n rdns = false\n"
            f" dns_canonicalize_hostname = false\n ignore_acceptor_hostname = true\n"
            f"[realms]\n HERE.TEST = {{\n  kdc = 127.0.0.1:{self.port}\n }}\n"
            "[domain_realm]\n localhost = HERE.TEST\n"
        )
        (folder / "kdc.conf").write_text(
            f"[kdcdefaults]\n kdc_ports = {self.port}\n kdc_tcp_ports = {self.port}\n[realms]\n HERE.TEST = {{\n"
            f"  database_name = {folder}/principal\n  key_stash_file = {folder}/stash\n  acl_file = {folder}/acl\n"
            "  default_principal_flags = +preauth\n }\n[logging]\n kdc = FILE:/dev/null\n"
        )
        self.run("kdb5_util", "create", "-s", "-r", "HERE.TEST", "-P", "master words", "-W")
        for name, password in (("alice", ALICE), ("bob", BOB)):
            self.admin(f"addprinc -pw {quoted(password)} {name}")
        for service in ("imap", "smtp", "pop", "host"):
            self.admin(f"addprinc -randkey {service}/localhost")
            self.admin(f"ktadd -k {self.keytab} {service}/localhost")

    def run(self, *command: str, stdin: str = "") -> str:
        done = subprocess.run(
            command, env=self.env, input=stdin, capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def admin(self, query: str) -> None:
        self.run("kadmin.local", "-r", "HERE.TEST", stdin=query + "\n")

    def kdc(self):
        return running("krb5kdc", "-n", "-r", "HERE.TEST", env=self.env)

    def started(self) -> None:
        until(lambda: listens(self.port))


def quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


@contextmanager
def environment(**values: str):
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


@contextmanager
def kerberos(folder: Path) -> Iterator[Backend]:
    realm = Realm(folder)
    with realm.kdc(), environment(KRB5_CONFIG=realm.env["KRB5_CONFIG"], KRB5CCNAME=realm.env["KRB5CCNAME"]):
        realm.started()
        yield Kerberos(realm.keytab, "imap", "localhost", "HERE.TEST")
