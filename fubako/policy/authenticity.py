"""`Examiner`: SPF, DKIM, ARC and DMARC of one letter, each in its own time; what they show, and what follows.

The author's policy, SPF, every signature and the ARC chain are looked up together and apart: each has its own time and its
own number of questions, so that what a sender makes slow or dear is only the sender's own proof. What follows is said by the
table in `disposition`.
"""

import asyncio
from dataclasses import dataclass

from fubako.message.authentication import Method
from fubako.message.headers import header_end
from fubako.net.interface import Resolver
from fubako.policy import arc, authors, dkim, dmarc, spf
from fubako.policy.bodies import hash_large
from fubako.policy.disposition import Action, Form, Policy, Seal, decide
from fubako.policy.questions import Allowance
from fubako.policy.verdict import ACCEPT, Verdict, refuse
from fubako.scan.pool import Pool

HEADER_OCTETS_MAX = 256 * 1024
NO_CHAIN, NOT_JUDGED, NOT_CHECKED = arc.Chain("none"), dmarc.Judged("none"), spf.Checked("none", "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What one letter may cost: seconds for each part, and `questions` to DNS for all that its sender chooses: SPF, signatures
    and seals. Its authors' policies have `authors.DOMAINS_MAX` x `dmarc.QUESTIONS_MAX` beside them."""

    questions: int = 120
    policy_seconds: float = dmarc.POLICY_SECONDS
    spf_seconds: float = spf.CHECK_SECONDS
    signature_seconds: float = dkim.SIGNATURE_SECONDS
    chain_seconds: float = arc.CHAIN_SECONDS
    alignment_seconds: float = dmarc.ALIGN_SECONDS

    def shares(self) -> tuple[int, int, int]:
        """Questions for SPF, signatures and the chain."""
        signatures = min(dkim.SIGNATURES_MAX, self.questions // 4)
        of_spf = (self.questions - signatures) // 2
        return of_spf, signatures, self.questions - signatures - of_spf


@dataclass(frozen=True, slots=True)
class Rules:
    """What follows from results. `spf_reject`: an SPF fail is refused without asking DMARC. `dmarc`: the table is obeyed, and
    with it the wish of the author's domain. `trusted_sealers` are believed by ARC where DMARC fails."""

    spf_reject: bool = False
    dmarc: bool = True
    trusted_sealers: frozenset[str] = frozenset()
    budget: Budget = Budget()


@dataclass(frozen=True, slots=True)
class Examined:
    """`methods` are for Authentication-Results; `junk`: the author's domain wants it looked at with care."""

    verdict: Verdict
    methods: tuple[Method, ...]
    junk: bool = False
    chain: arc.Chain = NO_CHAIN
    judged: dmarc.Judged = NOT_JUDGED
    sent_by: spf.Checked = NOT_CHECKED
    signatures: tuple[dkim.Verified, ...] = ()


class Examiner:
    def __init__(self, resolver: Resolver, hostname: str, rules: Rules, pool: Pool | None = None) -> None:
        self._resolver, self._hostname, self._rules, self._pool = resolver, hostname, rules, pool

    async def examine(self, client: str, hello: str, sender: str, content: bytes, now: float) -> Examined:
        """`client` is an IP address, `content` the letter as it came. Never raises for what a letter holds."""
        if header_end(content) > HEADER_OCTETS_MAX:
            return Examined(refuse(552, "5.3.4", "the header is too long", "header-size"), ())
        letter = dkim.take_apart(content)
        await hash_large(letter, self._pool)
        written, budget = authors.claimed(content), self._rules.budget
        of_spf, of_signatures, of_chain = (Allowance(self._resolver, share) for share in budget.shares())
        policies, sent_by, signatures, chain = await asyncio.gather(
            asyncio.gather(*(dmarc.find_policy(self._resolver, one, budget.policy_seconds) for one in written.domains)),
            spf.check(of_spf, client, sender, hello, self._hostname, now, seconds=budget.spf_seconds),
            dkim.verify(of_signatures, letter, now, budget.signature_seconds),
            arc.validate(of_chain, letter, budget.chain_seconds),
        )
        evidence = _evidence(sent_by, signatures)
        judged = [await dmarc.judge(one, evidence, budget.alignment_seconds) for one in policies]
        action, worst = self._decide(written, judged, chain)
        verdict = self._spf_verdict(sent_by) if self._rules.spf_reject else ACCEPT
        verdict = verdict if not verdict.accepted else _verdict(action, written, worst)
        methods = (*_methods(sent_by, sender, hello, signatures, chain), _dmarc_method(worst, self._note(worst, chain)))
        junk = verdict.accepted and action is Action.JUNK
        return Examined(verdict, methods, junk, chain, worst, sent_by, tuple(signatures))

    def _decide(
        self, written: authors.Authors, judged: list[dmarc.Judged], chain: arc.Chain
    ) -> tuple[Action, dmarc.Judged]:
        """What follows, and the author on whose account it does."""
        nobody = dmarc.Judged("permerror", reason=written.reason or "there is no author")
        seal = self._seal(chain)
        decided = [(decide(written.form, one.policy, one.proof, seal), one) for one in judged or [nobody]]
        action, worst = max(decided, key=lambda one: (one[0], _RESULTS.index(one[1].result), one[1].wish != "none"))
        return action if self._rules.dmarc else Action.ACCEPT, worst

    def _seal(self, chain: arc.Chain) -> Seal:
        if chain.sealer.lower() not in self._rules.trusted_sealers:
            return Seal.NONE
        if chain.undecided:
            return Seal.UNDECIDED
        return Seal.TRUSTED if chain.status == "pass" else Seal.NONE

    def _note(self, judged: dmarc.Judged, chain: arc.Chain) -> str:
        sealed = judged.result not in ("pass", "none") and self._seal(chain) is Seal.TRUSTED
        return f"{judged.reason}; let in by the seal of {chain.sealer}" if sealed else judged.reason

    @staticmethod
    def _spf_verdict(sent_by: spf.Checked) -> Verdict:
        if sent_by.result == "fail":
            why = f": {sent_by.explanation}" if sent_by.explanation else ""
            return refuse(550, "5.7.23", f"SPF of {sent_by.domain} does not allow this server{why}", "spf")
        if sent_by.result == "temperror":  # RFC 7208 §8.6
            return refuse(451, "4.4.3", f"the DNS of {sent_by.domain} does not answer; try again later (SPF)", "spf")
        return ACCEPT


_RESULTS = ("pass", "none", "permerror", "temperror", "fail")


def _verdict(action: Action, written: authors.Authors, judged: dmarc.Judged) -> Verdict:
    if action is Action.REFUSE and written.form in (Form.SEVERAL, Form.UNREADABLE):
        return refuse(550, "5.7.1", f"the author cannot be told: {written.reason} (RFC 5322 section 3.6)", "author")
    if action is Action.REFUSE:
        text = f"{judged.reason}, which asks to refuse such letters (DMARC)"
        return refuse(550, "5.7.26", text, "dmarc")
    if action is Action.DEFER:
        what = "policy" if judged.policy is Policy.TEMPORARY else "proof"
        text = f"DNS does not answer about the {what} of {judged.domain}; try again later (DMARC)"
        return refuse(451, "4.4.3", text, "dmarc-undecided")
    return ACCEPT


def _evidence(sent_by: spf.Checked, signatures: list[dkim.Verified]) -> list[dmarc.Evidence]:
    """What proved a domain, and what may yet."""
    results = [("dkim", one.domain, one.result) for one in signatures] + [("spf", sent_by.domain, sent_by.result)]
    return [
        dmarc.Evidence("spf" if how == "spf" else "dkim", domain, undecided=result == "temperror")
        for how, domain, result in results
        if result in ("pass", "temperror")
    ]


def _methods(
    sent_by: spf.Checked, sender: str, hello: str, signatures: list[dkim.Verified], chain: arc.Chain
) -> list[Method]:
    identity = ("smtp.mailfrom", sender) if sender else ("smtp.helo", hello)
    methods = [Method("spf", sent_by.result, sent_by.reason, (identity,))]
    methods += [
        Method(
            "dkim", one.result, one.reason,
            (("header.d", one.domain), ("header.s", one.selector), ("header.a", one.algorithm), ("header.b", one.signature)),
        )
        for one in signatures
    ] or [Method("dkim", "none")]  # fmt: skip
    if chain.status != "none":
        methods.append(
            Method(
                "arc",
                chain.status,
                chain.reason,
                (("header.oldest-pass", str(chain.oldest_pass)), ("header.d", chain.sealer)),
            )
        )
    return methods


def _dmarc_method(judged: dmarc.Judged, reason: str) -> Method:
    wish = judged.record.wish(judged.domain, exists=True) if judged.record else ""
    properties = (("header.from", judged.domain), ("policy.dmarc", wish))
    return Method("dmarc", judged.result, reason, properties)
