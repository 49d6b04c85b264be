"""`Examiner`: SPF, DKIM, ARC and DMARC of one letter in one go, within a time limit; what they show, and what follows."""

import asyncio
from dataclasses import dataclass

from fubako.message.authentication import Method
from fubako.message.headers import header_end
from fubako.net.interface import Resolver
from fubako.policy import arc, dkim, dmarc, spf
from fubako.policy.verdict import ACCEPT, Verdict, refuse

EXAMINE_SECONDS = 20.0  # RFC 7208 §4.6.4
HEADER_OCTETS_MAX = 256 * 1024
NO_CHAIN, NOT_JUDGED, NOT_CHECKED = arc.Chain("none"), dmarc.Judged("none"), spf.Checked("none", "")


@dataclass(frozen=True, slots=True)
class Rules:
    """What follows from results. `spf_reject`: an SPF fail is refused without asking DMARC. `dmarc`: the wish of the author's
    domain is obeyed. `trusted_sealers` are believed by ARC where DMARC fails."""

    spf_reject: bool = False
    dmarc: bool = True
    trusted_sealers: frozenset[str] = frozenset()


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
    def __init__(self, resolver: Resolver, hostname: str, rules: Rules) -> None:
        self._resolver, self._hostname, self._rules = resolver, hostname, rules

    async def examine(self, client: str, hello: str, sender: str, content: bytes, now: float) -> Examined:
        """`client` is an IP address, `content` the letter as it came. Never raises for what a letter holds."""
        if header_end(content) > HEADER_OCTETS_MAX:
            return Examined(refuse(552, "5.3.4", "the header is too long", "header-size"), ())
        letter = dkim.take_apart(content)
        try:
            async with asyncio.timeout(EXAMINE_SECONDS):
                sent_by, signatures, chain = await asyncio.gather(
                    spf.check(self._resolver, client, sender, hello, self._hostname, now),
                    dkim.verify(self._resolver, letter, now),
                    arc.validate(self._resolver, letter),
                )
                judged = await dmarc.judge(self._resolver, letter, _evidence(sent_by, signatures))
        except TimeoutError:
            slow = Method("dmarc", "temperror", "DNS does not answer")
            return Examined(ACCEPT, (slow,))
        verdict, junk, reason = self._decide(sent_by, chain, judged)
        methods = (*_methods(sent_by, sender, hello, signatures, chain), _dmarc_method(judged, reason))
        return Examined(verdict, methods, junk, chain, judged, sent_by, tuple(signatures))

    def _decide(self, sent_by: spf.Checked, chain: arc.Chain, judged: dmarc.Judged) -> tuple[Verdict, bool, str]:
        if self._rules.spf_reject and sent_by.result == "fail":
            why = f": {sent_by.explanation}" if sent_by.explanation else ""
            return refuse(550, "5.7.23", f"SPF of {sent_by.domain} does not allow this server{why}", "spf"), False, ""
        if not self._rules.dmarc or judged.result != "fail" or judged.wish == "none":
            return ACCEPT, False, judged.reason
        if chain.status == "pass" and chain.sealer.lower() in self._rules.trusted_sealers:
            return ACCEPT, False, f"{judged.reason}; let in by the seal of {chain.sealer}"
        if judged.wish == "reject":
            text = f"{judged.reason}, which asks to refuse such letters (DMARC)"
            return refuse(550, "5.7.26", text, "dmarc"), False, judged.reason
        return ACCEPT, True, judged.reason


def _evidence(sent_by: spf.Checked, signatures: list[dkim.Verified]) -> list[dmarc.Evidence]:
    found = [dmarc.Evidence("dkim", one.domain) for one in signatures if one.result == "pass"]
    if sent_by.result == "pass":
        found.append(dmarc.Evidence("spf", sent_by.domain))
    return found


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
