"""`Dresser`: how letters of our own users leave: under the right name, and signed; and under which address forwarded ones do."""

from cryptography.hazmat.primitives.serialization import load_pem_private_key

from fubako.clock import Env
from fubako.message import srs
from fubako.message.address import Address
from fubako.message.authentication import without_forged
from fubako.message.headers import header_end
from fubako.message.masquerade import Masquerade
from fubako.policy import arc, dkim
from fubako.policy.authors import claimed
from fubako.policy.bodies import hash_large
from fubako.policy.disposition import Form
from fubako.scan.pool import Pool
from fubako.store import domainkeys
from fubako.store.interface import Database, Transaction

REMEMBERED_SECONDS = 5.0
DAY = 86_400
_SRS = "srs"


class Dresser:
    """Keys are read again after a few seconds, so that a rotation is followed at once."""

    def __init__(
        self, database: Database, env: Env, masquerade: Masquerade | None = None, pool: Pool | None = None
    ) -> None:
        self.pool = pool
        self._database, self._env = database, env
        self._masquerade = masquerade
        self._keys: dict[str, tuple[dkim.Signer, ...]] = {}
        self._held: tuple[dkim.Signer, ...] = ()
        self._read_at = float("-inf")
        self._secret = b""

    async def signers(self, domain: str) -> tuple[dkim.Signer, ...]:
        """The keys that sign for a domain now."""
        await self._read()
        return self._keys.get(domain, ())

    async def held(self) -> tuple[dkim.Signer, ...]:
        """Every key of ours, those too that sign no more: what they signed is ours."""
        await self._read()
        return self._held

    async def _read(self) -> None:
        now = self._env.clock.monotonic()
        if now - self._read_at < REMEMBERED_SECONDS:
            return
        active: dict[str, list[dkim.Signer]] = {}
        held = []
        for key in await self._database.read(domainkeys.keys):
            held.append(signer(key))
            if key.state == domainkeys.ACTIVE:
                active.setdefault(key.domain, []).append(held[-1])
        self._keys = {name: tuple(some) for name, some in active.items()}
        self._held, self._read_at = tuple(held), now

    async def unforged(self, content: bytes, hostname: str) -> bytes:
        """The content without what only we may write: fields that say in our name what was found of it (RFC 8601 §5), and ARC
        sets in our name that no key of ours seals (RFC 8617)."""
        held = await self.held()
        return without_forged(
            content, header_end(content), hostname, lambda: arc.proven(dkim.take_apart(content), held)
        )

    def masqueraded(self, sender: Address, content: bytes) -> tuple[Address, bytes]:
        """A letter of our own, before anything is written on top of it."""
        if self._masquerade is None:
            return sender, content
        return self._masquerade.address(sender), self._masquerade.content(content)

    async def signed(self, content: bytes, domains: frozenset[str]) -> bytes:
        """Signature fields for a letter of our own; empty where its author's domain has no key, or is not among `domains`: those in
        which who wrote it owns its author's address."""
        await self._read()
        if not self._keys:
            return b""
        letter = dkim.take_apart(content)
        authors = claimed(content)
        if authors.form is not Form.USABLE or len(authors.domains) != 1 or authors.domains[0] not in domains:
            return b""
        await hash_large(letter, self.pool, ours=True)
        now = self._env.clock.now()
        return b"".join(dkim.sign(letter, one, now) for one in await self.signers(authors.domains[0]))

    async def secret(self) -> bytes:
        """What makes forwarding addresses ours; made at the first use."""
        if not self._secret:
            self._secret = await self._database.read(lambda tx: domainkeys.secret(tx, _SRS))
        if not self._secret:
            made = self._env.random(32)

            def unit(tx: Transaction) -> bytes:
                return domainkeys.keep_secret(tx, _SRS, made)

            self._secret = await self._database.write(unit)
        return self._secret

    async def forwarded(self, sender: Address, ours: str) -> Address:
        return srs.forward(sender, ours, await self.secret(), int(self._env.clock.now()) // DAY)

    async def back(self, address: Address) -> Address:
        """Raises srs.NotOurs."""
        return srs.back(address, await self.secret(), int(self._env.clock.now()) // DAY)


def signer(key: domainkeys.DomainKey) -> dkim.Signer:
    private = load_pem_private_key(key.pem.encode(), None)
    assert isinstance(private, dkim.PrivateKey)
    return dkim.Signer(key.domain, key.selector, private)
