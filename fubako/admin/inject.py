"""Letters of programs on this machine: straight into the intake. What `sendmail`, `rmail` and `qmail-inject` call."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from fubako.accounts.recipients import Found, Recipients
from fubako.clock import Env
from fubako.delivery.again import LATER
from fubako.delivery.bounce import Reports
from fubako.delivery.dress import Dresser
from fubako.delivery.intake import Intake
from fubako.message.address import NULL, Address
from fubako.message.envelope import Recipient, Sender, Transaction
from fubako.message.hop import Hop
from fubako.message.octets import regular
from fubako.message.report import Reported
from fubako.message.status import Status
from fubako.policy.authorship import Writer
from fubako.policy.submission import SERVICES, may_receive
from fubako.server.authorship import Authorship
from fubako.store.interface import BlobRef, Blobs, Database
from fubako.store.queue import Outgoing
from fubako.telemetry import Telemetry


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
    dresser: Dresser
    filtered: bool = False  # letters go through a content filter

    def _reports(self) -> Reports:
        return Reports(self.blobs, self.env, self.hostname, self.routed, self.dresser.back)

    async def inject(
        self, user: str, sender: Sender, recipients: Sequence[Recipient], content: bytes, came: Hop | None = None
    ) -> Injected:
        """Durable on return where `accepted` is a 250. `came`: the leg on which it came, where it was not written here: nobody of
        ours is its author then."""
        content = regular(content)
        content = await self.dresser.unforged(content, self.hostname)
        lookup = Recipients(self.database, self.env.clock)
        accepted: list[tuple[Recipient, Found]] = []
        refused: list[tuple[Address, Status]] = []
        for one in recipients:
            found = await lookup.find(one.address)
            routed = not found.local and self.routed(one.address.domain)
            verdict = may_receive(SERVICES["local"], local=found.local, known=found.known, user=user, routed=routed)
            if found.later:
                refused.append((one.address, LATER))
            elif verdict.status is None:
                accepted.append((one, found))
            else:
                refused.append((one.address, verdict.status))
        if not accepted:
            return Injected(None, refused)
        hop = came or Hop("local", "in", f"user {user}", self.env.clock.now(), True)
        transaction = Transaction(
            hop, self.hostname, sender, list(recipients), [content], "", self.env.trace_id(), "",
            authors=None if came is not None else await self._authors(lookup, content),
        )  # fmt: skip
        intake = Intake(
            self.database, self.blobs, self.env, self.hostname, self.telemetry, self._reports(), self.dresser
        )
        return Injected((await intake.accept(transaction, accepted)).status, refused)

    async def _authors(self, lookup: Recipients, content: bytes) -> frozenset[str]:
        """Who may write into the store may write as anybody."""
        _, shown = self.dresser.masqueraded(NULL, content)
        return (await Authorship(lookup, self.hostname).content(Writer.PROGRAM, None, shown))[1]

    async def mail_back(self, sender: Sender, content: bytes, refused: Sequence[tuple[Address, Status]]) -> bool:
        """Tell the sender by mail what was refused; whether there was somebody to tell."""
        found = await Recipients(self.database, self.env.clock).find(sender.address)
        if not sender.address or not (found.known if found.local else self.routed(sender.address.domain)):
            return False
        nowhere = BlobRef(0, 0, 0, len(content))  # the letter itself is not kept
        letter = Outgoing(nowhere, str(sender.address), created=int(self.env.clock.now()), trace_id=self.env.trace_id())
        told = [("", Reported(str(address), "failed", status)) for address, status in refused]
        unit = await self._reports().prepare(letter, content, told)
        if unit is not None:
            await self.database.write(unit)
        return unit is not None
