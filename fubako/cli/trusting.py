"""`fubako trust`: servers that were met, whom to believe, and the question about a certificate."""

import base64
import hashlib
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import click

from fubako import app, modes
from fubako.cli.configured import json_option, show
from fubako.cli.exits import DATAERR, NOINPUT
from fubako.client import fetchmailrc, settings
from fubako.client.roads import Roads, reject
from fubako.client.settings import PORTS, Account, SettingsError
from fubako.clock import Env
from fubako.message.trace import mail_date
from fubako.net.interface import CertificateFacts
from fubako.telemetry import visible
from fubako.trust import foreign
from fubako.trust.known import KnownPeer, KnownPeers
from fubako.trust.rules import Rule, RuleFault, fingerprint


def known_peers() -> KnownPeers:
    path = settings.home() / "known.json"
    try:
        return KnownPeers(path)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SettingsError(f"{path} cannot be read, and is not taken for empty: {error}") from None


def ask(facts: CertificateFacts, reason: str, signer: str) -> str:
    """The question of old, with what matters today."""
    click.echo(
        f"\nThis certificate belongs to:  {visible(facts.subject)}\n"
        f"  names:                      {visible(', '.join(facts.dns_names))}\n"
        f"It was issued by:             {visible(facts.issuer)}\n"
        f"It is valid:                  {mail_date(facts.not_before)} to {mail_date(facts.not_after)}\n"
        f"SHA-256 fingerprint:          {facts.sha256}\nWhat is wrong with it:        {visible(reason)}",
        err=True,
    )
    more = ""
    if signer:
        click.echo(f"Its signer:                   {visible(signer)}", err=True)
        more = ", accept the (s)igner for the servers around this one"
    click.echo(err=True)
    answer = click.prompt(f"(r)eject, accept (o)nce, (a)ccept always{more}", default="r", err=True)
    chosen = {"o": "once", "a": "always", "s": "signer"}.get(answer.strip().lower()[:1], "reject")
    return "reject" if chosen == "signer" and not signer else chosen


transcript_option = click.option(
    "--transcript", default="", metavar="FILE",
    help="Write what is said, - for standard error: -> in the clear, ~> encrypted; secrets are masked, letters only counted.",
)  # fmt: skip


def telling(path: str) -> Callable[[str], None] | None:
    """Who writes a transcript, if anybody. Raises SettingsError."""
    if not path:
        return None
    if path == "-":
        return lambda text: click.echo(text, err=True)
    try:
        file = open(path, "w", opener=modes.opener, encoding="utf-8")  # noqa: SIM115 (until the end)
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}") from None
    return lambda text: print(text, file=file, flush=True)


def _said(facts: dict[str, object], text: str, *, as_json: bool) -> None:
    """What was done, for a program or a person."""
    if as_json:
        click.echo(json.dumps(facts, ensure_ascii=False))
    elif text:
        click.echo(text)


@click.group()
def trust() -> None:
    """Servers that your programs have met: their keys, how they were accepted, and the best protection seen."""


@trust.command("list")
@json_option
def trust_list(as_json: bool) -> None:
    """Every server that is known, then pins, certificates and signers."""
    known = known_peers()
    rows = [
        {"host": peer.host, "port": peer.port, "protocol": peer.protocol, "accepted": peer.accepted, "tls": peer.tls,
         "mechanism": peer.mechanism, "since": mail_date(peer.first_seen)}
        for peer in known.all()
    ]  # fmt: skip
    for rule in known.rules():
        more = {"value": rule.value, "subject": rule.subject, "source": rule.source} if as_json else {}
        facts = {
            "host": rule.host or "any",
            "port": rule.port,
            "protocol": "",
            "accepted": rule.kind,
            "tls": "",
            "mechanism": "",
        }
        rows.append(facts | {"since": mail_date(rule.since)} | more)
    show(rows, as_json=as_json)


@trust.command("show")
@click.argument("host")
@click.argument("port", type=int)
@json_option
def trust_show(host: str, port: int, as_json: bool) -> int:
    """What is known of one server; `fubako trust pin` makes it the only thing that counts."""
    known = known_peers()
    peer, rules = known.find(host, port), known.rules("", host, port)
    if peer is None and not rules:
        click.echo(f"fubako: {host}:{port} has not been met", err=True)
        return NOINPUT
    facts = asdict(peer) if peer else {}
    if as_json:
        click.echo(json.dumps(facts | {"rules": [asdict(rule) for rule in rules]}, ensure_ascii=False))
        return 0
    for name, value in facts.items():
        if name != "certificate":
            click.echo(f"{name:12} {visible(str(value))}")
    for rule in rules:
        what = visible(rule.subject) if rule.kind == "signer" else rule.value
        click.echo(f"{rule.kind:12} {what} ({visible(rule.source)})")
    return 0


@trust.command("add")
@click.argument("host")
@click.argument("port", type=int, default=0)
@click.option("--protocol", type=click.Choice(["imap", "pop3", "smtp", "sieve"]), default="imap", show_default=True)
@click.option("--starttls", is_flag=True, help="The server begins TLS when it is asked to, as those of sieve do.")
@click.option("--fingerprint", "given", default="", help="Accept this key, and no other, without asking.")
@transcript_option
@json_option
def trust_add(host: str, port: int, protocol: str, starttls: bool, given: str, transcript: str, as_json: bool) -> int:
    """Meet a server now: its certificate is shown, and you are asked. Nobody logs in.

    With --fingerprint (SHA-256 of the certificate, or spki:…) nothing is asked: it is accepted when it is the one, and refused
    otherwise. Exit codes: 69 no connection, 80 not believed, 81 the key CHANGED, 82 less protection than before, 83 no TLS.
    """
    tls = "starttls" if starttls or protocol == "sieve" else "implicit"
    try:
        pin = fingerprint(given) if given else ""
    except RuleFault as fault:
        raise click.UsageError(str(fault)) from None
    account = Account(
        name=host,
        protocol=protocol,
        host=host,
        port=port or PORTS[protocol, tls],
        tls=tls,
        trust=() if pin else ("public",),
    )

    def compared(facts: CertificateFacts, _reason: str, _signer: str) -> str:
        return "always" if pin in (f"sha256:{facts.sha256}", f"spki:{facts.spki_sha256}") else "reject"

    async def met() -> int:
        decide = compared if pin else ask if sys.stdin.isatty() else reject
        roads = Roads(known_peers(), Env(), decide, resolver=app.resolver)
        roads.transcript = telling(transcript)
        try:
            believed = await roads.meet(account)
        finally:
            await roads.close()
        _said(
            {"host": host, "port": account.port_used, "believed_by": believed},
            f"{host}:{account.port_used}: believed by {believed}", as_json=as_json,
        )  # fmt: skip
        return 0

    return app.run(met())


@trust.command("pin")
@click.argument("host")
@click.argument("port", type=int)
@click.argument("fingerprints", nargs=-1, metavar="[FINGERPRINT]...")
@click.option("--remove", is_flag=True, help="Take the server's pins away.")
@json_option
def trust_pin(host: str, port: int, fingerprints: tuple[str, ...], remove: bool, as_json: bool) -> int:
    """Believe these certificates or keys and nothing else, no authority either.

    Without a fingerprint: the key that the server has now, as it is known. Several pins are one set: a key that is kept in reserve
    belongs there. `sha256:…` is a certificate, `spki:…` a key, which outlives renewals.
    """
    known = known_peers()
    old = [rule for rule in known.rules("pin", host, port) if rule.host == host.lower() and rule.port == port]
    if remove:
        known.replace_rules(old, [])
        gone = {"host": host, "port": port, "removed": [rule.value for rule in old]}
        _said(gone, f"{len(old)} pins of {host}:{port} are gone", as_json=as_json)
        return 0
    peer = known.find(host, port)
    if not fingerprints and peer is None:
        click.echo(
            f"fubako: {host}:{port} has not been met; give a fingerprint, or `fubako trust add {host} {port}` first",
            err=True,
        )
        return NOINPUT
    try:
        values = [fingerprint(one) for one in fingerprints] or [f"spki:{peer.spki_sha256}" if peer else ""]
    except RuleFault as fault:
        raise click.UsageError(str(fault)) from None
    weak = [value for value in values if value.startswith("md5:")]
    if weak:
        raise click.UsageError(
            "MD5 proves nothing; give the SHA-256 fingerprint (openssl x509 -noout -fingerprint -sha256)"
        )
    now = int(time.time())
    known.add_rules(Rule("pin", host.lower(), port, value, "", "fubako trust pin", now) for value in values)
    told = "\n".join(f"{host}:{port} {value}" for value in values)
    _said({"host": host, "port": port, "pins": values}, told, as_json=as_json)
    return 0


@trust.command("forget")
@click.argument("host")
@click.argument("port", type=int)
@json_option
def trust_forget(host: str, port: int, as_json: bool) -> int:
    """Meet a server as if for the first time: after its key was changed for a reason that you know."""
    known = known_peers()
    old = [rule for rule in known.rules("", host, port) if rule.host == host.lower() and rule.port in (0, port)]
    if old:
        known.replace_rules(old, [])
    if known.forget(host, port) or old:
        _said({"host": host, "port": port, "forgotten": True}, "", as_json=as_json)
        return 0
    click.echo(f"fubako: {host}:{port} has not been met", err=True)
    return NOINPUT


@trust.command("import")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option(
    "--from", "kind", type=click.Choice(["guess", "fubako", "mutt", "fetchmail", "msmtp", "stunnel", "pem"]), default="guess",
    help="Whose file it is; told by its content when not given.",
)  # fmt: skip
@click.option("--host", default="", help="For PEM: the server that the certificates speak of; any when not given.")
@json_option
def trust_import(file: Path, kind: str, host: str, as_json: bool) -> int:
    """Take over what another program believes: mutt's certificate_file, .fetchmailrc, .msmtprc, stunnel.conf, PEM, or our export.

    What is known here already stays; where the file says another key of a server, that is told (exit code 65). MD5 fingerprints are
    taken, with a warning, and replaced by SHA-256 at the first good connection.
    """
    known, now = known_peers(), int(time.time())
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
        if kind == "guess":
            kind = _guessed(file, text)
        if kind == "fubako":
            return _ours(known, text, as_json=as_json)
        rules, warnings = _foreign(kind, file, text, host, now)
    except (OSError, RuleFault, fetchmailrc.FetchmailFault) as error:
        click.echo(f"fubako: {file}: {error}", err=True)
        return DATAERR
    for warning in warnings:
        click.echo(f"fubako: {visible(warning)}", err=True)
    for rule in rules:
        if rule.kind == "signer" and not rule.host:
            click.echo(
                visible(f"fubako: {rule.subject} is believed for every server from now on, as {kind} did"), err=True
            )
    fresh = known.add_rules(rules)
    facts = {"file": str(file), "kind": kind, "taken": len(rules), "new": fresh, "warnings": warnings}
    _said(facts, f"{len(rules)} taken from {file} ({kind}), {fresh} of them new", as_json=as_json)
    return 0


def _guessed(file: Path, text: str) -> str:
    if text.lstrip().startswith("{"):
        return "fubako"
    if "BEGIN CERTIFICATE" in text or "\n#H " in "\n" + text:
        return "mutt"
    for word, kind in (("sslfingerprint", "fetchmail"), ("tls_fingerprint", "msmtp"), ("CAfile", "stunnel")):
        if word in text:
            return kind
    raise RuleFault("it is not seen whose file this is; say it with --from")


def _foreign(kind: str, file: Path, text: str, host: str, now: int) -> foreign.Found:
    source = str(file)
    match kind:
        case "mutt":
            return foreign.mutt(text, source, now)
        case "msmtp":
            return foreign.msmtp(text, source, now)
        case "stunnel":
            return foreign.stunnel(text, source, now, lambda name: (file.parent / Path(name).expanduser()).read_text())
        case "fetchmail":
            rules, warnings = [], []
            for poll in fetchmailrc.parse(text):
                warnings += [f"{poll.account.host}: {one}" for one in poll.warnings]
                rules += [
                    Rule("pin", poll.account.host.lower(), poll.account.port_used, fingerprint(one), "", source, now)
                    for one in poll.account.trust
                    if one.startswith(("md5:", "sha256:"))
                ]
            return rules, warnings
    return foreign.pem(text, source, now, host)


def _ours(known: KnownPeers, text: str, *, as_json: bool) -> int:
    try:
        kept = json.loads(text)
        peers = [KnownPeer(**{**one, "history": tuple(one["history"])}) for one in kept["peers"]]
        rules = [Rule(**one) for one in kept.get("rules", [])]
    except (ValueError, TypeError, KeyError) as error:
        raise RuleFault(f"it is no export of Fubako: {error}") from None
    fresh, others = known.adopt(peers)
    fresh += known.add_rules(rules)
    count = len(peers) + len(rules)
    facts = {"kind": "fubako", "taken": count, "new": fresh, "others": [f"{peer.host}:{peer.port}" for peer in others]}
    _said(facts, f"{count} read, {fresh} of them new", as_json=as_json)
    for peer in others:
        click.echo(
            f"fubako: {peer.host}:{peer.port}: the file says ANOTHER key, {peer.sha256}; what is known here stays",
            err=True,
        )
    return DATAERR if others else 0


@trust.command("export")
@click.option("--form", type=click.Choice(["json", "mutt", "pem"]), default="json", show_default=True)
def trust_export(form: str) -> None:
    """Write what is believed to standard output: for another machine (json), as mutt's certificate_file, or as PEM."""
    known = known_peers()
    if form == "json":
        kept = {"peers": [asdict(peer) for peer in known.all()], "rules": [asdict(rule) for rule in known.rules()]}
        click.echo(json.dumps(kept, indent=1, ensure_ascii=False))
        return
    for peer in known.all():
        if peer.certificate and peer.accepted in ("always", "first-use", "pin"):
            if form == "mutt":
                click.echo(_host_line(peer))
            click.echo(_pem(peer.certificate))
    for rule in known.rules("signer"):
        click.echo(_pem(rule.value))


def _host_line(peer: KnownPeer) -> str:
    digits = hashlib.md5(base64.b64decode(peer.certificate), usedforsecurity=False).hexdigest().upper()
    return f"#H {peer.host} {' '.join(digits[at : at + 4] for at in range(0, 32, 4))}"


def _pem(certificate: str) -> str:
    rows = [certificate[at : at + 64] for at in range(0, len(certificate), 64)]
    return "\n".join(("-----BEGIN CERTIFICATE-----", *rows, "-----END CERTIFICATE-----"))
