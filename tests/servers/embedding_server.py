"""A server with `/v1/embeddings` as vLLM and Text Embeddings Inference document it.

Vectors are of length 3 times the norm's, in `data` with `index`, in any order. A batch of more than
`batch` inputs, and an input of more than `longest` characters, are refused as these servers refuse
them (413 and 400); the key, where there is one, is asked for.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np


def vector_of(text: str, dimensions: int = 8) -> np.ndarray:
    seed = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
    return np.random.default_rng(seed).normal(size=dimensions)


@dataclass
class EmbeddingServer:
    model: str = "BAAI/bge-m3"
    key: str | None = None
    batch: int = 32
    longest: int = 1_000
    dimensions: int = 8
    info: dict[str, Any] | None = None
    lists: bool = True
    statuses: list[int] = field(default_factory=list)  # sent first, whatever is asked
    reply: dict[str, Any] | None = None  # in place of vectors
    encode: Callable[[list[str]], np.ndarray] | None = None  # in place of random vectors
    inputs: list[list[str]] = field(default_factory=list)
    url: str = ""

    def get(self, path: str) -> tuple[int, Any]:
        if path == "/v1/models" and self.lists:
            return 200, {"object": "list", "data": [{"id": self.model, "object": "model"}]}
        if path == "/info" and self.info is not None:
            return 200, self.info
        return 404, {"detail": "Not Found"}

    def post(self, path: str, key: str | None, body: dict[str, Any]) -> tuple[int, Any]:
        if self.statuses:
            return self.statuses.pop(0), {"error": "busy"}
        if path != "/v1/embeddings" or body["model"] != self.model:
            message = f"The model `{body['model']}` does not exist."
            return 404, {"error": {"message": message, "code": 404}}
        if self.key is not None and key != f"Bearer {self.key}":
            return 401, {"error": f"Unauthorized, not {key}"}
        given = body["input"]
        if len(given) > self.batch:
            return 413, {"error": f"batch size {len(given)} > maximum allowed batch size"}
        if any(len(text) > self.longest for text in given):
            return 400, {"error": {"message": "maximum context length is exceeded"}}
        self.inputs.append(given)
        if self.reply is not None:
            return 200, self.reply
        vectors = (
            [3 * vector_of(text, self.dimensions) for text in given]
            if self.encode is None
            else self.encode(given)
        )
        rows = [
            {"object": "embedding", "index": index, "embedding": vector.tolist()}
            for index, vector in enumerate(vectors)
        ]
        return 200, {"object": "list", "model": self.model, "data": rows[::-1], "usage": {}}


@contextmanager
def serving(server: EmbeddingServer) -> Iterator[EmbeddingServer]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send(*server.get(self.path))

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self.send(*server.post(self.path, self.headers.get("Authorization"), body))

        def send(self, status: int, found: Any) -> None:
            content = json.dumps(found).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            return

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.url = f"http://127.0.0.1:{http.server_address[1]}"
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
