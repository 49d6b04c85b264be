"""`NamePatterns`: which mailbox names LIST's patterns match (RFC 9051 §6.3.9): `*` is anything, `%` anything within a level.

All patterns are one automaton whose states are the bits of a number, so that a name costs its length times the length of the
patterns in machine words, whatever wildcards they hold: nothing is tried twice.
"""

from collections.abc import Iterable

PATTERN_SIGNS_MAX = 4096  # of all patterns of one command


class PatternsTooLong(ValueError):
    """All patterns together are longer than a command needs."""


class NamePatterns:
    """Patterns are matched against whole names. Raises PatternsTooLong."""

    def __init__(self, patterns: Iterable[str], delimiter: str) -> None:
        self._delimiter = delimiter
        self._start = self._end = 0  # states in which a name may begin and end
        self._any = self._level = 0  # states that any sign, or any but the delimiter, leaves as they are
        self._signs: dict[str, int] = {}  # states that a sign leads out of, to the next one
        self._states = 0
        for pattern in patterns:
            self._add(pattern)

    def _add(self, pattern: str) -> None:
        state = 1 << self._states
        self._start |= state
        for sign in pattern:
            if sign == "*":
                self._any |= state
            elif sign == "%":
                self._level |= state
            else:
                self._signs[sign] = self._signs.get(sign, 0) | state
                state <<= 1
                self._states += 1
        self._end |= state
        self._states += 1
        if self._states > PATTERN_SIGNS_MAX:
            raise PatternsTooLong("the patterns are too long")

    def match(self, name: str) -> bool:
        states, signs, stay = self._start, self._signs, self._any | self._level
        for sign in name:
            states = (states & signs.get(sign, 0)) << 1 | states & (self._any if sign == self._delimiter else stay)
            if not states:
                return False
        return bool(states & self._end)
