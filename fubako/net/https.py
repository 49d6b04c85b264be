"""`HttpsClient`: single requests over HTTPS, by httpx2. The name is looked up by our own resolver and proved by the certificate.

Where the name is a stranger's choice (the `rua=` of a domain, the policy host of MTA-STS) the client is made `public`: it goes to
no address of this machine, of a private network, or of none. The address that was judged is the one that is connected to, so a
name that answers differently the second time changes nothing.

Invariant: a request with all that belongs to it (names, addresses that do not answer, a body that drips) has one time, and
nothing is unpacked: an answer of a few octets cannot become one of gigabytes.
"""

import asyncio
import ipaddress
import ssl
from collections.abc import Sequence
from pathlib import Path

import httpx2

from fubako.net.interface import DnsFailure, Fetched, HttpsFailure, NoSuchName, Resolver

CONNECT_SECONDS = 10.0
REQUEST_SECONDS = 60.0  # for the whole of it (RFC 8461 §3.3)


class HttpsClient:
    """`ca_files` are believed besides the system's authorities. `public`: only addresses of the whole internet are asked."""

    def __init__(
        self, resolver: Resolver, ca_files: Sequence[Path] = (), port: int = 443, *, public: bool = False
    ) -> None:
        self._resolver, self._port, self._public = resolver, port, public
        self._context = ssl.create_default_context()
        for path in ca_files:
            self._context.load_verify_locations(path)

    async def get(self, host: str, path: str, octets_max: int) -> Fetched:
        return await self._request("GET", host, path, octets_max=octets_max)

    async def post(self, host: str, path: str, kind: str, content: bytes) -> Fetched:
        return await self._request("POST", host, path, {"Content-Type": kind}, content)

    async def _request(
        self,
        method: str,
        host: str,
        path: str,
        fields: dict[str, str] | None = None,
        content: bytes = b"",
        octets_max: int = 4096,
    ) -> Fetched:
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                return await self._first_that_answers(method, host, path, fields or {}, (content, octets_max))
        except TimeoutError:
            raise HttpsFailure(f"{host} does not answer within {REQUEST_SECONDS:.0f} seconds") from None

    async def _first_that_answers(
        self, method: str, host: str, path: str, fields: dict[str, str], body: tuple[bytes, int]
    ) -> Fetched:
        """`body`: what is sent, and how many octets may come back. Raises HttpsFailure."""
        name, port = _split(host, self._port)
        try:
            addresses = (await self._resolver.addresses(name)).records
        except (NoSuchName, DnsFailure) as error:
            raise HttpsFailure(str(error)) from None
        failure = HttpsFailure(f"{host} has no address")
        for address in addresses[:4]:
            if self._public and not is_public(address):
                failure = HttpsFailure(f"{host}: {address} is no address of the internet")
                continue
            try:
                return await self._ask(method, (host, name, address, port), path, fields, *body)
            except (httpx2.HTTPError, OSError) as error:
                text = str(error) or type(error).__name__
                failure = HttpsFailure(f"{host}: {text}", certificate="CERTIFICATE_VERIFY_FAILED" in text)
        raise failure

    async def _ask(
        self,
        method: str,
        place: tuple[str, str, str, int],
        path: str,
        fields: dict[str, str],
        content: bytes,
        octets_max: int,
    ) -> Fetched:
        host, name, address, port = place
        shown = f"[{address}]" if ":" in address else address
        limits = httpx2.Timeout(REQUEST_SECONDS, connect=CONNECT_SECONDS)
        async with (
            httpx2.AsyncClient(verify=self._context, trust_env=False, follow_redirects=False, timeout=limits) as client,
            client.stream(
                method, f"https://{shown}:{port}{path}", content=content or None,
                headers={"Host": host, "Accept-Encoding": "identity", **fields},
                extensions={"sni_hostname": name},
            ) as answer,
        ):  # fmt: skip
            if answer.headers.get("content-encoding", "identity").strip().lower() != "identity":
                raise HttpsFailure(f"{host} answers with a packed body, which was not asked for")
            body = bytearray()
            async for part in answer.aiter_raw():
                body += part
                if len(body) > octets_max:
                    raise HttpsFailure(f"{host} answers with more than {octets_max} octets")
            kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
            return Fetched(answer.status_code, kind, bytes(body))


def is_public(address: str) -> bool:
    """Whether it is of the whole internet: not of this machine, a private network, a link, a group, or kept for something else
    (RFC 6890). An IPv4 address that is written into an IPv6 one counts as itself."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour or (found.teredo[1] if found.teredo else None)
        if inner is None and found in _NAT64:
            inner = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
        if inner is not None:
            found = inner
    return found.is_global and not found.is_multicast


_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def _split(host: str, port: int) -> tuple[str, int]:
    """`host` or `host:port`, as it stands in a URL. Raises HttpsFailure."""
    name, colon, given = host.rpartition(":")
    if not colon:
        return host, port
    if not (given.isascii() and given.isdigit() and 0 < int(given[:6]) < 65536 and name and ":" not in name):
        raise HttpsFailure(f"{host} is no host with a port")
    return name, int(given)
