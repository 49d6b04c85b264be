"""Who may write as whom: one table, asked for every message of somebody whom we know, whichever door it came by.

It holds for the reverse path, for each author that the header names, and, through `Transaction.authors`,
for the domains in which a message is signed. It says nothing of strangers: what they write is judged by
SPF, DKIM and DMARC. An address is a user's own where mail to it comes to that user: the account's address,
its subaddresses, and every alias of which the account is a member (a catch-all too). So there is no second
list to keep, and a member of sales@ may answer as sales@.
"""

from enum import StrEnum

from fubako.message.ambiguity import Ambiguity
from fubako.policy.verdict import ACCEPT, Verdict, refuse


class Writer(StrEnum):
    """Who gives us a message."""

    UNKNOWN = "unknown"  # a stranger, or a server that passes on what others wrote
    ACCOUNT = "account"  # whoever proved an account: by AUTH, SSH, a certificate, XCLIENT, or POP before SMTP
    PROGRAM = "program"  # a program on this machine that may write into the store, and with that anything


class Owner(StrEnum):
    """Whose an address is, seen from who writes."""

    NOBODY = "nobody"  # the null reverse path, or no address at all
    OWN = "own"
    OTHER = "other"  # in a domain of ours, and not the writer's
    FOREIGN = "foreign"  # in a domain that is not ours


class Place(StrEnum):
    """Where the address stands."""

    ENVELOPE = "the reverse path"
    FROM = "From"
    SENDER = "Sender"
    RESENT_FROM = "Resent-From"
    RESENT_SENDER = "Resent-Sender"


_NOT_OWN = "may not send as this address"
_IF_FOREIGN_IS_LET = object()
# what an account may put where; PROGRAM may put anything anywhere, UNKNOWN is not asked
_ACCOUNT: dict[tuple[Owner, bool], bool | object] = {
    # (whose, in the envelope): allowed
    (Owner.NOBODY, True): True,  # reports of a reader (RFC 8098 §3) have the null path
    (Owner.NOBODY, False): False,
    (Owner.OWN, True): True,
    (Owner.OWN, False): True,
    (Owner.OTHER, True): False,
    (Owner.OTHER, False): False,
    (Owner.FOREIGN, True): _IF_FOREIGN_IS_LET,
    (Owner.FOREIGN, False): _IF_FOREIGN_IS_LET,
}


def may_write(writer: Writer, place: Place, owner: Owner, *, foreign: bool, shown: str = "") -> Verdict:
    """Whether an address may stand in a place. `foreign`: users may write under addresses of other domains
    (`submission.foreign_addresses`). `shown` is the address, for the reply."""
    if writer is not Writer.ACCOUNT:
        return ACCEPT
    allowed = _ACCOUNT[owner, place is Place.ENVELOPE]
    if allowed is True or (allowed is _IF_FOREIGN_IS_LET and foreign):
        return ACCEPT
    if place is Place.ENVELOPE:
        return refuse(553, "5.7.1", f"you {_NOT_OWN}", "sender-not-own")
    return refuse(550, "5.7.1", f"{place}: you {_NOT_OWN}: {shown}"[:400], "author-not-own")


def must_be_plain(writer: Writer, place: Place, reason: Ambiguity) -> Verdict:
    """What follows where readers may disagree about an author."""
    if writer is not Writer.ACCOUNT:
        return ACCEPT
    return refuse(550, "5.6.0", f"{place}: {reason.of(place)}", "author-ambiguous")
