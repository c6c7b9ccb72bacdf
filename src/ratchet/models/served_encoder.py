"""An encoder behind OpenAI's `/v1/embeddings`: vLLM, Text Embeddings Inference, or any other."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray

from ratchet.errors import ModelError
from ratchet.files.moments import retry_after_seconds
from ratchet.models.endpoint import key_from, request_headers, server_address, shown
from ratchet.records import digest

Vectors = NDArray[np.float32]

KEY_VARIABLE = "RATCHET_EMBEDDING_KEY"
"""The environment variable with the key of a served encoder."""
BATCH = 32
"""Texts in a request: as many as Text Embeddings Inference takes unless it is told otherwise."""
_AT_ONCE = 8
_ATTEMPTS = 5
_TIMEOUT_SECONDS = 60.0
_LONGEST_WAIT_SECONDS = 30.0
_MOST_CHARACTERS = 200_000
_TOO_MUCH = {400, 413, 422}  # what servers answer where a text, or a batch, is too long
_LEAST_CHARACTERS = 64


class ServedEncoder:
    """A server's model that makes vectors of texts.

    It is known by the model's name, its revision where the server says one, and the number of
    dimensions: whoever serves other weights gives them another name.

    Args:
        url: The server, with `/v1` or without.
        model: As the server names it.
        revision: Of its weights; empty where nobody says.
        dimensions: Numbers in a vector.
    """

    def __init__(self, url: str, model: str, revision: str, dimensions: int) -> None:
        self._url, self._model, self._revision = url, model, revision
        self._dimensions = dimensions

    @classmethod
    def connect(cls, address: str) -> ServedEncoder:
        """Ask a server for its model and for one vector.

        Args:
            address: `http://host:port`, and after `#` the model's name; without it the server has
                one model and says which.

        Raises:
            ModelError: It does not answer as it should.
            InvalidInputError: It is no address.
        """
        plain, _, model = address.partition("#")
        url = server_address(plain)
        with _client() as client:
            model = model or _only_model(client, url)
            revision = _revision(client, url)
            made = _made(client, url, model, ["dimensions"])
        return cls(url, model, revision, made.shape[1])

    @property
    def digest(self) -> str:
        """Digest of the model's name, its revision and its dimensions."""
        return digest(["served", self._model, self._revision, self._dimensions])

    @property
    def dimensions(self) -> int:
        """Numbers in a vector."""
        return self._dimensions

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Return a vector of length one a text, shape (n, d).

        A text that the server finds too long is cut in half until it takes it.

        Raises:
            ModelError: The server refuses, does not answer, or answers with other dimensions.
        """
        vectors = np.zeros((len(texts), self._dimensions), dtype=np.float32)
        batches = [slice(start, start + BATCH) for start in range(0, len(texts), BATCH)]
        with _client() as client, ThreadPoolExecutor(_AT_ONCE) as pool:
            made = pool.map(
                lambda batch: _made(client, self._url, self._model, texts[batch]), batches
            )
            for batch, part in zip(batches, made, strict=True):
                if part.shape[1] != self._dimensions:
                    raise ModelError(
                        f"an encoder must keep to its dimensions, got {part.shape[1]} from "
                        f"{self._url} after {self._dimensions}; serve another model under another "
                        "name"
                    )
                vectors[batch] = part
        return vectors


def _client() -> httpx.Client:
    headers = request_headers(key_from(os.environ, KEY_VARIABLE))
    return httpx.Client(headers=headers, timeout=_TIMEOUT_SECONDS)


def _only_model(client: httpx.Client, url: str) -> str:
    response = _sent(client, "GET", f"{url}/models")
    names = [str(one.get("id")) for one in _items(response, "data")] if response.is_success else []
    if len(names) != 1:
        raise ModelError(
            f"the encoder at {url} must be named, got {len(names)} models that the server lists "
            f"({', '.join(names[:5]) or f'HTTP {response.status_code}'}); add #MODEL to "
            "RATCHET_EMBEDDING"
        )
    return names[0]


def _revision(client: httpx.Client, url: str) -> str:
    """Return what Text Embeddings Inference says of its weights; others have no such route."""
    response = _sent(client, "GET", f"{url.removesuffix('/v1')}/info")
    try:
        found = response.json() if response.is_success else {}
    except ValueError:
        return ""
    return str(found.get("model_sha") or "") if isinstance(found, Mapping) else ""


def _made(client: httpx.Client, url: str, model: str, texts: Sequence[str]) -> Vectors:
    """Return vectors of length one; a batch that is refused as too much is halved."""
    clean = [text.encode("utf-8", "replace").decode()[:_MOST_CHARACTERS] or " " for text in texts]
    body = {"model": model, "input": clean, "encoding_format": "float"}
    response = _sent(client, "POST", f"{url}/embeddings", json=body)
    if response.is_success:
        return _read(response, url, len(texts))
    if response.status_code in _TOO_MUCH:
        if len(clean) > 1:
            half = len(clean) // 2
            parts = (clean[:half], clean[half:])
            return np.concatenate([_made(client, url, model, part) for part in parts])
        if len(clean[0]) > _LEAST_CHARACTERS:
            return _made(client, url, model, [clean[0][: len(clean[0]) // 2]])
    said = shown(response.text, key_from(os.environ, KEY_VARIABLE))
    way = {401: f"set {KEY_VARIABLE}", 403: f"set {KEY_VARIABLE}", 404: "see the model's name"}
    raise ModelError(
        f"the encoder {model!r} at {url} must answer, got HTTP {response.status_code}: {said}; "
        f"{way.get(response.status_code, 'look at its log')}"
    )


def _sent(client: httpx.Client, method: str, address: str, **body: Any) -> httpx.Response:
    """Send a request, again where the failure may pass."""
    for attempt in range(_ATTEMPTS):
        last = attempt == _ATTEMPTS - 1
        wait = 0.5 * 2**attempt
        try:
            response = client.request(method, address, **body)
        except httpx.HTTPError as error:
            if last or isinstance(error, httpx.UnsupportedProtocol):
                raise ModelError(
                    f"the encoder must answer at {address}, got {type(error).__name__} "
                    f"{_ATTEMPTS} times; start it, or correct RATCHET_EMBEDDING"
                ) from error
        else:
            if last or (response.status_code not in (408, 429) and response.status_code < 500):
                return response
            asked = retry_after_seconds(response.headers.get("Retry-After"), datetime.now(UTC))
            wait = max(wait, asked or 0.0)
        time.sleep(min(wait, _LONGEST_WAIT_SECONDS))
    raise AssertionError("the last attempt returns or raises")


def _items(response: httpx.Response, name: str) -> list[dict[str, Any]]:
    try:
        found = response.json()[name]
    except (ValueError, KeyError, TypeError):
        return []
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def _read(response: httpx.Response, url: str, expected: int) -> Vectors:
    """Return the vectors of a reply, in the order of the texts and of length one."""
    rows = sorted(_items(response, "data"), key=lambda row: int(row.get("index") or 0))
    try:
        vectors = np.array([row["embedding"] for row in rows], dtype=np.float64)
    except (KeyError, TypeError, ValueError):
        vectors = np.empty((0, 0))
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True) if vectors.ndim == 2 else np.zeros(1)
    places = [row.get("index") for row in rows]
    whole = vectors.ndim == 2 and len(vectors) == expected and places == list(range(expected))
    if not whole or not np.isfinite(lengths).all() or not (lengths > 0).all():
        raise ModelError(
            f"an encoder must give one vector of numbers a text, got shape {vectors.shape} for "
            f"{expected} from {url}; see that the address is that of an embedding model"
        )
    return (vectors / lengths).astype(np.float32)
