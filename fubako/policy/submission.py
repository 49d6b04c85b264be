"""The rules of the mail services: 25 takes letters for its own domains, 465 and 587 letters of its own users, LMTP both.

Sources: RFC 6409 (submission), RFC 8314 (TLS for it), RFC 5321 §7. No rule relays for a stranger.
"""

from dataclasses import dataclass

from fubako.policy.verdict import ACCEPT, Verdict, refuse


@dataclass(frozen=True, slots=True)
class ServiceRules:
    """What one listener demands."""

    service: str  # smtp, submission, submissions or lmtp
    login: bool  # a login before MAIL
    tls: bool  # TLS before MAIL


SERVICES = {
    "smtp": ServiceRules("smtp", login=False, tls=False),
    "submission": ServiceRules("submission", login=True, tls=True),
    "submissions": ServiceRules("submissions", login=True, tls=True),
    "lmtp": ServiceRules("lmtp", login=False, tls=False),
    # a content filter on this machine gives a letter back
    "filtered": ServiceRules("filtered", login=False, tls=False),
    "local": ServiceRules("local", login=False, tls=False),  # a program on this machine that may write into the store
}


def may_send(rules: ServiceRules, *, encrypted: bool, user: str, require_tls: bool) -> Verdict:
    """At MAIL: is the channel good enough, and is it known who speaks? Under which address is policy/authorship.py."""
    if rules.tls and not encrypted:
        return refuse(530, "5.7.0", "STARTTLS comes first", "tls-required")
    if rules.login and not user:
        return refuse(530, "5.7.0", "authentication required", "login-required")
    if require_tls and not encrypted:
        return refuse(530, "5.7.10", "REQUIRETLS needs a letter that came over TLS", "requiretls")
    return ACCEPT


def may_receive(
    rules: ServiceRules, *, local: bool, known: bool, user: str, routed: bool = False, relays: bool = False
) -> Verdict:
    """At RCPT, before the letter: does the address belong to us, and is there such a mailbox? `routed`: a route leads to it.
    `relays`: the access table lets this client, or letters to this domain, through."""
    if local:
        return ACCEPT if known else refuse(550, "5.1.1", "there is no such mailbox", "unknown-recipient")
    if user or relays or rules.service in ("lmtp", "local", "filtered"):
        return ACCEPT if routed else refuse(550, "5.4.4", "no route leads to this domain", "no-route")
    return refuse(550, "5.7.1", "relaying denied", "no-relaying")
