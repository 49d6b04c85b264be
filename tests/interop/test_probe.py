"""`fubako probe`: our server, Dovecot as an administrator may have set it, and a server that lies."""

import json
import os
import socketserver
import tempfile
import threading
from pathlib import Path
from typing import ClassVar

import pytest
from checkers import listens, need, running, until
from internet import Dns
from memory_server import certificates
from peers import free_port
from server import FUBAKO, STANDARD, have, without
from test_fetch import Liar
from test_programs import kept, run


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
    assert (
        b"What a man in the middle could take (grade A):" in done.stdout
        and b"certificate of CN=localhost" in done.stdout
    )
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
                try:
                    peer = context.wrap_socket(peer, server_side=True)
                except OSError:  # a version that it does not speak
                    return
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


# -- closer


def test_versions_of_tls(server, home):
    """Ours takes 1.2 and 1.3; OpenSSL's own server, asked to, takes 1.0 and 1.1, and that is told."""
    _, seen, found = probe(home, "localhost", "--service", f"imaps={server.port('imaps')}", ca=server.ca)
    assert seen["imaps"]["versions"] == ["1.2", "1.3"] and {one["grade"] for one in found} == {"good"}
    files = ["-cert", str(certificates() / "s.pem"), "-key", str(certificates() / "s.key")]
    for least, most, versions in (
        ("TLSv1", "TLSv1.3", ["1.0", "1.1", "1.2", "1.3"]),
        ("TLSv1", "TLSv1.1", ["1.0", "1.1"]),
    ):
        port = free_port()
        limits = ["-min_protocol", least, "-max_protocol", most, "-cipher", "ALL:@SECLEVEL=0", "-quiet"]
        with running("openssl", "s_server", "-accept", str(port), *files, *limits):
            until(lambda port=port: listens(port))
            done = run(FUBAKO, "probe", "localhost", "--service", f"imaps={port}", "--json", home=home, seconds=120)
        facts = json.loads(done.stdout)
        assert facts["ports"][0]["versions"] == versions
        assert any("TLS 1.0 and 1.1 is still spoken" in one["text"] for one in facts["findings"])


def test_a_relay_is_found_and_no_letter_is_sent(server, home):
    """Ours refuses; one that takes everything is graved."""
    _, seen, _ = probe(home, "localhost", "--relay", "--service", f"smtp={server.port('smtp')}", ca=server.ca)
    assert not seen["smtp"]["relays"]
    with Everything(b"") as port:
        done = run(FUBAKO, "probe", "127.0.0.1", "--relay", "--service", f"smtp={port}", "--json", home=home)
    facts = json.loads(done.stdout)
    assert (
        done.returncode == 1 and facts["grade"] == "F" and any("open relay" in one["text"] for one in facts["findings"])
    )
    assert b"DATA" not in b"".join(Everything.heard)


def test_smuggling(server, user, home):
    """Ours takes CR LF . CR LF alone, and nothing arrives; one that takes LF . LF is found out."""
    _, seen, _ = probe(
        home, "localhost", "--smuggle-to", user[0], "--service", f"smtp={server.port('smtp')}", ca=server.ca
    )
    assert seen["smtp"]["smuggled"] == []
    assert kept(server, user) == []
    with Everything(b"\n.\n") as port:
        done = run(
            FUBAKO,
            "probe",
            "127.0.0.1",
            "--smuggle-to",
            "me@here.test",
            "--service",
            f"smtp={port}",
            "--json",
            home=home,
            seconds=120,
        )
    facts = json.loads(done.stdout)
    assert any(one.startswith("LF . LF") for one in facts["ports"][0]["smuggled"]) and facts["grade"] == "F"


class Everything:
    """An SMTP server that takes every recipient, and takes `end` for the end of a letter."""

    heard: ClassVar[list[bytes]] = []

    def __init__(self, end: bytes) -> None:
        self.end = end

    def __enter__(self) -> int:
        outer = self

        class Talk(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                self.wfile.write(b"220 x\r\n")
                while line := self.rfile.readline():
                    Everything.heard.append(line)
                    if line.startswith(b"EHLO"):
                        self.wfile.write(b"250 x\r\n")
                    elif line.startswith(b"DATA"):
                        self.wfile.write(b"354 go\r\n")
                        got = b""
                        while outer.end not in got and (more := self.rfile.read1(100)):
                            got += more
                    if not line.startswith(b"EHLO"):
                        self.wfile.write(b"250 yes\r\n")

        socketserver.ThreadingTCPServer.allow_reuse_address = True
        self.server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Talk)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self.server.server_address[1]

    def __exit__(self, *_) -> None:
        self.server.shutdown()
        self.server.server_close()


def test_a_page_for_a_browser(server, home):
    path = home / "page.html"
    liar = Liar(b"220 <script>x</script> ESMTP\r\n", b"250-x\r\n250 AUTH <b>\r\n", b"", b"")
    ports = ("--service", f"imaps={server.port('imaps')}", "--service", f"submission={liar.port}")
    run(FUBAKO, "probe", "localhost", *ports, "--ca-file", server.ca, "--html", str(path), home=home)
    text = path.read_text()
    assert text.startswith("<!DOCTYPE html>") and "<b>F</b>" in text and "<script" not in text and "<B>" not in text


# -- a domain


@pytest.fixture(scope="module")
def resolver(tmp_path_factory):
    if not have("unbound"):
        without("not installed: unbound")
    dns = Dns(tmp_path_factory.mktemp("dns") / "u")
    good = (
        '@ IN MX 10 localhost.\n@ IN TXT "v=spf1 mx -all"\n_dmarc IN TXT "v=DMARC1; p=reject"\n'
        '_smtp._tls IN TXT "v=TLSRPTv1; rua=mailto:x@good.test"\nmine._domainkey IN TXT "v=DKIM1; p=abcd"\n'
        "_imaps._tcp IN SRV 0 0 993 imap\n"
    )
    dns.zone("good.test", good, signed=True)
    dns.zone("bad.test", '@ IN MX 10 localhost.\n@ IN MX 20 gone.bad.test.\n@ IN TXT "v=spf1 +all"\n')
    dns.zone("none.test", "@ IN MX 0 .\n")
    yield dns.start()
    dns.stop()


def domain(resolver, home, name, *words):
    done = run(
        FUBAKO, "probe", "--domain", name, "--json", "--dns", f"127.0.0.1:{resolver.port}", "--service", f"smtp={free_port()}",
        *words,
        home=home, seconds=120,
    )  # fmt: skip
    return done.returncode, json.loads(done.stdout) if done.stdout else {}


def test_what_the_name_system_says(resolver, home):
    code, facts = domain(resolver, home, "good.test", "--selector", "mine")
    seen = facts["domain"]
    assert (
        seen["dnssec"]
        and seen["spf"] == "v=spf1 mx -all"
        and seen["dmarc"] == "v=DMARC1; p=reject"
        and seen["dkim"] == ["mine"]
    )
    assert seen["tlsrpt"] and seen["services"]["_imaps"] == ["imap.good.test:993"]
    texts = [one["text"] for one in facts["findings"]]
    assert any("neither DANE nor MTA-STS" in text for text in texts) and not any("SPF" in text for text in texts)
    code, facts = domain(resolver, home, "bad.test")
    texts = {one["grade"]: one["text"] for one in facts["findings"]}
    assert code == 1 and "every machine" in texts["grave"]
    weak = " ".join(one["text"] for one in facts["findings"])
    for words in ("DNSSEC does not hold", "no DMARC record", "gone.bad.test: the name does not exist", "no DKIM key"):
        assert words in weak
    code, facts = domain(resolver, home, "none.test")
    assert code == 0 and facts["domain"]["refuses"]
    assert domain(resolver, home, "not-there.good.test")[0] == 68


# -- between a program and a server


def attacked(home, service, port, *command):
    done = run(
        FUBAKO,
        "probe",
        "--mitm",
        "--json",
        "--service",
        f"{service}={port}",
        "localhost",
        "--",
        *command,
        home=home,
        seconds=300,
    )
    return done.returncode, {one["attack"]: one for one in json.loads(done.stdout or b"[]")}


@pytest.mark.parametrize(("service", "protocol"), [("imap", "imap"), ("pop3", "pop3")])
def test_our_own_client_lets_nothing_out(server, user, home, service, protocol):
    (home / "secret").write_text(user[1])
    (home / "secret").chmod(0o600)
    (home / "fetch").write_text(
        f'#!/bin/sh\ncat > {home}/a.toml <<E\n[[account]]\nname = "a"\nprotocol = "{protocol}"\nhost = "localhost"\nport = $1\n'
        f'tls = "starttls"\nuser = "{user[0]}"\npassword_file = "{home}/secret"\ndeliver = "mbox:{home}/box"\nE\n'
        f"export FUBAKO_HOME={home}/f$1\nexec {FUBAKO} fetch --accounts {home}/a.toml\n"
    )
    (home / "fetch").chmod(0o755)
    code, told = attacked(home, service, server.port(service), str(home / "fetch"), "{port}")
    assert code == 0 and all(
        one["met"] and not one["leaks"] and one["code"] not in (0, None) for one in told.values()
    ), told
    assert set(told) == {"strip", "certificate", "name", "inject"} | ({"preauth"} if protocol == "imap" else set())


def test_a_program_that_lets_its_password_out(server, user, home, needs):
    """curl with --ssl (try, and go on without) says it when STARTTLS is hidden; with --ssl-reqd it does not."""
    needs("curl")
    words = ["curl", "-sk", "--max-time", "5", "-u", f"{user[0]}:{user[1]}", "imap://{host}:{port}/INBOX"]
    code, told = attacked(home, "imap", server.port("imap"), *words, "--ssl")
    assert code == 1 and any("login" in leak or "password" in leak for leak in told["strip"]["leaks"])
    assert user[1] not in json.dumps(told)
    code, told = attacked(
        home, "imap", server.port("imap"), *[word.replace("-sk", "-s") for word in words], "--ssl-reqd"
    )
    assert code == 0, told


def test_what_mitm_wants(home):
    for words in (
        ["--mitm", "localhost"],
        ["--mitm", "--service", "imap", "localhost", "--", "true"],
        ["localhost", "--", "true"],
    ):
        assert run(FUBAKO, "probe", *words, home=home).returncode == 64
    code, _ = attacked(home, "imap", 1, "true", "{port}")
    assert code == 69
