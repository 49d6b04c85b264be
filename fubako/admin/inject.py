"""Letters of programs on this machine: straight into the intake. What `sendmail`, `rmail` and `qmail-inject` call."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from fubako.accounts.recipients import Recipients
from fubako.clock import Env
from fubako.delivery.bounce import Reports
from fubako.delivery.intake import Intake
from fubako.message.address import Address
from fubako.message.envelope import Recipient, Sender, Transaction
from fubako.message.hop import Hop
from fubako.message.report import Reported
from fubako.message.status import Status
from fubako.store.interface import Blobs, Database
from fubako.store.queue import Outgoing, Queued, Target
from fubako.telemetry import Telemetry

NO_MAILBOX = Status(550, "5.1.1", "there is no such mailbox")
NO_ROUTE = Status(550, "5.4.4", "no route leads to this domain")


@dataclass(frozen=True, slots=True)
class Injected:
    """What became of a letter: `accepted` tells with 250 that it is there; recipients that were refused, and why."""

    accepted: Status | None = None
    refused: list[tuple[Address, Status]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Injector:
    """What a letter needs to come in. `user` is the Unix user who brings it."""

    database: Database
    blobs: Blobs
    env: Env
    hostname: str
    telemetry: Telemetry
    routed: Callable[[str], bool]

    def _reports(self) -> Reports:
        return Reports(self.blobs, self.env, self.hostname, self.routed)

    async def inject(self, user: str, sender: Sender, recipients: Sequence[Recipient], content: bytes) -> Injected:
        """Durable on return where `accepted` is a 250."""
        lookup = Recipients(self.database, self.env.clock)
        accounts: dict[int, None] = {}
        targets: dict[str, Target] = {}
        refused: list[tuple[Address, Status]] = []
        delivered: list[Recipient] = []
        for one in recipients:
            found = await lookup.find(one.address)
            leads = found.elsewhere if found.local else (str(one.address),)
            if found.local and not found.known:
                refused.append((one.address, NO_MAILBOX))
            elif not found.local and not self.routed(one.address.domain):
                refused.append((one.address, NO_ROUTE))
            else:
                accounts.update(dict.fromkeys(found.account_ids))
                for address in leads:
                    domain = address.rpartition("@")[2].lower()
                    targets.setdefault(address, Target(address, domain, one.notify, one.orcpt))
                delivered += [one] if found.account_ids and "SUCCESS" in one.notify else []
        if not accounts and not targets:
            return Injected(None, refused)
        hop = Hop("local", "in", f"user {user}", self.env.clock.now(), True)
        transaction = Transaction(
            hop, self.hostname, sender, list(recipients), [content], "LOCAL", self.env.trace_id(), ""
        )  # fmt: skip
        intake = Intake(self.database, self.blobs, self.env, self.hostname, self.telemetry, self._reports())
        accepted = await intake.accept(transaction, list(accounts), list(targets.values()), delivered)
        return Injected(accepted.status, refused)

    async def mail_back(self, sender: Sender, content: bytes, refused: Sequence[tuple[Address, Status]]) -> bool:
        """Tell the sender by mail what was refused; whether there was somebody to tell."""
        now = int(self.env.clock.now())
        blob = await self.blobs.put([content])
        letter = Outgoing(blob, str(sender.address), created=now, trace_id=self.env.trace_id())
        told = [
            (Queued(0, 0, 0, str(address), address.domain, "", "", 0, 0), Reported(str(address), "failed", status))
            for address, status in refused
        ]
        unit = await self._reports().prepare(letter, content, told)
        if unit is None:
            return False
        found = await Recipients(self.database, self.env.clock).find(sender.address)
        if not found.known and not self.routed(sender.address.domain):
            return False
        await self.database.write(unit)
        return True
