"""Names and addresses of hosts, as a `Host` or `Origin` header has them: parsed, never guessed.

parse_host("[::1]:8000")          # Host(name="::1", port=8000)
is_loopback("127.evil.com")       # False: a name, whatever it begins with
parse_origin("https://shop.example")

A name that ends in a number is an IPv4 address in its four decimal parts or nothing (as in the URL
standard, 3.5): `2130706433`, `0x7f.1` and `0177.0.0.1` are addresses to some programs and names to
others, so none of them passes.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

_LONGEST_NAME = 253
_LONGEST_HOST = _LONGEST_NAME + len(".[]:65535")
_KNOWN = 1_024
"""Hosts and addresses that are remembered: the same ones come with every request."""
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_PORT = re.compile(r"[0-9]{0,5}")
_ORIGIN = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]{0,30})://([^/?#@\\\s]+)")
_DEFAULT_PORTS = {"http": 80, "https": 443}
_IPV6_SITE = 64
"""Bits of an IPv6 address that name a site; the rest is the site's to choose."""

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Host(NamedTuple):
    """A host and its port.

    Attributes:
        name: An address in its one canonical form, or a name in lower case without a last dot.
        port: None where none is named.
    """

    name: str
    port: int | None


class Origin(NamedTuple):
    """The origin of a web page."""

    scheme: str
    host: Host

    def is_of(self, host: Host) -> bool:
        """Tell whether a page of this origin calls the server that it came from.

        The scheme is not compared: behind a proxy that ends TLS the gateway does not see it.
        """
        default = _DEFAULT_PORTS.get(self.scheme)
        return (self.host.name, self.host.port or default) == (host.name, host.port or default)


def parse_host(text: str) -> Host:
    """Return what a `Host` header names.

    Raises:
        ValueError: It names no host.
    """
    if len(text) > _LONGEST_HOST:
        raise ValueError(f"a host must have at most {_LONGEST_NAME} characters")
    return _parsed(text)


@lru_cache(_KNOWN)
def _parsed(text: str) -> Host:
    if text.startswith("["):
        inner, closed, port = text[1:].partition("]")
        if not closed or (port and not port.startswith(":")) or "%" in inner:
            raise ValueError("an IPv6 address must stand in brackets, without a zone")
        name = str(ipaddress.IPv6Address(inner))
    else:
        given, colon, port = text.partition(":")
        name, port = _name(given), colon + port
    if not _PORT.fullmatch(port[1:]) or int(port[1:] or 0) > 65_535:
        raise ValueError("a port must be a number of at most 65535")
    return Host(name, int(port[1:]) if port[1:] else None)


def parse_origin(text: str) -> Origin | None:
    """Return the origin that an `Origin` header names; None for `null`, the origin of nobody.

    Raises:
        ValueError: It is no origin.
    """
    if text == "null":
        return None
    match = _ORIGIN.fullmatch(text)
    if match is None:
        raise ValueError("an origin must be a scheme, a host and perhaps a port")
    return Origin(match[1].lower(), parse_host(match[2]))


def is_loopback(name: str) -> bool:
    """Tell whether a host is this machine, reached by nobody else.

    `localhost` and what lies below it count, since no name of the internet ends so (RFC 6761, 6.3).
    """
    try:
        host = parse_host(f"[{name}]" if name.count(":") > 1 else name).name
    except ValueError:
        return False
    return _is_loopback(host)


@lru_cache(_KNOWN)
def _is_loopback(host: str) -> bool:
    address = _address(host)
    if address is not None:
        return _unmapped(address).is_loopback
    return host == "localhost" or host.endswith(".localhost")


def caller_address(text: str) -> str:
    """Return what an address is counted by: of IPv6 the site, which has 2**64 to choose from."""
    return _counted_by(text[:_LONGEST_NAME])


@lru_cache(_KNOWN)
def _counted_by(text: str) -> str:
    address = _address(text)
    if address is None:
        return text
    address = _unmapped(address)
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((address, _IPV6_SITE), strict=False))
    return str(address)


def proxy_networks(named: Iterable[str]) -> list[str]:
    """Return the networks of named proxies, those of IPv4 also as an IPv6 socket shows them.

    Raises:
        ValueError: One is neither an address nor a network.
    """
    found = []
    for text in named:
        network = ipaddress.ip_network(text)
        found.append(str(network))
        if network.version == 4:
            found.append(f"::ffff:{network.network_address}/{96 + network.prefixlen}")
    return found


def _name(given: str) -> str:
    name = given.lower()
    name = name[:-1] if name.endswith(".") else name
    labels = name.split(".")
    if len(name) > _LONGEST_NAME or not all(map(_LABEL.fullmatch, labels)):
        raise ValueError("a host must be a name of letters, digits and hyphens, or an address")
    if _NUMBER.fullmatch(labels[-1]):
        return str(ipaddress.IPv4Address(name))
    return name


def _address(text: str) -> Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _unmapped(address: Address) -> Address:
    """Return the IPv4 address behind an IPv6 socket's `::ffff:10.0.0.1`."""
    mapped = getattr(address, "ipv4_mapped", None)
    return mapped or address
