"""Values that stand in blocks of a Prefect server, by names such as `prefect:secret/store-url`.

    RATCHET_STORE_URL=prefect:secret/store-url
    RATCHET_HISTORY=prefect:remote-file-system/history

Read by Prefect's HTTP API: to import Prefect takes seconds, and settings are read first of all.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ratchet.errors import SettingsError

NAMED = "prefect:"
_NAME = re.compile(r"prefect:([a-z0-9-]+)/([a-z0-9-]+)")
_FIELDS = {"secret": "value", "remote-file-system": "basepath"}
_SECONDS = 30.0


def block_name(value: str, what: str) -> tuple[str, str]:
    """Return type and name of the block that a value names.

    Raises:
        SettingsError: It names none.
    """
    match = _NAME.fullmatch(value)
    if match is None:
        raise SettingsError(
            f"{what} must name a block as prefect:TYPE/NAME, both in small letters, figures and "
            f"dashes, got {value!r}; for example prefect:secret/store-url"
        )
    return match[1], match[2]


def read_block(value: str, what: str, environ: Mapping[str, str]) -> str:
    """Return what a block holds.

    Args:
        value: `prefect:secret/NAME` for a secret, `prefect:remote-file-system/NAME` for the address
            of object storage.
        what: The setting, for errors.
        environ: Where `PREFECT_API_URL` says which server has it, and `PREFECT_API_KEY` or
            `PREFECT_API_AUTH_STRING` how to be let in.

    Raises:
        SettingsError: No server is named, it does not answer, it has no such block, or the block
            holds something else.
    """
    kind, name = block_name(value, what)
    if kind not in _FIELDS:
        raise SettingsError(
            f"{what} must name a block of a type that is read, got {kind!r}; the types are: "
            f"{', '.join(_FIELDS)}"
        )
    api = environ.get("PREFECT_API_URL", "")
    if not api:
        raise SettingsError(
            f"{what} names the block {kind}/{name}, which needs a Prefect server that runs by "
            "itself, got none; set PREFECT_API_URL"
        )
    data = _asked(api.rstrip("/"), kind, name, what, environ)
    if kind == "remote-file-system" and data.get("settings"):
        raise SettingsError(
            f"{what} takes the address of the block {kind}/{name} alone, got settings beside it; "
            "give keys and endpoint as variables of the store's own tools (AWS_ACCESS_KEY_ID)"
        )
    held = data.get(_FIELDS[kind])
    if not isinstance(held, str) or not held:
        raise SettingsError(
            f"{what} needs a text in the block {kind}/{name}, got {type(held).__name__}; save a "
            "string there"
        )
    return held


def _asked(
    api: str, kind: str, name: str, what: str, environ: Mapping[str, str]
) -> Mapping[str, Any]:
    import httpx

    headers, auth = {}, None
    if key := environ.get("PREFECT_API_KEY"):
        headers["authorization"] = f"Bearer {key}"
    elif said := environ.get("PREFECT_API_AUTH_STRING"):
        user, _, password = said.partition(":")
        auth = (user, password)
    try:
        reply = httpx.get(
            f"{api}/block_types/slug/{kind}/block_documents/name/{name}",
            params={"include_secrets": "true"}, headers=headers, auth=auth, timeout=_SECONDS,
        )  # fmt: skip
        if reply.status_code != 404:
            return dict(reply.raise_for_status().json()["data"])
    except (httpx.HTTPError, ValueError, KeyError) as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        raise SettingsError(
            f"{what} stands in the block {kind}/{name} of a Prefect server, which must answer, got "
            f"{status or type(error).__name__}; check PREFECT_API_URL, and PREFECT_API_KEY or "
            "PREFECT_API_AUTH_STRING"
        ) from error
    raise SettingsError(
        f"{what} must name a block that the Prefect server has, got {kind}/{name}; make it there, "
        "on the page Blocks"
    )
