"""What a probe found as one page for a browser: no scripts, nothing loaded, and what a server said is only text in it."""

import time
from collections.abc import Sequence
from html import escape

from fubako import __version__
from fubako.client.findings import Finding
from fubako.client.probe import Seen
from fubako.message.trace import mail_date
from fubako.telemetry import visible

_STYLE = """body{font:16px/1.5 system-ui,sans-serif;max-width:60em;margin:2em auto;padding:0 1em;color:#222;background:#fff}
h1 b{float:right;border:3px solid;border-radius:.3em;padding:0 .4em}table{border-collapse:collapse;width:100%}
td,th{text-align:left;vertical-align:top;padding:.3em .6em;border-bottom:1px solid #ddd}.grave{color:#b00020}.weak{color:#8a5a00}
.good{color:#1b6e2b}code{word-break:break-all}@media(prefers-color-scheme:dark){body{background:#181818;color:#ddd}
.grave{color:#ff8080}.weak{color:#ffc060}.good{color:#80d090}}"""


def page(host: str, mark: str, found: Sequence[Finding], seen: Sequence[tuple[str, Seen]]) -> str:
    """`mark`: the grade."""
    told = "".join(_finding(one) for one in found)
    ports = "".join(_port(name, one) for name, one in seen)
    return f"""<!DOCTYPE html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{_safe(host)}: {_safe(mark)}</title>
<style>{_STYLE}</style><h1>{_safe(host)} <b>{_safe(mark)}</b></h1>
<p>What a man in the middle could take, and what to change.</p>
<table>{told}</table>
<h2>Ports</h2><table><tr><th>host<th>service<th>TLS<th>logins<th>certificate</tr>{ports}</table>
<p>fubako probe {_safe(__version__)}, {mail_date(time.time())}</p></html>
"""


def _safe(text: str) -> str:
    return escape(visible(text))


def _finding(one: Finding) -> str:
    advice = f"<br>→ {_safe(one.advice)}" if one.advice else ""
    return f'<tr><td class="{_safe(one.grade)}">{_safe(one.grade)}<td>{_safe(one.service)}<td>{_safe(one.text)}{advice}</tr>'


def _port(name: str, one: Seen) -> str:
    facts, logins, certificate = "closed", "", ""
    if one.open:
        facts = f"{_safe(one.tls)} {_safe(one.cipher)}<br>TLS {', '.join(one.versions) or '–'}" if one.tls else "no TLS"
        logins = f"{_safe(', '.join(one.sealed)) or 'none'}<br>without TLS: {_safe(', '.join(one.clear)) or 'none'}"
    if one.certificate is not None:
        shown = one.certificate
        who = f"{_safe(shown.subject)}, by {_safe(shown.issuer)}"
        certificate = f"{who}, until {mail_date(shown.not_after)}<br><code>{shown.sha256}</code>"
    return f"<tr><td>{_safe(name)}<td>{_safe(one.service)} {one.port}<td>{facts}<td>{logins}<td>{certificate}</tr>"
