"""When the next attempt is made: growing gaps with jitter, a warning, and the end. Pure; all times in seconds."""

from dataclasses import dataclass

FIRST_GAP = 5 * 60
LONGEST_GAP = 4 * 3600
ATTEMPTS_MIN = 5  # before a letter is given up
JITTER = 0.2  # of a gap, up or down: what failed together is not tried together


@dataclass(frozen=True, slots=True)
class Schedule:
    """How patient the queue is (RFC 5321 §4.5.4.1: four to five days)."""

    first_gap: int = FIRST_GAP
    longest_gap: int = LONGEST_GAP
    warn_after: int = 4 * 3600
    give_up_after: int = 5 * 24 * 3600

    @property
    def longest_wait(self) -> int:
        """No attempt is planned later from the one before."""
        return int(self.longest_gap * (1 + JITTER)) + 1

    def gap(self, attempts: int, chance: float) -> int:
        """How long to wait after `attempts` attempts; `chance` in [0, 1) spreads the letters."""
        plain = min(self.first_gap * 2 ** min(max(attempts - 1, 0), 20), self.longest_gap)
        return max(1, int(plain * (1 - JITTER + 2 * JITTER * chance)))

    def next_attempt(self, created: int, attempts: int, now: int, chance: float) -> int | None:
        """None: it has been tried for long enough, and often enough: a wall clock that jumped ahead makes no letter old. The last
        attempt is made when the time is up, not before."""
        end = created + self.give_up_after
        if now >= end and attempts >= ATTEMPTS_MIN:
            return None
        next_one = now + self.gap(attempts, chance)
        return min(next_one, end) if now < end else next_one

    def warn(self, created: int, now: int) -> bool:
        """Whether the sender should be told that it takes long."""
        return now - created >= self.warn_after
