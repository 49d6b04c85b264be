"""What other programs remember of servers -> rules: mutt's `certificate_file`, msmtp's fingerprints, stunnel's CAfile, PEM. Pure.

Each reader gives the rules and warnings in words; what it cannot take over it says.
"""

import base64
import binascii
import re
import shlex
from collections.abc import Callable

from fubako.trust.rules import Rule, RuleFault, described, fingerprint, signers

OCTETS_MAX = 4 * 1024 * 1024
ROW_SIGNS_MAX = 4096  # of one row that is cut into words
_PEM = re.compile(r"-----BEGIN (?:X509 |TRUSTED )?CERTIFICATE-----([^-]*+)-----END")
_HOST = re.compile(r"^#H ([a-zA-Z0-9_\.-]+) ([0-9A-F]{4}(?: [0-9A-F]{4}){7})[ \t]*$", re.MULTILINE)
Found = tuple[list[Rule], list[str]]


def certificates(text: str) -> list[bytes]:
    """Every certificate of a PEM text, in DER; what stands around them is left aside. Raises RuleFault."""
    found = []
    for block in _PEM.findall(text[:OCTETS_MAX]):
        try:
            found.append(base64.b64decode("".join(block.split()), validate=True))
        except (binascii.Error, ValueError):
            raise RuleFault("a block of PEM is not base64") from None
    return found


def pem(text: str, source: str, now: int, host: str = "", port: int = 0) -> Found:
    """Authorities sign for `host` (any, where it is empty); other certificates are believed for the names in them."""
    rules: list[Rule] = []
    warnings: list[str] = []
    for one in certificates(text):
        facts = described(one)
        if facts.authority:
            rules += signers([one], host, port, source, now)
            continue
        names = [host] if host else [name.lower() for name in facts.names if "*" not in name]
        rules += [
            Rule("certificate", name, port, f"sha256:{facts.sha256}", facts.subject, source, now) for name in names
        ]
        if not names:
            warnings.append(f"{facts.subject}: it names no server, and no line of the file does; left out")
    return rules, warnings


def mutt(text: str, source: str, now: int) -> Found:
    """Mutt's `certificate_file`: certificates one after the other; `#H host MD5` binds one to a host whose name is not in it."""
    rules, warnings = pem(text, source, now)
    by_md5 = {described(one).md5: described(one) for one in certificates(text)}
    for host, digits in _HOST.findall(text[:OCTETS_MAX]):
        md5 = digits.replace(" ", "").lower()
        facts = by_md5.get(md5)
        if facts is not None:
            rules.append(Rule("certificate", host.lower(), 0, f"sha256:{facts.sha256}", facts.subject, source, now))
            warnings = [one for one in warnings if not one.startswith(facts.subject + ": ")]
        else:
            rules.append(Rule("certificate", host.lower(), 0, f"md5:{md5}", "", source, now))
            warnings.append(f"{host}: only an MD5 fingerprint is known; it is replaced at the next good connection")
    return rules, warnings


def msmtp(text: str, source: str, now: int) -> Found:
    """`host`, `port`, `tls_fingerprint`, `tls_trust_file` of each account of an msmtprc or mpoprc."""
    rules: list[Rule] = []
    warnings: list[str] = []
    defaults: dict[str, str] = {}
    account = defaults

    def done() -> None:
        value, host = account.get("tls_fingerprint", ""), account.get("host", "")
        if not value or not host:
            return
        starttls = account.get("tls_starttls", "on") != "off"
        port = int(account["port"]) if account.get("port", "").isdigit() else 0 if starttls else 465
        try:
            pin = fingerprint(value)
        except RuleFault as fault:
            warnings.append(f"{host}: {fault}")
            return
        rules.append(Rule("pin", host.lower(), port, pin, "", source, now))
        if pin.startswith("md5:"):
            warnings.append(f"{host}: an MD5 fingerprint is weak; it is replaced at the next good connection")

    for row in text[:OCTETS_MAX].splitlines():
        words = _words(row[:ROW_SIGNS_MAX])
        if words[:1] == ["defaults"]:
            done()
            account = defaults = {}
        elif words[:1] == ["account"]:
            done()
            account = dict(defaults)
        elif len(words) == 2:
            account[words[0]] = words[1]
    done()
    return rules, warnings


def stunnel(text: str, source: str, now: int, read: Callable[[str], str]) -> Found:
    """`CAfile` of each service that is a client, bound to the host of its `connect`. `read` gives a file's text; raises OSError."""
    rules: list[Rule] = []
    warnings: list[str] = []
    whole: dict[str, str] = {}
    services: list[dict[str, str]] = []
    for row in text[:OCTETS_MAX].splitlines():
        row = row.strip()
        if row.startswith("["):
            services.append(dict(whole))
        elif "=" in row and not row.startswith((";", "#")):
            name, _, value = row.partition("=")
            (services[-1] if services else whole)[name.strip().lower()] = value.strip()
    for one in services or [whole]:
        if one.get("client", "no") != "yes" or "cafile" not in one:
            continue
        host, _, port = one.get("connect", "").rpartition(":")
        host = one.get("checkhost", host).lower()
        try:
            found, said = pem(read(one["cafile"]), source, now, host, int(port) if port.isdigit() else 0)
        except (OSError, RuleFault) as error:
            warnings.append(f"{one['cafile']}: {error}")
            continue
        rules, warnings = rules + found, warnings + said
        if "verify" not in one and one.get("verifychain", one.get("verifypeer", "no")) != "yes":
            warnings.append(f"{host}: stunnel does not check this file there (verifyChain is off); it is checked here")
    return rules, warnings


def _words(row: str) -> list[str]:
    try:
        return shlex.split(row, comments=True)
    except ValueError:
        return row.split()
