"""Who sends half of a request, or a byte now and then, cannot take the gateway from the others."""

from __future__ import annotations

import os
import resource
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from ratchet.errors import InvalidInputError
from ratchet.gateway.connections import _affordable
from ratchet.gateway.options import GatewayOptions
from ratchet.gateway.tls import tls_context
from tests.servers.mock_backend import MockBackend

ASK = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
POST = b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\n"


def connected(url: str, source: str = "127.0.0.1") -> socket.socket:
    where = urlsplit(url)
    assert where.hostname is not None
    return socket.create_connection((where.hostname, where.port or 0), 20, (source, 0))


def received(client: socket.socket, seconds: float = 20.0) -> bytes:
    """Return what comes until the other side closes; raise where it does not close in time."""
    client.settimeout(seconds)
    found = b""
    try:
        while piece := client.recv(65_536):
            found += piece
    except ConnectionResetError:
        pass
    return found


def asked(url: str, seconds: float = 30.0, **options) -> httpx.Response:
    with httpx.Client(timeout=seconds, trust_env=False, **options) as client:
        return client.post(f"{url}/v1/chat/completions", json=ASK)


@pytest.mark.parametrize(
    "headers",
    [
        b"x: " + b"a" * 200_000,
        b"".join(b"x-%d: aaaaaaaaaa\r\n" % n for n in range(4_000)),
        b"a" * 200_000,
        b"cookie: " + b"a" * 40_000 + b"\r\n\r\n",
    ],
    ids=["one long", "many short", "a long name", "whole"],
)
def test_headers_have_a_size(gateway, headers):
    with connected(gateway.url) as client:
        client.sendall(b"GET /healthz HTTP/1.1\r\nhost: 127.0.0.1\r\n" + headers)
        assert received(client).startswith(b"HTTP/1.1 431 ")
    assert gateway.get("/healthz").status_code == 200


def test_an_address_has_a_size(gateway):
    with connected(gateway.url) as client:
        client.sendall(b"GET /" + b"a" * 100_000)
        assert received(client).startswith(b"HTTP/1.1 431 ")


def test_headers_after_a_body_have_a_size_and_mean_nothing(gateway):
    begun = POST + b"transfer-encoding: chunked\r\nconnection: close\r\n\r\n"
    body = b'{"model":"m","messages":[{"role":"user","content":"x"}]}'
    chunk = b"%x\r\n%b\r\n0\r\n" % (len(body), body)
    with connected(gateway.url) as client:
        client.sendall(begun + chunk + b"x-ratchet-user: eve\r\n\r\n")
        assert received(client).startswith(b"HTTP/1.1 200 ")
    assert "eve" not in gateway.interactions()[0].user_id
    with connected(gateway.url) as client:
        client.sendall(begun + b"1\r\n{\r\n0\r\nx: " + b"a" * 300_000)
        assert b" 431 " in received(client).split(b"\r\n")[0]


def test_large_bodies_are_not_taken_for_headers(gateway):
    text = "x" * 2_000_000
    body = {"model": "m", "messages": [{"role": "user", "content": text}]}
    for _ in range(2):  # over one connection
        assert gateway.post("/v1/chat/completions", body).status_code == 200


def test_headers_and_bodies_have_a_time(serve, mock):
    gateway = serve(backend=mock.url, header_seconds=1.0, body_seconds=1.0)
    with ExitStack() as stack:
        silent, headers, body, slow = (
            stack.enter_context(connected(gateway.url)) for _ in range(4)
        )
        headers.sendall(b"GET /healthz HTTP/1.1\r\nhost: 127")
        body.sendall(POST + b"content-length: 100\r\n\r\n{")
        slow.sendall(POST + b"content-length: 1000\r\n\r\n")
        begun = time.monotonic()
        try:
            while time.monotonic() - begun < 8:  # a byte now and then does not help
                slow.sendall(b" ")
                time.sleep(0.1)
        except OSError:
            pass
        assert time.monotonic() - begun < 8
        assert received(silent) == b""
        assert received(headers).startswith(b"HTTP/1.1 408 ")
        assert received(body).startswith(b"HTTP/1.1 408 ")
    assert gateway.get("/healthz").status_code == 200


def test_an_answer_may_take_longer_than_a_body(serve):
    with MockBackend(delay=3.0) as mock:
        gateway = serve(backend=mock.url, header_seconds=1.0, body_seconds=1.0)
        assert asked(gateway.url).status_code == 200


def test_two_requests_sent_at_once_are_both_answered(serve):
    with MockBackend(delay=1.5) as mock:
        gateway = serve(backend=mock.url, header_seconds=1.0, body_seconds=1.0)
        body = b'{"model":"m","messages":[{"role":"user","content":"x"}]}'
        one = POST + b"content-length: %d\r\n\r\n" % len(body) + body
        last = one.replace(b"host:", b"connection: close\r\nhost:")
        with connected(gateway.url) as client:
            client.sendall(one + last)
            assert received(client).count(b"HTTP/1.1 200 ") == 2


def test_who_waits_longest_makes_room_for_who_asks(serve, mock):
    gateway = serve(backend=mock.url, connections=20, header_seconds=60.0)
    with ExitStack() as stack:
        half_open = [stack.enter_context(connected(gateway.url)) for _ in range(60)]
        for number, client in enumerate(half_open):
            try:
                client.sendall(POST + b"content-length: 10\r\n\r\n{" if number % 2 else b"GET /")
            except OSError:  # made room already
                continue
        for _ in range(5):
            assert asked(gateway.url).status_code == 200
        assert received(half_open[0], 5) == b""


def test_one_address_has_its_share_of_the_connections(serve, mock):
    gateway = serve(backend=mock.url, connections_per_address=10, header_seconds=60.0)
    with ExitStack() as stack:
        other = stack.enter_context(connected(gateway.url, "127.0.0.3"))
        many = [stack.enter_context(connected(gateway.url, "127.0.0.2")) for _ in range(50)]
        assert received(many[0], 5) == b""
        other.sendall(b"GET /healthz HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n")
        assert received(other).startswith(b"HTTP/1.1 200 ")


def test_a_named_proxy_has_no_share(serve, mock):
    gateway = serve(backend=mock.url, connections_per_address=5, proxies=("127.0.0.2",))
    with ExitStack() as stack:
        many = [stack.enter_context(connected(gateway.url, "127.0.0.2")) for _ in range(20)]
        for client in many:
            client.sendall(b"GET /healthz HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n")
        assert all(received(client).startswith(b"HTTP/1.1 200 ") for client in many)


def test_where_all_are_being_answered_one_more_is_told_to_come_back(serve):
    with MockBackend(lambda body: "stall") as mock, ExitStack() as stack:
        gateway = serve(backend=mock.url, connections=4)
        body = b'{"model":"m","messages":[{"role":"user","content":"x"}]}'
        for _ in range(4):
            client = stack.enter_context(connected(gateway.url))
            client.sendall(POST + b"content-length: %d\r\n\r\n" % len(body) + body)
        until = time.monotonic() + 20
        while len(mock.seen) < 4 and time.monotonic() < until:
            time.sleep(0.05)
        with connected(gateway.url) as client:
            client.sendall(b"GET /healthz HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
            found = received(client)
        assert found.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after: 1" in found


def test_who_takes_nothing_of_an_answer_is_left(serve, mock):
    gateway = serve(backend=mock.url, write_seconds=1.0)
    text = b"x" * 3_900_000
    body = b'{"model":"m","messages":[{"role":"user","content":"%b"}]}' % text
    with connected(gateway.url) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        client.sendall(POST + b"content-length: %d\r\n\r\n" % len(body) + body)
        until = time.monotonic() + 30
        while _open_connections(gateway) and time.monotonic() < until:
            time.sleep(0.1)
        assert not _open_connections(gateway)


def _open_connections(gateway) -> int:
    port = f":{urlsplit(gateway.url).port:04X}"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(row[1].endswith(port) and row[3] == "01" for row in rows)


@pytest.mark.parametrize(
    "request_",
    [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n",
     b"\x00" * 64,
     b"GET / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
     b"GET / HTTP/1.1\r\nhost: a\r\ncontent-length: -1\r\n\r\n",
     b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n0",
     b"GET / HTTP/1.1\r\nhost : a\r\n\r\n", b"GET / HTTP/1.1\r\nhost: a\r\n b\r\n\r\n",
     b"CONNECT evil.com:443 HTTP/1.1\r\nhost: evil.com:443\r\n\r\n",
     b"GET http://evil.com/ HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n",
     b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n"],
)  # fmt: skip
def test_what_is_no_request_is_refused_in_the_shape_of_an_error(gateway, request_):
    with connected(gateway.url) as client:
        client.sendall(request_)
        found = received(client)
    assert found.startswith(b"HTTP/1.1 400 "), found
    assert b'"error":{' in found


def test_a_worker_holds_no_more_connections_than_it_can_open_files_for(monkeypatch):
    told = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1_024, 1_024))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: told.append(limits))
    assert _affordable(4_000) == (1_024 - 256) // 2
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1_024, 20_000))
    assert _affordable(4_000) == 4_000
    assert told[-1] == (8_256, 20_000)


# TLS --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory) -> tuple[Path, Path]:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    folder, now = tmp_path_factory.mktemp("tls"), datetime.now(UTC)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    names = x509.SubjectAlternativeName([x509.DNSName("localhost")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(names, critical=False)
        .sign(key, hashes.SHA256())
    )
    pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    (folder / "cert.pem").write_bytes(made.public_bytes(pem))
    (folder / "key.pem").write_bytes(key.private_bytes(pem, form, serialization.NoEncryption()))
    locked = serialization.BestAvailableEncryption(b"secret")
    (folder / "locked.pem").write_bytes(key.private_bytes(pem, form, locked))
    return folder / "cert.pem", folder / "key.pem"


def test_answers_are_encrypted_with_the_certificate(serve, mock, certificate):
    cert, key = certificate
    gateway = serve(backend=mock.url, tls_cert=cert, tls_key=key)
    url = f"https://localhost:{urlsplit(gateway.url).port}"
    trust = ssl.create_default_context(cafile=str(cert))
    for _ in range(20):
        assert asked(url, verify=trust).status_code == 200
    with connected(gateway.url) as client:
        client.sendall(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert b"200" not in received(client)
    old = ssl.create_default_context(cafile=str(cert))
    old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(httpx.ConnectError):
        asked(url, verify=old)


def test_half_open_handshakes_make_room_too(serve, mock, certificate):
    cert, key = certificate
    gateway = serve(
        backend=mock.url, tls_cert=cert, tls_key=key, connections=20, header_seconds=60.0
    )
    url = f"https://localhost:{urlsplit(gateway.url).port}"
    trust = ssl.create_default_context(cafile=str(cert))
    with ExitStack() as stack:
        for number in range(60):
            client = stack.enter_context(connected(gateway.url))
            if number % 2:
                client.sendall(b"\x16\x03\x01\x02\x00\x01")
        for _ in range(5):
            assert asked(url, verify=trust).status_code == 200


def test_a_handshake_has_a_time(serve, mock, certificate):
    cert, key = certificate
    gateway = serve(backend=mock.url, tls_cert=cert, tls_key=key, header_seconds=1.0)
    with connected(gateway.url) as client:
        client.sendall(b"\x16\x03\x01\x02\x00\x01")
        assert received(client, 10) == b""


def test_a_key_that_does_not_fit_is_refused_at_the_start(settings, certificate, tmp_path):
    cert, key = certificate
    for told in (
        {"tls_cert": cert},
        {"tls_key": key},
        {"tls_cert": cert, "tls_key": key.with_name("locked.pem")},  # nobody is asked for it
        {"tls_cert": cert, "tls_key": cert},
        {"tls_cert": tmp_path / "none.pem", "tls_key": key},
    ):
        with pytest.raises(InvalidInputError, match="tls-cert"):
            tls_context(GatewayOptions(settings=settings, **told))


# A real process ---------------------------------------------------------------------------------


@contextmanager
def process(home: Path, backend: str, log: Path, *words: str) -> Iterator[str]:
    """Run `ratchet serve`; yield its address."""
    command = [sys.executable, "-m", "ratchet.cli", "serve", "--port", "0", "--backend", backend]
    with log.open("wb") as output:
        child = subprocess.Popen(
            [*command, "--rate", "0", *words],
            env=os.environ | {"RATCHET_HOME": str(home)},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        until = time.monotonic() + 120
        while time.monotonic() < until:
            found = [line for line in log.read_text().split() if line.startswith("http://")]
            try:
                if found and httpx.get(f"{found[0]}/healthz", timeout=2, trust_env=False):
                    break
            except httpx.HTTPError:
                pass
            time.sleep(0.2)
        yield found[0]
    finally:
        child.terminate()
        try:
            child.wait(30)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


@pytest.mark.slow
def test_a_thousand_half_open_clients_do_not_keep_one_user_waiting(tmp_path):
    script = Path(__file__).parents[1] / "servers" / "half_open.py"
    told = ("--connections", "500", "--body-seconds", "8")
    with (
        MockBackend() as mock,
        process(tmp_path / "home", mock.url, tmp_path / "log", *told) as url,
    ):
        holders = subprocess.Popen(
            [sys.executable, str(script), url, "1000", "30"], stdout=subprocess.PIPE, text=True
        )
        try:
            waits = []
            while holders.poll() is None:
                begun = time.monotonic()
                assert asked(url).status_code == 200
                waits.append(time.monotonic() - begun)
                time.sleep(0.1)
            opened = int(holders.communicate()[0])
        finally:
            holders.kill()
            holders.wait()
        waits.sort()
        median = waits[len(waits) // 2]
        print(f"{opened:,} half-open, {len(waits)} answers, {median:.2f} s, most {waits[-1]:.2f} s")
        assert opened >= 1_000
        assert len(waits) >= 20
        assert waits[-1] < 10.0
        assert asked(url).status_code == 200
