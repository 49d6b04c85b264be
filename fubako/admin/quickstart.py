"""`up`: everything a server needs, made once in one folder: configuration, authority, certificate, domain, two users."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fubako.accounts import directory, enrol
from fubako.admin import users
from fubako.clock import Env
from fubako.config import SERVICES
from fubako.store.interface import Database
from fubako.trust.authority import ensure_authority, ensure_server, write_private

DOMAIN = "fubako.test"
HOSTNAME = "localhost"
ACCOUNTS = ("alice", "bob")


@dataclass(frozen=True, slots=True)
class Place:
    """The files of one quickstart folder."""

    root: Path

    @property
    def config(self) -> Path:
        return self.root / "fubako.toml"

    @property
    def facts(self) -> Path:
        return self.root / "quickstart.json"

    @property
    def authority(self) -> tuple[Path, Path]:
        return self.root / "ca.pem", self.root / "ca.key"

    @property
    def certificate(self) -> tuple[Path, Path]:
        return self.root / "server.pem", self.root / "server.key"

    @property
    def lmtp(self) -> Path:
        return self.root / "lmtp.sock"


def names_for(bind: Sequence[str]) -> list[str]:
    """What the certificate holds: the names a client on this machine uses."""
    return list(dict.fromkeys([HOSTNAME, DOMAIN, f"mail.{DOMAIN}", "127.0.0.1", "::1", *bind]))


def write_config(place: Place, bind: Sequence[str], offset: int) -> None:
    """A configuration for a person to read and change; an existing one is left as it is."""
    if place.config.exists():
        return
    lines = [
        "# Made by `fubako up`. Every setting: docs/configuration.md",
        f'hostname = "{HOSTNAME}"',
        'directory = "store"',
        "workers = 1",
        "",
        "# CRAM-MD5 is offered here because the quickstart's users were made for it. Clients that see it use it, and",
        "# fail with a password that was not (`fubako user add --keep-secret`), so it is not offered by default.",
        "[login]",
        'mechanisms = ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "CRAM-MD5", "PLAIN", "LOGIN"]',
        "",
        "[tls]",
        'certificates = [{ chain = "server.pem", key = "server.key" }]',
    ]
    for service, (port, _) in SERVICES.items():
        if service == "ssh" and find_spec("asyncssh") is None:
            continue
        shown = ", ".join(
            f'"[{host}]:{port + offset}"' if ":" in host else f'"{host}:{port + offset}"' for host in bind
        )
        lines += ["", "[[listen]]", f'service = "{service}"', f"addresses = [{shown}]"]
    lines += ["", "[[listen]]", 'service = "lmtp"', 'addresses = ["lmtp.sock"]', ""]
    write_private(place.config, "\n".join(lines).encode())


def ensure_certificates(place: Place, bind: Sequence[str], now: float) -> bool:
    """Authority and server certificate, made or renewed; True when the server's is new."""
    ensure_authority(*place.authority, "Fubako quickstart authority", now)
    return ensure_server(*place.certificate, place.authority, names_for(bind), now)


async def ensure_accounts(place: Place, database: Database, env: Env, services: dict[str, Any]) -> dict[str, Any]:
    """The domain and two users with random passwords; quickstart.json tells them. Returns its content."""
    if place.facts.exists():
        facts: dict[str, Any] = json.loads(place.facts.read_text())
        facts["services"] = services
        facts["config_file"] = str(place.config.resolve())
        write_private(place.facts, json.dumps(facts, indent=2).encode())
        return facts
    known = [name for name, _ in await database.read(directory.domains)]
    if DOMAIN not in known:
        await users.add_domain(database, env, DOMAIN)
    accounts = []
    for name in ACCOUNTS:
        address = f"{name}@{DOMAIN}"
        present = [row["address"] for row in await users.list_users(database, DOMAIN)]
        make = enrol.set_password if address in present else users.add_user
        password = await make(database, env, address, keep_secret=True)  # quickstart.json tells it anyway
        device = await users.add_device(database, env, address, "quickstart")
        accounts.append({"address": address, "password": password, "device_password": device})
    facts = {
        "domain": DOMAIN,
        "ca_file": str(place.authority[0].resolve()),
        "lmtp_socket": str(place.lmtp.resolve()),
        "config_file": str(place.config.resolve()),
        "services": services,
        "accounts": accounts,
    }
    write_private(place.facts, json.dumps(facts, indent=2).encode())
    return facts
