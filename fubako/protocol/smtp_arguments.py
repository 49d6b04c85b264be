"""The arguments of MAIL and RCPT: a path and its parameters -> `Sender`, `Recipient`."""

import re
from datetime import datetime

from fubako.message.address import NULL, Address, AddressError, parse_path
from fubako.message.envelope import Recipient, Sender
from fubako.message.status import Status
from fubako.protocol.smtp import SIZE_MAX, SyntaxFault, parse_parameters, xtext_decode


def parse_mail(argument: str) -> Sender:
    """`FROM:<path> parameters` (RFC 5321 §4.1.1.2). Raises SyntaxFault."""
    address, parameters = _path(argument, "FROM:", null_ok=True)
    if not parameters and address.ascii:
        return Sender(address)
    body = parameters.pop("BODY", "7BIT").upper()
    if body not in ("7BIT", "8BITMIME"):  # BINARYMIME is not offered: its octets cannot travel by DATA (RFC 3030 §3)
        raise SyntaxFault(Status(501, "5.5.4", "BODY is 7BIT or 8BITMIME"))
    size = parameters.pop("SIZE", "0")
    if not (size.isascii() and size.isdigit()) or len(size) > 20:
        raise SyntaxFault(Status(501, "5.5.4", "SIZE is a number"))
    ret = parameters.pop("RET", "").upper()
    if ret not in ("", "FULL", "HDRS"):
        raise SyntaxFault(Status(501, "5.5.4", "RET is FULL or HDRS"))
    smtputf8 = _flag(parameters, "SMTPUTF8")
    by_seconds, by_mode = _deliver_by(parameters.pop("BY", ""))
    hold_seconds, hold_until = _hold(parameters.pop("HOLDFOR", ""), parameters.pop("HOLDUNTIL", ""))
    sender = Sender(
        address,
        body,
        smtputf8,
        min(int(size), SIZE_MAX),
        ret,
        xtext_decode(parameters.pop("ENVID", "")),
        _flag(parameters, "REQUIRETLS"),
        parameters.pop("AUTH", ""),
        _priority(parameters.pop("MT-PRIORITY", "0")),
        by_seconds,
        by_mode,
        hold_seconds=hold_seconds,
        hold_until=hold_until,
    )
    _nothing_left(parameters)
    if not address.ascii and not smtputf8:
        raise SyntaxFault(Status(553, "5.6.7", "an address outside ASCII needs SMTPUTF8"))
    return sender


def parse_rcpt(argument: str) -> Recipient:
    """`TO:<path> parameters` (RFC 5321 §4.1.1.3, RFC 3461 §4.1, 4.2). Raises SyntaxFault."""
    address, parameters = _path(argument, "TO:", null_ok=False)
    if not parameters:
        return Recipient(address)
    notify = parameters.pop("NOTIFY", "").upper()
    wishes = set(notify.split(",")) if notify else set()
    if wishes - {"NEVER", "SUCCESS", "FAILURE", "DELAY"} or ("NEVER" in wishes and len(wishes) > 1):
        raise SyntaxFault(Status(501, "5.5.4", "NOTIFY is NEVER, or SUCCESS, FAILURE and DELAY"))
    orcpt = parameters.pop("ORCPT", "")
    if orcpt and ";" not in orcpt:
        raise SyntaxFault(Status(501, "5.5.4", "ORCPT is a type and an address"))
    _nothing_left(parameters)
    return Recipient(address, notify, orcpt)


def _deliver_by(text: str) -> tuple[int, str]:
    """`seconds;R` or `seconds;N`, with a T behind where it is to be traced (RFC 2852 §4)."""
    if not text:
        return 0, ""
    match = re.fullmatch(r"([+-]?[0-9]{1,9});([RNrn])([Tt]?)", text)
    if match is None:
        raise SyntaxFault(Status(501, "5.5.4", "BY is seconds;R or seconds;N"))
    seconds, mode = int(match.group(1)), match.group(2).upper()
    if mode == "R" and seconds <= 0:
        raise SyntaxFault(Status(501, "5.5.4", "BY with R needs a time that is still to come"))
    return seconds, mode


def _hold(seconds: str, until: str) -> tuple[int, int]:
    """RFC 4865 §5: HOLDFOR in seconds, or HOLDUNTIL as RFC 3339 writes a time."""
    if seconds and until:
        raise SyntaxFault(Status(501, "5.5.4", "HOLDFOR and HOLDUNTIL exclude each other"))
    if seconds and not re.fullmatch(r"[1-9][0-9]{0,8}", seconds):
        raise SyntaxFault(Status(501, "5.5.4", "HOLDFOR is a number of seconds"))
    if not until:
        return int(seconds or 0), 0
    try:
        when = datetime.fromisoformat(until)
        if when.tzinfo is None:
            raise ValueError
        return 0, max(1, int(when.timestamp()))
    except (ValueError, OverflowError):
        raise SyntaxFault(Status(501, "5.5.4", "HOLDUNTIL is a time like 2026-12-24T18:00:00Z")) from None


def _priority(text: str) -> int:
    """RFC 6710 §4."""
    if not re.fullmatch(r"-?[0-9]", text):
        raise SyntaxFault(Status(501, "5.5.4", "MT-PRIORITY is a number from -9 to 9"))
    return int(text)


def _flag(parameters: dict[str, str], name: str) -> bool:
    value = parameters.pop(name, None)
    if value:
        raise SyntaxFault(Status(501, "5.5.4", f"{name} takes no value"))
    return value is not None


def _nothing_left(parameters: dict[str, str]) -> None:
    if parameters:
        raise SyntaxFault(Status(555, "5.5.4", f"parameter {min(parameters)} is not known"))


def _path(argument: str, word: str, *, null_ok: bool) -> tuple[Address, dict[str, str]]:
    if argument[: len(word)].upper() != word:
        raise SyntaxFault(Status(501, "5.5.4", f"{word}<address> is needed"))
    text = argument[len(word) :].lstrip(" ")
    if text[:1] not in ("", "<"):  # old devices write no brackets; nothing else can be meant
        bare, blank, parameters = text.partition(" ")
        text = f"<{bare}>{blank}{parameters}"
    try:
        address, rest = parse_path(text, null_ok=null_ok)
    except AddressError as error:
        raise SyntaxFault(Status(501, "5.1.7" if word == "FROM:" else "5.1.3", str(error))) from None
    if rest and not rest.startswith(" "):
        raise SyntaxFault(Status(501, "5.5.4", "something stands right behind the path"))
    if address == NULL and not null_ok:
        raise SyntaxFault(Status(501, "5.1.3", "a recipient is needed"))
    return address, parse_parameters(rest) if rest else {}
