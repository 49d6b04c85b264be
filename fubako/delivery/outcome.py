"""What an answer means for a queued letter, and what its sender is told: pure, but for the chance in the schedule."""

from collections.abc import Callable, Sequence

from msgspec.structs import replace

from fubako.delivery.bounce import wanted
from fubako.delivery.remote import Answered
from fubako.delivery.schedule import Schedule
from fubako.message.report import Reported
from fubako.message.status import Status
from fubako.store.queue import Outcome, Outgoing


def outcome_of(
    letter: Outgoing, one: Answered, peer: str, now: int, journey: str, schedule: Schedule, chance: Callable[[], float]
) -> tuple[Outcome, Reported | None]:
    """The outcome of one answer, and what the sender may be told (RFC 3461 §4.1, RFC 2852 §5). `chance` is in [0, 1)."""
    queued, status = one.queued, one.status
    report = Reported(queued.address, "relayed", status, queued.orcpt, peer, now)
    if status.ok:
        told = not one.reports and wanted(queued.notify, "relayed")
        return Outcome(queued, status, peer, None, journey, goes_on=one.again), report if told else None
    final = status
    late = bool(letter.deliver_by) and now >= letter.deliver_by
    again: int | None = None
    if status.code < 500:
        if late and letter.by_mode == "R":
            words = f"not there by the time the sender set; the last answer was: {status}"
            final = Status(550, "5.4.7", words)
        else:
            again = schedule.next_attempt(letter.created, queued.attempts + 1, now, chance())
            if again is None:
                words = f"given up after {schedule.give_up_after // 86400} days; the last answer was: {status}"
                final = Status(550, "5.4.7", words)
    if again is None:
        return Outcome(queued, final, peer, None, journey), replace(report, action="failed", status=final)
    if letter.deliver_by and not late:
        again = min(again, letter.deliver_by)  # the sender wants to know then
    warn = not queued.warned and (late or schedule.warn(letter.created, now))
    until = letter.created + schedule.give_up_after
    outcome = Outcome(queued, status, peer, again, journey, warn)
    return outcome, replace(report, action="delayed", retry_until=until) if warn else None


def by_action(told: Sequence[tuple[str, Reported]]) -> list[list[tuple[str, Reported]]]:
    """One report tells of all that went the same way."""
    groups: dict[str, list[tuple[str, Reported]]] = {}
    for one in told:
        groups.setdefault(one[1].action, []).append(one)
    return list(groups.values())
