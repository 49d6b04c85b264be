"""Reports to senders: what failed, what takes long, what was delivered (RFC 3461 §4.1, §5.2). A report is never reported on."""

from collections.abc import Awaitable, Callable, Sequence

from fubako.accounts import directory
from fubako.clock import Env
from fubako.delivery.letters import describe
from fubako.message import srs
from fubako.message.address import Address, AddressError, parse_address
from fubako.message.octets import regular
from fubako.message.report import About, Reported, delivery_report
from fubako.store import messages, queue
from fubako.store.interface import Blobs, Transaction
from fubako.store.queue import Outgoing, Target

Unit = Callable[[Transaction], None]


def wanted(notify: str, action: str) -> bool:
    """Whether RCPT's NOTIFY asks for a report; without one, failures and delays are told (RFC 3461 §4.1)."""
    asked = set(notify.split(",")) if notify else {"FAILURE", "DELAY"}
    return {"failed": "FAILURE", "delayed": "DELAY"}.get(action, "SUCCESS") in asked


class Reports:
    """Writes reports and puts them where their reader is: a mailbox here, or the queue."""

    def __init__(
        self,
        blobs: Blobs,
        env: Env,
        hostname: str,
        routed: Callable[[str], bool],
        back: Callable[[Address], Awaitable[Address]],
    ) -> None:
        self._back = back
        self._blobs = blobs
        self._env = env
        self._hostname = hostname
        self._routed = routed

    async def prepare(self, letter: Outgoing, content: bytes, told: Sequence[tuple[str, Reported]]) -> Unit | None:
        """`told` holds NOTIFY with each recipient. The content of the report is durable on return; the unit puts its rows in the
        transaction that settles the letter.
        None: nobody wants to know, or there is nobody to tell."""
        reported = [one for notify, one in told if wanted(notify, one.action)]
        if not reported or not letter.sender:
            return None
        try:
            sender = parse_address(letter.sender)
            if srs.is_rewritten(sender):  # it was forwarded: the one who wrote it is told
                sender = await self._back(sender)
        except (AddressError, srs.NotOurs):
            return None
        now, trace_id = int(self._env.clock.now()), self._env.trace_id()
        about = About(
            self._hostname, sender, letter.created, content, letter.envid, letter.ret == "FULL", letter.trace_id
        )
        report = regular(b"Return-Path: <>\r\n" + delivery_report(about, reported, now=now, unique=trace_id))
        blob = await self._blobs.put([report])
        row = describe(report, blob, internaldate=now, trace_id=trace_id)
        outgoing = Outgoing(blob, "", trace_id=trace_id, created=now, smtputf8=not sender.ascii)

        def unit(tx: Transaction) -> None:
            if directory.is_local(tx, sender.domain):
                messages.deliver(tx, directory.resolve(tx, sender), row, now)
            elif self._routed(sender.domain):
                queue.put(tx, outgoing, [Target(str(sender), sender.domain)])

        return unit
