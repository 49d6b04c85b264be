"""What becomes of a stranger's message: one total table of what DMARC, ARC and the From field show (RFC 9989, RFC 8617).

    how the author is written  x  the author's policy  x  what proves the author  x  a trusted seal  ->  an action

Three rules made the cells. What is undecided is neither yes nor no: where a later answer could change the action, the
message waits (451), so no silence of DNS lets in what a policy refuses, and no silence refuses for good. What does not
concern the author (a signature or an envelope of another domain) is not in the table at all, so it cannot decide. A message
whose author cannot be told is never better off than one with a plain forged author. Pure; `decide` is total by a test.
"""

from enum import Enum, IntEnum


class Form(Enum):
    """How the From field is written."""

    USABLE = "usable"  # one field, which every reader reads alike, and each author has a domain
    NONE = "none"  # no From field, or one in which nobody can see an address
    SEVERAL = "several"  # several From fields, or more authors' domains than are judged
    MALFORMED = "malformed"  # readers may disagree; every domain that one may see is judged as an author's
    UNREADABLE = "unreadable"  # there is an address, and nobody can tell of which domain


class Policy(Enum):
    """What the author's domain asks for, or why that is not known."""

    REJECT = "reject"
    QUARANTINE = "quarantine"
    NOTHING = "nothing"  # p=none: it only wants reports
    ABSENT = "absent"
    TEMPORARY = "temporary"  # DNS did not answer
    PERMANENT = "permanent"  # what is published cannot be used


class Proof(Enum):
    """What shows that the message comes from the author's domain."""

    ALIGNED = "aligned"  # SPF, or a signature that holds, of that organization
    MISSING = "missing"  # nothing does, and no later answer can
    UNDECIDED = "undecided"  # SPF or a signature of that organization waits for DNS


class Seal(Enum):
    """Whether a sealer whom we trust says what the message was before it (RFC 8617 §7.2)."""

    TRUSTED = "trusted"
    NONE = "none"
    UNDECIDED = "undecided"  # the last seal is a trusted sealer's, or says so, and DNS does not answer


class Action(IntEnum):
    """The later, the less welcome: of several authors the worst counts (RFC 9989)."""

    ACCEPT = 0
    JUNK = 1  # taken, and marked
    DEFER = 2  # 451
    REFUSE = 3  # 550


_A, _J, _D, _R = Action.ACCEPT, Action.JUNK, Action.DEFER, Action.REFUSE
_SEALS = (Seal.NONE, Seal.TRUSTED, Seal.UNDECIDED)
_ALWAYS = (_A, _A, _A)
_USABLE: dict[tuple[Policy, Proof], tuple[Action, Action, Action]] = {
    #                                         no seal, trusted, undecided
    (Policy.REJECT, Proof.ALIGNED): _ALWAYS,
    (Policy.REJECT, Proof.MISSING): (_R, _A, _D),
    (Policy.REJECT, Proof.UNDECIDED): (_D, _A, _D),
    (Policy.QUARANTINE, Proof.ALIGNED): _ALWAYS,
    (Policy.QUARANTINE, Proof.MISSING): (_J, _A, _D),
    (Policy.QUARANTINE, Proof.UNDECIDED): (_D, _A, _D),
    (Policy.NOTHING, Proof.ALIGNED): _ALWAYS,
    (Policy.NOTHING, Proof.MISSING): _ALWAYS,
    (Policy.NOTHING, Proof.UNDECIDED): _ALWAYS,
    (Policy.ABSENT, Proof.ALIGNED): _ALWAYS,
    (Policy.ABSENT, Proof.MISSING): _ALWAYS,
    (Policy.ABSENT, Proof.UNDECIDED): _ALWAYS,
    # a policy that may be p=reject
    (Policy.TEMPORARY, Proof.ALIGNED): _ALWAYS,
    (Policy.TEMPORARY, Proof.MISSING): (_D, _A, _D),
    (Policy.TEMPORARY, Proof.UNDECIDED): (_D, _A, _D),
    # "DMARC processing is not applied": the domain's own fault, which no sender can bring about
    (Policy.PERMANENT, Proof.ALIGNED): _ALWAYS,
    (Policy.PERMANENT, Proof.MISSING): _ALWAYS,
    (Policy.PERMANENT, Proof.UNDECIDED): _ALWAYS,
}


def decide(form: Form, policy: Policy, proof: Proof, seal: Seal) -> Action:
    """The action for one author. RFC 5322 §3.6 requires one From field. Without one a message speaks in nobody's name, and old
    programs send such: it is marked. With several it speaks in whichever name a reader chooses, whoever sealed it."""
    if form in (Form.SEVERAL, Form.UNREADABLE):
        return Action.REFUSE
    action = _USABLE[policy, proof][_SEALS.index(seal)]
    return action if form is Form.USABLE else max(action, Action.JUNK)
