"""`judge`: whether a value that a front says could have been made by the parsers of `protocol`.

Types are right once a frame is decoded; here is what a type does not say: an address that is one, a text that stays within its
line. Raises Unbelievable: then the front is not what was started.
"""

import re

from fubako.front.frames import FrameError
from fubako.message.address import NULL, Address, AddressError, parse_address
from fubako.message.envelope import Recipient, Sender
from fubako.protocol.smtp import SIZE_MAX, SmtpLimits
from fubako.protocol.smtp_events import Auth, AuthResponse, Event, Hello, Mail, Noop, Rcpt, XClient
from fubako.protocol.smtp_server import ATTRIBUTES

_CONTROL = re.compile("[\x00-\x1f\x7f]")
_HELLOS = ("HELO", "EHLO")
_NOOPS = ("NOOP", "VRFY", "EXPN", "HELP")
_WISHES = frozenset({"NEVER", "SUCCESS", "FAILURE", "DELAY"})
NAME_OCTETS_MAX = 255
HOLD_SECONDS_MAX, BY_SECONDS_MAX = 10**9, 10**9
EPOCH_SECONDS_MAX = 253_402_300_800  # the year 10000


class Unbelievable(FrameError):
    """No stranger can make an honest front say this."""


def judge(event: Event, limits: SmtpLimits) -> None:
    """Raises Unbelievable."""
    match event:
        case Hello(verb, name):
            _demand(verb in _HELLOS and bool(name) and len(name) <= NAME_OCTETS_MAX and " " not in name, "a greeting")
            _demand(_is_line(name), "a name")
        case Mail(sender):
            _judge_sender(sender, limits)
        case Rcpt(recipient):
            _judge_recipient(recipient, limits)
        case Auth(mechanism, initial):
            _demand(_is_line(mechanism) and len(mechanism) <= limits.command, "a mechanism")
            _demand(initial is None or len(initial) <= limits.command, "a first response")
        case AuthResponse(line):
            _demand(len(line) <= limits.auth_response and b"\n" not in line and b"\r" not in line, "a response")
        case Noop(verb, argument):
            _demand(verb in _NOOPS and _is_line(argument) and len(argument) <= limits.command, "an argument")
        case XClient(attributes):
            _demand(ATTRIBUTES.issuperset(attributes), "an attribute")
            _demand(all(_is_text(one) and len(one) <= limits.command for one in attributes.values()), "an attribute")
        case _:
            pass


def _demand(held: bool, what: str) -> None:
    if not held:
        raise Unbelievable(f"{what} that no parser makes")


def _is_line(text: str) -> bool:
    return "\r" not in text and "\n" not in text and "\0" not in text


def _is_text(text: str) -> bool:
    return _CONTROL.search(text) is None


def _judge_address(address: Address) -> None:
    try:
        same = parse_address(str(address)) == address
    except AddressError:
        same = False
    _demand(same, "an address")


def _judge_sender(sender: Sender, limits: SmtpLimits) -> None:
    if sender.address != NULL:
        _judge_path(sender.address)
    if sender == Sender(sender.address):
        return
    _demand(sender.body in ("7BIT", "8BITMIME") and sender.ret in ("", "FULL", "HDRS"), "a parameter")
    _demand(sender.by_mode in ("", "R", "N") and abs(sender.by_seconds) <= BY_SECONDS_MAX, "BY")
    _demand(0 <= sender.hold_seconds <= HOLD_SECONDS_MAX, "HOLDFOR")
    _demand(0 <= sender.hold_until <= EPOCH_SECONDS_MAX and not sender.deliver_by, "a time")
    _demand(-9 <= sender.priority <= 9 and 0 <= sender.size <= SIZE_MAX, "a number")
    for one in (sender.envid, sender.auth):
        _demand(len(one) <= limits.command and _is_text(one), "a parameter")


def _judge_recipient(recipient: Recipient, limits: SmtpLimits) -> None:
    _judge_path(recipient.address)
    if recipient.notify:
        wishes = set(recipient.notify.split(","))
        _demand(wishes <= _WISHES and ("NEVER" not in wishes or len(wishes) == 1), "NOTIFY")
    orcpt = recipient.orcpt
    _demand(not orcpt or (";" in orcpt and len(orcpt) <= limits.command and _is_text(orcpt)), "ORCPT")


def _judge_path(address: Address) -> None:
    """RFC 5321 §4.1.1.3: the postmaster needs no domain."""
    if not address.domain:
        _demand(address.local.lower() == "postmaster", "an address without a domain")
    else:
        _judge_address(address)
