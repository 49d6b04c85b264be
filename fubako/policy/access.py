"""Access tables as sendmail's file is written (cf/README, ANTI-SPAM CONFIGURATION CONTROL): who is let in, refused, or relayed.

Keys are looked up from the most specific to the least; one with the tag of the stage (Connect:, From:, To:) before one without.
"""

import ipaddress
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

from msgspec import Struct

from fubako.message.address import AddressError, parse_address
from fubako.message.status import Status
from fubako.policy import accesskeys
from fubako.policy.accesskeys import STAGES
from fubako.policy.verdict import Verdict

LINES_MAX = 1_000_000
DENIED = Status(550, "5.7.1", "access denied")
_REPLY = re.compile(
    r"(?:([245]\.\d{1,3}\.\d{1,3}):)?([45]\d\d)(?:\s++([45]\.\d{1,3}\.\d{1,3}))?(?:\s++(.*))?", re.DOTALL
)
_GROUP = re.compile(r"[0-9a-f]{1,4}")
_WORDS = {"OK", "RELAY", "REJECT", "DISCARD", "SKIP"}


class AccessError(Exception):
    """A table cannot be read; the message names the line."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One line. `action` is OK, RELAY, REJECT, DISCARD, SKIP or ERROR; `status` is the reply of REJECT and ERROR."""

    key: str
    action: str
    line: int
    status: Status | None = None


class Match(Struct, frozen=True):
    """What a table says at one stage."""

    stage: str
    rule: Rule

    @property
    def verdict(self) -> Verdict:
        """Refusals as a verdict, everything else as no objection."""
        return (
            Verdict(self.rule.status, f"access line {self.rule.line}: {self.rule.key}")
            if self.rule.status
            else Verdict()
        )


class Access:
    """A table in memory."""

    def __init__(self, rules: Mapping[str, Rule]) -> None:
        self._rules = rules
        self._by_name = any(map(_names_client, rules))
        tags = {key.partition(":")[0] if key.startswith(("connect:", "from:", "to:")) else "" for key in rules}
        self._of_senders = not tags <= {"connect", "to"}  # a key without a tag is for all of them
        self._of_recipients = not tags <= {"connect", "from"}
        self._clients = lru_cache(maxsize=10_000)(self._connect)

    @property
    def by_name(self) -> bool:
        """Whether a rule may ask for the client's name."""
        return self._by_name

    def __len__(self) -> int:
        return len(self._rules)

    def connect(self, client: str, name: str = "") -> Match | None:
        """By the client's address and its network, then by its name and the domains above it."""
        return self._clients(client, name)

    def _connect(self, client: str, name: str) -> Match | None:
        return self._first("connect", _networks(client)) or self._first("connect", _domains(name) if name else iter(()))

    def sender(self, address: str) -> Match | None:
        return self._first("from", _address_keys(address)) if self._of_senders else None

    def recipient(self, address: str) -> Match | None:
        return self._first("to", _address_keys(address)) if self._of_recipients else None

    def _first(self, stage: str, keys: Iterator[str]) -> Match | None:
        for key in keys:
            for tagged in (f"{stage}:{key}", key):
                rule = self._rules.get(tagged)
                if rule is not None:
                    return None if rule.action == "SKIP" else Match(stage, rule)
        return None

    def decide(self, client: str, name: str, sender: str, recipient: str) -> Match | None:
        """The whole way of one letter: the first refusal or DISCARD ends it; else the last thing that was said for it."""
        found = [self.connect(client, name), self.sender(sender), self.recipient(recipient)]
        matches = [match for match in found if match is not None]
        against = next((match for match in matches if match.rule.action in ("REJECT", "ERROR", "DISCARD")), None)
        relay = next((match for match in matches if match.rule.action == "RELAY" and match.stage != "from"), None)
        return against or relay or (matches[-1] if matches else None)


def _names_client(key: str) -> bool:
    """A key without a tag, or with that of the client, that is a domain."""
    name = key.removeprefix("connect:")
    return ":" not in name and "@" not in name and any(map(str.isalpha, name))


def _networks(client: str) -> Iterator[str]:
    """192.0.2.1, 192.0.2, 192.0, 192; IPv6 by groups in full, as sendmail writes them: IPv6:2001:db8:…"""
    try:
        address = ipaddress.ip_address(client)
    except ValueError:
        return
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    if address.version == 4:
        parts, separator, prefix = str(address).split("."), ".", ""
    else:
        parts = [f"{int(group, 16):x}" for group in address.exploded.split(":")]
        separator, prefix = ":", "ipv6:"
    for count in range(len(parts), 0, -1):
        yield prefix + separator.join(parts[:count])


def _domains(name: str) -> Iterator[str]:
    labels = name.rstrip(".").lower().split(".")
    for start in range(len(labels)):
        yield ".".join(labels[start:])


def _address_keys(address: str) -> Iterator[str]:
    """The address, the user anywhere, the domain and those above it; the null sender is `<>`."""
    local, _, domain = address.lower().rpartition("@")
    if not address:
        yield "<>"
        return
    if domain and local:
        yield f"{local}@{domain}"
        if "+" in local:
            yield f"{local.partition('+')[0]}@{domain}"
        yield f"{local}@"
    yield from _domains(domain)


def parse(text: str, *, toml: bool = False) -> Access:
    """Raises AccessError. The first line of a key holds."""
    rules: dict[str, Rule] = {}
    for line, key, value in _toml_lines(text) if toml else _lines(text):
        rule = _rule(key, value, line)
        for form in _forms(rule):
            rules.setdefault(form, rule)
    return Access(rules)


def _lines(text: str) -> Iterator[tuple[int, str, str]]:
    for number, line in enumerate(text.splitlines(), 1):
        if number > LINES_MAX:
            raise AccessError(f"more than {LINES_MAX} lines")
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        words = stripped.split(None, 1)
        if len(words) != 2:
            raise AccessError(f"line {number}: {words[0]} has no action")
        yield number, words[0], words[1]


def _toml_lines(text: str) -> Iterator[tuple[int, str, str]]:
    """`[[rule]]` with `match`, `action`, and where wanted `at` (connect, from, to); numbered in their order."""
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise AccessError(f"is no TOML: {error}") from None
    rules = raw.get("rule", [])
    if set(raw) - {"rule"} or not isinstance(rules, list):
        raise AccessError("only [[rule]] stands in an access table")
    for number, rule in enumerate(rules, 1):
        if not isinstance(rule, dict) or set(rule) - {"match", "action", "at"} or not {"match", "action"} <= set(rule):
            raise AccessError(f"rule {number}: it needs match and action, and may have at")
        at = str(rule.get("at", ""))
        if at and at not in STAGES:
            raise AccessError(f"rule {number}: at: {at} is not one of {', '.join(STAGES)}")
        yield number, f"{at}:{rule['match']}" if at else str(rule["match"]), str(rule["action"])


def _forms(rule: Rule) -> list[str]:
    """The keys under which a rule is found. Raises AccessError for one that could never be."""
    tag, colon, rest = rule.key.partition(":")
    if not colon or tag == "ipv6" or _GROUP.fullmatch(tag) or rule.key.startswith(("[", "::")):
        stage, rest = "", rule.key
    elif tag in STAGES:
        stage = tag
    else:
        raise AccessError(f"line {rule.line}: {tag}: is no tag; Connect:, From: and To: are")
    try:
        return [f"{stage}:{form}" if stage else form for form in accesskeys.forms(stage, rest)]
    except accesskeys.KeyFault as fault:
        raise AccessError(f"line {rule.line}: {fault}") from None


def _rule(key: str, value: str, line: int) -> Rule:
    key, value = key.lower(), value.strip()
    stage, colon, rest = key.partition(":")
    if colon and stage in STAGES and not rest:
        raise AccessError(f"line {line}: {key} names nobody")
    word = value.upper()
    if word in _WORDS:
        return Rule(key, word, line, DENIED if word == "REJECT" else None)
    text = value[6:].strip() if word.startswith("ERROR:") else value
    text = text[1:-1] if len(text) > 1 and text[0] == text[-1] == '"' else text
    match = _REPLY.fullmatch(text)
    if match is None:
        raise AccessError(f'line {line}: {value} is no action; OK, RELAY, REJECT, DISCARD, SKIP or ERROR:"550 text" is')
    code = match.group(2)
    enhanced = match.group(3) or match.group(1) or f"{code[0]}.7.1"
    if enhanced[0] != code[0]:
        raise AccessError(f"line {line}: {enhanced} does not belong to {code}")
    said = " ".join((match.group(4) or "access denied").split())
    if not said.isprintable():
        raise AccessError(f"line {line}: the reply holds a control character")
    return Rule(key, "ERROR", line, Status(int(code), enhanced, said))


def checked_address(text: str) -> str:
    """An address as it is looked up; empty for the null sender. Raises AccessError."""
    bare = text.strip().removeprefix("<").removesuffix(">")
    if not bare:
        return ""
    try:
        return parse_address(bare).key
    except AddressError as error:
        raise AccessError(f"{text} is no mail address: {error}") from None
