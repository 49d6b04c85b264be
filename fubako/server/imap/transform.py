"""A message as it is kept: its octets regular, and its binary parts, where they are not, in base64 (RFC 3516 §4.3)."""

import base64

from fubako.message.mime import Part, scan
from fubako.message.octets import irregularity, regular
from fubako.server.imap.outcome import No


def as_kept(content: bytes) -> bytes:
    """The content as it can be kept: what a client writes with other line ends gets CRLF, as from every other way in. Raises No
    where a NUL stands outside a part that may be recoded."""
    if irregularity(content, long_lines=True) is None:
        return content
    out: list[bytes] = []
    position = 0
    for part in _binary_leaves(scan(content)):
        header, body = content[part.start : part.body], content[part.body : part.end]
        out += [content[position : part.start], _recoded(header), base64.encodebytes(body).replace(b"\n", b"\r\n")]
        position = part.end
    result = b"".join([*out, content[position:]])
    if b"\x00" in result:
        raise No("[UNKNOWN-CTE] NUL stands where it cannot be encoded")
    return regular(result)


def _binary_leaves(part: Part) -> list[Part]:
    if part.children:
        return [leaf for child in part.children for leaf in _binary_leaves(child)]
    return [part] if part.encoding.lower() == b"binary" else []


def _recoded(header: bytes) -> bytes:
    lines = header.split(b"\r\n")
    out: list[bytes] = []
    dropping = False
    for line in lines:
        if not line.startswith((b" ", b"\t")):
            dropping = line.lower().startswith(b"content-transfer-encoding:")
            if dropping:
                out.append(b"Content-Transfer-Encoding: base64")
        if not dropping:
            out.append(line)
    return b"\r\n".join(out)
