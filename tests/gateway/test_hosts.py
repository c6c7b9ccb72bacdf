"""Hosts and origins are parsed; what only looks like this machine is not let in."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

import pytest

from ratchet.gateway.hosts import (
    Host,
    caller_address,
    is_loopback,
    parse_host,
    parse_origin,
    proxy_networks,
)

# addresses by RFC 1122 (127/8), RFC 4291 (::1, ::ffff:0:0/96), names by RFC 6761
LOOPBACK = [
    "127.0.0.1", "127.0.0.1:8000", "127.255.255.254", "localhost", "LOCALHOST:80", "localhost.",
    "LocalHost.:8000", "app.localhost", "127.0.0.1.", "[::1]", "[::1]:8000", "[0:0:0:0:0:0:0:1]",
    "[::ffff:127.0.0.1]", "[::FFFF:7F00:1]:8000", "127.0.0.1:",
]  # fmt: skip
FOREIGN = [
    "127.evil.com", "127.0.0.1.evil.com", "localhost.evil.com", "evil.com", "evil.com:8000",
    "notlocalhost", "127-0-0-1.evil.com", "1.2.3.4", "0.0.0.0", "[::]", "[::2]", "10.0.0.1:8000",
    "[::ffff:10.0.0.1]", "169.254.169.254", "xn--lcalhost-54a.com", "127.0.0.1.nip.io",
    "7f000001.evil.com", "localhost.localdomain", "local_host", "128.0.0.1",
]  # fmt: skip
NONE = [
    "", " ", "127.1", "127.0.1", "2130706433", "0x7f000001", "0x7f.0.0.1", "0177.0.0.1",
    "017700000001",
    "127.0.0.01", "127.0.0.1.1", "256.0.0.1", "127.0.0.1..", "localhost..", ".localhost", "..", ".",
    "evil.1", "evil.0x1", "a b", "127.0.0.1 ", " 127.0.0.1", "127.0.0.1:80:80", "127.0.0.1:http",
    "127.0.0.1:-1", "127.0.0.1:65536", "127.0.0.1:999999", "127.0.0.1:+80", "127.0.0.1: 80",
    "user@127.0.0.1", "evil.com@127.0.0.1", "127.0.0.1@evil.com", "127.0.0.1/", "127.0.0.1?x",
    "127.0.0.1#x", "127.0.0.1\\evil.com", "127.0.0.1,evil.com", "127.0.0.1;x", "http://127.0.0.1",
    "[::1", "::1", "::1]", "[::1]8000", "[::1]x:80", "[::1%25lo]", "[::1%lo]:80", "[]", "[v1.x]",
    "[127.0.0.1]", "[evil.com]", "%31%32%37.0.0.1", "loc%61lhost", "localhost\x00.evil.com",
    "localhost\t", "локалхост", "l\xf6calhost", "①②⑦.0.0.1", "127。0。0。1", "-evil.com",
    "evil-.com",
    "a" * 64 + ".com", ".".join(["a" * 60] * 5), "*", "*.localhost", "127.0.0.1\r\nx: y",
]  # fmt: skip


@pytest.mark.parametrize("text", LOOPBACK)
def test_this_machine_is_known_by_every_way_to_write_it(text):
    assert is_loopback(parse_host(text).name)


@pytest.mark.parametrize("text", FOREIGN)
def test_another_host_is_none_of_this_machine(text):
    assert not is_loopback(parse_host(text).name)


@pytest.mark.parametrize("text", NONE)
def test_what_names_no_host_is_refused(text):
    with pytest.raises(ValueError, match=r"."):
        parse_host(text)
    assert not is_loopback(text) or text == "::1"  # an address without brackets is one of `bind`


def test_a_host_has_one_form():
    assert parse_host("ShOp.Example.:080") == Host("shop.example", 80)
    assert parse_host("[2001:DB8:0:0::1]:8000") == Host("2001:db8::1", 8000)


@pytest.mark.parametrize(
    "text",
    ["", "shop.example", "//shop.example", "https:", "https://", "https://shop.example/",
     "https://shop.example/x", "https://a@shop.example", "https://shop.example?x",
     "https://shop.example#x", "https://shop.example:x", "https://a b", "NULL", "null null",
     "https://a.example https://b.example", "https://2130706433", "https://[::1", "1http://a",
     "https://a.example,https://b.example"],
)  # fmt: skip
def test_what_is_no_origin_is_refused(text):
    with pytest.raises(ValueError, match=r"."):
        parse_origin(text)


def test_a_page_is_at_home_where_host_and_port_are_the_same():
    def same(origin, host):
        return parse_origin(origin).is_of(parse_host(host))

    assert same("http://127.0.0.1:8000", "127.0.0.1:8000")
    assert same("https://shop.example", "SHOP.example")
    assert same("https://shop.example", "shop.example:443")
    assert not same("http://shop.example:8000", "shop.example")
    assert not same("http://shop.example.evil.com", "shop.example")
    assert parse_origin("null") is None


def test_callers_of_one_ipv6_site_are_one_caller():
    assert caller_address("2001:db8:1:2:3::4") == caller_address("2001:db8:1:2:ffff::1")
    assert caller_address("2001:db8:1:3::4") != caller_address("2001:db8:1:2::4")
    assert caller_address("::ffff:10.0.0.1") == caller_address("10.0.0.1") == "10.0.0.1"


def test_a_proxy_is_known_on_a_socket_of_ipv6_too():
    assert proxy_networks(["10.0.0.0/24"]) == ["10.0.0.0/24", "::ffff:10.0.0.0/120"]
    for text in ("*", "proxy", "10.0.0.1/24", ""):
        with pytest.raises(ValueError, match=r"."):
            proxy_networks([text])


# Over the wire ----------------------------------------------------------------------------------


def raw(gateway, content: bytes) -> bytes:
    """Send bytes and return all that comes back until the gateway closes."""
    where = urlsplit(gateway.url)
    with socket.create_connection((where.hostname, where.port), timeout=20) as client:
        client.sendall(content)
        found = b""
        while piece := client.recv(65_536):
            found += piece
    return found


def status_of(gateway, *headers: bytes, version: bytes = b"1.1", path: bytes = b"/healthz") -> int:
    lines = [b"GET " + path + b" HTTP/" + version, *headers, b"connection: close", b"", b""]
    return int(raw(gateway, b"\r\n".join(lines)).split(b" ")[1])


def test_an_open_gateway_answers_to_names_of_its_machine_alone(gateway):
    for text in LOOPBACK:
        assert status_of(gateway, b"host: " + text.encode()) == 200, text
    for text in FOREIGN:
        assert status_of(gateway, b"host: " + text.encode()) == 403, text
    for text in (t for t in NONE if t.strip() == t and not set(t) & set("\r\n\0")):
        assert status_of(gateway, b"host: " + text.encode()) == 400, text


def test_a_request_names_one_host_and_one_origin(gateway):
    host = b"host: 127.0.0.1"
    assert status_of(gateway, host, host) == 400
    assert status_of(gateway, host, b"Host: evil.com") == 400
    assert status_of(gateway) == 400
    assert status_of(gateway, version=b"1.0") == 403  # may leave it out, and is then nobody's
    assert status_of(gateway, host, b"origin: http://127.0.0.1", b"origin: http://a.example") == 400
    assert status_of(gateway, host, b"origin: http://evil.com@127.0.0.1") == 400
    assert status_of(gateway, host, b"origin: http://a.example") == 200  # it reads nothing of it
    assert status_of(gateway, host, path=b"http://evil.com/healthz") == 400


def test_with_keys_in_place_a_gateway_answers_to_the_name_of_its_proxy(gateway):
    from tests.gateway.test_access import put

    assert status_of(gateway, b"host: shop.example") == 403
    put(gateway)
    assert status_of(gateway, b"host: shop.example") == 200
