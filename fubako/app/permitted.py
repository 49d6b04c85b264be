"""`Permitted`: the programs that a configuration names; all else takes an alias."""

from msgspec import Struct

from fubako.config import Config
from fubako.message.target import Program
from fubako.spawn.requests import (
    Append,
    Checker,
    CheckerKind,
    FilterProgram,
    Handover,
    Lookup,
    PasswordCommand,
    Request,
    ResolverFile,
)


class Permitted(Struct, frozen=True, kw_only=True):
    """The programs that one configuration names."""

    routes: tuple[Program, ...] = ()
    password_commands: tuple[PasswordCommand, ...] = ()
    filters: tuple[tuple[str, ...], ...] = ()
    checkers: tuple[Checker, ...] = ()

    def has(self, request: Request) -> bool:
        match request:
            case Handover(program=program):
                return program in self.routes
            case PasswordCommand():
                return request in self.password_commands
            case FilterProgram(words=words):
                return words in self.filters
            case Checker():
                return request in self.checkers
            case Lookup() | ResolverFile():
                return True
            case Append():
                return False


def permitted(config: Config) -> Permitted:
    return Permitted(
        routes=tuple(Program(one.program, one.run_as) for one in config.route if one.program),
        password_commands=tuple(
            PasswordCommand(one.password_command, one.run_as) for one in config.route if one.password_command
        ),
        filters=(config.filter.program,) if config.filter.program else (),
        checkers=tuple(
            Checker(kind=CheckerKind(one.kind), words=_words(one.kind, one.service, one.program), run_as=one.run_as)
            for one in config.password_backend
            if one.kind in set(CheckerKind)
        ),
    )


def _words(kind: str, service: str, program: tuple[str, ...]) -> tuple[str, ...]:
    return {CheckerKind.PAM.value: (service,), CheckerKind.LDAP.value: ()}.get(kind, program)
