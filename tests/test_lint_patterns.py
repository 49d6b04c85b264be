"""The lint by patterns whose growth is known. Whether Python's engine behaves so is asked of `tests/growth`, not here."""

import pytest
from lint_patterns import ROOT, Use, judge, uses

SUPERLINEAR = [
    rb"[ \t]+(\r?\n|\Z)",
    rb"[ \t]++(\r?\n|\Z)",
    r"(a+)+b",
    r"(a*)*b",
    r"(a|a)*b",
    r"(a|ab|b)*c",
    r"(\w+\s*)*:",
    r"x\d+\d+y",
    r"x.*.*y",
    r"<[^>]*>",
    r"a[^b]*b",
    r"\s+$",
    r"(?i)(a|A)*c",
    r"(?=a*a*b)x",
    r"(?:[a-z]{1,63})+\.",
    r"(\w+) \1",
    rb'"(?:[^"\\]|\\.)*"',
]
LINEAR = [
    r"a+",
    r"\d{4}-\d\d",
    rb"(?<![ \t])[ \t]++(\r?\n|\Z)",
    r"=\?([^?\s]{1,64})\?",
    r"[^a-z0-9]",
    r"(?m)^>*From ",
    r"^a+b",
    r"(?:x[0-9]|y)",
]


@pytest.mark.parametrize("pattern", SUPERLINEAR)
def test_what_is_more_than_linear_is_found(pattern: str | bytes) -> None:
    assert judge(pattern)


@pytest.mark.parametrize("pattern", LINEAR)
def test_what_is_linear_passes(pattern: str | bytes) -> None:
    assert judge(pattern) is None


@pytest.mark.parametrize(
    ("pattern", "wrong"),
    [
        (r"[a-z]+@", False),
        (r"(?:[a-z0-9-]{1,63}\.)*[a-z]+", False),
        (r"(?:[a-z]+\.?)*", True),
        (r"a*a*b", True),
        (r" *x *", False),
    ],
)
def test_a_match_at_one_place_and_of_everything(pattern: str, wrong: bool) -> None:
    assert bool(judge(pattern, search=False, full=True)) is wrong


def test_possessive_loops_give_nothing_back() -> None:
    assert judge(r"a*a*b", search=False)
    assert judge(r"a*+a*b", search=False) is None


def test_how_a_pattern_is_asked_decides() -> None:
    at_one_place = Use(place="", pattern=r"[a-z]+@", flags=0, methods=frozenset({"match"}))
    everywhere = Use(place="", pattern=r"[a-z]+@", flags=0, methods=frozenset({"search"}))
    unknown = Use(place="", pattern=r"[a-z]+@", flags=0, methods=frozenset())
    assert at_one_place.problem() is None
    assert everywhere.problem()
    assert unknown.problem()


def test_patterns_of_a_package_are_found_with_their_reasons(tmp_path) -> None:
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "one.py").write_text(
        "import re\n"
        'A = re.compile(r"a+b")\n'
        "A.match(text)\n"
        'B = re.compile(r"b+c")  # linear: lines of 512 octets\n'
        '_C = re.compile(rb"c+d")\n'
        "_C.search(text)\n"
        'found = re.findall("d", text)\n'
    )
    found = {use.pattern: use.methods for use in uses(tmp_path / "package")}
    assert found == {"a+b": {"match"}, b"c+d": {"search"}, "d": {"findall"}}


def test_every_pattern_of_ours_is_linear() -> None:
    found = list(uses(ROOT / "fubako"))
    assert len(found) > 50
    assert [(use.place, problem) for use in found if (problem := use.problem())] == []
