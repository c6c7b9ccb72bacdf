"""A real S3 server over HTTP for the tests of history, with a hand on what is put there."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Lock, Thread
from typing import Any

import pytest
from moto.moto_server.werkzeug_app import (
    DomainDispatcherApplication,
    MotoRequestHandler,
    create_backend_app,
)
from werkzeug.serving import make_server

BUCKET = "kept"


class CutError(Exception):
    """Raised by a test's `on_put`: the connection breaks half way through the body."""


class S3Server:
    """Moto's server on a free port.

    Attributes:
        on_put: Called with the path of what is put before it is there.
        puts: Paths of what was put.
        asked: How many requests there were, by method.
    """

    def __init__(self) -> None:
        self.on_put: Callable[[str], None] = lambda path: None
        self.puts: list[str] = []
        self.asked: Counter[str] = Counter()
        self._moto = DomainDispatcherApplication(create_backend_app)
        self._one_put = Lock()  # S3 decides on conditional puts one after the other
        self._server = make_server(
            "127.0.0.1", 0, self._answer, threaded=True, request_handler=MotoRequestHandler
        )
        self._thread = Thread(target=self._server.serve_forever, daemon=True)

    @property
    def address(self) -> str:
        host, port = self._server.server_address[:2]
        return f"http://{host!s}:{port}"

    def _answer(self, environ: dict[str, Any], start_response: Any) -> Any:
        path = environ["PATH_INFO"]
        self.asked[environ["REQUEST_METHOD"]] += 1
        if environ["REQUEST_METHOD"] != "PUT":
            return self._moto(environ, start_response)
        try:
            self.on_put(path)
        except CutError:
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0) // 2)
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            start_response("500 cut", [])
            return []
        with self._one_put:
            self.puts.append(path)
            return list(self._moto(environ, start_response))

    @contextmanager
    def running(self) -> Iterator[S3Server]:
        self._thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._thread.join(timeout=30)
            self._server.server_close()


@contextmanager
def s3_server() -> Iterator[S3Server]:
    """Run a server that the usual variables of AWS name, with an empty bucket."""
    import s3fs

    with S3Server().running() as server, pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ENDPOINT_URL": server.address,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_MAX_ATTEMPTS": "1",
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
        }.items():
            patch.setenv(name, value)
        with suppress(FileExistsError):  # moto keeps buckets as long as its process lives
            s3fs.S3FileSystem(skip_instance_cache=True).mkdir(BUCKET)
        yield server
