"""`fubako probe`: our server, Dovecot as an administrator may have set it, and a server that lies."""

import json
import os
import tempfile
from pathlib import Path

import pytest
from checkers import free_port, listens, need, running, until
from memory_server import certificates
from server import FUBAKO, STANDARD, without
from test_fetch import Liar
from test_programs import run


def probe(home, host, *words, ca=""):
    done = run(FUBAKO, "probe", host, "--json", *(("--ca-file", ca) if ca else ()), *words, home=home, seconds=90)
    facts = json.loads(done.stdout) if done.stdout else {}
    return done.returncode, {one["service"]: one for one in facts.get("ports", [])}, facts.get("findings", [])


def test_our_own_server(server, home):
    ports = [word for name in STANDARD if name != "ssh" for word in ("--service", f"{name}={server.port(name)}")]
    code, seen, found = probe(home, "localhost", *ports, ca=server.ca)
    assert code == 0 and {one["grade"] for one in found} == {"good"}, found
    assert all(
        one["open"] and one["tls"] == "TLSv1.3" and not one["clear"] and not one["slipped"] for one in seen.values()
    )
    assert seen["imap"]["starttls"] and "SCRAM-SHA-256-PLUS" in seen["imap"]["sealed"] and not seen["imaps"]["starttls"]
    done = run(FUBAKO, "probe", "localhost", *ports, "--ca-file", server.ca, home=home)
    assert b"What a man in the middle could take:" in done.stdout and b"certificate of CN=localhost" in done.stdout
    code, _, found = probe(home, "localhost", *ports[:4])  # without its authority
    assert code == 1 and any("proves nothing" in one["text"] for one in found)


@pytest.fixture
def careless():
    """Dovecot that takes passwords in the clear."""
    need("dovecot")
    if os.getuid() != 0:
        without("Dovecot starts only as root")
    root, imap, pop3 = Path(tempfile.mkdtemp(prefix="dp")), free_port(), free_port()
    root.chmod(0o755)
    chain, key = certificates() / "s.pem", certificates() / "s.key"
    (root / "passwd").write_text("a:{PLAIN}b::::::\n")
    lines = [
        f"base_dir = {root}/run", f"state_dir = {root}/state", f"log_path = {root}/log", "protocols = imap pop3", "ssl = yes",
        f"ssl_cert = <{chain}", f"ssl_key = <{key}", "disable_plaintext_auth = no", "auth_mechanisms = plain login",
        f"mail_location = maildir:{root}/mail", "passdb {", " driver = passwd-file", f" args = {root}/passwd", "}", "userdb {",
        " driver = static", f" args = uid=1000 gid=1000 home={root}", "}",
    ]  # fmt: skip
    for name, port in (("imap", imap), ("pop3", pop3)):
        lines += [f"service {name}-login {{", f" inet_listener {name} {{", "  address = 127.0.0.1", f"  port = {port}", " }",
                  f" inet_listener {name}s {{", "  port = 0", " }", "}"]  # fmt: skip
    (root / "conf").write_text("\n".join(lines) + "\n")
    with running("dovecot", "-F", "-c", str(root / "conf")):
        until(lambda: listens(imap) and listens(pop3))
        yield imap, pop3


def test_a_careless_server(careless, home):
    imap, pop3 = careless
    ports = (f"imap={imap}", f"pop3={pop3}", f"imaps={free_port()}")
    words = [word for port in ports for word in ("--service", port)]
    code, seen, found = probe(
        home, "127.0.0.1", *words, "--server-name", "localhost", ca=str(certificates() / "ca.pem")
    )
    texts = {(one["grade"], one["service"], one["text"][:40]) for one in found}
    for service in ("imap", "pop3"):
        assert ("grave", service, "passwords are taken without TLS (PLAIN, ") in texts
    assert code == 1 and ("weak", "imap", "127.0.0.1 has no imaps") in texts
    assert any("the password itself is said" in one["text"] for one in found) and not seen["imaps"]["open"]
    assert not any(one["slipped"] for one in seen.values())


def test_a_server_that_lies(home):
    liar = Liar(b"220 x ESMTP\x1b[31m\r\n", b"250-x\r\n250 STARTTLS\r\n", b"220 go\r\nnot TLS\r\n", b"")
    code, seen, found = probe(home, "127.0.0.1", "--service", f"submission={liar.port}")
    assert (
        code in (0, 1)
        and seen["submission"]["problem"]
        and any("could not be looked at" in one["text"] for one in found)
    )
    done = run(FUBAKO, "probe", "127.0.0.1", "--service", f"imap={free_port()}", home=home)
    assert done.returncode == 69 and b"no mail port" in done.stdout
    assert run(FUBAKO, "probe", "127.0.0.1", "--service", "gopher", home=home).returncode == 64


def test_commands_that_slip_in_are_seen(home):
    """A server with the fault of 2011: it keeps what came behind STARTTLS, and answers it inside TLS."""
    import socket
    import ssl
    import threading

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates() / "s.pem", certificates() / "s.key")
    listener = socket.create_server(("127.0.0.1", 0))

    def one(peer) -> None:
        kept = b""
        file = peer.makefile("rb", buffering=0)
        peer.sendall(b"220 faulty\r\n")
        while True:
            if b"\n" not in kept:
                kept += file.read(1000) or b"QUIT\r\n"
            line, _, kept = kept.partition(b"\n")
            if line.startswith(b"EHLO"):
                peer.sendall(b"250-faulty\r\n250 STARTTLS\r\n")
            elif line.startswith(b"STARTTLS"):
                peer.sendall(b"220 go\r\n")
                peer = context.wrap_socket(peer, server_side=True)
                file = peer.makefile("rb", buffering=0)
            elif line.startswith(b"QUIT"):
                return
            else:
                peer.sendall(b"250 ok\r\n")

    def serve() -> None:
        while True:
            threading.Thread(target=one, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    port = listener.getsockname()[1]
    code, seen, found = probe(home, "localhost", "--service", f"submission={port}", ca=str(certificates() / "ca.pem"))
    assert code == 1 and seen["submission"]["slipped"] and any("CVE-2011-0411" in one["text"] for one in found), (
        seen,
        found,
    )
