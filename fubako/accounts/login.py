"""`Logins`: the one place where somebody proves who he is, the same for every protocol.

Invariant: a wrong user and a wrong password take the same way, the same time and the same words.
"""

import asyncio
import hmac
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

from fubako.accounts import directory, secrets
from fubako.accounts.directory import Account, NoSuchEntry
from fubako.clock import Env
from fubako.protocol.sasl import Binding, Challenge, Lookup, Offer, SaslFailure, Success, offered, server
from fubako.protocol.sasl.cram_md5 import apop_digest
from fubako.protocol.sasl.mechanism import ServerDialogue
from fubako.protocol.sasl.offer import PREFERENCE, message_id
from fubako.protocol.sasl.scram import ScramKeys
from fubako.store import domainkeys
from fubako.store.interface import Database, StoreError, Transaction

HASH_THREADS = 2  # 64 MiB each
WAITING_MAX = 200
RECENT_SECONDS = 1.0  # for so long a password that just held is not looked up again; a change is noticed after that
RECENT_MAX = 10_000
_PEPPER = "scram-pepper"


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a session belongs to, and how it was proved."""

    account: Account
    mechanism: str
    binding: str = ""


class Exchange:
    """One SASL exchange: feed responses to `step` until it gives an Identity. Raises SaslFailure."""

    def __init__(self, logins: "Logins", name: str, dialogue: ServerDialogue) -> None:
        self._logins = logins
        self._name = name
        self._dialogue = dialogue
        self._account: Account | None = None
        first = next(dialogue)
        assert isinstance(first, Challenge)
        self.first = first

    async def step(self, response: bytes) -> bytes | Identity:
        """The next challenge, or the identity once it is proved."""
        sent: object = response
        try:
            while True:
                step = self._dialogue.send(sent)
                if isinstance(step, Challenge):
                    return step.octets
                sent = await self._answer(step)
        except StopIteration as end:
            return self._proved(end.value)

    def _proved(self, success: Success) -> Identity:
        if self._account is None:
            raise SaslFailure("wrong user or password")
        if success.authzid and success.authzid.lower() not in (success.user.lower(), self._account.address):
            raise SaslFailure("this user may not act as another one")
        return Identity(self._account, self._name, success.binding)

    async def _answer(self, lookup: Lookup) -> object:
        if lookup.kind == "password":
            self._account = await self._logins.proved(lookup.user, lookup.password)
            return self._account is not None
        account, credentials = await self._logins.find(lookup.user)
        self._account = account
        if lookup.kind == "secret":
            return [credential.secret.encode() for credential in credentials if credential.secret]
        if account is None or not credentials or not credentials[0].scram.genuine:
            return await self._logins.invented_keys(lookup)
        if lookup.hash_name == "sha256":
            return credentials[0].scram
        return await self._logins.other_keys(account, credentials[0], lookup)


class Logins:
    """The account store as a login sees it."""

    def __init__(self, database: Database, env: Env, hostname: str, mechanisms: tuple[str, ...] = PREFERENCE) -> None:
        self._database = database
        self._random = env.random
        self._invented_hash = secrets.invented_hash()
        self._offer = Offer(hostname, env.random, env.clock.now, mechanisms)
        bound = replace(self._offer, binding=Binding({"any": b""}))
        self._announced = {False: offered(self._offer), True: offered(bound)}
        self._proved = secrets.ProvedPasswords(env.random(32), env.clock.monotonic)
        self._monotonic = env.clock.monotonic
        self._recent: dict[str, tuple[float, Account, list[secrets.Credential]]] = {}
        self._threads = ThreadPoolExecutor(HASH_THREADS, thread_name_prefix="argon2")
        self._waiting = 0

    def mechanisms(self, bindings: Mapping[str, bytes]) -> list[str]:
        """Names to announce on a connection that is protected."""
        return self._announced[bool(bindings)]

    def _bound(self, bindings: Mapping[str, bytes]) -> Offer:
        return replace(self._offer, binding=Binding(bindings)) if bindings else self._offer

    def exchange(self, mechanism: str, bindings: Mapping[str, bytes]) -> Exchange | None:
        """Begin an exchange; None when the mechanism is not offered."""
        dialogue = server(mechanism, self._bound(bindings))
        return None if dialogue is None else Exchange(self, mechanism, dialogue)

    def timestamp(self) -> bytes:
        """A fresh APOP timestamp for a POP3 greeting."""
        return message_id(self._offer)

    async def password(self, user: str, password: str, protocol: str = "") -> Identity:
        """USER/PASS and LOGIN. Raises SaslFailure."""
        account = await self.proved(user, password)
        if account is None:
            raise SaslFailure("wrong user or password")
        return Identity(account, "PLAIN")

    async def proved(self, user: str, password: str) -> Account | None:
        """The account whose password this is."""
        now = self._monotonic()
        recent = self._recent.get(user)
        if recent is not None and recent[0] > now and self._remembered(recent[1], recent[2], password):
            return recent[1]
        account, credentials = await self.find(user)
        held = await self.password_holds(account, credentials, password)
        if account is None or not held:
            return None
        if len(self._recent) >= RECENT_MAX:
            self._recent.clear()
        self._recent[user] = (now + RECENT_SECONDS, account, credentials)
        return account

    async def apop(self, user: str, given: str, timestamp: bytes) -> Identity:
        """APOP (RFC 1939 §7). Raises SaslFailure."""
        account, credentials = await self.find(user)
        wanted = [apop_digest(c.secret.encode(), timestamp) for c in credentials if c.secret] or ["-" * 32]
        held = [hmac.compare_digest(digest.encode(), given.encode("utf-8", "replace")) for digest in wanted]
        if account is None or not any(held):
            raise SaslFailure("wrong user or password")
        return Identity(account, "APOP")

    async def find(self, user: str) -> tuple[Account | None, list[secrets.Credential]]:
        """The account of a login name and its credentials; a name without a domain belongs to the only one."""

        def unit(tx: Transaction) -> tuple[Account | None, list[secrets.Credential]]:
            try:
                account = directory.account(tx, _whole(tx, user))
            except NoSuchEntry:
                return None, []
            return (account, secrets.of_account(tx, account.account_id)) if account.enabled else (None, [])

        return await self._database.read(unit)

    def _remembered(self, account: Account, credentials: list[secrets.Credential], password: str) -> bool:
        return any(self._proved.holds(account.account_id, credential, password) for credential in credentials)

    async def other_keys(self, account: Account, credential: secrets.Credential, lookup: Lookup) -> ScramKeys:
        """For SCRAM with another hash than SHA-256."""

        def unit(tx: Transaction) -> ScramKeys | None:
            return secrets.keys_of(tx, account.account_id, credential.credential_id, lookup.hash_name)

        return await self._database.read(unit) or await self.invented_keys(lookup)

    async def invented_keys(self, lookup: Lookup) -> ScramKeys:
        """The same from every worker, now and after a restart, with and without the domain: a salt that changes where an
        account's would not tells that nobody has this name."""

        def unit(tx: Transaction) -> tuple[str, bytes]:
            return _whole(tx, lookup.user), domainkeys.secret(tx, _PEPPER)

        name, pepper = await self._database.read(unit)
        if not pepper:
            made = self._random(32)
            pepper = await self._database.write(lambda tx: domainkeys.keep_secret(tx, _PEPPER, made))
        return secrets.invented_keys(pepper, name, lookup.hash_name)

    async def password_holds(
        self, account: Account | None, credentials: list[secrets.Credential], password: str
    ) -> bool:
        """Every credential is tried, remembered ones first; without an account the same work is done for nothing."""
        if len(password.encode("utf-8", "replace")) > secrets.PASSWORD_OCTETS_MAX:
            return False
        if account is not None and self._remembered(account, credentials, password):
            return True
        if self._waiting >= WAITING_MAX:
            raise SaslFailure("too many logins at once, try again later", temporary=True)
        self._waiting += 1
        try:
            return await self._hash_holds(account, credentials, password)
        finally:
            self._waiting -= 1

    async def _hash_holds(self, account: Account | None, credentials: list[secrets.Credential], password: str) -> bool:
        loop = asyncio.get_running_loop()
        slow = False  # a hash as slow as that of a name without an account was computed
        for credential in credentials if account is not None else ():
            if credential.secret is not None:  # kept as it is: a slow hash would protect nothing
                held = hmac.compare_digest(credential.secret.encode(), password.encode("utf-8", "replace"))
            else:
                held = await loop.run_in_executor(self._threads, secrets.verify_hash, credential.argon2, password)
                slow = slow or credential.scram.genuine
            if held and account is not None:
                self._proved.remember(account.account_id, credential, password)
                if not credential.scram.genuine:
                    await self._take_over(account, credential, password)
                return True
        if not slow:
            await loop.run_in_executor(self._threads, secrets.verify_hash, self._invented_hash, password)
        return False

    async def _take_over(self, account: Account, credential: secrets.Credential, password: str) -> None:
        """Another system's hash held: from now on ours stands in its place, and SCRAM works."""
        make = partial(secrets.make, password, credential.kind, credential.label, credential.created, self._random)
        try:
            made = await asyncio.get_running_loop().run_in_executor(self._threads, make)
        except StoreError:  # a password that we would not take: it stays as it is
            return
        await self._database.write(lambda tx: secrets.replace(tx, account.account_id, credential, made))

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


def _whole(tx: Transaction, user: str) -> str:
    return user if "@" in user else f"{user}@{directory.default_domain(tx)}"
