"""One gateway process: `python -m ratchet.gateway.worker SOCKET < OPTIONS`, started by `serve`."""

from __future__ import annotations

import logging
import os
import socket
import sys

import uvicorn

from ratchet.files.logs import harmless_logs, log_handler
from ratchet.gateway.app import create_app
from ratchet.gateway.connections import server_options
from ratchet.gateway.options import GatewayOptions, heard_by_worker


def main(options: GatewayOptions, listening: int) -> None:
    """Serve on a socket that the parent opened."""
    harmless_logs()
    settings = options.settings
    logging.basicConfig(
        level=settings.log_level.upper(), handlers=[log_handler(settings.log_format)]
    )
    config = uvicorn.Config(
        create_app(options),
        log_level=settings.log_level,
        log_config=None,  # its lines go where all others go
        access_log=False,
        server_header=False,
        date_header=False,
        timeout_graceful_shutdown=10,
        loop="auto",
        **server_options(options),
    )
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=listening)])


if __name__ == "__main__":
    told, secrets = heard_by_worker(sys.stdin.buffer.read())
    os.environ.update(secrets)  # the kernel goes on showing what the process was started with
    main(told, int(sys.argv[1]))
