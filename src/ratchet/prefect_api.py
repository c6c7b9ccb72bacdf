"""Prefect's HTTP API, for what does not import Prefect: that takes seconds.

Settings may stand in blocks of a server, by names such as `prefect:secret/store-url`:

    RATCHET_STORE_URL=prefect:secret/store-url
    RATCHET_HISTORY=prefect:remote-file-system/history
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ratchet.errors import SettingsError

if TYPE_CHECKING:
    import httpx

NAMED = "prefect:"
_NAME = re.compile(r"prefect:([a-z0-9-]+)/([a-z0-9-]+)")
_FIELDS = {"secret": "value", "remote-file-system": "basepath"}
_SECONDS = 60.0
_BUSY = 503
_WAITS = (0.5, 1.0, 2.0, 4.0, 8.0)


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

    path = f"block_types/slug/{kind}/block_documents/name/{name}?include_secrets=true"
    try:
        reply = ask(api, "GET", path, environ=environ)
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


def ask(
    api: str,
    method: str,
    path: str,
    body: Any = None,
    *,
    environ: Mapping[str, str] = os.environ,
) -> httpx.Response:
    """Return what a Prefect server replies; while its database is busy it is asked again.

    On SQLite a server answers 503 and has changed nothing where another process writes just then.
    Prefect's own clients try again too.

    Args:
        api: The server's address, with `/api`.
        method: Of HTTP.
        path: Below the address.
        body: Sent as JSON; None sends nothing.
        environ: With `PREFECT_API_KEY` or `PREFECT_API_AUTH_STRING` where the server asks for one.

    Raises:
        httpx.HTTPError: It does not answer.
    """
    import httpx

    key, said = environ.get("PREFECT_API_KEY"), environ.get("PREFECT_API_AUTH_STRING")
    user, _, password = (said or "").partition(":")
    headers = {"authorization": f"Bearer {key}"} if key else {}
    auth = (user, password) if said and not key else None
    for wait in (*_WAITS, None):
        reply = httpx.request(
            method, f"{api}/{path}", json=body, headers=headers, auth=auth, timeout=_SECONDS
        )
        if reply.status_code != _BUSY or wait is None:
            break
        time.sleep(wait)
    return reply
