"""DNS from tables, for tests."""

import ipaddress

from fubako.net.interface import Answer, DnsFailure, NoSuchName


class Zone:
    """A name that is in no table does not exist; `fails` do not answer; `secure` names are authentic, or all with True."""

    def __init__(self, mx=(), addresses=(), fails=(), *, texts=(), names=(), tlsa=(), services=(), secure=()):
        self.tables = {
            "mx": dict(mx),
            "addresses": dict(addresses),
            "texts": dict(texts),
            "names": dict(names),
            "tlsa": dict(tlsa),
            "services": dict(services),
        }
        self.fails, self.secure = set(fails), secure
        self.asked = []

    def _look(self, table, name):
        name = name.lower().rstrip(".")
        self.asked.append((table, name))
        if name in self.fails:
            raise DnsFailure(f"{name}: no answer")
        if not any(name in one for one in self.tables.values()):
            raise NoSuchName(f"{name} does not exist")
        return Answer(tuple(self.tables[table].get(name, ())), self.secure is True or name in (self.secure or ()))

    async def mx(self, domain):
        return self._look("mx", domain)

    async def addresses(self, host):
        return self._look("addresses", host)

    async def ipv4(self, host):
        found = self._look("addresses", host)
        return Answer(tuple(one for one in found.records if ":" not in one), found.authentic)

    async def ipv6(self, host):
        found = self._look("addresses", host)
        return Answer(tuple(one for one in found.records if ":" in one), found.authentic)

    async def texts(self, name):
        return self._look("texts", name)

    async def names(self, address):
        return self._look("names", ipaddress.ip_address(address).reverse_pointer)

    async def tlsa(self, name):
        return self._look("tlsa", name)

    async def services(self, name):
        return self._look("services", name)
