"""A message with NUL octets cannot be sent by IMAP4rev1: its binary parts are kept in base64 (RFC 3516 §4.3)."""

import base64

from fubako.message.mime import Part, scan
from fubako.server.imap.outcome import No


def without_nul(content: bytes) -> bytes:
    """The content as it can be kept. Raises No where a NUL stands outside a part that may be recoded."""
    if b"\x00" not in content:
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
    return result


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
