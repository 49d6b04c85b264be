"""A quick disk is waited for on the loop, a slow one on a thread."""

from fubako.store.sqlite import QUICK_SECONDS, TRY_AGAIN, Pace


def test_a_quick_disk_stays_quick_with_a_slow_sync_now_and_then():
    pace = Pace()
    for number in range(500):
        assert pace.quick
        pace.took(0.050 if number % 20 == 0 else QUICK_SECONDS / 5)


def test_a_slow_disk_is_left_to_the_thread_and_tried_again_from_time_to_time():
    pace = Pace()
    for _ in range(20):
        pace.took(0.010)
    assert [pace.quick for _ in range(TRY_AGAIN)].count(True) == 1


def test_a_disk_that_becomes_quick_is_noticed():
    pace = Pace()
    for _ in range(20):
        pace.took(0.010)
    tries = 0
    while not pace.quick or tries < 5 * TRY_AGAIN:
        tries += 1
        if pace.quick:
            pace.took(QUICK_SECONDS / 10)
        assert tries < 20 * TRY_AGAIN
    assert all(pace.quick for _ in range(10))
