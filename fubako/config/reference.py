"""docs/configuration.md, from the definitions."""

from typing import Any

import msgspec
from msgspec import Meta, Struct

from fubako.config.file import Config
from fubako.config.inbound import ContentFilter, DnsListing, Inbound, Milter, Rates
from fubako.config.listening import Certificate, Limits, Listen, Ssh, Tls
from fubako.config.logins import ActAs, KerberosTickets, Login, OAuth, PasswordBackend
from fubako.config.outbound import Dns, MasqueradeAs, Queue, Reports, Route
from fubako.config.scanning import Scan


def reference() -> str:
    """docs/configuration.md, from the definitions."""
    out = ["# Configuration", "", "Generated from `fubako/config` by `make docs`; do not edit by hand.", ""]
    out += [
        "The file is found by `--config FILE`, `$FUBAKO_CONFIG`, `./fubako.toml`, `/etc/fubako/fubako.toml`, in that order.",
        "`fubako config check` reads it and names every fault by its place.",
        "",
    ]
    for struct, title in (
        (Config, "Top level"), (Listen, "[[listen]]"), (Tls, "[tls]"), (Certificate, "[[tls.certificates]]"),
        (Limits, "[limits]"), (Login, "[login]"), (ActAs, "[[login.act_as]]"),
        (PasswordBackend, "[[password_backend]]"), (KerberosTickets, "[kerberos]"), (OAuth, "[oauth]"),
        (Ssh, "[ssh]"), (Route, "[[route]]"), (Queue, "[queue]"), (Dns, "[dns]"),
        (Inbound, "[inbound]"), (DnsListing, "[[dns_list]]"),
        (Milter, "[[milter]]"), (ContentFilter, "[filter]"), (Rates, "[rates]"), (MasqueradeAs, "[masquerade]"),
        (Reports, "[reports]"), (Scan, "[scan]"),
    ):  # fmt: skip
        out += [f"## {title}", "", str(struct.__doc__), "", "| setting | default | meaning |", "|---|---|---|"]
        for field in msgspec.structs.fields(struct):
            meta = getattr(field.type, "__metadata__", ())
            text = next((one.description for one in reversed(meta) if isinstance(one, Meta) and one.description), "")
            default = "required" if field.default is msgspec.NODEFAULT else _shown(field.default)
            out.append(f"| `{field.name}` | {default} | {text} |")
        out.append("")
    return "\n".join(out)


def _shown(value: Any) -> str:
    if isinstance(value, Struct):
        return "see below"
    return f"`{msgspec.json.encode(value).decode()}`"
