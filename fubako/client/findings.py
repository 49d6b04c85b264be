"""What was seen at a mail server, judged: what a man in the middle could take, how grave that is, and what to change."""

from collections.abc import Sequence
from dataclasses import dataclass

from fubako.client.probe import FAR_AWAY, Seen


@dataclass(frozen=True, slots=True)
class Finding:
    """`grade`: grave, weak or good."""

    grade: str
    service: str
    text: str
    advice: str = ""


def findings(host: str, seen: Sequence[Seen]) -> list[Finding]:
    """What a man in the middle could take, worst first, and what to change."""
    found: list[Finding] = []
    there = {one.service for one in seen if one.open}
    for one in seen:
        if one.open:
            found += _of(one)
    for protocol, good in (("imap", "imaps"), ("pop3", "pop3s"), ("submission", "submissions")):
        if protocol in there and good not in there:
            found.append(
                Finding(
                    "weak",
                    protocol,
                    f"{host} has no {good}",
                    f"offer {good}: STARTTLS can be hidden, TLS from the first byte cannot",
                )
            )
    if not there:
        found.append(Finding("weak", "", f"no mail port of {host} answers"))
    order = {"grave": 0, "weak": 1, "good": 2}
    return sorted(found, key=lambda one: order[one.grade])


def grade(found: Sequence[Finding]) -> str:
    """A: nothing was found; B: one weakness, C: several; D: something grave; F: passwords can be read, or letters be sent in
    anybody's name."""
    grave = [one for one in found if one.grade == "grave"]
    if any(
        word in one.text for one in grave for word in ("passwords are taken", "an open relay", "smuggled in", "no TLS")
    ):
        return "F"
    if grave:
        return "D"
    weak = sum(one.grade == "weak" for one in found)
    return "A" if not weak else "B" if weak == 1 else "C"


def _of(one: Seen) -> list[Finding]:
    found: list[Finding] = []
    login = one.service != "smtp"  # on 25 servers talk to servers
    if one.problem:
        found.append(Finding("weak", one.service, f"it could not be looked at: {one.problem}"))
    if one.clear:
        what = ", ".join(one.clear)
        found.append(
            Finding(
                "grave",
                one.service,
                f"passwords are taken without TLS ({what}): a listener has them",
                "refuse every login before TLS",
            )
        )
    if one.slipped:
        text = "a command sent before TLS is carried out inside it: whoever is between can speak as the client (CVE-2011-0411)"
        found.append(Finding("grave", one.service, text, "update the server"))
    if not one.tls and not one.problem:
        text = (
            "there is no TLS: everything can be read and changed"
            if login
            else "there is no TLS: letters of other servers can be read"
        )
        found.append(Finding("grave" if login else "weak", one.service, text, "offer STARTTLS, with a certificate"))
    if one.tls and one.not_believed:
        text = f"the certificate proves nothing: {one.not_believed}"
        advice = "a certificate of a public authority for this name"
        found.append(Finding("grave" if login else "weak", one.service, text, advice))
    old = [version for version in one.versions if version in ("1.0", "1.1")]
    if old:
        text = f"TLS {' and '.join(old)} is still spoken: who is between can have a client use it (RFC 8996)"
        found.append(Finding("weak", one.service, text, "TLS 1.2 is the least, 1.3 the aim"))
    if one.versions and "1.3" not in one.versions:
        found.append(Finding("weak", one.service, "TLS 1.3 is not spoken", "update the server's TLS library"))
    if one.relays:
        text = f"a stranger's letter for another domain is taken ({FAR_AWAY}): an open relay"
        found.append(Finding("grave", one.service, text, "take letters for your own domains, and from who logged in"))
    if one.smuggled:
        ends = "; ".join(one.smuggled)
        text = f"an end of a letter that is none is taken for one ({ends}): letters can be smuggled in (CVE-2023-51764)"
        found.append(Finding("grave", one.service, text, "take CR LF . CR LF alone for the end of a letter"))
    if one.tls and login and one.sealed and not any(name.startswith("SCRAM") for name in one.sealed):
        text = "the password itself is said to whoever shows a certificate that is believed"
        found.append(Finding("weak", one.service, text, "offer SCRAM, with -PLUS"))
    if one.tls and not found:
        found.append(Finding("good", one.service, f"{one.tls}; {', '.join(one.sealed) or 'no logins'}"))
    return found
