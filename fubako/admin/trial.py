"""`policy try`: what would be said to a letter, and which rule of which line says it."""

from dataclasses import dataclass
from typing import Any

from fubako.message.status import Status
from fubako.policy.access import Access, Match, checked_address
from fubako.policy.submission import SERVICES, may_receive
from fubako.policy.verdict import ACCEPT, Verdict

OK = Status(250, "2.1.5", "ok")


@dataclass(frozen=True, slots=True)
class Letter:
    """A letter that a stranger might bring to the service smtp. Addresses as they are typed, the null sender `<>`."""

    client: str
    sender: str
    recipient: str
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What is known without the table: of the recipient, the client's `name`, and what DNS lists say at MAIL."""

    local: bool
    mailbox: bool
    routed: bool
    name: str = ""
    listed: Verdict = ACCEPT


def tried(access: Access, letter: Letter, known: Known | None) -> dict[str, Any]:
    """JSON values. Raises AccessError for an address that is none."""
    sender, recipient = checked_address(letter.sender), checked_address(letter.recipient)
    match = access.decide(letter.client, known.name if known else letter.name, sender, recipient)
    refuses = match is not None and match.rule.action in ("REJECT", "ERROR", "DISCARD")
    if known is not None and known.listed.status is not None and _lists_are_asked(access, letter, known.name):
        if not refuses or (match is not None and match.stage == "to"):  # lists are asked at MAIL
            return _said("reject", known.listed.status, None, "", known.listed.rule)
    if match is not None and match.rule.action == "DISCARD":
        return _said("discard", OK, match, "taken and thrown away; the sender is told that all is well")
    if match is not None and match.rule.status is not None:
        kind = "defer" if match.rule.status.code < 500 else "reject"
        return _said(kind, match.rule.status, match, "")
    if known is None:
        words = "the table refuses nothing; the recipient is not looked up without a configuration"
        return _said("accept", OK, match, words)
    relays = match is not None and match.rule.action == "RELAY" and match.stage != "from"
    verdict = may_receive(
        SERVICES["smtp"], local=known.local, known=known.mailbox, user="", routed=known.routed, relays=relays
    )
    if verdict.status is not None:
        return _said("reject", verdict.status, None, "", verdict.rule)
    return _said("accept", OK, match, "")


def _lists_are_asked(access: Access, letter: Letter, name: str) -> bool:
    """Not of a client for whom we relay."""
    match = access.connect(letter.client, name)
    return match is None or match.rule.action != "RELAY"


def _said(verdict: str, reply: Status, match: Match | None, words: str, rule: str = "") -> dict[str, Any]:
    return {
        "verdict": verdict,
        "reply": str(reply),
        "stage": match.stage if match else "",
        "rule": f"{match.rule.key} {match.rule.action}" if match else rule,
        "line": match.rule.line if match else None,
        "note": words,
    }
