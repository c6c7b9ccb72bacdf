"""One gateway process: `python -m ratchet.gateway.worker OPTIONS SOCKET`, started by `serve`."""

from __future__ import annotations

import logging
import os
import socket
import sys

import uvicorn

from ratchet.files.logs import harmless_logs
from ratchet.gateway.app import create_app
from ratchet.gateway.options import GatewayOptions


def main(options: GatewayOptions, listening: int) -> None:
    """Serve on a socket that the parent opened."""
    harmless_logs()
    logging.basicConfig(
        level=options.log_level.upper(), format="%(levelname)s %(name)s %(message)s"
    )
    config = uvicorn.Config(
        create_app(options),
        log_level=options.log_level,
        log_config=None,  # its lines go where all others go
        access_log=False,
        server_header=False,
        date_header=False,
        timeout_graceful_shutdown=10,
        loop="auto",
        http="auto",
        ws="none",
    )
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=listening)])


if __name__ == "__main__":
    main(GatewayOptions.model_validate_json(os.environ.pop("RATCHET_GATEWAY")), int(sys.argv[1]))
