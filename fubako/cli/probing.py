"""`fubako probe`: what a man in the middle could take from a server, a domain, or a mail program."""

import asyncio
import json
from dataclasses import asdict, replace
from pathlib import Path

import click

from fubako import app, modes
from fubako.cli.configured import json_option
from fubako.cli.exits import NOHOST, UNAVAILABLE
from fubako.cli.probe_page import page
from fubako.client import mitm, probe_domain
from fubako.client import probe as probing
from fubako.client.findings import Finding, findings, grade
from fubako.message.trace import mail_date
from fubako.net.interface import NoSuchName
from fubako.telemetry import visible

MX_LOOKED_AT = 3


@click.command()
@click.argument("host", metavar="HOST|DOMAIN")
@click.option(
    "--service", "services", multiple=True, metavar="NAME[=PORT]", help="Only these; all of them when none is given."
)
@click.option("--server-name", default="", help="The name that certificates must hold; HOST when not given.")
@click.option("--ca-file", multiple=True, type=click.Path(path_type=Path), help="Believe this authority (PEM) too.")
@click.option(
    "--domain",
    "as_domain",
    is_flag=True,
    help="Look at the name system too, and at the hosts that take the domain's mail.",
)
@click.option("--selector", "selectors", multiple=True, help="Names of DKIM keys to look for.")
@click.option("--dns", default="", metavar="HOST:PORT", help="Ask this resolver; DNSSEC counts only on this machine.")
@click.option("--relay", is_flag=True, help="Ask whether a letter for another domain would be taken; none is sent.")
@click.option(
    "--smuggle-to",
    default="",
    metavar="ADDRESS",
    help="A mailbox of YOURS there: look for letters within letters; one may arrive.",
)
@click.option("--html", type=click.Path(path_type=Path, dir_okay=False), help="Write one page for a browser, too.")
@click.option(
    "--mitm",
    "attacked",
    is_flag=True,
    help="Instead: stand between a program (after --) and HOST, and tell what it lets out.",
)
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@json_option
def probe(
    host: str, services: tuple[str, ...], server_name: str, ca_file: tuple[Path, ...], as_domain: bool, selectors: tuple[str, ...],
    dns: str, relay: bool, smuggle_to: str, html: Path | None, attacked: bool, command: tuple[str, ...], as_json: bool,
) -> int:  # fmt: skip
    """Look at every mail port of HOST as a man in the middle would, and tell what could be taken and what to change.

    \b
    fubako probe mail.example.org                  ports, certificates, TLS versions, logins, what can be slipped in
    fubako probe --domain example.org              MX, SRV, DNSSEC, DANE, MTA-STS, TLSRPT, SPF, DKIM, DMARC; then its hosts
    fubako probe --mitm --service imap mail.example.org -- mutt -f imap://localhost:{port}/
                                                   attacks on a program of yours; {host} and {port} are where it connects

    Nothing secret is said and nothing is changed there. --relay asks as a stranger would, and breaks off. --smuggle-to sends
    letters that are never finished; only a server that is at fault delivers one, so the mailbox has to be yours.

    \b
    Exit codes: 0 nothing grave, 1 something grave (--mitm: something was let out), 68 no such domain, 69 no port answers.
    """
    chosen = _services(services)
    if attacked:
        return _attacked(host, chosen, command, as_json=as_json)
    if command:
        raise click.UsageError("a program is only given with --mitm")
    seen: list[tuple[str, probing.Seen]] = []
    domain: list[probe_domain.Domain] = []

    async def look_at(name: str) -> None:
        proved = server_name or name
        asked = await asyncio.gather(*(probing.look(name, one, port, proved, ca_file) for one, port in chosen.items()))
        await asyncio.gather(
            *(probing.look_closer(one, name, proved, relay=relay, own_mailbox=smuggle_to) for one in asked)
        )
        seen.extend((name, one) for one in asked)

    async def look() -> int:
        names = [host]
        if as_domain:
            resolver = app.resolver(dns)
            try:
                domain.append(await probe_domain.look(host, resolver, app.LateHttps(resolver), selectors))
            except NoSuchName as error:
                click.echo(f"fubako: {error}", err=True)
                return NOHOST
            names = [one.name for one in domain[0].hosts[:MX_LOOKED_AT]]
        await asyncio.gather(*map(look_at, names))
        return 0

    code = app.run(look())
    if code:
        return code
    found = _findings(host, domain, seen)
    mark = grade(found)
    if html is not None:
        with modes.create(html) as file:
            file.write(page(host, mark, found, seen).encode())
    if as_json:
        facts = {"host": host, "grade": mark, "ports": [_facts(one) | {"host": name} for name, one in seen],
                 "findings": [asdict(one) for one in found], "domain": asdict(domain[0]) if domain else None}  # fmt: skip
        click.echo(json.dumps(facts, indent=2, ensure_ascii=False))
    else:
        for name in dict.fromkeys(name for name, _ in seen):
            if domain:
                click.echo(visible(f"{name}:"))
            _shown([one for of, one in seen if of == name])
        _told(found, mark)
    if not any(one.open for _, one in seen) and not domain:
        return UNAVAILABLE
    return 1 if any(one.grade == "grave" for one in found) else 0


def _services(services: tuple[str, ...]) -> dict[str, int]:
    ports = {name: port for name, (port, _, _) in probing.SERVICES.items()}
    chosen: dict[str, int] = {}
    for text in services or ports:
        name, equals, port = text.partition("=")
        if name not in ports or (equals and not port.isdecimal()):
            raise click.UsageError(f"{text} is not one of {', '.join(ports)}, with =PORT where it is another one")
        chosen[name] = int(port) if equals else ports[name]
    return chosen


def _findings(host: str, domain: list[probe_domain.Domain], seen: list[tuple[str, probing.Seen]]) -> list[Finding]:
    found = probe_domain.findings(domain[0]) if domain else []
    for name in dict.fromkeys(name for name, _ in seen):
        of_host = findings(name, [one for of, one in seen if of == name])
        found += [replace(one, text=f"{name}: {one.text}") if domain else one for one in of_host]
    order = {"grave": 0, "weak": 1, "good": 2}
    return sorted(found, key=lambda one: order[one.grade])


def _attacked(host: str, chosen: dict[str, int], command: tuple[str, ...], *, as_json: bool) -> int:
    """Every attack on one run of the program each."""
    if len(chosen) != 1 or not command or not any("{port}" in word for word in command):
        raise click.UsageError("--mitm wants one --service, and a program with {port} in its arguments after --")
    service, port = next(iter(chosen.items()))
    _, protocol, implicit = probing.SERVICES[service]
    if protocol not in mitm.PROTOCOLS:
        raise click.UsageError(f"--mitm plays {', '.join(mitm.PROTOCOLS)}, not {protocol}")
    names = [
        name
        for name in mitm.ATTACKS
        if not (implicit and name in ("strip", "inject")) and (name != "preauth" or protocol == "imap")
    ]
    told: list[mitm.Told] = []

    async def attacks() -> int:
        for name in names:
            told.append(await mitm.attack(name, protocol, host, port, command, implicit=implicit))
            if not as_json:
                _attack_shown(told[-1])
        return 0

    app.run(attacks())
    if as_json:
        click.echo(json.dumps([asdict(one) for one in told], indent=2, ensure_ascii=False))
    if not any(one.met for one in told):
        click.echo("fubako: the program never came to the port that it was given", err=True)
        return UNAVAILABLE
    return 1 if any(one.leaks for one in told) else 0


def _attack_shown(one: mitm.Told) -> None:
    verdict = (
        f"LET OUT: {', '.join(one.leaks)}" if one.leaks else "nothing was let out" if one.met else "it did not connect"
    )
    ended = "did not end in time" if one.code is None else f"exit code {one.code}"
    click.echo(f"{one.attack:12} {mitm.ATTACKS[one.attack]}\n{'':12} {verdict}; {ended}")
    if one.leaks:
        for line in one.transcript:
            click.echo(f"{'':14} {line}")


def _facts(one: probing.Seen) -> dict[str, object]:
    facts = {name: getattr(one, name) for name in probing.Seen.__slots__ if name != "certificate"}
    if one.certificate is not None:
        shown = one.certificate
        names = [*shown.dns_names, *shown.ip_names]
        facts["certificate"] = {
            "subject": shown.subject, "issuer": shown.issuer, "sha256": shown.sha256, "names": names, "not_after": shown.not_after,
        }  # fmt: skip
    return facts


def _shown(seen: list[probing.Seen]) -> None:
    for one in seen:
        if not one.open:
            click.echo(f"{one.service:12} {one.port:>5}  closed")
            continue
        click.echo(visible(f"{one.service:12} {one.port:>5}  {one.greeting[:90]}"))
        click.echo(
            visible(f"{'':20} without TLS: {', '.join(one.clear) or 'no logins'}{'; STARTTLS' if one.starttls else ''}")
        )
        if one.certificate is not None:
            click.echo(visible(f"{'':20} {one.tls} {one.cipher}: {', '.join(one.sealed) or 'no logins'}"))
            if one.versions:
                click.echo(f"{'':20} takes TLS {', '.join(one.versions)}")
            click.echo(visible(f"{'':20} certificate of {one.certificate.subject}, by {one.certificate.issuer}, until"
                               f" {mail_date(one.certificate.not_after)}"))  # fmt: skip
            click.echo(f"{'':20} SHA-256 {one.certificate.sha256}")


def _told(found: list[Finding], mark: str) -> None:
    click.echo(f"\nWhat a man in the middle could take (grade {mark}):")
    for finding in found:
        click.echo(visible(f"  {finding.grade:5} {finding.service:12} {finding.text}"))
        if finding.advice:
            click.echo(visible(f"  {'':18} -> {finding.advice}"))
