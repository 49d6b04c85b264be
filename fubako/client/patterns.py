"""Patterns, as mutt writes them, for search, limit and tag: `~f ann ~s "the plan" | ~N`, `!~D`, `~b word`.

Terms stand for *and*; `|` is *or*, `!` *not*, parentheses group. A word without a sign means the sender or the subject. What is in
a letter's body or header is asked of the server; the rest is known here.
"""

import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field

from fubako.client.mailbox import Entry

LENGTH_MAX = 1000
DEPTH_MAX = 50
_PLAIN = {
    "~A": lambda _one: True, "~N": lambda one: not one.has("\\Seen"), "~U": lambda one: not one.has("\\Seen"),
    "~R": lambda one: one.has("\\Seen"), "~F": lambda one: one.has("\\Flagged"), "~D": lambda one: one.has("\\Deleted"),
    "~Q": lambda one: one.has("\\Answered"), "~T": lambda one: one.tagged,
}  # fmt: skip
_WORDED = {"~f", "~t", "~s", "~b", "~B", "~h", "~i", "~L", "~q"}
_ASKED = {"~b": "BODY", "~B": "TEXT", "~h": "TEXT"}
Test = Callable[[Entry], object]


class PatternFault(ValueError):
    """The message says what is wrong, in the user's words."""


@dataclass(slots=True)
class Pattern:
    """`questions`: (search key, words) for the server; their answers are put into `answers` before `matches` is asked."""

    test: Test
    questions: list[tuple[str, str]] = field(default_factory=list)
    answers: dict[tuple[str, str], set[int]] = field(default_factory=dict)

    def matches(self, entry: Entry) -> bool:
        return bool(self.test(entry))


def parse(text: str) -> Pattern:
    """Raises PatternFault."""
    if len(text) > LENGTH_MAX:
        raise PatternFault(f"a pattern has at most {LENGTH_MAX} characters")
    reader = shlex.shlex(text, posix=True, punctuation_chars="|!()")
    reader.whitespace_split, reader.commenters = True, ""
    try:
        found = [piece for word in reader for piece in _apart(word)]
    except ValueError as error:
        raise PatternFault(f"a quotation mark is missing: {error}") from None
    made = Pattern(lambda _one: True)
    parser = _Parser(found, made)
    made.test = parser.either(0)
    if parser.waiting:
        raise PatternFault(f"a bracket too many before {' '.join(parser.waiting)[:40]}")
    return made


def _apart(word: str) -> list[str]:
    return list(word) if word and set(word) <= set("|!()") else [word]


class _Parser:
    def __init__(self, words: list[str], made: Pattern) -> None:
        self.waiting, self._made = words, made

    def either(self, depth: int) -> Test:
        if depth > DEPTH_MAX:
            raise PatternFault("too many brackets within brackets")
        parts = [self._all(depth)]
        while self.waiting and self.waiting[0] == "|":
            self.waiting.pop(0)
            parts.append(self._all(depth))
        return parts[0] if len(parts) == 1 else lambda one: any(part(one) for part in parts)

    def _all(self, depth: int) -> Test:
        parts = []
        while self.waiting and self.waiting[0] not in ("|", ")"):
            parts.append(self._term(depth))
        if not parts:
            raise PatternFault("there is nothing to look for")
        return parts[0] if len(parts) == 1 else lambda one: all(part(one) for part in parts)

    def _term(self, depth: int) -> Test:
        word = self.waiting.pop(0)
        if word == "!":
            if not self.waiting or self.waiting[0] in ("|", ")"):
                raise PatternFault("nothing stands behind the !")
            if depth > DEPTH_MAX:
                raise PatternFault("too many ! in a row")
            inner = self._term(depth + 1)
            return lambda one: not inner(one)
        if word == "(":
            inner = self.either(depth + 1)
            if not self.waiting or self.waiting.pop(0) != ")":
                raise PatternFault("a bracket is not closed")
            return inner
        if word in _PLAIN:
            return _PLAIN[word]
        if word in _WORDED:
            if not self.waiting:
                raise PatternFault(f"{word} wants a word behind it")
            return self._worded(word, self.waiting.pop(0))
        if word.startswith("~"):
            raise PatternFault(f"{word} is not known; these are: {' '.join(sorted({*_PLAIN, *_WORDED}))}")
        found = _finder(word)
        return lambda one: found(f"{one.sender} {one.sender_address}") or found(one.subject)

    def _worded(self, sign: str, word: str) -> Test:
        if sign in _ASKED:
            question = (_ASKED[sign], word)
            self._made.questions.append(question)
            answers = self._made.answers
            return lambda one: one.uid in answers.get(question, ())
        if sign == "~q":
            return lambda one: (one.seal.value if one.seal else "unknown").startswith(word.lower())
        found = _finder(word)
        match sign:
            case "~f":
                return lambda one: found(f"{one.sender} {one.sender_address}")
            case "~t":
                return lambda one: any(map(found, one.to))
            case "~s":
                return lambda one: found(one.subject)
            case "~i":
                return lambda one: found(one.message_id)
            case _:  # ~L: sent or received by
                return lambda one: found(f"{one.sender} {one.sender_address}") or any(map(found, one.to))


def _finder(word: str) -> Callable[[str], object]:
    """Literal text, in any case where it is written in small letters (mutt's rule); nobody's regular expression runs here."""
    # linear: plain text, of what a person typed
    return re.compile(re.escape(word), 0 if any(map(str.isupper, word)) else re.IGNORECASE).search
