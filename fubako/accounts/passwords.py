"""`Passwords`: whether a password is somebody's: slow hashes that take turns, then the backends that know other passwords.

Invariant: a wrong user and a wrong password take the same way, the same time and the same words.
"""

import asyncio
import hmac
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from fubako.accounts import directory, networks, secrets, totp
from fubako.accounts.backends import BackendDown, Chain
from fubako.accounts.directory import Account, NoSuchEntry
from fubako.accounts.identity import NOWHERE, Identity, Scene
from fubako.accounts.turns import Full, Rank, Turns
from fubako.clock import Env
from fubako.protocol.sasl import SaslFailure
from fubako.store.interface import Database, StoreError, Transaction

HASH_THREADS = 2  # 64 MiB each
WAITING_MAX = 200
RECENT_SECONDS = 1.0  # for so long a password that just held is not looked up again; a change is noticed after that
RECENT_MAX = 10_000
SEEN_MAX = 50_000


def whole(tx: Transaction, user: str) -> str:
    """A login name with its domain: one without belongs to the only domain."""
    return user if "@" in user else f"{user}@{directory.default_domain(tx)}"


def enabled(tx: Transaction, user: str) -> Account | None:
    """The account of a login name; None: there is none, or it is switched off."""
    try:
        account = directory.account(tx, whole(tx, user))
    except NoSuchEntry:
        return None
    return account if account.enabled else None


def found(tx: Transaction, user: str) -> tuple[Account | None, list[secrets.Credential]]:
    """The account of a login name and its credentials."""
    account = enabled(tx, user)
    return (None, []) if account is None else (account, secrets.of_account(tx, account.account_id))


class Passwords:
    """`chain` are the backends, None where there are none."""

    def __init__(self, database: Database, env: Env) -> None:
        self._database, self._env, self._random = database, env, env.random
        self.chain: Chain | None = None
        self._invented_hash = secrets.invented_hash()
        self._proved = secrets.ProvedPasswords(env.random(32), env.clock.monotonic)
        self._monotonic = env.clock.monotonic
        self._recent: dict[tuple[str, str, str], tuple[float, Account, list[secrets.Credential]]] = {}
        self._seen: OrderedDict[tuple[int, str], None] = OrderedDict()
        self._threads = ThreadPoolExecutor(HASH_THREADS, thread_name_prefix="argon2")
        self._turns = Turns(HASH_THREADS, WAITING_MAX)

    async def proved(
        self, user: str, password: str, scene: Scene = NOWHERE, mechanism: str = "PLAIN"
    ) -> Account | None:
        """The account whose password this is."""
        now = self._monotonic()
        key = (user, scene.protocol, mechanism)
        recent = self._recent.get(key)
        if recent is not None and recent[0] > now and self._remembered(recent[1], recent[2], password):
            return recent[1]
        account, kept = await self._database.read(lambda tx: found(tx, user))
        credentials = [one for one in kept if one.good_for(scene.protocol, mechanism)]
        if await self._holds(account, credentials, password, scene):
            if len(self._recent) >= RECENT_MAX:
                self._recent.clear()
            if account is not None:
                self._recent[key] = (now + RECENT_SECONDS, account, credentials)
            return account
        return await self._elsewhere(user, password) if self.chain else None

    async def _elsewhere(self, user: str, password: str) -> Account | None:
        """Ask the backends, for every name in the same way."""
        assert self.chain is not None
        if not password or len(password.encode("utf-8", "replace")) > secrets.PASSWORD_OCTETS_MAX:
            return None
        address = (await self._database.read(lambda tx: whole(tx, user))).lower()
        try:
            checker = await self.chain.check(address, password)
        except BackendDown:
            raise SaslFailure("passwords cannot be checked now, try again later", temporary=True) from None
        if checker is None:
            return None
        account = await self._database.read(lambda tx: enabled(tx, address))
        if account is None and checker.create:
            account = await self._created(address)
        return account

    async def _created(self, address: str) -> Account | None:
        def unit(tx: Transaction) -> Account | None:
            try:
                return directory.add_account(tx, address, int(self._env.clock.now()))
            except StoreError:  # a domain that is not ours, an alias, an account that is switched off
                return None

        return await self._database.write(unit)

    async def note(self, identity: Identity, network: str) -> None:
        """An account logged in from a network: the next time it need not stand behind strangers who guess."""
        seen = (identity.account.account_id, network)
        if not network or seen in self._seen:
            return
        now = int(self._env.clock.now())
        if await self._database.read(lambda tx: networks.stale(tx, *seen, now)):
            await self._database.write(lambda tx: networks.note(tx, *seen, now))
        self._seen[seen] = None
        if len(self._seen) > SEEN_MAX:
            self._seen.popitem(last=False)

    async def _rank(self, account: Account | None, scene: Scene) -> Rank:
        """Only asked about when somebody has to wait."""
        known = account is not None and scene.network and (account.account_id, scene.network) in self._seen
        if account is not None and scene.network and not known and self._turns.busy:
            account_id = account.account_id
            known = await self._database.read(lambda tx: networks.is_known(tx, account_id, scene.network))
        return (0 if known else 1, scene.failures)

    def _remembered(self, account: Account, credentials: list[secrets.Credential], password: str) -> bool:
        """Of a password with a second factor nothing is remembered, also not what held before there was one."""
        return any(
            credential.totp is None and self._proved.holds(account.account_id, credential, password)
            for credential in credentials
        )

    async def _holds(
        self, account: Account | None, credentials: list[secrets.Credential], password: str, scene: Scene = NOWHERE
    ) -> bool:
        """Every credential is tried, remembered ones first; without an account the same work is done for nothing."""
        if len(password.encode("utf-8", "replace")) > secrets.PASSWORD_OCTETS_MAX:
            return False
        if account is not None and self._remembered(account, credentials, password):
            return True
        try:
            async with self._turns.turn(await self._rank(account, scene)):
                return await self._hash_holds(account, credentials, password)
        except Full:
            raise SaslFailure("too many logins at once, try again later", temporary=True) from None

    async def _hash_holds(self, account: Account | None, credentials: list[secrets.Credential], password: str) -> bool:
        loop = asyncio.get_running_loop()
        slow = False  # a hash as slow as that of a name without an account was computed
        for credential in credentials if account is not None else ():
            given, code = totp.split(password) if credential.totp is not None else (password, "")
            if credential.secret is not None:  # kept as it is: a slow hash would protect nothing
                held = hmac.compare_digest(credential.secret.encode(), given.encode("utf-8", "replace"))
            else:
                held = await loop.run_in_executor(self._threads, secrets.verify_hash, credential.argon2, given)
                slow = slow or credential.scram.genuine
            if held and account is not None:
                if credential.totp is not None:
                    if not await self._second_holds(account, credential.totp, code):
                        continue
                else:
                    self._proved.remember(account.account_id, credential, password)
                if not credential.scram.genuine:
                    await self._take_over(account, credential, given)
                return True
        if not slow:
            await loop.run_in_executor(self._threads, secrets.verify_hash, self._invented_hash, password)
        return False

    async def _second_holds(self, account: Account, kept: totp.Totp, code: str) -> bool:
        """A code is good once, in whichever process."""
        step = totp.step_of(kept, code, self._env.clock.now()) if code else 0
        return bool(step) and await self._database.write(lambda tx: totp.use(tx, account.account_id, step))

    async def _take_over(self, account: Account, credential: secrets.Credential, password: str) -> None:
        """Another system's hash held: from now on ours stands in its place, and SCRAM works."""
        make = partial(secrets.make, password, credential.kind, credential.label, credential.created, self._random)
        try:
            made = await asyncio.get_running_loop().run_in_executor(self._threads, make)
        except StoreError:  # a password that we would not take: it stays as it is
            return
        await self._database.write(lambda tx: secrets.replace(tx, account.account_id, credential, made))

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        if self.chain is not None:
            await self.chain.close()
