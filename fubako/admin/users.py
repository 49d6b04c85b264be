"""Domains, users and aliases, as an administrator sees them."""

from collections.abc import Sequence
from typing import Any

from fubako.accounts import aliases, directory, enrol, keys, secrets
from fubako.accounts.backends import sasldb
from fubako.clock import Env
from fubako.message.target import File, Program, RemoteAddress
from fubako.message.trace import mail_date
from fubako.net import become
from fubako.store import mailboxes
from fubako.store.interface import Database, StoreError, Transaction

_OUTSIDE = ("GSSAPI", "GS2-KRB5", "GS2-KRB5-PLUS", "OAUTHBEARER", "XOAUTH2")  # proved elsewhere, for every account


def _now(env: Env) -> int:
    return int(env.clock.now())


async def add_domain(database: Database, env: Env, name: str) -> None:
    await database.write(lambda tx: directory.add_domain(tx, name, _now(env)))


async def add_user(
    database: Database, env: Env, address: str, password: str | None = None, *, keep_secret: bool = False
) -> str:
    """Create a user; returns the password (a random one when none is given)."""
    password = password or secrets.generate(env.random)
    credential = await enrol.made_password(env, password, "password", "", keep_secret=keep_secret)

    def unit(tx: Transaction) -> None:
        account = directory.add_account(tx, address, _now(env))
        secrets.keep(tx, account.account_id, credential)

    await database.write(unit)
    return password


async def add_device(database: Database, env: Env, address: str, label: str, uses: Sequence[str] = ()) -> str:
    """A device password: random, kept as it is, so that CRAM-MD5 and APOP can use it. Returned once, never shown again."""
    password = secrets.generate(env.random, 24)
    credential = await enrol.made_password(env, password, "device", label, keep_secret=True, uses=uses)
    await database.write(lambda tx: secrets.keep(tx, directory.account(tx, address).account_id, credential))
    return password


async def take_over(
    database: Database, env: Env, lines: Sequence[str], domain: str, *, create: bool
) -> list[dict[str, Any]]:
    """Users and hashes of another system, a line each: `user:hash` (htpasswd) or `user@domain:{SCHEME}hash:…` (passwd-file,
    shadow). One row a line, with what became of it."""
    rows = []
    for line in lines:
        name, colon, rest = line.strip().partition(":")
        if not name or name.startswith("#"):
            continue
        address = name if "@" in name else f"{name}@{domain}"
        problem = ""
        try:
            if not colon or not rest.partition(":")[0] or address.endswith("@"):
                raise StoreError("the line has no hash, or the user no domain")
            credential = secrets.taken_over(rest.partition(":")[0], _now(env))

            await _take(database, env, address, credential, create=create)
        except StoreError as error:
            problem = str(error)
        rows.append({"address": address, "taken": not problem, "problem": problem})
    return rows


async def _take(database: Database, env: Env, address: str, credential: secrets.Credential, *, create: bool) -> None:
    """Raises StoreError."""

    def unit(tx: Transaction) -> None:
        try:
            account = directory.account(tx, address)
        except directory.NoSuchEntry:
            if not create:
                raise
            account = directory.add_account(tx, address, _now(env))
        secrets.keep(tx, account.account_id, credential)

    await database.write(unit)


async def take_sasldb(
    database: Database, env: Env, octets: bytes, *, create: bool, keep_secret: bool
) -> list[dict[str, Any]]:
    """Users of Cyrus SASL's sasldb2, whose passwords lie there as they are. Raises StoreError for a file that is none."""
    try:
        found = sasldb.passwords(sasldb.parse(octets))
    except sasldb.NoSaslDb as error:
        raise StoreError(f"the file cannot be read as sasldb2: {error}") from None
    rows = []
    for address, password in sorted(found.items()):
        problem = ""
        try:
            text = password.decode("utf-8")
            credential = await enrol.made_password(env, text, "password", "", keep_secret=keep_secret)
            await _take(database, env, address, credential, create=create)
        except UnicodeDecodeError:
            problem = "the password is not UTF-8"
        except StoreError as error:
            problem = str(error)
        rows.append({"address": address, "taken": not problem, "problem": problem})
    return rows


async def list_devices(database: Database, address: str) -> list[dict[str, Any]]:
    """Every device password, without what it is."""

    def unit(tx: Transaction) -> list[dict[str, Any]]:
        account_id = directory.account(tx, address).account_id
        return [
            {"id": one.credential_id, "label": one.label, "only": ",".join(one.uses), "since": mail_date(one.created)}
            for one in secrets.of_account(tx, account_id)
            if one.kind == "device"
        ]

    return await database.read(unit)


async def revoke_device(database: Database, address: str, credential_id: int) -> None:
    await database.write(lambda tx: secrets.revoke(tx, directory.account(tx, address).account_id, credential_id))


async def list_sasl(database: Database, domain: str, offered: Sequence[str]) -> list[dict[str, Any]]:
    """User, realm, and the mechanisms that can prove him, as sasldblistusers tells them."""

    def unit(tx: Transaction) -> list[dict[str, Any]]:
        rows = []
        for account in directory.accounts(tx, domain):
            name, _, realm = account.address.rpartition("@")
            credentials = secrets.of_account(tx, account.account_id)
            readable = any(one.secret is not None for one in credentials)
            certificates = keys.certificates_of(tx, account.account_id)
            known = [
                one
                for one in offered
                if (one == "EXTERNAL" and certificates)
                or one in _OUTSIDE
                or (one != "EXTERNAL" and credentials and (readable or one not in ("CRAM-MD5", "DIGEST-MD5")))
            ]
            rows.append({"user": name, "realm": realm, "mechanisms": known, "apop": readable})
        return rows

    return await database.read(unit)


async def remove_user(database: Database, address: str) -> None:
    await database.write(lambda tx: directory.remove_account(tx, address))


async def switch_user(database: Database, address: str, *, enabled: bool) -> None:
    """Off: nobody comes in as this user, and every open session of his ends; mail still arrives."""
    await database.write(lambda tx: directory.switch(tx, address, enabled=enabled))


async def limit_user(
    database: Database, address: str, *, expires: int, protocols: Sequence[str], networks: Sequence[str]
) -> None:
    await database.write(
        lambda tx: directory.limit(tx, address, expires=expires, protocols=protocols, networks=networks)
    )


async def show_user(database: Database, address: str) -> dict[str, Any]:
    """JSON values: the account, its credentials without secrets, its mailboxes."""

    def unit(tx: Transaction) -> dict[str, Any]:
        account = directory.account(tx, address)
        boxes = mailboxes.all_of(tx, account.account_id)
        return {
            "address": account.address,
            "created": account.created,
            "enabled": account.enabled,
            "expires": account.expires,
            "protocols": list(account.protocols),
            "networks": list(account.networks),
            "credentials": [
                {"id": one.credential_id, "kind": one.kind, "label": one.label, "created": one.created}
                for one in secrets.of_account(tx, account.account_id)
            ],
            "mailboxes": [
                {"name": box.name, "messages": box.messages, "unseen": box.unseen, "octets": box.octets}
                for box in boxes
            ],
        }

    return await database.read(unit)


async def list_users(database: Database, domain: str = "") -> list[dict[str, Any]]:
    def unit(tx: Transaction) -> list[dict[str, Any]]:
        rows = []
        for account in directory.accounts(tx, domain):
            boxes = mailboxes.all_of(tx, account.account_id)
            rows.append(
                {
                    "address": account.address,
                    "enabled": account.enabled,
                    "messages": sum(box.messages for box in boxes),
                    "octets": sum(box.octets for box in boxes),
                }
            )
        return rows

    return await database.read(unit)


async def list_domains(database: Database) -> list[dict[str, Any]]:
    rows = await database.read(directory.domains)
    return [{"name": name, "users": users} for name, users in rows]


async def list_aliases(database: Database) -> list[dict[str, Any]]:
    """`targets` as an administrator writes them, `run_as` the Unix users of programs and files."""
    rows = await database.read(directory.aliases)
    return [
        {
            "address": alias.address,
            "targets": [one.address if isinstance(one, RemoteAddress) else one.shown for one in alias.targets],
            "run_as": sorted({one.user for one in alias.targets if isinstance(one, Program | File) and one.user}),
        }
        for alias in rows
    ]


async def add_alias(database: Database, address: str, targets: Sequence[str], run_as: str = "") -> None:
    """Raises StoreError."""
    typed = [aliases.parse_target(one, run_as) for one in targets]
    if any(isinstance(one, Program | File) for one in typed):
        try:
            become.allowed(run_as)
        except become.NotAllowed as error:
            if run_as:
                raise StoreError(str(error)) from None
    await database.write(lambda tx: directory.add_alias(tx, address, typed))
