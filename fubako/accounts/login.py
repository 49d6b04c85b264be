"""`Logins`: the one place where somebody proves who he is, the same for every protocol.

Invariant: a wrong user and a wrong password take the same way, the same time and the same words.
"""

import hmac
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from fubako.accounts import keys, secrets
from fubako.accounts.backends import Chain
from fubako.accounts.conditions import judge
from fubako.accounts.directory import Account
from fubako.accounts.guessing import Attempt, Guessing
from fubako.accounts.identity import NOWHERE, Identity, Proof, Scene
from fubako.accounts.passwords import Passwords, enabled, found, whole
from fubako.clock import Env
from fubako.protocol.sasl import Binding, Challenge, Lookup, Offer, SaslFailure, Success, offered, server
from fubako.protocol.sasl.cram_md5 import apop_digest
from fubako.protocol.sasl.gssapi import GssStep
from fubako.protocol.sasl.mechanism import ServerDialogue
from fubako.protocol.sasl.oauth import Token
from fubako.protocol.sasl.offer import PREFERENCE, message_id
from fubako.protocol.sasl.scram import ScramKeys
from fubako.store import domainkeys
from fubako.store.guesses import SharedCounts
from fubako.store.interface import Database, Transaction
from fubako.telemetry import Telemetry

_PEPPER = "scram-pepper"
WRONG = "wrong user or password"
_KERBEROS = ("GSSAPI", "GS2-KRB5", "GS2-KRB5-PLUS")
_TOKENS = ("OAUTHBEARER", "XOAUTH2")
_PROOFS = {
    **dict.fromkeys(_KERBEROS, Proof.TICKET),
    **dict.fromkeys(_TOKENS, Proof.TOKEN),
    "ANONYMOUS": Proof.NOBODY,
}
_NAMED = ("password", "secret", "scram")  # lookups whose user is whom somebody says he is


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
        self._proof = _PROOFS.get(name, Proof.PASSWORD)
        self._attempt: Attempt | None = None
        self._tickets: Tickets | None = None
        first = next(dialogue)
        assert isinstance(first, Challenge)
        self.first = first

    async def step(self, response: bytes) -> bytes | Identity:
        """The next challenge, or the identity once it is proved. What ends in another way has failed, and is counted."""
        try:
            return await self._step(response)
        except SaslFailure:
            if self._attempt is not None:
                self._attempt.failed()
            raise

    async def _step(self, response: bytes) -> bytes | Identity:
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
        logins = self._logins
        account = await logins.admitted(self._account, self._proof, self._scene)
        identity = Identity(account, self._name, success.binding, layer=success.layer, proof=self._proof)
        if self._proof is Proof.NOBODY:
            identity = replace(identity, read_only=True)
        else:
            identity = await logins.acting(identity, success.authzid, success.user, self._scene)
        if self._attempt is not None:
            self._attempt.held()
        return identity

    async def _answer(self, lookup: Lookup) -> object:
        if self._attempt is None:
            user = lookup.user if lookup.kind in _NAMED else ""
            self._attempt = await self._logins.guessing.admit(self._scene.network, user)
        match lookup.kind:
            case "password":
                proved = await self._logins.passwords.proved(lookup.user, lookup.password, self._scene, self._name)
                if proved is not None:
                    self._account, self._proof = proved
                return proved is not None
            case "external":
                self._account = await self._logins.outside(self._scene)
                self._proof = Proof.SSH if self._scene.came_as else Proof.CERTIFICATE
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
            self._proof = _weakest(good)
            return [credential.secret.encode() for credential in good if credential.secret]
        genuine = next((one for one in good if one.scram.genuine), None)
        if account is None or genuine is None:
            return await self._logins.invented_keys(lookup)
        self._proof = _weakest([genuine])
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


def _weakest(credentials: Sequence[secrets.Credential]) -> Proof:
    return Proof.DEVICE if all(one.kind == "device" for one in credentials) else Proof.PASSWORD


def _of_principal(principal: str) -> str:
    """alice@EXAMPLE.ORG is alice@example.org; host/a.example.org is nobody."""
    return "" if "/" in principal else principal.lower()


class Logins:
    """The account store as a login sees it."""

    def __init__(
        self, database: Database, env: Env, hostname: str, rules: LoginRules | None = None, *,
        guessing: Guessing | None = None, telemetry: Telemetry | None = None,
    ) -> None:  # fmt: skip
        self.guessing = guessing or Guessing(SharedCounts(database, env), env)
        self._telemetry = telemetry
        self._database = database
        self._env = env
        self._random = env.random
        self._offer = Offer(hostname, env.random, env.clock.now)
        self.passwords = Passwords(database, env)
        self.follow(rules or LoginRules())

    def follow(self, rules: LoginRules) -> None:
        """Other rules for logins to come; what was proved is remembered."""
        self.rules = rules
        self.passwords.chain = rules.chain
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
        attempt = await self.guessing.admit(scene.network, user)
        account, proof = await self.passwords.proved(user, password, scene, "PLAIN") or (None, Proof.PASSWORD)
        account = await self.admitted(account, proof, scene)
        attempt.held()
        return Identity(account, "PLAIN", proof=proof)

    async def admitted(self, account: Account | None, proof: Proof, scene: Scene) -> Account:
        """The one way in, behind every proof: the account as it is now. Raises SaslFailure, with the same words whatever the
        reason is; the event tells the administrator."""
        if account is None:
            raise SaslFailure(WRONG)
        proved, now = account, self._env.clock.now()
        judged = await self._database.read(lambda tx: judge(tx, proved, proof, scene, now))
        if judged.account is None:
            if self._telemetry is not None and judged.refusal is not None:
                self._telemetry.event("login.barred", user=proved.address, reason=judged.refusal.value)
            raise SaslFailure(WRONG)
        return judged.account

    async def again(self, identity: Identity, scene: Scene) -> Identity:
        """Whether what was proved holds still, and here. Raises SaslFailure."""
        account = await self.admitted(identity.account, identity.proof, scene)
        if identity.by is not None:
            await self.admitted(identity.by, identity.proof, scene)
        return replace(identity, account=account)

    async def known_by(self, name: str, proof: Proof, scene: Scene) -> Identity | None:
        """Who comes in without an exchange: by POP before SMTP, or because one who may speak for others says so."""
        account = await self.named(name)
        try:
            return Identity(await self.admitted(account, proof, scene), proof.value, proof=proof)
        except SaslFailure:
            return None

    async def apop(self, user: str, given: str, timestamp: bytes, scene: Scene = NOWHERE) -> Identity:
        """APOP (RFC 1939 §7). Raises SaslFailure."""
        attempt = await self.guessing.admit(scene.network, user)
        account, found = await self.find(user)
        good = [one for one in found if one.totp is None and one.good_for("pop3", "APOP")]
        wanted = [apop_digest(c.secret.encode(), timestamp) for c in good if c.secret] or ["-" * 32]
        held = [hmac.compare_digest(digest.encode(), given.encode("utf-8", "replace")) for digest in wanted]
        if not any(held):
            raise SaslFailure(WRONG)
        proof = _weakest(good)
        account = await self.admitted(account, proof, scene)
        attempt.held()
        return Identity(account, "APOP", proof=proof)

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
                return enabled(tx, row[0])
            if self.rules.believe_authority and not facts.chain_error and len(facts.mail_names) == 1:
                return enabled(tx, facts.mail_names[0])
            return None

        return await self._database.read(unit)

    async def preauth(self, scene: Scene) -> Identity | None:
        """Who need not say anything, where the configuration lets certificates begin a session."""
        account = await self.outside(scene)
        proof = Proof.SSH if scene.came_as else Proof.CERTIFICATE
        try:
            return Identity(await self.admitted(account, proof, scene), "EXTERNAL", proof=proof)
        except SaslFailure:
            return None

    async def acting(self, identity: Identity, authzid: str, name: str, scene: Scene = NOWHERE) -> Identity:
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
        other = await self.admitted(other, Proof.NAMED, scene)
        return replace(identity, account=other, actor=own, by=identity.account)

    async def named(self, name: str) -> Account | None:
        """The account of a name, where there is one and it is enabled."""
        return await self._database.read(lambda tx: enabled(tx, name)) if name else None

    async def find(self, user: str) -> tuple[Account | None, list[secrets.Credential]]:
        """The account of a login name and its credentials; a name without a domain belongs to the only one."""
        return await self._database.read(lambda tx: found(tx, user))

    async def keys(self, user: str) -> tuple[Account | None, list[keys.SshKey]]:
        """The account of a login name and its SSH keys; the same work for a name that nobody has."""

        def unit(tx: Transaction) -> tuple[Account | None, list[keys.SshKey]]:
            account = enabled(tx, user)
            return account, keys.keys_of(tx, account.account_id if account is not None else 0)

        return await self._database.read(unit)

    async def other_keys(self, account: Account, credential: secrets.Credential, lookup: Lookup) -> ScramKeys:
        """For SCRAM with another hash than SHA-256."""

        def unit(tx: Transaction) -> ScramKeys | None:
            return secrets.keys_of(tx, account.account_id, credential.credential_id, lookup.hash_name)

        return await self._database.read(unit) or await self.invented_keys(lookup)

    async def invented_keys(self, lookup: Lookup) -> ScramKeys:
        """The same from every worker, now and after a restart, with and without the domain: a salt that changes where an
        account's would not tells that nobody has this name."""

        def unit(tx: Transaction) -> tuple[str, bytes]:
            return whole(tx, lookup.user), domainkeys.secret(tx, _PEPPER)

        name, pepper = await self._database.read(unit)
        if not pepper:
            made = self._random(32)
            pepper = await self._database.write(lambda tx: domainkeys.keep_secret(tx, _PEPPER, made))
        return secrets.invented_keys(pepper, name, lookup.hash_name)

    async def note(self, identity: Identity, network: str) -> None:
        """An account logged in from a network."""
        await self.passwords.note(identity, network)

    async def close(self) -> None:
        await self.passwords.close()
        await self.guessing.close()
