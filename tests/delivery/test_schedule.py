"""Growing gaps, jitter, a warning and an end."""

from fubako.delivery.schedule import JITTER, Schedule

DAY = 86400


def test_gaps_double_up_to_the_longest():
    schedule = Schedule(first_gap=100, longest_gap=1000)
    assert [schedule.gap(n, 0.5) for n in range(1, 7)] == [100, 200, 400, 800, 1000, 1000]


def test_jitter_spreads_what_failed_together():
    schedule = Schedule(first_gap=1000)
    low, high = schedule.gap(1, 0.0), schedule.gap(1, 0.999)
    assert low == 1000 * (1 - JITTER)
    assert 1000 < high < 1000 * (1 + JITTER)


def test_the_last_attempt_is_made_when_the_time_is_up():
    schedule = Schedule(longest_gap=4 * 3600, give_up_after=DAY)
    assert schedule.next_attempt(0, 50, DAY - 60, 0.5) == DAY
    assert schedule.next_attempt(0, 51, DAY, 0.5) is None


def test_a_letter_is_tried_to_the_end_of_its_days():
    schedule, now, attempts = Schedule(), 0, 0
    while (again := schedule.next_attempt(0, attempts, now, 0.5)) is not None:
        assert again > now
        now, attempts = again, attempts + 1
    assert now == 5 * DAY
    assert 30 < attempts < 60


def test_the_warning_comes_once_it_takes_long():
    schedule = Schedule(warn_after=3600)
    assert not schedule.warn(0, 3599)
    assert schedule.warn(0, 3600)
