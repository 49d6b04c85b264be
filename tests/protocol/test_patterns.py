"""Names and LIST's patterns: the automaton agrees with the definition, and its work does not grow with the wildcards."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fubako.protocol.imap.patterns import PATTERN_SIGNS_MAX, NamePatterns, PatternsTooLong

SIGNS = st.text(alphabet="ab/.", max_size=12)
PATTERNS = st.lists(st.text(alphabet="ab/.*%", max_size=8), min_size=1, max_size=3)


def by_definition(pattern: str, name: str) -> bool:
    words = re.split("([*%])", pattern)
    return bool(re.fullmatch("".join({"*": ".*", "%": "[^/]*"}.get(word, re.escape(word)) for word in words), name))


@given(PATTERNS, SIGNS)
def test_a_name_matches_as_defined(patterns, name):
    assert NamePatterns(patterns, "/").match(name) is any(by_definition(pattern, name) for pattern in patterns)


@pytest.mark.parametrize("pattern", ["*a" * 12 + "*b", "%a" * 200, "*%" * 2000 + "z", "*" * 3000])
def test_many_wildcards_are_no_work(pattern):
    """Each of the first and second takes a matcher that goes back longer than anybody waits."""
    patterns = NamePatterns([pattern], "/")
    assert patterns.match("a" * 900) is (pattern == "%a" * 200 or set(pattern) == {"*"})


def test_patterns_have_a_limit():
    with pytest.raises(PatternsTooLong):
        NamePatterns(["a" * PATTERN_SIGNS_MAX], "/")
