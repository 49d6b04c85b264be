"""`Passwords`: whether a password is somebody's: slow hashes that take turns, then the backends that know other passwords.

Invariant: a wrong user and a wrong password take the same way, the same time and the same words.
"""

import asyncio
import hmac
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial

from fubako.accounts import directory, networks, secrets, totp
from fubako.accounts.backends import BackendDown, Chain, Question
from fubako.accounts.directory import Account, NoSuchEntry
from fubako.accounts.identity import NOWHERE, Identity, Proof, Scene
from fubako.accounts.turns import Full, Rank, Turns
from fubako.clock import Env
from fubako.protocol.sasl import SaslFailure
from fubako.store.interface import Database, StoreError, StoreUnavailable, Transaction

HASH_THREADS = 2  # 64 MiB each
WAITING_MAX = 200
SLOW_KINDS_MAX = 4  # other systems' hashes whose work every refusal does
SLOW_KINDS_SECONDS = 60.0  # so long they are not looked for again
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


Proved = tuple[Account, Proof]


def _proof_of(credential: secrets.Credential) -> Proof:
    if credential.kind != "password":
        return Proof.DEVICE
    return Proof.PASSWORD if credential.totp is None else Proof.PASSWORD_AND_CODE


def _for_backends(tx: Transaction, user: str) -> tuple[str, str, Account | None, bool]:
    """(the whole address, the only domain or nothing, the account where there is one, whether it has a second factor)."""
    address = whole(tx, user).lower()
    try:
        account = directory.account(tx, address)
    except NoSuchEntry:
        return address, directory.default_domain(tx), None, False
    factor = totp.of_account(tx, account.account_id) is not None
    return address, directory.default_domain(tx), account, factor


class Passwords:
    """`chain` are the backends, None where there are none."""

    def __init__(self, database: Database, env: Env) -> None:
        self._database, self._env, self._random = database, env, env.random
        self.chain: Chain | None = None
        self._invented_hash = secrets.invented_hash()
        self._proved = secrets.ProvedPasswords(env.random(32), env.clock.monotonic)
        self._monotonic = env.clock.monotonic
        self._slow_kinds: dict[str, str] = {}
        self._slow_until = float("-inf")
        self._seen: OrderedDict[tuple[int, str], None] = OrderedDict()
        self._threads = ThreadPoolExecutor(HASH_THREADS, thread_name_prefix="argon2")
        self._turns = Turns(HASH_THREADS, WAITING_MAX)

    async def proved(self, user: str, password: str, scene: Scene = NOWHERE, mechanism: str = "PLAIN") -> Proved | None:
        """The account whose password this is, as it was when the password was looked up. Raises SaslFailure when it cannot be
        told now."""
        account, kept = await self._database.read(lambda tx: found(tx, user))
        credentials = [one for one in kept if one.good_for(scene.protocol, mechanism)]
        proof = await self._holds(account, credentials, password, scene)
        if proof is not None and account is not None:
            return account, proof
        return await self._elsewhere(user, password, scene) if self.chain else None

    async def _elsewhere(self, user: str, password: str, scene: Scene) -> Proved | None:
        """Ask the backends, for every name in the same way."""
        assert self.chain is not None
        if not password or len(password.encode("utf-8", "replace")) > secrets.PASSWORD_OCTETS_MAX:
            return None
        address, only, account, factor = await self._database.read(lambda tx: _for_backends(tx, user))
        given, code = totp.split(password) if factor else (password, "")
        try:
            checker = await self.chain.check(
                Question(address=address, password=given, network=scene.network, only_domain=only)
            )
        except BackendDown:
            raise SaslFailure("passwords cannot be checked now, try again later", temporary=True) from None
        if checker is None:
            return None
        if account is None:
            account = await self._created(address) if checker.create else None
            return None if account is None else (account, Proof.PASSWORD)
        if factor:
            return (account, Proof.PASSWORD_AND_CODE) if await self._code_holds(account, code, scene) else None
        return account, Proof.PASSWORD

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
            with suppress(StoreUnavailable):  # a note is no reason to refuse who proved himself
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
        return 0 if known else 1

    def _remembered(
        self, account: Account, credentials: list[secrets.Credential], password: str
    ) -> secrets.Credential | None:
        """Of a password with a second factor nothing is remembered, also not what held before there was one."""
        for credential in credentials:
            if credential.totp is None and self._proved.holds(account.account_id, credential, password):
                return credential
        return None

    async def _holds(
        self, account: Account | None, credentials: list[secrets.Credential], password: str, scene: Scene = NOWHERE
    ) -> Proof | None:
        """Every credential is tried, remembered ones first; without an account the same work is done for nothing."""
        if len(password.encode("utf-8", "replace")) > secrets.PASSWORD_OCTETS_MAX:
            return None
        if account is not None and (remembered := self._remembered(account, credentials, password)) is not None:
            return _proof_of(remembered)
        try:
            async with self._turns.turn(await self._rank(account, scene)):
                return await self._hash_holds(account, credentials, password, scene)
        except Full:
            raise SaslFailure("too many logins at once, try again later", temporary=True) from None

    async def _hash_holds(
        self, account: Account | None, credentials: list[secrets.Credential], password: str, scene: Scene
    ) -> Proof | None:
        done: set[str] = set()  # kinds of hashes whose work was done
        for credential in credentials if account is not None else ():
            given, code = totp.split(password) if credential.totp is not None else (password, "")
            if credential.secret is not None:  # kept as it is: a slow hash would protect nothing
                held = hmac.compare_digest(credential.secret.encode(), given.encode("utf-8", "replace"))
            else:
                held = await self._verified(credential.argon2, given)
                done.add(secrets.kind_of(credential.argon2))
            if held and account is not None:
                if credential.totp is not None and not await self._code_holds(account, code, scene):
                    continue
                if credential.totp is None:
                    self._proved.remember(account.account_id, credential, password)
                if not credential.scram.genuine:
                    await self._take_over(account, credential, given)
                return _proof_of(credential)
        await self._refuse_as_slowly(done, password)
        return None

    async def _verified(self, encoded: str, password: str) -> bool:
        """One slow hash."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, secrets.verify_hash, encoded, password)

    async def _refuse_as_slowly(self, done: set[str], password: str) -> None:
        """Every refusal does the work of our own hash and of each kind that the store still holds from other systems, so that
        its time tells neither whether there is an account nor where it came from."""
        for kind, sample in (await self._kinds()).items():
            if kind not in done:
                await self._verified(sample, password)

    async def _kinds(self) -> dict[str, str]:
        """kind -> a hash of it."""
        now = self._monotonic()
        if now >= self._slow_until:
            foreign = await self._database.read(lambda tx: secrets.foreign_kinds(tx, SLOW_KINDS_MAX))
            self._slow_kinds = {secrets.kind_of(self._invented_hash): self._invented_hash, **foreign}
            self._slow_until = now + SLOW_KINDS_SECONDS
        return self._slow_kinds

    async def _code_holds(self, account: Account, code: str, scene: Scene) -> bool:
        """A code is good once, and few are looked at, in whichever process. Raises SaslFailure for too many."""
        now = self._env.clock.now()

        def unit(tx: Transaction) -> totp.Checked:
            stranger = not networks.is_known(tx, account.account_id, scene.network)
            return totp.check(tx, account.account_id, code, now, stranger=stranger)

        checked = await self._database.write(unit)
        if checked is totp.Checked.TOO_MANY:
            raise SaslFailure("too many codes, try again in a minute", temporary=True)
        return checked is totp.Checked.HELD

    async def _take_over(self, account: Account, credential: secrets.Credential, password: str) -> None:
        """Another system's hash held: from now on ours stands in its place, and SCRAM works."""
        make = partial(secrets.make, password, credential.kind, credential.label, credential.created, self._random)
        try:
            made = await asyncio.get_running_loop().run_in_executor(self._threads, make)
        except StoreError:  # a password that we would not take: it stays as it is
            return
        with suppress(StoreUnavailable):  # the next login does it
            await self._database.write(lambda tx: secrets.replace(tx, account.account_id, credential, made))

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        if self.chain is not None:
            await self.chain.close()
