"""The addresses that a header names as authors and senders: `named(header, name)`. Pure.

Who may stand there is policy; whether all readers read the same is `ambiguity`.
"""

from fubako.message.address import Address, AddressError, parse_address
from fubako.message.headers import fields, unfold
from fubako.message.mailboxes import parse_list


def named(header: bytes, name: bytes) -> list[Address | None]:
    """The addresses in every field of this name (lower case), in order; None stands for what is no address."""
    found: list[Address | None] = []
    for key, value in fields(header):
        if key.lower() != name:
            continue
        boxes = [box for box in parse_list(unfold(value)) if box.mailbox is not None]
        found += [_address(box.mailbox or b"", box.host) for box in boxes] or [None]
    return found


def _address(local: bytes, host: bytes | None) -> Address | None:
    try:
        return parse_address((local + b"@" + (host or b"")).decode("utf-8"))
    except (AddressError, UnicodeDecodeError):
        return None


def forms(address: Address) -> tuple[Address, ...]:
    """The address with its domain in A-labels and in U-labels: the same to who looks (RFC 5890 §2.3.2.1)."""
    domains = dict.fromkeys((address.domain, a_label(address.domain), _u_label(address.domain)))
    return tuple(Address(address.local, domain) for domain in domains)


def a_label(domain: str) -> str:
    """As DNS knows it, in lower case; unchanged where it cannot be said so."""
    try:
        return domain.encode("idna").decode("ascii").lower()
    except UnicodeError:
        return domain.lower()


def _u_label(domain: str) -> str:
    try:
        return domain.encode("ascii").decode("idna").lower()
    except UnicodeError:
        return domain.lower()
