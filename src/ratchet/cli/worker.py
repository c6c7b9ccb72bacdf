"""`ratchet worker`: flow runs of a Prefect server elsewhere, on this machine."""

from __future__ import annotations

import os
import signal
from functools import partial
from typing import Annotated

import typer

from ratchet.cli.saying import say
from ratchet.cli.shared import current_settings, open_tracker
from ratchet.cli.start import interrupt_on_signals
from ratchet.settings import without_password


def worker(
    pool: Annotated[
        list[str] | None,
        typer.Option(help="A work pool to serve, repeatable; default: those of `ratchet up`."),
    ] = None,
) -> None:
    """Serve work pools of a Prefect server elsewhere (PREFECT_API_URL), until Ctrl-C.

    It is refused where Prefect or MLflow does not answer, where the store is another one than the
    deployments state, and where artifacts would stay on this machine's disk.
    """
    from ratchet.operate.joining import check_joining
    from ratchet.servers import WORK_POOLS, Servers

    settings, pools = current_settings(), tuple(dict.fromkeys(pool or WORK_POOLS))
    joined = check_joining(settings, pools, partial(open_tracker, settings))
    servers = Servers(settings=settings, say=say)
    interrupt_on_signals()
    code = 0
    try:
        servers.join(pools, api=joined.prefect, environ=os.environ)
        say(f"Prefect  {joined.prefect.removesuffix('/api')}")
        say(f"MLflow   {without_password(joined.tracking)}")
        say(f"Store    {joined.store} at {without_password(settings.store_url)}")
        say(f"Workers serve the pools {' and '.join(pools)}. Ctrl-C stops them and their runs.")
        ended = servers.watch()
        say(f"ratchet: {ended} ended by itself, see logs/{ended}.log in the home", err=True)
        code = 1
    except KeyboardInterrupt:
        say()
        say("stopping ...")
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        servers.stop()
    raise SystemExit(code)
