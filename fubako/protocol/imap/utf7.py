"""Modified UTF-7 for mailbox names (RFC 3501 §5.1.3)."""

import base64
import binascii


def encode(name: str) -> str:
    """ASCII for a name. `&` becomes `&-`, runs outside printable ASCII become `&…-`."""
    out: list[str] = []
    run: list[str] = []
    for character in name + "\x00":
        if " " <= character <= "~":
            out += [_run(run), "&-" if character == "&" else character]
            run = []
        else:
            run.append(character)
    out.append(_run(run[:-1]))
    return "".join(out)


def _run(run: list[str]) -> str:
    if not run:
        return ""
    packed = base64.b64encode("".join(run).encode("utf-16-be", "surrogatepass"))
    return "&" + packed.decode().rstrip("=").replace("/", ",") + "-"


def decode(text: str) -> str:
    """The name; raises ValueError for text that no encoder makes (RFC 3501: one name, one form)."""
    if not (text.isascii() and (text.isprintable() or not text)):
        raise ValueError("a name outside printable ASCII needs UTF-8 to be enabled")
    if "&" not in text:
        return text
    out: list[str] = []
    position = 0
    while (start := text.find("&", position)) >= 0:
        out.append(text[position:start])
        end = text.find("-", start)
        if end < 0:
            raise ValueError("a shift is not closed")
        run = text[start + 1 : end]
        if run:
            packed = run.replace(",", "/")
            try:
                octets = base64.b64decode(packed + "=" * (-len(packed) % 4), validate=True)
                out.append(octets.decode("utf-16-be"))
            except (binascii.Error, UnicodeDecodeError):
                raise ValueError("a shifted run is malformed") from None
        else:
            out.append("&")
        position = end + 1
    out.append(text[position:])
    name = "".join(out)
    if encode(name) != text:
        raise ValueError("the name is not in its one right form")
    return name
