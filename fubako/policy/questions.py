"""`Allowance`: a resolver that answers only so many questions. What a message may cost in DNS is a number, not its sender's choice.

Each part of an examination has an allowance of its own, so that what one part spends is never missing to another: a
sender's SPF record cannot use up the questions that the author's policy needs.
"""

from fubako.net.interface import Answer, Resolver, TlsaRecord


class TooManyQuestions(Exception):
    """The allowance is used up. Not a passing fault: asking later would cost as much again."""


class Allowance:
    """A `Resolver` over another one. Every method raises TooManyQuestions when `left` would fall below zero."""

    def __init__(self, resolver: Resolver, questions: int) -> None:
        self._resolver, self.left = resolver, questions

    def _spend(self, count: int = 1) -> None:
        if self.left < count:
            raise TooManyQuestions("it would take too many questions to DNS")
        self.left -= count

    async def mx(self, domain: str) -> Answer[tuple[int, str]]:
        self._spend()
        return await self._resolver.mx(domain)

    async def addresses(self, host: str) -> Answer[str]:
        self._spend(2)  # AAAA and A
        return await self._resolver.addresses(host)

    async def ipv4(self, host: str) -> Answer[str]:
        self._spend()
        return await self._resolver.ipv4(host)

    async def ipv6(self, host: str) -> Answer[str]:
        self._spend()
        return await self._resolver.ipv6(host)

    async def texts(self, name: str) -> Answer[bytes]:
        self._spend()
        return await self._resolver.texts(name)

    async def names(self, address: str) -> Answer[str]:
        self._spend()
        return await self._resolver.names(address)

    async def tlsa(self, name: str) -> Answer[TlsaRecord]:
        self._spend()
        return await self._resolver.tlsa(name)

    async def services(self, name: str) -> Answer[tuple[int, int, int, str]]:
        self._spend()
        return await self._resolver.services(name)
