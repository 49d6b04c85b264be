"""`Status`: one shape for an SMTP reply, a delivery outcome, a DSN field and a log field."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Status:
    """A reply code (RFC 5321 §4.2), an enhanced code (RFC 3463, may be empty) and a text of one or more lines."""

    code: int
    enhanced: str = ""
    text: str = ""

    @property
    def ok(self) -> bool:
        return 200 <= self.code < 400

    def wire(self) -> bytes:
        """The reply as sent: every line carries the codes, the last one a blank instead of a hyphen."""
        if "\n" not in self.text:
            parts = (str(self.code), self.enhanced, self.text) if self.enhanced else (str(self.code), self.text)
            return (" ".join(parts) + "\r\n").encode("utf-8")
        prefix = f"{self.enhanced} " if self.enhanced else ""
        lines = [prefix + line for line in self.text.split("\n")]
        head = [f"{self.code}-{line}\r\n" for line in lines[:-1]]
        return "".join([*head, f"{self.code} {lines[-1]}\r\n"]).encode("utf-8")

    def __str__(self) -> str:
        return " ".join(part for part in (str(self.code), self.enhanced, self.text) if part)
