"""A small internet on loopback: Unbound with signed zones, chasquid as a site, a policy host over HTTPS, a man in the middle."""

import contextlib
import hashlib
import shutil
import socket
import ssl
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import dns.dnssec
import dns.message
import dns.query
import dns.zone
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import load_pem_x509_certificate
from memory_server import certificates
from peers import free_port

from fubako.clock import Env
from fubako.net.certificate import public_key_info
from fubako.trust.authority import ensure_server


def own_certificate(folder: Path, *names: str) -> tuple[Path, Path]:
    """A certificate for some names, of the tests' own authority."""
    root = certificates()
    chain, key = folder / f"{names[0]}.pem", folder / f"{names[0]}.key"
    ensure_server(chain, key, (root / "ca.pem", root / "ca.key"), list(names), Env().clock.now())
    return chain, key


def tlsa(certificate: Path) -> str:
    """3 1 1 of the first certificate in a file."""
    leaf = load_pem_x509_certificate(certificate.read_bytes()).public_bytes(Encoding.DER)
    return f"3 1 1 {hashlib.sha256(public_key_info(leaf)).hexdigest()}"


class Dns:
    """Unbound, with zones of its own: signed and trusted, not signed, or signed and then changed."""

    def __init__(self, root: Path) -> None:
        self.root, self.port = root, free_port()
        self.zones: dict[str, str] = {}
        self.anchors: list[str] = []
        root.mkdir(parents=True)

    def zone(self, name: str, text: str, *, signed: bool = False, spoiled: bool = False) -> None:
        head = f"$ORIGIN {name}.\n$TTL 60\n@ IN SOA ns hostmaster 1 3600 600 86400 60\n@ IN NS ns\nns IN A 127.0.0.1\n"
        made = dns.zone.from_text(head + text, origin=f"{name}.", relativize=False)
        if signed or spoiled:
            key = Ed25519PrivateKey.generate()
            record = dns.dnssec.make_dnskey(key.public_key(), dns.dnssec.Algorithm.ED25519, flags=257)
            dns.dnssec.sign_zone(made, keys=[(key, record)], lifetime=86400 * 30)
            self.anchors.append(f"{name}. IN DNSKEY {record.to_text()}")
        octets = made.to_text(relativize=False)
        if spoiled:
            octets = octets.replace("192.0.2.53", "192.0.2.66")
        (self.root / f"{name}.zone").write_text(octets)
        self.zones[name] = octets

    def start(self) -> "Dns":
        (self.root / "anchors").write_text("\n".join(self.anchors) + "\n")
        clauses = "".join(
            f'auth-zone:\n  name: "{name}"\n  zonefile: "{self.root}/{name}.zone"\n'
            "  for-upstream: yes\n  for-downstream: no\n  fallback-enabled: no\n"
            for name in self.zones
        )
        server = {
            "interface": f"127.0.0.1@{self.port}", "do-daemonize": "no", "username": '""', "chroot": '""',
            "directory": f'"{self.root}"', "pidfile": f'"{self.root}/pid"', "use-syslog": "no", "logfile": f'"{self.root}/log"',
            "access-control": "127.0.0.0/8 allow", "do-not-query-localhost": "no", "module-config": '"validator iterator"',
            "trust-anchor-file": f'"{self.root}/anchors"', "local-zone": '"test." nodefault', "do-ip6": "no",
        }  # fmt: skip
        head = "server:\n" + "".join(f"  {name}: {value}\n" for name, value in server.items())
        (self.root / "unbound.conf").write_text(f"{head}remote-control:\n  control-enable: no\n{clauses}")
        self.running = subprocess.Popen(
            ["unbound", "-d", "-c", str(self.root / "unbound.conf")], stderr=subprocess.PIPE
        )
        for _ in range(500):
            with contextlib.suppress(Exception):
                dns_ask(self.port, "ns." + next(iter(self.zones)))
                return self
            time.sleep(0.02)
        raise AssertionError(
            self.running.stderr.read() if self.running.poll() is not None else "Unbound does not answer"
        )

    def stop(self) -> None:
        self.running.terminate()
        self.running.wait(10)


def dns_ask(port: int, name: str):
    return dns.query.udp(dns.message.make_query(name, "A"), "127.0.0.1", port=port, timeout=0.5)


class Chasquid:
    """A site that keeps letters of user@domain in a folder."""

    def __init__(self, root: Path, address: str, port: int, domain: str, chain: Path, key: Path) -> None:
        self.root, self.mail = root, root / "mail"
        config = root / "etc"
        (config / "certs" / f"mx.{domain}").mkdir(parents=True)
        (config / "domains" / domain).mkdir(parents=True)
        (root / "data").mkdir()
        self.mail.mkdir()
        shutil.copy(chain, config / "certs" / f"mx.{domain}" / "fullchain.pem")
        shutil.copy(key, config / "certs" / f"mx.{domain}" / "privkey.pem")
        deliver = root / "deliver"
        deliver.write_text(f"#!/bin/sh\nexec cat > {self.mail}/$$\n")
        deliver.chmod(0o755)
        (config / "chasquid.conf").write_text(
            f'hostname: "mx.{domain}"\nsmtp_address: "{address}:{port}"\nsubmission_address: "{address}:{free_port()}"\n'
            f'data_dir: "{root}/data"\nmail_delivery_agent_bin: "{deliver}"\nmail_delivery_agent_args: "x"\n'
            f'mail_log_path: "{root}/log"\n'
        )
        subprocess.run(
            ["chasquid-util", f"-C={config}", "user-add", f"user@{domain}", "--password=secret"],
            check=True,
            capture_output=True,
        )
        self.running = subprocess.Popen(
            ["chasquid", f"-config_dir={config}", "-alsologtostderr"],
            stderr=(root / "err").open("wb"),
            stdout=subprocess.DEVNULL,
        )
        for _ in range(500):
            with socket.socket() as one:
                if one.connect_ex((address, port)) == 0:
                    return
            time.sleep(0.02)
        raise AssertionError((root / "err").read_text())

    def letters(self) -> list[bytes]:
        return [path.read_bytes() for path in self.mail.iterdir() if path.stat().st_size]

    def stop(self) -> None:
        self.running.terminate()
        self.running.wait(10)


class PolicyHost:
    """The web server of a domain; `pages` are by host and path."""

    def __init__(self, chain: Path, key: Path, place: tuple[str, int] = ("127.0.0.1", 0)) -> None:
        self.pages: dict[tuple[str, str], tuple[int, str, bytes]] = {}
        self.posted: list[tuple[str, bytes]] = []
        host = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                status, kind, content = host.pages.get((self.headers["Host"], self.path), (404, "text/plain", b"no"))
                self.send_response(status)
                self.send_header("Content-Type", kind)
                if status == 301:
                    self.send_header("Location", content.decode())
                self.end_headers()
                self.wfile.write(content)

            def do_POST(self):
                host.posted.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(201)
                self.end_headers()

            def log_message(self, *_arguments):
                pass

        self.server = ThreadingHTTPServer(place, Handler)
        self.port = self.server.server_address[1]
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(chain, key)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()


class Middle:
    """A man in the middle of a plain connection: passes on, strips STARTTLS, swaps the certificate, cuts, delays, lies in EHLO."""

    def __init__(self, address: str, port: int, to: tuple[str, int], swap: tuple[Path, Path]) -> None:
        self.to, self.mode = to, "pass"
        self.swap = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.swap.load_cert_chain(*swap)
        self.seen = b""  # what the client said, as far as it could be read
        self.listener = socket.create_server((address, port))
        self.sockets: list[socket.socket] = []
        threading.Thread(target=self.serve, daemon=True).start()

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_error):
        self.listener.close()
        for one in self.sockets:
            one.close()

    def serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self.listener.accept()
                threading.Thread(target=self.connected, args=(near, self.mode), daemon=True).start()

    def connected(self, near: socket.socket, mode: str) -> None:
        self.sockets.append(near)
        with contextlib.suppress(OSError):
            far = socket.create_connection(self.to)
            self.sockets.append(far)
            threading.Thread(target=self.back, args=(near, far, mode), daemon=True).start()
            self.out(near, far, mode)
        with contextlib.suppress(OSError, UnboundLocalError):
            near.close()
            far.close()

    def out(self, near: socket.socket, far: socket.socket, mode: str) -> None:
        while octets := near.recv(65536):
            self.seen += octets
            if mode == "cut" and b"MAIL" in octets:
                return
            if mode == "delay":
                time.sleep(0.3)
            if mode == "swap" and b"STARTTLS" in octets:
                near.sendall(b"220 go\r\n")
                near = self.swap.wrap_socket(near, server_side=True)
                self.sockets.append(near)
                while octets := near.recv(65536):
                    self.seen += octets
                    near.sendall(b"250 of course\r\n")
                return
            far.sendall(octets)

    def back(self, near: socket.socket, far: socket.socket, mode: str) -> None:
        with contextlib.suppress(OSError):
            while octets := far.recv(65536):
                if mode == "strip":
                    octets = octets.replace(b"250-STARTTLS\r\n", b"").replace(b"250 STARTTLS\r\n", b"250 OK\r\n")
                if mode == "lie":
                    octets = octets.replace(b"STARTTLS", b"XSTARTTL")
                if mode == "delay":
                    time.sleep(0.3)
                near.sendall(octets)
            near.close()


def record_text(text: str) -> str:
    """A TXT record of a zone file, in strings that are short enough."""
    return " ".join(f'"{text[at : at + 200]}"' for at in range(0, len(text), 200))
