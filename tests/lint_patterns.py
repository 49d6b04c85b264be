"""`make check`: no pattern of `fubako/` can be more than linear work in what a peer sends.

Every `re.compile(…)`, `re.match(…)` … of the tree is read as the automaton of its positions (Glushkov's). Python's engine walks the
paths of that automaton one after the other, so the number of paths is the work. Two shapes give more than linearly many:

- *exponential*: a state comes back to itself by two paths over the same octets, as in `(a+)+`;
- *quadratic or worse*: a state P loops over some octets, leads by the same octets to a state Q, and Q loops over them too, as in
  `a*a*b`. What `search`, `sub`, `finditer`, `findall` and `split` try at every place counts as a loop before the pattern, so
  `[ \\t]+\\n` is found: each blank begins a run that may fail at its end.

It does not count where nothing can fail behind Q. Possessive loops (`a++`) of one set give nothing back; other atomic groups are
judged as if they did. A repetition of more than SMALL counts as one without a limit.

A pattern that is bounded otherwise says so on its line, or the one above: `# linear: why, and what limits the length`.
What this leaves out: code that calls `match` at each of many places itself. `tests/growth` sees that.
"""

import ast
import importlib
import re
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from re import _constants as sre
from re import _parser as parser
from typing import Any

SMALL = 8  # a repetition up to this is written out
STATES_MAX = 400  # of one automaton; a pattern beyond is reported as not understood
UNKNOWN = r"(made where it is used)\1"  # judged as what it is: not to be judged
ROOT = Path(__file__).resolve().parent.parent
SEARCHING = frozenset({"search", "sub", "subn", "finditer", "findall", "split"})
ANCHORED = frozenset({"match", "fullmatch"})
REASON = re.compile(r"#.*\blinear: \S+ \S+")

_OTHERS = (0x2028, 0x3000, 0x3042, 0xFFFD, 0x1F600)
BYTES = frozenset(range(256))
CHARS = frozenset({*range(0x250), *_OTHERS})


class NotUnderstood(Exception):
    """The pattern holds what the lint cannot judge, such as a reference to a group."""


@dataclass(kw_only=True)
class Piece:
    """What a part of a pattern begins with, ends with, and whether it can be empty; `sure` when it cannot fail then."""

    first: list[int] = field(default_factory=list)
    last: list[int] = field(default_factory=list)
    empty: bool = True
    sure: bool = True


class Automaton:
    """State 0 is the beginning. `edges[p]` counts the ways from p to each next state, `sets[q]` is what q reads."""

    def __init__(self, pattern: str | bytes, flags: int, *, search: bool, full: bool) -> None:
        self.universe = BYTES if isinstance(pattern, bytes) else CHARS
        tree = parser.parse(pattern, flags)
        self.flags = tree.state.flags
        self.sets: list[frozenset[int]] = [frozenset()]
        self.edges: list[Counter[int]] = [Counter()]
        self.not_next: dict[int, frozenset[int]] = {}  # behind a possessive loop nothing of its set can come
        self.not_before: dict[int, frozenset[int]] = {}  # what a lookbehind at the beginning of the pattern forbids
        whole = self._sequence(tree)
        for state in whole.first:
            self.edges[0][state] += 1
        # states from which the match is made whatever follows
        self.sure = set(whole.last) if whole.sure and not full else set()
        if search:
            self.sets[0] = self.universe
            self.edges[0][0] += 1

    def _state(self, octets: frozenset[int]) -> Piece:
        if len(self.sets) >= STATES_MAX:
            raise NotUnderstood("too long to judge")
        self.sets.append(octets)
        self.edges.append(Counter())
        return Piece(first=[len(self.sets) - 1], last=[len(self.sets) - 1], empty=False)

    def _link(self, before: list[int], after: list[int]) -> None:
        for source in before:
            self.edges[source].update(after)

    def _then(self, left: Piece, right: Piece) -> Piece:
        self._link(left.last, right.first)
        return Piece(
            first=left.first + (right.first if left.empty else []),
            last=right.last + (left.last if right.empty and right.sure else []),
            empty=left.empty and right.empty,
            sure=right.sure and (left.sure or not right.empty),
        )

    def _sequence(self, items: Any) -> Piece:
        whole = Piece()
        open_ends: list[int] = []  # before something empty that may fail: what follows follows these too
        before: frozenset[int] | None = None
        for op, value in items:
            if op is sre.ASSERT_NOT and value[0] < 0 and len(value[1]) == 1 and value[1][0][0] in _ONE:
                if whole.empty and not whole.first:
                    before = self._set(*value[1][0])
                continue
            if op is sre.AT and whole.empty and not whole.first and value in _BEGINNINGS:
                many = value is sre.AT_BEGINNING and self.flags & re.MULTILINE
                before = self.universe - {10} if many else self.universe
                continue
            piece = self._item(op, value)
            if before is not None:
                self.not_before.update(dict.fromkeys(piece.first, before))
            before = before if piece.empty else None
            self._link(open_ends, piece.first)
            fails = piece.empty and not piece.sure
            ends = whole.last
            whole = self._then(whole, piece)
            open_ends = [*open_ends, *ends] if fails else (open_ends if piece.empty else [])
        return whole

    def _item(self, op: Any, value: Any) -> Piece:
        if op in _ONE:
            return self._state(self._set(op, value))
        if op is sre.SUBPATTERN:
            return self._sequence(value[3])
        if op is sre.ATOMIC_GROUP:
            return self._sequence(value)
        if op is sre.BRANCH:
            return self._branch([self._sequence(branch) for branch in value[1]])
        if op in (sre.MAX_REPEAT, sre.MIN_REPEAT, sre.POSSESSIVE_REPEAT):
            return self._repeat(*value, possessive=op is sre.POSSESSIVE_REPEAT)
        if op is sre.AT:
            return Piece(sure=False)
        if op in (sre.ASSERT, sre.ASSERT_NOT):
            # the body is walked as a branch that leads nowhere
            body = self._sequence(value[1]) if value[0] > 0 else Piece()
            return Piece(first=body.first, sure=False)
        raise NotUnderstood(f"{op} cannot be judged")

    def _branch(self, branches: list[Piece]) -> Piece:
        return Piece(
            first=[state for branch in branches for state in branch.first],
            last=[state for branch in branches for state in branch.last],
            empty=any(branch.empty for branch in branches),
            sure=all(branch.sure for branch in branches),
        )

    def _repeat(self, least: int, most: int, body: Any, *, possessive: bool) -> Piece:
        if most is not sre.MAXREPEAT and most <= SMALL:
            whole = Piece()
            for number in range(most):
                piece = self._sequence(body)
                piece.empty = piece.empty or number >= least
                whole = self._then(whole, piece)
            return whole
        piece = self._sequence(body)
        self._link(piece.last, piece.first)
        if possessive and len(body) == 1 and body[0][0] in _ONE:
            self.not_next[piece.last[0]] = self.sets[piece.last[0]]
        piece.empty = piece.empty or least == 0
        return piece

    def _set(self, op: Any, value: Any) -> frozenset[int]:
        if op is sre.ANY:
            return self.universe if self.flags & re.DOTALL else self.universe - {10}
        if op is sre.LITERAL:
            return self._folded({value})
        if op is sre.NOT_LITERAL:
            return self.universe - self._folded({value})
        if op is sre.RANGE:
            return self._folded(
                set(range(value[0], min(value[1], 0x250) + 1)) | {c for c in _OTHERS if value[0] <= c <= value[1]}
            )
        if op is sre.CATEGORY:
            return self._category(value)
        items = [item for item in value if item[0] is not sre.NEGATE]
        found = frozenset().union(*(self._set(*item) for item in items))
        return self.universe - found if len(items) < len(value) else found

    def _category(self, name: Any) -> frozenset[int]:
        letter = {"DIGIT": "d", "SPACE": "s", "WORD": "w"}[str(name).rsplit("_", 1)[1]]
        letter = letter.upper() if "_NOT_" in str(name) else letter
        if self.universe is BYTES:
            return frozenset(c for c in BYTES if re.match(b"\\" + letter.encode(), bytes([c])))
        return frozenset(c for c in CHARS if re.match("\\" + letter, chr(c), self.flags & re.ASCII))

    def _folded(self, octets: set[int]) -> frozenset[int]:
        if self.flags & re.IGNORECASE:
            octets = octets | {ord(v) for c in octets for v in (chr(c).lower(), chr(c).upper()) if len(v) == 1}
        # what lies outside of the characters that are looked at is as good as one of them
        return frozenset(c if c in self.universe else 0xFFFD for c in octets) & self.universe

    def steps(self, state: int) -> Iterator[tuple[int, frozenset[int]]]:
        """(next state, what is read on the way to it). A possessive loop keeps its own octets."""
        kept = self.not_next.get(state, frozenset())
        for after in self.edges[state]:
            octets = self.sets[after]
            yield after, octets - kept if after != state else octets

    def components(self) -> dict[int, int]:
        """state -> number of the loop it lies on; states on no loop are left out."""
        reach: dict[int, set[int]] = {}
        for state in range(len(self.sets)):
            seen: set[int] = set()
            todo = [after for after, octets in self.steps(state) if octets]
            while todo:
                one = todo.pop()
                if one not in seen:
                    seen.add(one)
                    todo += [after for after, octets in self.steps(one) if octets]
            reach[state] = seen
        self.reach = reach
        return {s: min(t for t in reach[s] if s in reach[t]) for s in reach if s in reach[s]}


_BEGINNINGS = (sre.AT_BEGINNING, sre.AT_BEGINNING_STRING)
_ONE = frozenset({sre.ANY, sre.LITERAL, sre.NOT_LITERAL, sre.IN, sre.CATEGORY, sre.RANGE})


def judge(pattern: str | bytes, flags: int = 0, *, search: bool = True, full: bool = False) -> str | None:
    """What is wrong with a pattern, or None where its work is linear."""
    try:
        automaton = Automaton(pattern, flags, search=search, full=full)
    except NotUnderstood as problem:
        return str(problem)
    loops = automaton.components()
    return _exponential(automaton, loops) or _polynomial(automaton, loops)


def _exponential(automaton: Automaton, loops: dict[int, int]) -> str | None:
    for state, loop in loops.items():
        for after, ways in automaton.edges[state].items():
            if ways > 1 and loops.get(after) == loop:
                return "exponential: a repetition within a repetition"
    for state, loop in loops.items():
        seen: set[tuple[int, int]] = set()
        todo = [(state, state)]
        while todo:
            left, right = todo.pop()
            for a, read in automaton.steps(left):
                for b, other in automaton.steps(right):
                    if (a, b) in seen or loops.get(a) != loop or loops.get(b) != loop or not read & other:
                        continue
                    if a == b == state and left != right:
                        return "exponential: two ways round one loop"
                    if a != b or left == right:
                        seen.add((a, b))
                        todo.append((a, b))
    return None


def _polynomial(automaton: Automaton, loops: dict[int, int]) -> str | None:
    for first in loops:
        for second in loops:
            if loops[first] == loops[second] or second not in automaton.reach[first]:
                continue
            if second in automaton.sure:
                continue
            if _pumped(automaton, loops, first, second):
                return (
                    "quadratic: what one repetition reads the next one reads too"
                    if first
                    else "quadratic: begins at many places, fails behind"
                )
    return None


def _pumped(automaton: Automaton, loops: dict[int, int], first: int, second: int) -> bool:
    """Whether some octets lead from `first` to itself, from `first` to `second` and from `second` to itself."""
    goal = (first, second, second)
    seen: set[tuple[int, int, int, frozenset[int]]] = set()
    # what stands before the octets that are repeated is their own end: that is what a lookbehind sees
    todo: list[tuple[tuple[int, int, int], frozenset[int]]] = [((first, first, second), automaton.sets[second])]
    while todo:
        (p, m, q), before = todo.pop()
        for p2, read_p in automaton.steps(p):
            if loops.get(p2) != loops[first]:
                continue
            for q2, read_q in automaton.steps(q):
                both = read_p & read_q
                if loops.get(q2) != loops[second] or not both:
                    continue
                for m2, read_m in automaton.steps(m):
                    now = (p2, m2, q2)
                    octets = both & read_m
                    if not octets or (m2 != second and second not in automaton.reach[m2]):
                        continue
                    if m == 0 and m2 != 0 and not before - automaton.not_before.get(m2, frozenset()):
                        continue
                    if now == goal:
                        return True
                    key = (*now, octets if m2 == 0 else automaton.universe)
                    if key not in seen:
                        seen.add(key)
                        todo.append((now, octets))
    return False


@dataclass(frozen=True, kw_only=True)
class Use:
    """One pattern of the tree and how it is asked."""

    place: str
    pattern: str | bytes
    flags: int
    methods: frozenset[str]

    def problem(self) -> str | None:
        found = None
        if self.methods & SEARCHING or not self.methods:
            found = judge(self.pattern, self.flags)
        if not found and ("fullmatch" in self.methods or not self.methods):
            found = judge(self.pattern, self.flags, search=False, full=True)
        return found or judge(self.pattern, self.flags, search=False)


def uses(root: Path) -> Iterator[Use]:
    """Every pattern of the package at `root` that no line gives a reason for."""
    texts = {path: path.read_text() for path in sorted(root.rglob("*.py")) if "re" in path.read_text()}
    everything = "\n".join(texts.values())
    for path, text in texts.items():
        lines = text.split("\n")
        tree = ast.parse(text)
        names = {
            id(node.value): target.id
            for node in ast.walk(tree)
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        for node in ast.walk(tree):
            if not (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.args
                and isinstance(node.func.value, ast.Name)
                and node.func.value.id == "re"
            ):
                continue
            if node.func.attr not in SEARCHING | ANCHORED | {"compile"}:
                continue
            above = lines[node.lineno - 2].strip() if node.lineno > 1 else ""
            around = [*lines[node.lineno - 1 : node.end_lineno], above if above.startswith("#") else ""]
            if any(REASON.search(line) for line in around):
                continue
            name = names.get(id(node))
            where = everything if name and not name.startswith("_") else text
            yield _use(path, root, node, _methods(node.func.attr, name, where))


def _methods(called: str, name: str | None, text: str) -> frozenset[str]:
    if called != "compile":
        return frozenset({called})
    return frozenset(re.findall(rf"\b{re.escape(name)}\.(\w+)", text)) & (SEARCHING | ANCHORED) if name else frozenset()


def _use(path: Path, root: Path, call: ast.Call, methods: frozenset[str]) -> Use:
    place = f"{path.relative_to(root.parent)}:{call.lineno}"
    arguments = [
        call.args[0],
        *(
            [call.args[1]]
            if isinstance(call.func, ast.Attribute) and call.func.attr == "compile" and call.args[1:]
            else [keyword.value for keyword in call.keywords if keyword.arg == "flags"]
        ),
    ]
    if all(isinstance(argument, ast.Constant) for argument in arguments):
        space: dict[str, Any] = {}
    else:
        space = vars(importlib.import_module(".".join(path.relative_to(root.parent).with_suffix("").parts)))
    try:
        pattern, *flags = [
            eval(compile(ast.Expression(argument), place, "eval"), {"re": re, **space}) for argument in arguments
        ]
    except NameError:
        return Use(place=place, pattern=UNKNOWN, flags=0, methods=methods)
    return Use(place=place, pattern=pattern, flags=int(flags[0]) if flags else 0, methods=methods)


def main() -> int:
    """Says each pattern that may be more than linear work; 1 when there is one."""
    found = [(use, problem) for use in uses(ROOT / "fubako") if (problem := use.problem())]
    for use, problem in found:
        print(f"{use.place}: {problem}: {use.pattern!r} ({', '.join(sorted(use.methods)) or 'asked elsewhere'})")
    return 1 if found else 0


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    sys.exit(main())
