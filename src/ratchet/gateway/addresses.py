"""What users may be told of a backend's error: not where it stands."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from urllib.parse import urlsplit

HIDDEN = "[address]"
_URL = re.compile(r"\b[a-zA-Z][a-zA-Z0-9+.-]{1,20}://[^\s\"'<>]+")
_WORD = re.compile(r"[\w.:%\[\]-]+")
_NAMED = re.compile(r"(?<=\bhost )[\w.-]+(?::\d+)?")  # "Cannot connect to host vllm:8000"
_HOST_PORT = re.compile(r"(localhost|[\w-]+(?:\.[\w-]+)+):\d{2,5}")
_INSIDE = (
    "localhost",
    "internal",
    "local",
    "localdomain",
    "lan",
    "svc",
    "corp",
    "home",
    "intranet",
)


def without_addresses(text: str, own: Iterable[str] = ()) -> str:
    """Return an error without the addresses of machines.

    URLs of the internet by a public name stay: they are the user's own, or lead to documentation.

    Args:
        text: The error.
        own: Names and addresses that are left out wherever they stand.
    """
    for name in sorted(filter(None, own), key=len, reverse=True):
        text = re.sub(rf"(?<![\w.-]){re.escape(name)}(?![\w-])(?::\d+)?", HIDDEN, text)
    kept: list[str] = []

    def url(match: re.Match[str]) -> str:
        if _is_inside_url(match[0]):
            return HIDDEN
        kept.append(match[0])
        return f"\0{len(kept) - 1}\0"

    text = _URL.sub(url, text.replace("\0", "\ufffd"))
    text = _NAMED.sub(HIDDEN, text)
    text = _WORD.sub(lambda match: _hidden(match[0]), text)
    return re.sub("\0(\\d+)\0", lambda match: kept[int(match[1])], text)


def _is_inside_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        name, port = parts.hostname or "", parts.port
    except ValueError:
        return True
    return port is not None or "@" in parts.netloc or not _is_public(name)


def _is_public(name: str) -> bool:
    *before, last = name.rstrip(".").lower().split(".")
    return bool(before) and last.isalpha() and last not in _INSIDE


def _hidden(word: str) -> str:
    """Return a word, or what stands for it where it is an address; what ends it stays."""
    core = word.rstrip(".:%-")
    rest = word[len(core) :]
    return HIDDEN + rest if core and _is_address(core) else word


def _is_address(word: str) -> bool:
    if _is_ip(word):
        return True
    host, _, port = word.rpartition(":")
    if port.isdigit() and (_is_ip(host) or _HOST_PORT.fullmatch(word)):
        return True
    return "." in word and word.rpartition(".")[2].lower() in _INSIDE


def _is_ip(text: str) -> bool:
    if text.startswith("[") and text.endswith("]"):
        text = text[1:-1]
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return False
    # `::` alone is what C++ and Rust write between names
    return found.version == 4 or text != "::"
