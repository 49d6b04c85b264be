"""`Logins`: the one place where somebody proves who he is, the same for every protocol.

Invariant: a wrong user and a wrong password take the same way, the same time and the same words.
"""

import asyncio
import hmac
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol

from fubako.accounts import directory, keys, networks, secrets, totp
from fubako.accounts.backends import BackendDown, Chain
from fubako.accounts.directory import Account, NoSuchEntry
from fubako.accounts.turns import Full, Rank, Turns
from fubako.clock import Env
from fubako.net.interface import CertificateFacts
from fubako.protocol.sasl import Binding, Challenge, Lookup, Offer, SaslFailure, Success, offered, server
from fubako.protocol.sasl.cram_md5 import apop_digest
from fubako.protocol.sasl.gssapi import GssStep
from fubako.protocol.sasl.mechanism import SecurityLayer, ServerDialogue
from fubako.protocol.sasl.oauth import Token
from fubako.protocol.sasl.offer import PREFERENCE, message_id
from fubako.protocol.sasl.scram import ScramKeys
from fubako.store import domainkeys
from fubako.store.interface import Database, StoreError, Transaction

HASH_THREADS = 2  # 64 MiB each
WAITING_MAX = 200
RECENT_SECONDS = 1.0  # for so long a password that just held is not looked up again; a change is noticed after that
RECENT_MAX = 10_000
SEEN_MAX = 50_000
_PEPPER = "scram-pepper"
WRONG = "wrong user or password"
_KERBEROS = ("GSSAPI", "GS2-KRB5", "GS2-KRB5-PLUS")
_TOKENS = ("OAUTHBEARER", "XOAUTH2")


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a session belongs to, and how it was proved. `actor`: who proved himself, where that is another one. `read_only`:
    nobody in particular, who may look."""

    account: Account
    mechanism: str
    binding: str = ""
    actor: str = ""
    read_only: bool = False
    layer: SecurityLayer | None = field(default=None, repr=False, compare=False)


class Tokens(Protocol):
    """Tells whose a bearer token is."""

    async def judge(self, token: str) -> Token: ...


class Tickets(Protocol):
    """One exchange of Kerberos tokens; each call may take its time. Raises SaslFailure."""

    async def step(self, octets: bytes) -> GssStep: ...
    async def wrap(self, octets: bytes) -> GssStep: ...
    async def unwrap(self, octets: bytes) -> GssStep: ...


@dataclass(frozen=True, slots=True)
class LoginRules:
    """What the configuration says. `acting`: (who, as whom), each an address, `*@domain` or `*`. `tickets` makes the server's
    side for a protocol and a channel binding."""

    mechanisms: tuple[str, ...] = PREFERENCE
    acting: tuple[tuple[str, str], ...] = ()
    anonymous: str = ""
    chain: Chain | None = None
    tokens: Tokens | None = None
    tickets: Callable[[str, bytes | None], Tickets] | None = None
    believe_authority: bool = False  # a certificate that our authority signed proves the mailbox it names


@dataclass(frozen=True, slots=True)
class Scene:
    """Where somebody proves who he is. `came_as`: the account that came in by SSH. `offered`: instead of all mechanisms.
    `network` and `failures` tell whose turn it is when many wait."""

    protocol: str = ""
    bindings: Mapping[str, bytes] = field(default_factory=dict)
    certificate: CertificateFacts | None = None
    came_as: str = ""
    offered: tuple[str, ...] = ()
    network: str = ""
    failures: int = 0


NOWHERE = Scene()


def _matches(pattern: str, address: str) -> bool:
    return pattern in ("*", address) or (pattern.startswith("*@") and address.endswith(pattern[1:]))


class Exchange:
    """One SASL exchange: feed responses to `step` until it gives an Identity. Raises SaslFailure."""

    def __init__(self, logins: "Logins", name: str, dialogue: ServerDialogue, scene: Scene) -> None:
        self._logins = logins
        self._name = name
        self._dialogue = dialogue
        self._scene = scene
        self._account: Account | None = None
        self._tickets: Tickets | None = None
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
            return await self._proved(end.value)

    async def _proved(self, success: Success) -> Identity:
        if self._name in _KERBEROS:
            self._account = await self._logins.named(_of_principal(success.user))
        if self._account is None:
            raise SaslFailure(WRONG)
        identity = Identity(self._account, self._name, success.binding, layer=success.layer)
        if self._name == "ANONYMOUS":
            return replace(identity, read_only=True)
        return await self._logins.acting(identity, success.authzid, success.user)

    async def _answer(self, lookup: Lookup) -> object:
        match lookup.kind:
            case "password":
                self._account = await self._logins.proved(lookup.user, lookup.password, self._scene, self._name)
                return self._account is not None
            case "external":
                self._account = await self._logins.outside(self._scene)
                return self._account.address if self._account is not None else ""
            case "anonymous":
                self._account = await self._logins.named(self._logins.rules.anonymous)
                return self._account.address if self._account is not None else ""
            case "token":
                return await self._token(lookup.password)
            case "gss" | "gss-wrap" | "gss-unwrap":
                return await self._ticket(lookup)
        account, credentials = await self._logins.find(lookup.user)
        self._account = account
        base = self._name.removesuffix("-PLUS")
        good = [one for one in credentials if one.totp is None and one.good_for(self._scene.protocol, base)]
        if lookup.kind == "secret":
            return [credential.secret.encode() for credential in good if credential.secret]
        genuine = next((one for one in good if one.scram.genuine), None)
        if account is None or genuine is None:
            return await self._logins.invented_keys(lookup)
        if lookup.hash_name == "sha256":
            return genuine.scram
        return await self._logins.other_keys(account, genuine, lookup)

    async def _token(self, bearer: str) -> Token:
        tokens = self._logins.rules.tokens
        assert tokens is not None
        token = await tokens.judge(bearer)
        if token.user:
            self._account = await self._logins.named(token.user)
        return token

    async def _ticket(self, lookup: Lookup) -> GssStep:
        if self._tickets is None:
            make = self._logins.rules.tickets
            assert make is not None
            self._tickets = make(self._scene.protocol, lookup.binding)
        match lookup.kind:
            case "gss":
                return await self._tickets.step(lookup.octets)
            case "gss-wrap":
                return await self._tickets.wrap(lookup.octets)
            case _:
                return await self._tickets.unwrap(lookup.octets)


def _of_principal(principal: str) -> str:
    """alice@EXAMPLE.ORG is alice@example.org; host/a.example.org is nobody."""
    return "" if "/" in principal else principal.lower()


class Logins:
    """The account store as a login sees it."""

    def __init__(self, database: Database, env: Env, hostname: str, rules: LoginRules | None = None) -> None:
        self._database = database
        self._env = env
        self._random = env.random
        self._invented_hash = secrets.invented_hash()
        self._offer = Offer(hostname, env.random, env.clock.now)
        self._proved = secrets.ProvedPasswords(env.random(32), env.clock.monotonic)
        self._monotonic = env.clock.monotonic
        self._recent: dict[tuple[str, str, str], tuple[float, Account, list[secrets.Credential]]] = {}
        self._seen: OrderedDict[tuple[int, str], None] = OrderedDict()
        self._threads = ThreadPoolExecutor(HASH_THREADS, thread_name_prefix="argon2")
        self._turns = Turns(HASH_THREADS, WAITING_MAX)
        self.follow(rules or LoginRules())

    def follow(self, rules: LoginRules) -> None:
        """Other rules for logins to come; what was proved is remembered."""
        self.rules = rules
        can = {"EXTERNAL"}
        can |= set(_TOKENS) if rules.tokens is not None else set()
        can |= set(_KERBEROS) if rules.tickets is not None else set()
        can |= {"ANONYMOUS"} if rules.anonymous else set()
        self._can = can
        self._announced: dict[tuple[bool, bool, bool, tuple[str, ...]], list[str]] = {}

    def mechanisms(self, scene: Scene) -> list[str]:
        """Names to announce on a connection that is protected."""
        outside = scene.certificate is not None or bool(scene.came_as)
        key = (bool(scene.bindings), outside, scene.protocol == "smtp", scene.offered)
        found = self._announced.get(key)
        if found is None:
            found = self._announced[key] = offered(self._offer_at(scene))
        return found

    def _offer_at(self, scene: Scene) -> Offer:
        can = set(self._can)
        if scene.certificate is None and not scene.came_as:
            can.discard("EXTERNAL")
        if scene.protocol == "smtp":
            can.discard("ANONYMOUS")  # nobody in particular may look, not send
        return replace(
            self._offer,
            enabled=scene.offered or self.rules.mechanisms,
            binding=Binding(scene.bindings),
            conditional=frozenset(can),
        )

    def exchange(self, mechanism: str, scene: Scene) -> Exchange | None:
        """Begin an exchange; None when the mechanism is not offered."""
        dialogue = server(mechanism, self._offer_at(scene))
        return None if dialogue is None else Exchange(self, mechanism, dialogue, scene)

    def timestamp(self) -> bytes:
        """A fresh APOP timestamp for a POP3 greeting."""
        return message_id(self._offer)

    async def password(self, user: str, password: str, scene: Scene = NOWHERE) -> Identity:
        """USER/PASS and LOGIN. Raises SaslFailure."""
        account = await self.proved(user, password, scene, "PLAIN")
        if account is None:
            raise SaslFailure(WRONG)
        return Identity(account, "PLAIN")

    async def proved(
        self, user: str, password: str, scene: Scene = NOWHERE, mechanism: str = "PLAIN"
    ) -> Account | None:
        """The account whose password this is."""
        now = self._monotonic()
        key = (user, scene.protocol, mechanism)
        recent = self._recent.get(key)
        if recent is not None and recent[0] > now and self._remembered(recent[1], recent[2], password):
            return recent[1]
        account, found = await self.find(user)
        credentials = [one for one in found if one.good_for(scene.protocol, mechanism)]
        if await self.password_holds(account, credentials, password, scene):
            if len(self._recent) >= RECENT_MAX:
                self._recent.clear()
            if account is not None:
                self._recent[key] = (now + RECENT_SECONDS, account, credentials)
            return account
        return await self._elsewhere(user, password) if self.rules.chain else None

    async def _elsewhere(self, user: str, password: str) -> Account | None:
        """Ask the backends, for every name in the same way."""
        assert self.rules.chain is not None
        if not password or len(password.encode("utf-8", "replace")) > secrets.PASSWORD_OCTETS_MAX:
            return None
        address = (await self._database.read(lambda tx: _whole(tx, user))).lower()
        try:
            checker = await self.rules.chain.check(address, password)
        except BackendDown:
            raise SaslFailure("passwords cannot be checked now, try again later", temporary=True) from None
        if checker is None:
            return None
        account = await self.named(address)
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

    async def apop(self, user: str, given: str, timestamp: bytes) -> Identity:
        """APOP (RFC 1939 §7). Raises SaslFailure."""
        account, found = await self.find(user)
        good = [one for one in found if one.totp is None and one.good_for("pop3", "APOP")]
        wanted = [apop_digest(c.secret.encode(), timestamp) for c in good if c.secret] or ["-" * 32]
        held = [hmac.compare_digest(digest.encode(), given.encode("utf-8", "replace")) for digest in wanted]
        if account is None or not any(held):
            raise SaslFailure(WRONG)
        return Identity(account, "APOP")

    async def outside(self, scene: Scene) -> Account | None:
        """Who a TLS client's certificate, or SSH, proved to be."""
        if scene.came_as:
            return await self.named(scene.came_as)
        facts = scene.certificate
        if facts is None:
            return None
        now = self._env.clock.now()
        if not facts.not_before <= now <= facts.not_after:
            return None

        def unit(tx: Transaction) -> Account | None:
            row = tx.row("SELECT address FROM client_certificate JOIN account ON account.account_id=client_certificate.account_id"
                         " WHERE sha256=?", (facts.sha256,))  # fmt: skip
            if row is not None:
                return _enabled(tx, row[0])
            if self.rules.believe_authority and not facts.chain_error and len(facts.mail_names) == 1:
                return _enabled(tx, facts.mail_names[0])
            return None

        return await self._database.read(unit)

    async def preauth(self, scene: Scene) -> Identity | None:
        """Who need not say anything, where the configuration lets certificates begin a session."""
        account = await self.outside(scene)
        return None if account is None else Identity(account, "EXTERNAL")

    async def acting(self, identity: Identity, authzid: str, name: str) -> Identity:
        """As whom the session goes on (RFC 4422 §3.4.1): as itself, or where a rule allows it as another one. Raises
        SaslFailure."""
        own = identity.account.address
        if not authzid or authzid.lower() in (name.lower(), own):
            return identity
        other = await self.named(authzid)
        if other is not None and other.address == own:
            return identity
        target = other.address if other is not None else authzid.lower()
        allowed = any(_matches(who, own) and _matches(whom, target) for who, whom in self.rules.acting)
        if not allowed or other is None:
            raise SaslFailure("this user may not act as another one")
        return replace(identity, account=other, actor=own)

    async def named(self, name: str) -> Account | None:
        """The account of a name, where there is one and it is enabled."""
        return await self._database.read(lambda tx: _enabled(tx, name)) if name else None

    async def find(self, user: str) -> tuple[Account | None, list[secrets.Credential]]:
        """The account of a login name and its credentials; a name without a domain belongs to the only one."""

        def unit(tx: Transaction) -> tuple[Account | None, list[secrets.Credential]]:
            account = _enabled(tx, user)
            return (None, []) if account is None else (account, secrets.of_account(tx, account.account_id))

        return await self._database.read(unit)

    async def keys(self, user: str) -> tuple[Account | None, list[keys.SshKey]]:
        """The account of a login name and its SSH keys; the same work for a name that nobody has."""

        def unit(tx: Transaction) -> tuple[Account | None, list[keys.SshKey]]:
            account = _enabled(tx, user)
            return account, keys.keys_of(tx, account.account_id if account is not None else 0)

        return await self._database.read(unit)

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
        if self.rules.chain is not None:
            await self.rules.chain.close()


def _whole(tx: Transaction, user: str) -> str:
    return user if "@" in user else f"{user}@{directory.default_domain(tx)}"


def _enabled(tx: Transaction, user: str) -> Account | None:
    try:
        account = directory.account(tx, _whole(tx, user))
    except NoSuchEntry:
        return None
    return account if account.enabled else None
