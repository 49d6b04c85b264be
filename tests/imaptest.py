"""Runs the scripted groups of ImapTest (tests/suites/imaptest) against any IMAP server.

python tests/imaptest.py HOST PORT USER PASSWORD CAFILE [GROUP …]
"""

import re
import socket
import ssl
import sys
from dataclasses import dataclass, field
from pathlib import Path

SUITE = Path(__file__).parent / "suites" / "imaptest"
TIMEOUT = 20.0


class Mismatch(AssertionError):
    pass


class Skip(Exception):
    pass


# -- tokens: str for atoms, bytes for strings, list for lists, Star for `* …`


def tokenise(data: bytes) -> list:
    """One response or expectation; literals in place ({n} CRLF octets)."""
    stack, pos = [[]], 0
    while pos < len(data):
        c = data[pos : pos + 1]
        if c in b" ":
            pos += 1
        elif c == b"(":
            stack.append([])
            pos += 1
        elif c == b")":
            if len(stack) == 1:
                raise Mismatch(f"unbalanced: {data!r}")
            inner = stack.pop()
            stack[-1].append(inner)
            pos += 1
        elif c == b'"':
            end = pos + 1
            while data[end : end + 1] != b'"':
                end += 2 if data[end : end + 1] == b"\\" else 1
            stack[-1].append(re.sub(rb"\\(.)", rb"\1", data[pos + 1 : end]))
            pos = end + 1
        elif m := re.compile(rb"~?\{(\d+)\+?\}\r\n").match(data, pos):
            size = int(m.group(1))
            stack[-1].append(data[m.end() : m.end() + size])
            pos = m.end() + size
        else:
            m = re.compile(rb'(?:[^\s()"\[]|\[[^\]]*\])+').match(data, pos) or re.compile(rb"[^\s()]+").match(data, pos)
            stack[-1].append(m.group(0).decode("latin-1"))
            pos = m.end()
    return stack[0]


def text_of(token) -> bytes:
    return token if isinstance(token, bytes) else token.encode("latin-1")


class Matcher:
    def __init__(self, variables: dict):
        self.vars = variables

    def match(self, want, got, seqs=None) -> bool:
        if isinstance(want, list):
            return isinstance(got, list) and self.match_list(want, got)
        if isinstance(got, list):
            if isinstance(want, str) and re.fullmatch(r"\$\w+", want):
                return self.bind(want[1:], repr(got).encode())
            return False
        if isinstance(want, str) and "$" in want:
            return self.match_text(want, text_of(got))
        if isinstance(want, bytes) and b"$" in want and b"\n" not in want:
            return self.match_text(want.decode("latin-1"), text_of(got))
        w, g = text_of(want), text_of(got)
        if isinstance(want, bytes) and isinstance(got, bytes):
            if b"\n" in w:  # the scripts disagree about a block's last line end
                return w.rstrip(b"\r\n") == g.rstrip(b"\r\n")
            return w.lower() == g.lower()
        return w.lower() == g.lower()

    def match_text(self, want: str, got: bytes) -> bool:
        whole = re.fullmatch(r"\$(\w+)|\$\{(\w+)\}", want)
        if whole and (whole.group(1) or whole.group(2)) not in self.vars:
            return self.bind(whole.group(1) or whole.group(2), got)
        pattern, pos, names = "", 0, []
        for m in re.finditer(r"\$\$|\$(\w+)|\$\{(\w+)\}", want):
            pattern += re.escape(want[pos : m.start()])
            pos = m.end()
            name = m.group(1) or m.group(2)
            if m.group(0) == "$$":
                pattern += r"\$"
            elif name in self.vars:
                pattern += re.escape(self.vars[name].decode("latin-1"))
            else:
                pattern += "(.+?)" if "]" in want else r"([^,:]+)"
                names.append(name)
        pattern += re.escape(want[pos:])
        m = re.fullmatch(pattern, got.decode("latin-1"), re.IGNORECASE)
        if not m:
            return False
        return all(self.bind(n, g.encode("latin-1")) for n, g in zip(names, m.groups(), strict=True))

    def bind(self, name: str, got: bytes) -> bool:
        if name in self.vars:
            return self.vars[name].lower() == got.lower()
        self.vars[name] = got
        return True

    def match_list(self, want: list, got: list) -> bool:
        bans = [w[len("$!ban=") :] for w in want if isinstance(w, str) and w.startswith("$!ban=")]
        unordered = any(w == "$!unordered" for w in want)
        want = [w for w in want if not (isinstance(w, str) and w.startswith("$!"))]
        if any(self.match(b, g) for b in bans for g in got):
            return False
        if unordered:
            return self.subset(want, got, 1)
        return len(want) == len(got) and all(self.match(w, g) for w, g in zip(want, got, strict=True))

    def subset(self, want: list, got: list, chunk: int) -> bool:
        rest = [got[i : i + chunk] for i in range(0, len(got), chunk)]
        for i in range(0, len(want), chunk):
            piece = want[i : i + chunk]
            for j, candidate in enumerate(rest):
                if len(candidate) == len(piece) and self.match_pair(piece, candidate):
                    del rest[j]
                    break
            else:
                return False
        return True

    def match_pair(self, want: list, got: list) -> bool:
        if len(want) == 2 and isinstance(want[0], str) and want[0].lower() == "flags" and isinstance(want[1], list):
            if not (isinstance(got[0], str) and got[0].lower() == "flags"):
                return False
            extra = [g for g in got[1] if not any(self.match(w, g) for w in want[1])]
            return all(any(self.match(w, g) for g in got[1]) for w in want[1]) and all(
                str(e).lower() == "\\recent" for e in extra
            )
        if not (isinstance(want[0], str) and isinstance(got[0], str) and same_key(want[0], got[0])):
            return self.match(want[0], got[0]) and all(self.match(w, g) for w, g in zip(want[1:], got[1:], strict=True))
        return all(self.match(w, g) for w, g in zip(want[1:], got[1:], strict=True))

    def untagged(self, want: list, got: list, numbers: list) -> bool:
        """numbers: what each received number originally was."""
        before = dict(self.vars)
        if self._untagged(want, got, numbers):
            return True
        self.vars.clear()
        self.vars.update(before)
        return False

    def _untagged(self, want, got, original) -> bool:
        want, got = list(want), list(got)
        if len(want) > 1 and isinstance(want[1], str) and want[1].lower() in ("fetch", "expunge", "exists", "recent"):
            if len(got) < 2 or str(got[1]).lower() != want[1].lower():
                return False
            m = re.fullmatch(r"\$(\d+)", want[0])
            if m:
                if original is None or int(m.group(1)) != original:
                    return False
            elif not self.match(want[0], got[0]):
                return False
            if want[1].lower() == "fetch":
                return isinstance(got[2], list) and self.subset(want[2], got[2], 2)
            return True
        kind = want[0].lower() if isinstance(want[0], str) else ""
        if not got or not self.match(want[0], got[0]):
            return False
        if kind in ("list", "lsub"):
            if len(want) > 1 and len(got) > 1 and isinstance(want[1], list):
                if not self.match_list([*(["$!unordered"]), *want[1]], got[1]):
                    return False
                want, got = want[2:], got[2:]
                return len(got) >= len(want) and all(self.match(w, g) for w, g in zip(want, got, strict=False))
        if kind == "status":
            return self.match(want[1], got[1]) and self.subset(want[2], got[2], 2)
        if kind == "flags":
            return self.subset(want[1], got[1], 1)
        if kind in ("ok", "no", "bad", "bye", "search", "esearch", "id", "vanished", "namespace", "enabled"):
            if kind == "search":
                return len(want) == len(got) and all(self.match(w, g) for w, g in zip(want, got, strict=True))
            return len(got) >= len(want) and all(self.match(w, g) for w, g in zip(want, got, strict=False))
        return len(got) >= len(want) and all(self.match(w, g) for w, g in zip(want, got, strict=False))


def same_key(a: str, b: str) -> bool:
    return re.sub(r"\s+", " ", a).lower() == re.sub(r"\s+", " ", b).lower()


# -- a connection


class Client:
    def __init__(self, host, port, context, server_name):
        raw = socket.create_connection((host, port), TIMEOUT)
        self.sock = context.wrap_socket(raw, server_hostname=server_name)
        self.file = self.sock.makefile("rb")
        self.count = 0
        self.originals: list[int] = []
        self.total = 0
        self.greeting = self.read()

    def read(self) -> bytes:
        """One whole response with its literals."""
        out = b""
        while True:
            line = self.file.readline()
            if not line:
                raise Mismatch("connection closed")
            out += line
            m = re.search(rb"\{(\d+)\}\r\n$", line)
            if not m:
                return out.removesuffix(b"\r\n")
            out += self.file.read(int(m.group(1)))

    def send(self, tag: str, data: bytes):
        self.sock.sendall(tag.encode() + b" " + data + b"\r\n")

    def track(self, tokens: list):
        """The original number of a numbered response; numbers move on with EXPUNGE and EXISTS."""
        if len(tokens) < 2 or not isinstance(tokens[0], str) or not tokens[0].isdigit():
            return None
        number, kind = int(tokens[0]), str(tokens[1]).lower()
        if kind == "exists":
            while len(self.originals) < number:
                self.total += 1
                self.originals.append(self.total)
            return None
        original = self.originals[number - 1] if 0 < number <= len(self.originals) else None
        if kind == "expunge" and original is not None:
            del self.originals[number - 1]
        return original

    def until(self, tag: str):
        """([(tokens, original number)], tokens of the tagged reply)."""
        untagged = []
        while True:
            line = self.read()
            if line.startswith(b"* "):
                try:
                    tokens = tokenise(line[2:])
                except (Mismatch, AttributeError):
                    tokens = [w.decode("latin-1") for w in line[2:].split(b" ")]
                untagged.append((tokens, self.track(tokens)))
            elif line.startswith(b"+"):
                continue
            else:
                head, _, rest = line.partition(b" ")
                return head.decode(), untagged, list(safe_tokens(rest))

    def command(self, data: bytes):
        self.count += 1
        tag = f"t{self.count}"
        self.total = len(self.originals)
        self.originals = list(range(1, self.total + 1))
        self.send(tag, data)
        _, untagged, reply = self.until(tag)
        return untagged, reply


def safe_tokens(data: bytes) -> list:
    try:
        return tokenise(data)
    except (Mismatch, AttributeError):
        return [w.decode("latin-1") for w in data.split(b" ")]


# -- scripts


@dataclass
class Step:
    connection: int
    expect: str
    command: bytes
    tag: str = ""
    want: list = field(default_factory=list)  # (sign, expectation)


def join_blocks(data: bytes) -> list[bytes]:
    """Lines, with {{{ … }}} blocks turned into literals."""
    out, lines, i = [], data.split(b"\n"), 0
    while i < len(lines):
        line = lines[i]
        while (m := re.search(rb"(~?)\{\{\{$", line)) is not None:
            block = []
            i += 1
            while not lines[i].startswith(b"}}}"):
                block.append(lines[i])
                i += 1
            raw = m.group(1) == b"~"
            content = (b"\n" if raw else b"\r\n").join(block)
            line = line[: m.start()] + m.group(1) + b"{%d+}\r\n" % len(content) + content + lines[i][3:]
        out.append(line)
        i += 1
    return out


def parse_script(path: Path):
    head, _, body = path.read_bytes().partition(b"\n\n")
    settings = {}
    while True:
        for line in head.split(b"\n"):
            if b":" in line and not line.startswith(b"#"):
                key, _, value = line.partition(b":")
                settings[key.strip().decode().lower()] = value.strip().decode()
        break
    steps: list[Step] = []
    multi = int(settings.get("connections", "1")) > 1
    for line in join_blocks(body):
        stripped = line.strip(b" \t") if b"\r\n" not in line else line.lstrip(b" \t")
        if not stripped or stripped.startswith(b"#"):
            continue
        if stripped[:2] in (b"* ", b"! "):
            steps[-1].want.append((chr(stripped[0]), stripped[2:]))
            continue
        connection = 1
        m = re.match(rb"(\d+) ", stripped)
        if multi and m:
            connection, stripped = int(m.group(1)), stripped[m.end() :]
        m = re.match(rb"(tag\d+) ", stripped)
        if m:
            steps.append(Step(connection, "tag", stripped[m.end() :], m.group(1).decode()))
            continue
        m = re.match(rb'(ok|no|bad|"")(?: |$)', stripped, re.IGNORECASE)
        if m is None:
            steps.append(Step(connection, "later", stripped))
        elif steps and steps[-1].expect == "later":
            steps[-1].expect = stripped.decode("latin-1")
        else:
            steps.append(Step(connection, m.group(1).decode().lower(), stripped[m.end() :]))
    return settings, steps


def mbox_messages(path: Path) -> list[bytes]:
    text = path.read_bytes()
    parts = re.split(rb"(?m)^From [^\n]*\n", text)[1:]
    return [p.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n") for p in parts]


class Run:
    def __init__(self, host, port, user, password, cafile, server_name="localhost"):
        self.host, self.port, self.user, self.password = host, port, user, password
        self.server_name = server_name
        self.context = ssl.create_default_context(cafile=cafile)

    def connect(self) -> Client:
        return Client(self.host, self.port, self.context, self.server_name)

    def group(self, name: str) -> None:
        settings, steps = parse_script(SUITE / name)
        box = SUITE / f"{name}.mbox"
        messages = mbox_messages(box if box.exists() else SUITE / "default.mbox")
        mailbox = f"imaptest-{name}"
        variables = {
            "mailbox": mailbox.encode(), "user": self.user.encode(), "password": self.password.encode(),
            "username": self.user.partition("@")[0].encode(), "domain": self.user.partition("@")[2].encode(),
            "mailbox_url": mailbox.encode(),
        }  # fmt: skip
        first = self.connect()
        self.login(first)
        wanted = settings.get("capabilities", "").upper().split()
        have = {t.upper() for (t,) in [(x,) for x in self.capabilities(first)]}
        missing = [w for w in wanted if w not in have]
        if missing:
            raise Skip(" ".join(missing))
        self.clean(first, mailbox)
        state = settings.get("state", "selected")
        matcher = Matcher(variables)
        self.appended = 0
        clients = []
        if state != "auth" and state != "nonauth":
            assert first.command(b"CREATE " + mailbox.encode())[1][0].upper() == "OK"
        count = settings.get("messages", "all" if state in ("appended", "selected") else "0")
        if state not in ("auth", "nonauth", "created"):
            for _ in range(len(messages) if count == "all" else int(count)):
                self.append(first, mailbox, messages)
        for _ in range(int(settings.get("connections", "1"))):
            client = self.connect()
            clients.append(client)
            if state == "nonauth":
                continue
            self.login(client)
            if state == "selected":
                _untagged, reply = client.command(b"SELECT " + mailbox.encode())
                assert reply[0].upper() == "OK", reply
        try:
            self.play(steps, clients, matcher, mailbox, messages)
        finally:
            for client in clients:
                client.sock.close()
            self.clean(first, mailbox)
            first.sock.close()

    def capabilities(self, client) -> list[str]:
        untagged, _ = client.command(b"CAPABILITY")
        return [w for tokens, _ in untagged if str(tokens[0]).upper() == "CAPABILITY" for w in tokens[1:]]

    def login(self, client) -> None:
        _, reply = client.command(f'LOGIN "{self.user}" "{self.password}"'.encode())
        assert reply[0].upper() == "OK", reply

    def clean(self, client, mailbox: str) -> None:
        untagged, _ = client.command(f'LIST "" "{mailbox}*"'.encode())
        names = [text_of(t[3]).decode("latin-1") for t, _ in untagged if str(t[0]).upper() == "LIST"]
        for name in sorted(names, reverse=True):
            client.command(f'DELETE "{name}"'.encode())
        untagged, _ = client.command(f'LSUB "" "{mailbox}*"'.encode())
        for t, _ in untagged:
            if str(t[0]).upper() == "LSUB":
                client.command(b'UNSUBSCRIBE "' + text_of(t[3]) + b'"')

    def append(self, client, mailbox: str, messages: list[bytes], extra: bytes = b"", target: bytes = b""):
        content = messages[self.appended % len(messages)]
        self.appended += 1
        box = target or mailbox.encode()
        return client.command(b"APPEND " + box + extra + b" {%d+}\r\n" % len(content) + content)

    def expand(self, command: bytes, variables: dict) -> bytes:
        def value(m):
            if m.group(0) == b"$$":
                return b"$"
            name = (m.group(1) or m.group(2)).decode()
            if name not in variables:
                raise Mismatch(f"${name} has no value")
            return variables[name]

        return re.sub(rb"\$\$|\$(\w+)|\$\{(\w+)\}", value, command)

    def play(self, steps, clients, matcher, mailbox, messages) -> None:
        tagged: list[Step] = []
        for step in steps:
            client = clients[step.connection - 1]
            if step.expect == "tag":
                first_word = step.command.split(b" ")[0].lower()
                if first_word not in (b"ok", b"no", b"bad"):
                    client.send(step.tag, self.expand(step.command, matcher.vars))
                    tagged.append(step)
                    client.waiting = getattr(client, "waiting", [])
                    client.waiting += step.want
                    continue
                head, untagged, reply = client.until(step.tag)
                client.seen = getattr(client, "seen", []) + untagged
                if head != step.tag or reply[0].lower() != first_word.decode():
                    raise Mismatch(f"{step.tag}: {head} {reply}")
                if not any(
                    s for s in steps[steps.index(step) + 1 :] if s.expect == "tag" and s.command[:2].lower() == b"ok"
                ):
                    self.check(step, client.waiting, client.seen, matcher)
                continue
            untagged, reply = self.send(client, step, matcher, mailbox, messages)
            self.check(step, step.want, untagged, matcher)
            expect = tokenise(step.expect.encode("latin-1"))
            if step.expect != '""' and expect:
                if reply[0].lower() != str(expect[0]).lower():
                    raise Mismatch(f"{step.command!r}: wanted {step.expect}, got {reply}")
                for want, got in zip(expect[1:], reply[1:], strict=False):
                    if not matcher.match(want, got):
                        raise Mismatch(f"{step.command!r}: wanted {step.expect}, got {reply}")

    def send(self, client, step, matcher, mailbox, messages):
        command = step.command
        words = command.split(None, 1)
        if words and words[0].lower() == b"append" and b"}\r\n" not in command and b"catenate" not in command.lower():
            rest = words[1] if len(words) > 1 else b"$mailbox"
            target, _, extra = rest.partition(b" ")
            extra = b" " + extra if extra else b""
            return self.append(
                client, mailbox, messages, self.expand(extra, matcher.vars), self.expand(target, matcher.vars)
            )
        matcher.vars["tag"] = f"t{client.count + 1}".encode()
        return client.command(self.expand(command, matcher.vars))

    def check(self, step, wants, untagged, matcher) -> None:
        for sign, text in wants:
            want = tokenise(text)
            if sign == "!":
                if any(matcher.untagged(want, got, original) for got, original in untagged):
                    raise Mismatch(f"{step.command!r}: unwanted {text!r} in {untagged}")
                continue
            for got, original in untagged:
                if matcher.untagged(want, got, original):
                    break
            else:
                raise Mismatch(f"{step.command!r}: missing {text!r} in {untagged}")


def groups() -> list[str]:
    return sorted(p.name for p in SUITE.iterdir() if not p.suffix and p.name != "AUTHORS")


def main() -> int:
    host, port, user, password, cafile, *names = sys.argv[1:]
    run = Run(host, int(port), user, password, cafile)
    passed = failed = 0
    skipped = []
    for name in names or groups():
        try:
            run.group(name)
            passed += 1
        except Skip as reason:
            skipped.append(f"{name} ({reason})")
        except (Mismatch, AssertionError, TimeoutError, ssl.SSLError, ConnectionError) as error:
            failed += 1
            print(f"FAIL {name}: {error}"[:700])
    print(f"{passed} passed, {failed} failed, {len(skipped)} skipped: {', '.join(skipped)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
