"""`Again`: letters of the queue that go through the intake once more: at the time their sender set, or because somebody asked."""

from collections.abc import Callable, Sequence

from fubako.accounts.recipients import Found, Recipients
from fubako.delivery.bounce import Unit
from fubako.delivery.intake import Intake
from fubako.message.address import NULL, AddressError, parse_address
from fubako.message.envelope import Recipient, Sender, Transaction
from fubako.message.hop import Hop
from fubako.message.status import Status
from fubako.message.trace import journey_from_json
from fubako.store.interface import Transaction as Rows
from fubako.store.queue import Outgoing, Queued

LOCAL = Hop("queue", "in", "the queue", local=True)
TAKEN = Status(250, "2.0.0", "on its way")
LATER = Status(451, "4.3.5", "the list of this address cannot be read now")
NOBODY = Status(550, "5.1.1", "there is no such mailbox")
NOWHERE = Status(550, "5.4.4", "no route leads to this domain")


class Again:
    def __init__(self, intake: Intake, recipients: Recipients, routed: Callable[[str], bool]) -> None:
        self._intake, self._recipients, self._routed = intake, recipients, routed

    async def plan(
        self, letter: Outgoing, recipients: Sequence[Queued], content: bytes
    ) -> tuple[list[Status], Unit | None]:
        """A status for each recipient, and the rows of those that go on."""
        statuses: list[Status] = []
        found: list[tuple[Recipient, Found]] = []
        for one in recipients:
            try:
                address = parse_address(one.address)
            except AddressError:
                statuses.append(NOBODY)
                continue
            there = await self._recipients.find(address)
            if there.later:
                statuses.append(LATER)
            elif there.known or (not there.local and self._routed(address.domain)):
                found.append((Recipient(address, one.notify, one.orcpt), there))
                statuses.append(TAKEN)
            else:
                statuses.append(NOBODY if there.local else NOWHERE)
        if not found:
            return statuses, None
        hops = journey_from_json(letter.journey)
        sender = Sender(
            parse_address(letter.sender) if letter.sender else NULL, letter.body, letter.smtputf8, 0, letter.ret, letter.envid,
            letter.require_tls, priority=letter.priority, deliver_by=letter.deliver_by, by_mode=letter.by_mode,
        )  # fmt: skip
        transaction = Transaction(
            hops[-1] if hops else LOCAL, "", sender, [one for one, _ in found], [content], trace_id=letter.trace_id,
            user=letter.submitter, earlier=hops[:-1], again=True,
        )  # fmt: skip
        plan = await self._intake.plan(transaction, found)

        def unit(tx: Rows) -> None:
            plan.unit(tx)

        return statuses, unit
