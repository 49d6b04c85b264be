"""`Verdict`: what a check decided, and on what evidence."""

from msgspec import Struct

from fubako.message.status import Status


class Verdict(Struct, frozen=True):
    """`status` is None when the check has no objection; `rule` names the rule that decided."""

    status: Status | None = None
    rule: str = ""

    @property
    def accepted(self) -> bool:
        return self.status is None


ACCEPT = Verdict()


def refuse(code: int, enhanced: str, text: str, rule: str) -> Verdict:
    return Verdict(Status(code, enhanced, text), rule)
