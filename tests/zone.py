"""DNS from two tables, for tests."""

from fubako.net.interface import Answer, DnsFailure, NoSuchName


class Zone:
    """A name that is in neither table does not exist; `fails` do not answer."""

    def __init__(self, mx=(), addresses=(), fails=()):
        self.tables, self.fails = (dict(mx), dict(addresses)), set(fails)

    def _look(self, table, name):
        if name in self.fails:
            raise DnsFailure(f"{name}: no answer")
        if not any(name in one for one in self.tables):
            raise NoSuchName(f"{name} does not exist")
        return Answer(tuple(self.tables[table].get(name, ())))

    async def mx(self, domain):
        return self._look(0, domain)

    async def addresses(self, host):
        return self._look(1, host)
