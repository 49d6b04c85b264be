"""Postfix and Dovecot from Debian's packages, from private folders on high ports of loopback, at full durability."""

import contextlib
import itertools
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

USERS = 100


def _candidates() -> Iterator[int]:
    """Ports that the system gives to nobody's outgoing connection, each once; tests side by side take different ones."""
    with open("/proc/sys/net/ipv4/ip_local_port_range") as range_:
        low, high = map(int, range_.read().split())
    ports = [*range(32_000, low), *range(high + 1, 65_000)]
    if len(ports) < 1_000:
        ports = list(range(20_000, 60_000))
    side = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]) % 8
    mine = ports[side::8]
    start = os.getpid() * 31 % len(mine)
    yield from itertools.cycle(mine[start:] + mine[:start])


_PORTS = _candidates()


def free_port() -> int:
    """Never the same twice in a program, as long as there are others: nobody can take it between the asking and the listening."""
    while True:
        with socket.socket() as probe, contextlib.suppress(OSError):
            port = next(_PORTS)
            probe.bind(("", port))
            return port


def wait_port(port: int, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError(f"nobody listens on {port}")


@dataclass
class Dovecot:
    """Tuned: login and mail processes are kept (service_count = 0), mail_fsync as Debian has it."""

    root: Path
    chain: Path
    key: Path
    password: str = "benchmark password"
    kept: str = ""  # the password as its file has it; by default as it is
    sieve: bool = False  # ManageSieve, too
    ports: dict = field(default_factory=dict)
    process: subprocess.Popen | None = None

    def start(self) -> "Dovecot":
        self.root.mkdir(parents=True)
        self.root.chmod(0o755)
        passwd = "".join(
            f"user{i}@fubako.test:{self.kept or '{PLAIN}' + self.password}:1000:1000::{self.root}/mail/user{i}::\n"
            for i in range(USERS)
        )
        (self.root / "passwd").write_text(passwd)
        (self.root / "mail").mkdir()
        shutil.chown(self.root / "mail", 1000, 1000)
        self.ports = {name: free_port() for name in ("imap", "imaps", "pop3s", "lmtp", "auth", "sieve")}
        (self.root / "dovecot.conf").write_text(self.config())
        self.process = subprocess.Popen(
            ["dovecot", "-F", "-c", str(self.root / "dovecot.conf")],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_port(self.ports["imaps"], 30.0)
        return self

    def config(self) -> str:
        p = self.ports
        sieve = f"""
service managesieve-login {{
  inet_listener sieve {{
    address = 127.0.0.1
    port = {p["sieve"]}
  }}
}}
protocol lmtp {{
  mail_plugins = sieve
}}
plugin {{
  sieve = file:~/sieve;active=~/.dovecot.sieve
}}
"""
        return f"""
base_dir = {self.root}/run
state_dir = {self.root}/state
log_path = {self.root}/log
protocols = imap pop3 lmtp{" sieve" if self.sieve else ""}
ssl = yes
ssl_cert = <{self.chain}
ssl_key = <{self.key}
disable_plaintext_auth = no
auth_mechanisms = plain login cram-md5 scram-sha-1 scram-sha-256
mail_location = maildir:~/Maildir
mail_uid = 1000
mail_gid = 1000
first_valid_uid = 100
default_internal_user = dovecot
default_login_user = dovenull
mail_max_userip_connections = 5000
default_client_limit = 4000
default_process_limit = 2500
service anvil {{
  client_limit = 8000
}}
service auth {{
  client_limit = 8000
  inet_listener {{
    address = 127.0.0.1
    port = {p["auth"]}
  }}
}}
service imap-login {{
  service_count = 0
  process_min_avail = 2
  client_limit = 4000
  inet_listener imap {{
    address = 127.0.0.1
    port = {p["imap"]}
  }}
  inet_listener imaps {{
    address = 127.0.0.1
    port = {p["imaps"]}
  }}
}}
service pop3-login {{
  service_count = 0
  process_min_avail = 2
  client_limit = 4000
  inet_listener pop3 {{
    port = 0
  }}
  inet_listener pop3s {{
    address = 127.0.0.1
    port = {p["pop3s"]}
  }}
}}
service imap {{
  service_count = 0
  process_min_avail = 2
  process_limit = 2500
}}
service pop3 {{
  service_count = 0
  process_min_avail = 2
}}
service lmtp {{
  process_min_avail = 2
  inet_listener lmtp {{
    address = 127.0.0.1
    port = {p["lmtp"]}
  }}
}}
passdb {{
  driver = passwd-file
  args = {self.root}/passwd
}}
userdb {{
  driver = passwd-file
  args = {self.root}/passwd
}}
{sieve if self.sieve else ""}"""

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(20)


@dataclass
class Postfix:
    """Delivers to Dovecot over LMTP, or with `virtual` to Maildirs of its own; AUTH through Dovecot on `submissions`."""

    root: Path
    chain: Path
    key: Path
    dovecot: Dovecot | None = None
    sink: int = 0  # a port to which everything for far.test is relayed
    more: dict = field(default_factory=dict)  # settings of main.cf, over those here
    ports: dict = field(default_factory=dict)

    def start(self) -> "Postfix":
        config, spool = self.root / "etc", self.root / "spool"
        self.root.mkdir(parents=True)
        self.root.chmod(0o755)
        shutil.copytree("/etc/postfix", config)
        for name in ("smtp", "submissions"):
            self.ports[name] = free_port()
        for folder in (spool, self.root / "data", self.root / "mail"):
            folder.mkdir()
        shutil.chown(self.root / "data", "postfix")
        shutil.chown(self.root / "mail", 1000, 1000)
        users = "".join(f"user{i}@fubako.test user{i}/\n" for i in range(USERS))
        (config / "virtual").write_text(users)
        transport = f"lmtp:inet:127.0.0.1:{self.dovecot.ports['lmtp']}" if self.dovecot else "virtual"
        settings = {
            "compatibility_level": "3.6", "queue_directory": spool, "data_directory": self.root / "data",
            "command_directory": "/usr/sbin", "daemon_directory": "/usr/lib/postfix/sbin", "mail_owner": "postfix",
            "setgid_group": "postdrop", "inet_interfaces": "127.0.0.1", "inet_protocols": "ipv4", "mydestination": "",
            "myhostname": "bench.test", "virtual_mailbox_domains": "fubako.test",
            "virtual_mailbox_maps": f"texthash:{config}/virtual", "virtual_mailbox_base": f"{self.root}/mail",
            "virtual_uid_maps": "static:1000", "virtual_gid_maps": "static:1000", "virtual_transport": transport,
            "maillog_file": f"{self.root}/log", "maillog_file_prefixes": str(self.root), "smtpd_client_connection_rate_limit": "0",
            "smtpd_client_connection_count_limit": "0", "default_process_limit": "100", "smtputf8_enable": "no",
            "disable_dns_lookups": "yes", "smtpd_peername_lookup": "no", "alias_maps": "", "alias_database": "",
            "smtpd_recipient_restrictions": "permit_sasl_authenticated, reject_unauth_destination",
            "smtpd_tls_cert_file": self.chain, "smtpd_tls_key_file": self.key, "smtpd_tls_security_level": "may",
        }  # fmt: skip
        if self.sink:
            settings |= {
                "mynetworks": "127.0.0.0/8", "virtual_mailbox_domains": "", "relayhost": f"[127.0.0.1]:{self.sink}",
                "smtpd_recipient_restrictions": "permit_mynetworks, reject", "smtp_tls_security_level": "none",
            }  # fmt: skip
        if self.dovecot:
            settings |= {
                "smtpd_sasl_type": "dovecot", "smtpd_sasl_path": f"inet:127.0.0.1:{self.dovecot.ports['auth']}",
                "smtpd_sasl_auth_enable": "yes",
            }  # fmt: skip
        settings |= self.more
        (config / "main.cf").write_text("".join(f"{key} = {value}\n" for key, value in settings.items()))
        master = [
            line.replace(" y ", " n ") if not line.startswith("#") else line
            for line in (config / "master.cf").read_text().splitlines()
        ]
        master = [line for line in master if not line.startswith(("smtp ", "smtp\t")) or "unix" in line]
        master = [
            "n".join(line.split("y", 1)) if " y " in line and not line.startswith("#") else line for line in master
        ]
        master.append(f"127.0.0.1:{self.ports['smtp']} inet n - n - - smtpd")
        master.append(f"127.0.0.1:{self.ports['submissions']} inet n - n - - smtpd -o smtpd_tls_wrappermode=yes")
        master.append("postlog unix-dgram n - n - 1 postlogd")
        (config / "master.cf").write_text("\n".join(master) + "\n")
        os.chown(config, 0, 0)
        subprocess.run(["postfix", "-c", str(config), "start"], check=True, capture_output=True)
        wait_port(self.ports["smtp"])
        return self

    def stop(self) -> None:
        subprocess.run(["postfix", "-c", str(self.root / "etc"), "stop"], check=False, capture_output=True)
