"""The command lines of sendmail, rmail and qmail-inject, as their callers write them."""

import pytest

from fubako.protocol.callers import Request, UsageFault, qmail_inject, rmail, rmail_sender, sendmail, unbanged


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("-t", Request(from_header=True)),
        ("-t -i", Request(from_header=True, dot_ends=False)),
        ("-oi -oem -f a@b.c -- x@y.z", Request(dot_ends=False, sender="a@b.c", recipients=["x@y.z"])),  # mutt
        ("-oem -oi -B8BITMIME -f a@b.c -N success,failure -R full -- x@y.z w@y.z",
         Request(dot_ends=False, body="8BITMIME", sender="a@b.c", notify="SUCCESS,FAILURE", ret="FULL",
                 recipients=["x@y.z", "w@y.z"])),  # mutt with its DSN settings
        ("-FCronDaemon -i -odi -oem -oi -t -f root", Request(name="CronDaemon", dot_ends=False, from_header=True, sender="root")),
        ("-f<> x@y.z", Request(sender="", recipients=["x@y.z"])),
        ("-f <> x@y.z", Request(sender="", recipients=["x@y.z"])),
        ("-ra@b.c x@y.z", Request(sender="a@b.c", recipients=["x@y.z"])),
        ("-oee -oq -v -U -O DeliveryMode=b -X log -L tag -Am x", Request(errors="e", recipients=["x"])),
        ("-V id1 x", Request(envid="id1", recipients=["x"])),
        ("-bs", Request(mode="smtp")),
        ("-bS", Request(mode="batch")),
        ("-bp", Request(mode="queue")),
        ("-bi", Request(mode="aliases")),
        ("-q", Request(mode="flush")),
        ("-q30m", Request(mode="flush")),
        ("-bv x", Request(mode="verify", recipients=["x"])),
        ("-G -i x", Request(dot_ends=False, recipients=["x"])),
    ],
)  # fmt: skip
def test_sendmail(line, wanted):
    assert sendmail(line.split()) == wanted


@pytest.mark.parametrize("line", ["-bd", "-Z", "-f", "-- -x@y.z", "-bq"])
def test_sendmail_says_what_cannot_be_meant(line):
    with pytest.raises(UsageFault):
        sendmail(line.split())


@pytest.mark.parametrize(
    ("name", "mode"), [("mailq", "queue"), ("newaliases", "aliases"), ("rsmtp", "batch"), ("sendmail", "send")]
)
def test_the_name_is_the_mode(name, mode):
    assert sendmail([], name).mode == mode


def test_rmail_arguments():
    assert rmail(["-T", "-D", "UUCP", "a!b!bob", "carol@x.test"]) == ["a!b!bob", "carol@x.test"]
    for words in ([], ["-x", "bob"], ["bob", "-T"]):
        with pytest.raises(UsageFault):
            rmail(words)


@pytest.mark.parametrize(
    ("lines", "sender"),
    [
        ("From uucp Sun Nov 22 08:00:00 2026 remote from far\n", "far!uucp"),
        ("From far!bob Sun Nov 22 08:00:00 2026\n", "far!bob"),
        ("From uucp Sun Nov 22 2026 remote from near\n>From bob Sat Nov 21 2026 remote from far\n", "near!far!bob"),
        ("From bob@x.test Sun Nov 22 08:00:00 2026\n", "bob@x.test"),
        ("From <> Sun Nov 22 2026 remote from far\n", ""),
    ],
)
def test_rmail_senders(lines, sender):
    assert rmail_sender(lines.encode() + b"Subject: x\n\nbody\n") == (sender, b"Subject: x\n\nbody\n")


def test_rmail_needs_a_from_line():
    with pytest.raises(ValueError):
        rmail_sender(b"Subject: x\n\n")


@pytest.mark.parametrize(
    ("path", "address"),
    [("far!bob", "bob@far"), ("near!far!bob", "far!bob@near"), ("bob", "bob"), ("a!b@c.test", "a!b@c.test")],
)
def test_bang_paths(path, address):
    assert unbanged(path) == address


@pytest.mark.parametrize(
    ("line", "environment", "wanted"),
    [
        ("", {}, Request(dot_ends=False, from_header=True)),
        ("x@y.z", {}, Request(dot_ends=False, recipients=["x@y.z"])),
        ("-h x@y.z", {}, Request(dot_ends=False, recipients=["x@y.z"], from_header=True, only_header=True)),
        ("-H x@y.z", {}, Request(dot_ends=False, recipients=["x@y.z"], from_header=True)),
        ("-a x@y.z", {}, Request(dot_ends=False, recipients=["x@y.z"])),
        ("-n -fa@b.c x", {}, Request(dot_ends=False, recipients=["x"], sender="a@b.c", dry=True)),
        ("x", {"QMAILUSER": "u", "MAILHOST": "h.test", "NAME": "N", "USER": "unix"},
         Request(dot_ends=False, recipients=["x"], sender="u@h.test", name="N")),
        ("x", {"QMAILSUSER": "s", "QMAILSHOST": "sh.test", "QMAILUSER": "u"},
         Request(dot_ends=False, recipients=["x"], sender="s@sh.test")),
    ],
)  # fmt: skip
def test_qmail_inject(line, environment, wanted):
    assert qmail_inject(line.split(), environment) == wanted
