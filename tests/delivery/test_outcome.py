"""What an answer means for a queued letter: every kind of answer at every age."""

import pytest

from fubako.delivery.outcome import by_action, outcome_of
from fubako.delivery.remote import Answered
from fubako.delivery.schedule import ATTEMPTS_MIN, Schedule
from fubako.message.report import Reported
from fubako.message.status import Status
from fubako.store.interface import BlobRef
from fubako.store.queue import Outgoing, Queued

SCHEDULE = Schedule(first_gap=300, longest_gap=14_400, warn_after=4 * 3600, give_up_after=5 * 86400)
OK, LATER, NEVER = Status(250, "2.0.0", "ok"), Status(451, "4.3.0", "busy"), Status(550, "5.1.1", "nobody")
HOUR = 3600


def judged(
    status, *, age=0, attempts=0, warned=0, notify="", reports=False, again=False, deliver_by=0, by_mode="", chance=0.5
):
    letter = Outgoing(BlobRef(1, 1, 0, 1), "alice@here.test", created=0, deliver_by=deliver_by, by_mode=by_mode)
    queued = Queued(0, 1, 0, "bob@far.test", "far.test", notify, "", attempts, warned)
    answered = Answered(queued, status, reports=reports, again=again)
    return outcome_of(letter, answered, "mx.far.test", age, "[]", SCHEDULE, lambda: chance)


@pytest.mark.parametrize(
    ("notify", "reports", "told"),
    [("", False, None), ("SUCCESS", False, "relayed"), ("SUCCESS", True, None), ("FAILURE", False, None)],
)
def test_success_is_told_where_it_was_asked_for_and_nobody_else_tells_it(notify, reports, told):
    outcome, report = judged(OK, notify=notify, reports=reports)
    assert (outcome.again_at, outcome.status, outcome.goes_on) == (None, OK, False)
    assert (report.action if report else None) == told


def test_a_letter_that_goes_through_the_intake_again_goes_on():
    assert judged(OK, again=True)[0].goes_on


def test_a_refusal_is_the_end():
    outcome, report = judged(NEVER)
    assert (outcome.again_at, outcome.status, report.action, report.status) == (None, NEVER, "failed", NEVER)


@pytest.mark.parametrize("attempts", range(8))
def test_later_is_tried_again_with_growing_gaps(attempts):
    outcome, report = judged(LATER, age=600, attempts=attempts)
    assert outcome.again_at == 600 + SCHEDULE.gap(attempts + 1, 0.5)
    assert (outcome.warned, report) == (False, None)


def test_the_sender_is_told_once_that_it_takes_long():
    outcome, report = judged(LATER, age=4 * HOUR)
    assert (outcome.warned, report.action, report.retry_until) == (True, "delayed", 5 * 86400)
    outcome, report = judged(LATER, age=5 * HOUR, warned=1)
    assert outcome.again_at is not None
    assert report is None


def test_after_five_days_it_is_given_up_with_the_last_answer():
    outcome, report = judged(LATER, age=5 * 86400, attempts=ATTEMPTS_MIN)
    assert (outcome.again_at, outcome.status.code, report.action) == (None, 550, "failed")
    assert "5 days" in report.status.text
    assert "busy" in report.status.text


def test_by_r_goes_back_when_the_time_is_up_and_is_looked_at_just_then():
    assert judged(LATER, age=10, deliver_by=100, by_mode="R")[0].again_at == 100
    outcome, report = judged(LATER, age=100, deliver_by=100, by_mode="R")
    assert (outcome.again_at, outcome.status.enhanced, report.action) == (None, "5.4.7", "failed")


def test_by_n_tells_the_sender_when_the_time_is_up_and_goes_on():
    outcome, report = judged(LATER, age=100, deliver_by=100, by_mode="N")
    assert outcome.again_at > 100
    assert report.action == "delayed"
    assert judged(LATER, age=200, deliver_by=100, by_mode="N", warned=1)[1] is None


def test_one_report_tells_of_all_that_went_the_same_way():
    told = [("", Reported(name, action, OK)) for name, action in (("a", "failed"), ("b", "delayed"), ("c", "failed"))]
    assert [[one.recipient for _, one in group] for group in by_action(told)] == [["a", "c"], ["b"]]
