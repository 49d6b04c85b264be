"""Python's own smtplib, imaplib and poplib, over every port and both kinds of TLS."""

import imaplib
import poplib
import smtplib
import socket
import ssl

import pytest


@pytest.fixture
def tls(server):
    return ssl.create_default_context(cafile=server.ca)


def smtp(server, service, tls):
    if service == "submissions":
        return smtplib.SMTP_SSL("localhost", server.port(service), context=tls)
    client = smtplib.SMTP("localhost", server.port(service))
    client.starttls(context=tls)
    return client


def imap(server, service, tls):
    if service == "imaps":
        return imaplib.IMAP4_SSL("localhost", server.port(service), ssl_context=tls)
    client = imaplib.IMAP4("localhost", server.port(service))
    client.starttls(tls)
    return client


def pop(server, service, tls):
    if service == "pop3s":
        return poplib.POP3_SSL("localhost", server.port(service), context=tls)
    client = poplib.POP3("localhost", server.port(service))
    client.stls(tls)
    return client


def retrieve_all(client) -> list[bytes]:
    count = client.stat()[0]
    return [b"\r\n".join(client.retr(number)[1]) + b"\r\n" for number in range(1, count + 1)]


@pytest.mark.parametrize("service", ["smtp", "submission", "submissions"])
@pytest.mark.parametrize("reading", ["imap", "imaps", "pop3", "pop3s"])
def test_a_letter_comes_back_octet_for_octet(server, user, tls, letter, service, reading):
    address, password = user
    letter = letter.replace(b"alice@fubako.test", address.encode())
    client = smtp(server, service, tls)
    sender = "stranger@elsewhere.test"
    if service != "smtp":
        client.login(address, password)
        sender = address
    client.sendmail(sender, [address], letter, mail_options=["BODY=8BITMIME"])
    client.quit()
    if reading.startswith("imap"):
        reader = imap(server, reading, tls)
        reader.login(address, password)
        reader.select()
        _, data = reader.fetch("1", "(BODY.PEEK[])")
        contents = [data[0][1]]
        reader.logout()
    else:
        reader = pop(server, reading, tls)
        reader.user(address)
        reader.pass_(password)
        contents = retrieve_all(reader)
        reader.quit()
    assert contents[0].endswith(letter)
    header = contents[0][: -len(letter)]
    assert header.startswith(b"Return-Path: <" + sender.encode() + b">\r\nReceived: from ")


@pytest.mark.parametrize("method", ["AUTH PLAIN", "AUTH LOGIN", "AUTH CRAM-MD5"])
def test_submission_mechanisms(server, tls, letter, method):
    address, password, device = server.account("alice")
    client = smtp(server, "submission", tls)
    client.ehlo()
    client.user, client.password = address, device if "CRAM" in method else password
    name = method.split()[1]
    code, _ = client.auth(name, getattr(client, f"auth_{name.lower().replace('-', '_')}"))
    assert code == 235
    client.quit()


def test_a_password_not_made_for_it_does_not_work_with_cram_md5(server, user, tls):
    address, password = user
    client = smtp(server, "submission", tls)
    client.ehlo()
    client.user, client.password = address, password
    with pytest.raises(smtplib.SMTPAuthenticationError):
        client.auth("CRAM-MD5", client.auth_cram_md5)


def test_apop_only_with_a_password_made_for_it(server, user, tls):
    address, _, device = server.account("alice")
    client = poplib.POP3_SSL("localhost", server.port("pop3s"), context=tls)
    client.apop(address, device)
    client.quit()
    client = poplib.POP3_SSL("localhost", server.port("pop3s"), context=tls)
    with pytest.raises(poplib.error_proto):
        client.apop(*user)


def test_nothing_secret_before_tls(server, user):
    address, password = user
    with imaplib.IMAP4("localhost", server.port("imap")) as client:
        assert "LOGINDISABLED" in client.capabilities
        with pytest.raises(imaplib.IMAP4.error, match="PRIVACYREQUIRED"):
            client.login(address, password)
    client = poplib.POP3("localhost", server.port("pop3"))
    with pytest.raises(poplib.error_proto, match="STLS"):
        client.user(address)
    client.quit()
    with smtplib.SMTP("localhost", server.port("submission")) as sender:
        sender.ehlo()
        assert not sender.has_extn("auth")
        assert sender.docmd("AUTH", "PLAIN AGEAYg==")[0] == 538
        assert sender.docmd("MAIL", "FROM:<a@fubako.test>")[0] == 530


def test_no_relaying_on_25(server):
    with smtplib.SMTP("localhost", server.port("smtp")) as client:
        client.ehlo("x")
        client.mail("a@elsewhere.test")
        assert client.rcpt("b@elsewhere.test")[0] == 550
        assert client.rcpt("nobody-at-all@fubako.test")[0] == 550


def test_japanese_folder_and_search(server, user, tls, letter):
    address, password = user
    client = imaplib.IMAP4_SSL("localhost", server.port("imaps"), ssl_context=tls)
    client.login(address, password)
    name = '"&ZYd7sQ-"'  # 文箱 in modified UTF-7
    assert client.create(name)[0] == "OK"
    assert client.append(name, "(\\Flagged)", None, letter)[0] == "OK"
    assert name.strip('"').encode() in client.list()[1][-1] or any(b"&ZYd7sQ-" in line for line in client.list()[1])
    client.select(name)
    client.literal = "会議".encode("iso2022_jp")
    assert client.uid("SEARCH", "CHARSET", "ISO-2022-JP", "BODY")[1] == [b"1"]
    client.literal = "手紙".encode()
    assert client.uid("SEARCH", "CHARSET", "UTF-8", "SUBJECT")[1] == [b"1"]
    client.literal = "存在しない".encode()
    assert client.uid("SEARCH", "CHARSET", "UTF-8", "BODY")[1] == [b""]
    assert client.fetch("1", "(BODY.PEEK[])")[1][0][1] == letter
    client.logout()


def test_idle_tells_of_a_letter_at_once(server, user, tls, letter):
    address, password = user
    client = imaplib.IMAP4_SSL("localhost", server.port("imaps"), ssl_context=tls)
    client.login(address, password)
    client.select()
    client.send(b"x1 IDLE\r\n")
    assert client.readline().startswith(b"+ ")
    with smtplib.SMTP("localhost", server.port("smtp")) as sender:
        sender.sendmail("a@elsewhere.test", [address], letter, mail_options=["BODY=8BITMIME"])
    client.sock.settimeout(10)
    seen = [client.readline(), client.readline()]
    assert b"* 1 EXISTS\r\n" in seen
    client.send(b"DONE\r\n")
    while not client.readline().startswith(b"x1 OK"):
        pass
    client.logout()


def test_pop3_maildrop_is_locked_and_deletes_only_at_quit(server, user, tls, letter):
    address, password = user
    with smtplib.SMTP("localhost", server.port("smtp")) as sender:
        sender.sendmail("a@elsewhere.test", [address], letter, mail_options=["BODY=8BITMIME"])
    first = pop(server, "pop3s", tls)
    first.user(address)
    first.pass_(password)
    second = pop(server, "pop3s", tls)
    second.user(address)
    with pytest.raises(poplib.error_proto, match="IN-USE"):
        second.pass_(password)
    first.dele(1)
    first.sock.shutdown(socket.SHUT_RDWR)  # cut: nothing is deleted
    first.sock.close()
    for _ in range(50):
        third = pop(server, "pop3s", tls)
        third.user(address)
        try:
            third.pass_(password)
            break
        except poplib.error_proto:
            third.close()
    assert third.stat()[0] == 1
    third.dele(1)
    third.quit()
    fourth = pop(server, "pop3s", tls)
    fourth.user(address)
    fourth.pass_(password)
    assert fourth.stat()[0] == 0
    fourth.quit()


def test_lmtp_replies_once_for_each_recipient(server, user, letter):
    address, _ = user
    other, _ = server.new_user("l" + address.split("@")[0])
    client = smtplib.LMTP(server.facts["lmtp_socket"], local_hostname="x")
    client.docmd("LHLO", "x")
    client.mail("a@elsewhere.test", ["BODY=8BITMIME"])
    assert client.rcpt(address)[0] == 250
    assert client.rcpt("nobody-at-all@fubako.test")[0] == 550
    assert client.rcpt(other)[0] == 250
    assert client.docmd("DATA")[0] == 354
    client.send((b"\r\n" + letter).replace(b"\r\n.", b"\r\n..")[2:] + b".\r\n")
    assert [client.getreply()[0] for _ in range(2)] == [250, 250]
    client.quit()
