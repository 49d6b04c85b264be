"""What strangers' letters meet: examination, DNS lists, filters, rates."""

from typing import Annotated

from msgspec import Meta, Struct

from fubako.config.addresses import LOOPBACK, Networks


class Inbound(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What strangers' letters meet at the service smtp. Networks as 192.0.2.0/24 or 2001:db8::/32."""

    examine: Annotated[
        bool, Meta(description="Look at SPF, DKIM, ARC and DMARC, and write what was found on the letter.")
    ] = True
    dmarc: Annotated[
        str,
        Meta(
            description="`obey`: do as the author's domain wishes (refuse, or mark with the keyword $Junk). `mark`: only write it.",
            pattern="^(obey|mark)$",
        ),
    ] = "obey"
    spf: Annotated[
        str,
        Meta(description="`mark`: an SPF fail is only written. `reject`: it is refused.", pattern="^(mark|reject)$"),
    ] = "mark"
    dns_questions: Annotated[
        int,
        Meta(
            description="How many questions to DNS the SPF record, the signatures and the ARC seals of one letter may cause."
            " What would take more proves nothing. The policies of its authors have a number of their own.",
            ge=20,
            le=1000,
        ),
    ] = 120
    trusted_sealers: Annotated[
        tuple[str, ...], Meta(description="Domains whose ARC seal lets a forwarded letter in although DMARC fails.")
    ] = ()
    exempt_networks: Annotated[Networks, Meta(description="Clients that are not looked at.")] = LOOPBACK
    greylist_seconds: Annotated[
        int, Meta(description="How long an unknown sender has to wait before a second attempt; 0 is off.", ge=0)
    ] = 0
    pop_before_smtp_minutes: Annotated[
        int,
        Meta(
            description="How long a client's address may send without a login after one by POP3 or IMAP over TLS; 0 is off."
            " Everybody who shares the address may send too: use submission instead where you can.",
            ge=0,
        ),
    ] = 0
    dns_list_weight: Annotated[
        int, Meta(description="The weight of DNS lists from which on a letter is refused.", ge=1)
    ] = 10
    xclient_networks: Annotated[
        Networks, Meta(description="Clients that may say by XCLIENT for whom they speak: a filter or a proxy of yours.")
    ] = ()

    long_lines: Annotated[
        str,
        Meta(
            description="What follows where a stranger's letter holds a line of more than 998 octets, which SMTP does not"
            " allow: `refuse`, or `accept` it as it is.",
            pattern="^(refuse|accept)$",
        ),
    ] = "refuse"
    lenient_networks: Annotated[
        Networks,
        Meta(
            description="Devices of yours that end lines in LF alone, send a NUL, or write lines that are too long: what they"
            " send is mended, as that of logged-in users is. Strangers are refused. Name no relay here that passes on letters of"
            " others."
        ),
    ] = ()


class DnsListing(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A DNS list to ask. Write one `[[dns_list]]` a list."""

    zone: Annotated[str, Meta(description="The list's zone: dnsbl.example.org.", min_length=1)]
    stage: Annotated[
        str,
        Meta(
            description="What is asked for: `connect` the client's address, `hello` its name, `sender` the sender's domain.",
            pattern="^(connect|hello|sender)$",
        ),
    ] = "connect"
    weight: Annotated[int, Meta(description="What it weighs; a negative one speaks for the client.")] = 10
    returns: Annotated[Networks, Meta(description="Answers that count.")] = ("127.0.0.0/8",)


class Milter(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A mail filter that speaks the milter protocol. Write one `[[milter]]` a filter; they are asked in this order."""

    address: Annotated[
        str,
        Meta(
            description='Where it listens: "127.0.0.1:11332" (rspamd, its proxy with `milter = yes`), or the path of a Unix socket:'
            ' "/run/clamav/clamav-milter.ctl".'
        ),
    ]
    fallback: Annotated[
        str,
        Meta(
            description="What happens while it does not answer: `tempfail`, `accept` or `reject`.",
            pattern="^(tempfail|accept|reject)$",
        ),
    ] = "tempfail"
    services: Annotated[tuple[str, ...], Meta(description="Whose letters it sees.")] = (
        "smtp", "submission", "submissions",
    )  # fmt: skip


class ContentFilter(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A filter that is no milter: a program, or a server that takes letters and gives them back."""

    program: Annotated[
        tuple[str, ...],
        Meta(
            description="Program and arguments: the letter on its standard input, the letter to be taken on its standard output."
            " Exit code 0: that one; 99: throw it away; 65, 67, 68, 77, 79 to 98 and 100: refuse it, with its standard error as the"
            " reason; any other, 69, 71, 74 and 75 among them: the sender is told to try again."
        ),
    ] = ()
    next_hop: Annotated[
        str,
        Meta(
            description="A server, `lmtp://host:port` or `smtp://host:port`, that takes every letter from smtp and submission"
            " before it is delivered, and gives it back at a listener of the service `filtered`."
        ),
    ] = ""


class Rates(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Recipients an hour; 0 is no limit. Each worker counts for itself."""

    account: Annotated[int, Meta(description="Of one user.", ge=0)] = 0
    account_domain: Annotated[int, Meta(description="Of all users of one domain.", ge=0)] = 0
    network: Annotated[int, Meta(description="From one IPv4 address or IPv6 /64, without a login.", ge=0)] = 0
    sender_domain: Annotated[int, Meta(description="Of strangers who write under one domain.", ge=0)] = 0
