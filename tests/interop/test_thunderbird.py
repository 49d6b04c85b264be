"""Thunderbird, without a window, driven by Marionette: its mechanisms one by one, and a letter handed in."""

import json
import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
from checkers import ALICE
from peers import free_port
from server import free_offset
from test_mechanisms import PASSWORD, House

METHODS = {"PLAIN": 3, "CRAM-MD5": 4, "GSSAPI": 5, "EXTERNAL": 7}  # nsMsgAuthMethod
BOTH = set(METHODS) - {"EXTERNAL"}  # Thunderbird 153 has no EXTERNAL in its SMTP client: it goes on without a login
OPEN = """
const done = arguments[arguments.length - 1];
(async () => {
  const {MailServices} = ChromeUtils.importESModule("resource:///modules/MailServices.sys.mjs");
  const server = MailServices.accounts.allServers.find(one => one.type == "imap");
  server.password = arguments[0];
  server.performExpand(null);
  for (let turn = 0; turn < 300 && server.rootFolder.descendants.length < 3; turn++) await new Promise(r => setTimeout(r, 100));
  return server.rootFolder.descendants.map(folder => folder.name);
})().then(done, problem => done(String(problem)));
"""
SEND = """
const done = arguments[arguments.length - 1];
(async () => {
  const {MailServices} = ChromeUtils.importESModule("resource:///modules/MailServices.sys.mjs");
  const outgoing = MailServices.outgoingServer.defaultServer;
  outgoing.password = arguments[0];
  const file = Cc["@mozilla.org/file/local;1"].createInstance(Ci.nsIFile);
  file.initWithPath(arguments[1]);
  const who = MailServices.headerParser.makeFromDisplayAddress("bob@here.test", {});
  return await new Promise(over => outgoing.sendMailMessage(file, who, [], MailServices.accounts.allIdentities[0],
    "alice@here.test", null, null, false, "one@here.test",
    {onSendStart() {}, onSendStop(uri, status) { over(status); },
     QueryInterface: ChromeUtils.generateQI(["nsIMsgOutgoingListener"])}));
})().then(done, problem => done(String(problem)));
"""


class Marionette:
    """The remote control of Mozilla's programs: JSON behind its length."""

    def __init__(self, port: int) -> None:
        end = time.monotonic() + 60
        while True:
            try:
                self.socket = socket.create_connection(("127.0.0.1", port), 60)
                break
            except OSError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.1)
        self.file = self.socket.makefile("rb")
        self.count = 0
        self.read()
        self("WebDriver:NewSession", capabilities={})
        self("Marionette:SetContext", value="chrome")
        self("WebDriver:SetTimeouts", script=50_000)

    def read(self) -> object:
        length = b""
        while (digit := self.file.read(1)) != b":":
            assert digit, "Thunderbird has gone"
            length += digit
        return json.loads(self.file.read(int(length)))

    def __call__(self, command: str, **parameters: object) -> object:
        self.count += 1
        body = json.dumps([0, self.count, command, parameters]).encode()
        self.socket.sendall(b"%d:%b" % (len(body), body))
        while (answer := self.read())[1] != self.count:
            pass
        assert not answer[2], answer[2]
        return answer[3]

    def script(self, text: str, *arguments: str) -> object:
        return self("WebDriver:ExecuteAsyncScript", script=text, args=arguments, newSandbox=True)["value"]


@pytest.fixture(scope="module")
def eventful(tmp_path_factory):
    """The server of the other mechanisms' tests, its events in a file."""
    house = House(tmp_path_factory.mktemp("house") / "data", free_offset() + 7).start()
    assert house.stop() == 0
    house.prepare(tmp_path_factory.mktemp("realm"))
    assert house.stop() == 0
    with house.realm.kdc(), (house.root / "events.jsonl").open("w") as log:
        house.realm.started()
        house.start("--events")
        spill = subprocess.Popen(["cat"], stdin=house.process.stdout, stdout=log)
        yield house
        assert house.stop() == 0
        spill.wait(20)


def profile(house, home: Path, method: int, marionette: int) -> Path:
    folder = home / "profile"
    folder.mkdir()
    known = ("-d", f"sql:{folder}")
    for words in (
        ("certutil", "-N", *known, "--empty-password"),
        ("certutil", "-A", *known, "-n", "ca", "-t", "C,,", "-i", house.ca),
        ("openssl", "pkcs12", "-export", "-in", str(house.root / "own.pem"), "-inkey", str(house.root / "own.key"), "-out",
         str(home / "own.p12"), "-passout", "pass:x"),
        ("pk12util", "-i", str(home / "own.p12"), *known, "-W", "x", "-K", ""),
    ):  # fmt: skip
        subprocess.run(words, check=True, capture_output=True, timeout=30)
    server, smtp = "mail.server.server1", "mail.smtpserver.smtp1"
    settings = {
        "mail.accountmanager.accounts": "account1", "mail.accountmanager.defaultaccount": "account1",
        "mail.account.account1.server": "server1", "mail.account.account1.identities": "id1",
        "mail.identity.id1.useremail": "alice@here.test", "mail.identity.id1.fullName": "Alice",
        "mail.identity.id1.smtpServer": "smtp1", "mail.smtpservers": "smtp1", "mail.smtp.defaultserver": "smtp1",
        f"{server}.type": "imap", f"{server}.hostname": "localhost", f"{server}.userName": "alice@here.test", f"{server}.name": "x",
        f"{server}.port": house.port("imap"), f"{server}.socketType": 2, f"{server}.authMethod": method,
        f"{server}.login_at_startup": False,
        f"{smtp}.type": "smtp", f"{smtp}.hostname": "localhost", f"{smtp}.port": house.port("submission"), f"{smtp}.try_ssl": 2,
        f"{smtp}.authMethod": method, f"{smtp}.username": "alice@here.test",
        "security.default_personal_cert": "Select Automatically", "app.update.enabled": False, "marionette.port": marionette,
        "datareporting.policy.dataSubmissionEnabled": False, "mail.provider.suppress_dialog_on_startup": True,
    }  # fmt: skip
    lines = (f"user_pref({json.dumps(name)}, {json.dumps(value)});\n" for name, value in settings.items())
    (folder / "user.js").write_text("".join(lines))
    return folder


@pytest.mark.parametrize("mechanism", METHODS)
def test_thunderbird_logs_in_and_hands_in_a_letter(eventful, home, needs, mechanism):
    needs("thunderbird", "certutil", "pk12util", "kinit")
    env = {**os.environ, "HOME": str(home), "MOZ_HEADLESS": "1", "KRB5_CONFIG": eventful.realm.env["KRB5_CONFIG"],
           "KRB5CCNAME": f"FILE:{home}/cc"}  # fmt: skip
    if mechanism == "GSSAPI":
        subprocess.run(
            ["kinit", "alice"], input=ALICE + "\n", text=True, env=env, check=True, capture_output=True, timeout=30
        )
    port = free_port()
    folder = profile(eventful, home, METHODS[mechanism], port)
    events = eventful.root / "events.jsonl"
    before = len(events.read_text().splitlines())
    letter = home / "letter.eml"
    letter.write_text("From: alice@here.test\r\nTo: bob@here.test\r\nSubject: by Thunderbird\r\n\r\nhello\r\n")
    words = (
        "thunderbird",
        "--headless",
        "--marionette",
        "-remote-allow-system-access",
        "--no-remote",
        "--profile",
        str(folder),
    )
    thunderbird = subprocess.Popen(
        words, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        control = Marionette(port)
        folders = control.script(OPEN, PASSWORD)
        assert "INBOX" in folders and "Archive" in folders, folders
        status = control.script(SEND, PASSWORD, str(letter)) if mechanism in BOTH else 0
    finally:
        os.killpg(thunderbird.pid, signal.SIGTERM)
        thunderbird.wait(30)
    assert status == 0, status
    lines = [json.loads(line) for line in events.read_text().splitlines()[before:] if line.startswith("{")]
    seen = {(line["service"], line["mechanism"]) for line in lines if line["event"] == "login.held"}
    assert seen == {("imap", mechanism), *([("submission", mechanism)] if mechanism in BOTH else [])}
