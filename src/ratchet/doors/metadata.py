"""Metadata of other tools as that of an interaction: text by name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from json.encoder import encode_basestring_ascii as quoted
from typing import Any

from ratchet.strict_json import loads

_LONGEST = 2_000
_MOST = 50
_ENCODER = json.JSONEncoder(default=str)
_EMPTIED = (str, list, dict)
_PLAIN = (int, float)
"""Types whose values are written the same in Python and in JSON, but for what is not finite."""


def texts_of(value: object) -> dict[str, str]:
    """Return what an object holds as texts: what is no text as JSON, nulls and empty ones not.

    At most 50 fields of 2,000 characters are kept.
    """
    held: Mapping[Any, Any] = value if type(value) is dict else _mapping(value)
    found: dict[str, str] = {}
    for name, given in held.items():
        kind = type(given)
        if given is None or (kind in _EMPTIED and not given):
            continue
        text: str = given if kind is str else repr(given) if kind in _PLAIN else _json(given)
        found[str(name)] = text[:_LONGEST]
        if len(found) == _MOST:
            break
    return found


def _mapping(value: object) -> Mapping[object, object]:
    """Return what is no dictionary as one: JSON, and a map of Parquet, which is a list of pairs."""
    if isinstance(value, list):
        return dict(pair for pair in value if isinstance(pair, tuple) and len(pair) == 2)
    if isinstance(value, str):
        try:
            value = loads(value)
        except ValueError:
            return {}
    return value if isinstance(value, Mapping) else {}


def _json(value: object) -> str:
    if type(value) is list:
        try:
            return f"[{', '.join(map(quoted, value))}]"  # of texts, as most lists are
        except TypeError:
            pass  # of something else
    return _ENCODER.encode(value) if isinstance(value, bool | dict | list) else str(value)
