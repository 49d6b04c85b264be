"""What an account is given to prove itself with: passwords, keys, certificates, second factors. Units of work, for who administers
and for users themselves."""

import asyncio
import base64
from collections.abc import Sequence
from functools import partial
from typing import Any

from fubako.accounts import directory, keys, secrets, totp
from fubako.clock import Env
from fubako.message.trace import mail_date
from fubako.store.interface import Database, Transaction


def _now(env: Env) -> int:
    return int(env.clock.now())


async def made_password(
    env: Env, password: str, kind: str, label: str, *, keep_secret: bool = False, uses: Sequence[str] = ()
) -> secrets.Credential:
    """Derived on a thread: it takes a tenth of a second on purpose."""
    make = partial(
        secrets.make, password, kind, label, _now(env), env.random, keep_secret=keep_secret, uses=tuple(uses)
    )
    return await asyncio.to_thread(make)


async def set_password(
    database: Database, env: Env, address: str, password: str | None = None, *, keep_secret: bool = False
) -> str:
    """Returns the password: a random one when none is given."""
    password = password or secrets.generate(env.random)
    credential = await made_password(env, password, "password", "", keep_secret=keep_secret)
    await database.write(lambda tx: secrets.keep(tx, directory.account(tx, address).account_id, credential))
    return password


async def add_keys(
    database: Database, env: Env, address: str, text: str, commands: Sequence[str] = ()
) -> list[keys.SshKey]:
    """Every key of a file. Raises StoreError; then none was added."""
    found = keys.parse_keys(text, commands=commands)

    def unit(tx: Transaction) -> None:
        account_id = directory.account(tx, address).account_id
        for key in found:
            keys.keep_key(tx, account_id, key, _now(env))

    await database.write(unit)
    return found


async def list_keys(database: Database, address: str) -> list[dict[str, Any]]:
    found = await database.read(lambda tx: keys.keys_of(tx, directory.account(tx, address).account_id))
    return [
        {"fingerprint": key.fingerprint, "type": f"{'authority ' if key.authority else ''}{key.kind}", "label": key.label,
         "commands": list(key.commands), "since": mail_date(key.created)}
        for key in found
    ]  # fmt: skip


async def remove_key(database: Database, address: str, fingerprint: str) -> None:
    await database.write(lambda tx: keys.drop_key(tx, directory.account(tx, address).account_id, fingerprint))


async def add_certificate(
    database: Database, env: Env, address: str, pem: bytes, label: str = ""
) -> keys.ClientCertificate:
    found = keys.parse_certificate(pem, label)
    await database.write(
        lambda tx: keys.keep_certificate(tx, directory.account(tx, address).account_id, found, _now(env))
    )
    return found


async def list_certificates(database: Database, address: str) -> list[dict[str, Any]]:
    found = await database.read(lambda tx: keys.certificates_of(tx, directory.account(tx, address).account_id))
    return [{"sha256": one.sha256, "label": one.label, "since": mail_date(one.created)} for one in found]


async def remove_certificate(database: Database, address: str, sha256: str) -> None:
    await database.write(lambda tx: keys.drop_certificate(tx, directory.account(tx, address).account_id, sha256))


async def add_totp(database: Database, env: Env, address: str, issuer: str) -> dict[str, str]:
    """The secret in base32 and as a URI; shown once. Raises StoreError when there is one already."""

    def unit(tx: Transaction) -> tuple[str, bytes]:
        account = directory.account(tx, address)
        return account.address, totp.keep(tx, account.account_id, env.random, _now(env))

    name, secret = await database.write(unit)
    return {"address": name, "secret": base64.b32encode(secret).decode(), "uri": totp.uri(name, secret, issuer)}


async def remove_totp(database: Database, address: str) -> None:
    await database.write(lambda tx: totp.remove(tx, directory.account(tx, address).account_id))
