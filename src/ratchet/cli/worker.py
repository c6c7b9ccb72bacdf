"""`ratchet worker` and `ratchet register`: over a Prefect server that runs elsewhere."""

from __future__ import annotations

import os
import signal
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from ratchet.cli.saying import say
from ratchet.cli.shared import current_settings, open_tracker
from ratchet.cli.start import interrupt_on_signals
from ratchet.errors import InvalidInputError, SettingsError
from ratchet.files.text import printable
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


def register(
    training_jobs: Annotated[
        Path | None,
        typer.Option(
            help="JSON: base job template of a pool of Kubernetes jobs, which train; it is made "
            "where there is no pool ratchet-training."
        ),
    ] = None,
) -> None:
    """Register the deployments with a Prefect server elsewhere (PREFECT_API_URL).

    `ratchet up` does it with its own. Pools that are there stay as they are, and what a person
    switched on stays on.
    """
    from ratchet.operate.opening import open_store
    from ratchet.servers import Servers, answering_prefect

    settings = current_settings()
    jobs = None if training_jobs is None else _job_template(training_jobs)
    api = answering_prefect(settings)
    if api is None:
        raise SettingsError(
            "deployments need a Prefect server that answers, got none at "
            f"{settings.prefect_api_url or 'this home'}; set PREFECT_API_URL to its API"
        )
    settings.make_home()
    with closing(open_store(settings)) as store:
        servers = Servers(settings=settings, say=say, store_id=store.identity)
    servers.register(api=api, environ=os.environ, jobs=jobs)
    say(f"deployments are registered at {api}, for the store {servers.store_id}")


def _job_template(path: Path) -> dict[str, Any]:
    """Return a pool's base job template.

    Raises:
        InvalidInputError: It is not there, or none.
    """
    from ratchet.files.json_rows import parse_json

    try:
        read = parse_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InvalidInputError(
            f"--training-jobs must be a JSON file, got {printable(str(path))}: {error}; correct it"
        ) from error
    if not isinstance(read, dict) or not {"variables", "job_configuration"} <= read.keys():
        raise InvalidInputError(
            "--training-jobs must hold variables and job_configuration, got "
            f"{printable(path.name)} without; "
            "`prefect work-pool get-default-base-job-template --type kubernetes` writes one"
        )
    return read
