"""`Status`: one shape for an SMTP reply, a delivery outcome, a DSN field and a log field."""

from functools import lru_cache

from msgspec import Struct


class Status(Struct, frozen=True):
    """A reply code (RFC 5321 §4.2), an enhanced code (RFC 3463, may be empty) and a text of one or more lines."""

    code: int
    enhanced: str = ""
    text: str = ""

    @property
    def ok(self) -> bool:
        return 200 <= self.code < 400

    def wire(self) -> bytes:
        """The reply as sent: every line carries the codes, the last one a blank instead of a hyphen."""
        return _wire(self.code, self.enhanced, self.text)

    def __str__(self) -> str:
        return " ".join(part for part in (str(self.code), self.enhanced, self.text) if part)


@lru_cache(maxsize=256)
def _wire(code: int, enhanced: str, text: str) -> bytes:
    """Most replies are said again and again."""
    if "\n" not in text:
        return (f"{code} {enhanced} {text}\r\n" if enhanced else f"{code} {text}\r\n").encode("utf-8")
    prefix = f"{enhanced} " if enhanced else ""
    lines = [prefix + line for line in text.split("\n")]
    head = [f"{code}-{line}\r\n" for line in lines[:-1]]
    return "".join([*head, f"{code} {lines[-1]}\r\n"]).encode("utf-8")
