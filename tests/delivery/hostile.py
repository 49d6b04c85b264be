"""Addresses that once were, elsewhere are, or by a mistake could become something else than an address."""

from pathlib import Path

from fubako.message.address import Address, AddressError, parse_address

LOCALS = [
    '"|/bin/touch {x}"', "|/bin/touch", '"|{x}"', "|{x}", '"||{x}"', "/{x}", "{x}", '"{x}"', '"{x}/"', ":include:{x}",
    '":include:{x}"', "::include::{x}", "@file", '"@program"', '"|"', "|", "/", "a%b@far.test", "far.test!{x}", "!{x}",
    '"\\|{x}"', "a+|{x}", '"a+|/bin/touch {x}"', '"+|/bin/touch {x}"', "|é", "\\|{x}", "-oQ/tmp", "-X{x}", "../../etc/x",
    '"a\\\\b"', "$(touch {x})", '"`touch {x}`"', '"$(touch {x})"', "file:{x}", "prog:{x}", "\x1b|{x}", "\x00|{x}", "～{x}",
    "postmaster|{x}",
]  # fmt: skip
DOMAINS = [
    "here.test", "far.test", "HERE.test.", "[127.0.0.1]", "program", "file", "@program", "@again", "@filter", "", "|x",
]  # fmt: skip
ROUTES = ["", "@far.test:", "@|{x},@b.test:"]
ROUTED = [
    "'a b'@x.test",
    '"a\'b"@x.test',
    "a&b@x.test",
    "a;id@x.test",
    "a|b@x.test",
    "*@x.test",
    "~root@x.test",
    "a{b,c}@x.test",
]


def hostile(tmp_path: Path) -> list[str]:
    """As a peer or a user writes them. What they would make lies in `tmp_path` and is called `pwned…`."""
    path = str(tmp_path / "pwned")
    found = [f"{local}@{domain}" if domain else local for local in LOCALS for domain in DOMAINS]
    found += [f"{route}{LOCALS[0]}@here.test" for route in ROUTES] + [f"{route}/{{x}}@far.test" for route in ROUTES]
    return [one.replace("{x}", path) for one in found]


def addresses(texts: list[str]) -> list[Address]:
    """Those that are addresses, and what a parser may let through tomorrow."""
    found = []
    for text in texts:
        try:
            found.append(parse_address(text))
        except AddressError:
            continue
    return found + [
        Address(local.replace("{x}", "/pwned"), domain)
        for local in LOCALS
        for domain in ("here.test", "far.test", "@program")
    ]
