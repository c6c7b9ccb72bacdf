"""Serve the pages of a home until told to stop.

`ratchet up` and `ratchet serve --pages` start this as a process of its own, so that a page never
makes an answer of the gateway wait:

    python -m ratchet.web --port 8100

It writes its address, and the link that makes the first admin where nobody has an account, into
`pages.json` of the home, for its owner alone.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import socket
import ssl
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import uvicorn

from ratchet.errors import BusyError, InvalidInputError
from ratchet.files.logs import log_handler
from ratchet.files.whole import write_whole
from ratchet.operate.opening import open_store
from ratchet.servers import pages_file
from ratchet.settings import Settings, load_settings, value_of
from ratchet.store import EventStore
from ratchet.web.accounts import invite
from ratchet.web.app import create_pages
from ratchet.web.options import PORT, SECRET, PagesOptions, read_options

logger = logging.getLogger(__name__)


def serve(settings: Settings, options: PagesOptions, port: int) -> None:
    """Serve until the process is told to stop.

    Args:
        settings: Of the home.
        options: How the pages are served.
        port: To listen on; 0 picks one.

    Raises:
        BusyError: The address is taken.
    """
    settings.make_home()
    store = open_store(settings)
    listening = _listen(options, port)
    server = uvicorn.Server(_config(settings, options, store))
    try:
        _announce(settings, options, store, listening.getsockname()[1])
        server.run(sockets=[listening])
    finally:
        pages_file(settings).unlink(missing_ok=True)
        store.close()


def _config(settings: Settings, options: PagesOptions, store: EventStore) -> uvicorn.Config:
    config = uvicorn.Config(
        create_pages(settings, store, options),
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # whom a proxy names is read by the doorkeeper alone
        timeout_graceful_shutdown=5,
        ssl_certfile=options.tls_cert,
        ssl_keyfile=None if options.tls_key is None else str(options.tls_key),
    )
    try:
        config.load()
    except (ssl.SSLError, OSError) as error:
        raise InvalidInputError(
            f"tls_cert and tls_key must be a certificate and its key in PEM, got: {error}"
        ) from error
    if config.ssl is not None:
        config.ssl.minimum_version = ssl.TLSVersion.TLSv1_2
    return config


def _listen(options: PagesOptions, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    listening = socket.socket(family)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((options.host, port))
    except OSError as error:
        raise BusyError(
            f"the pages need the address {options.host} port {port}, got: {error.strerror}; "
            "name another port"
        ) from error
    listening.listen(512)
    return listening


def _announce(settings: Settings, options: PagesOptions, store: EventStore, port: int) -> None:
    host = f"[{options.host}]" if ":" in options.host else options.host
    scheme = "http" if options.tls_cert is None else "https"
    address = options.address or f"{scheme}://{host}:{port}"
    said: dict[str, object] = {"address": address, "pid": os.getpid(), "first_admin": None}
    if not store.has_accounts():
        said["first_admin"] = f"{address}/welcome/{invite(store, None, now=datetime.now(UTC))}"
    write_whole(pages_file(settings), json.dumps(said).encode())
    logger.info("the pages answer at %s", address)


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve the pages of the home that the environment names; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m ratchet.web")
    parser.add_argument("--port", type=int, default=PORT)
    given = parser.parse_args(arguments)
    os.umask(0o077)
    settings = load_settings(os.environ, Path.cwd())
    handler = log_handler(settings.log_format, "%(asctime)s %(levelname)s %(message)s")
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    secret = {SECRET: value_of(os.environ, SECRET) or ""}
    serve(settings, read_options(settings.pages, secret), given.port)
    return 0
