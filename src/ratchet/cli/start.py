"""`ratchet demo` and `ratchet up`: a whole cycle on this machine, and the servers."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from ratchet.cli.saying import say
from ratchet.cli.shared import current_settings, existing_store, show_progress
from ratchet.errors import InvalidInputError

TRAINING = "ratchet-training"
QUIET_STATES = {
    "PREFECT_LOGGING_LOGGERS_PREFECT_FLOW_RUNS_LEVEL": "WARNING",
    "PREFECT_LOGGING_LOGGERS_PREFECT_TASK_RUNS_LEVEL": "WARNING",
}
"""Keeps Prefect's line per state off the terminal, where Ratchet's own progress is to be read."""


def demo(
    messages: Annotated[
        Path | None,
        typer.Option(
            help="CSV with columns text,label, or JSON Lines with text and target; default: "
            "made-up support messages."
        ),
    ] = None,
    queues: Annotated[
        Path | None,
        typer.Option(help="CSV with columns label,queue that maps detailed labels to queues."),
    ] = None,
    instruction: Annotated[
        str | None,
        typer.Option(help="What the model does with a message; default: it names the queue."),
    ] = None,
    max_new_tokens: Annotated[
        int, typer.Option(min=1, max=4_096, help="Longest answer, in tokens.")
    ] = 12,
    messages_limit: Annotated[
        int, typer.Option(min=1, help="Messages that come in during the cycle.")
    ] = 640,
    seed: Annotated[int, typer.Option(min=0, help="Seed of all random draws.")] = 0,
    policy: Annotated[
        Path | None,
        typer.Option(help="YAML with a policy for the gate; default: the loop's own."),
    ] = None,
) -> None:
    """Let simulated users talk to a real model over HTTP, then run one cycle of the loop.

    Stopped and started again, it goes on.
    """
    from ratchet.demo.plan import DemoOptions
    from ratchet.demo.run import Demo, refuse_among_real_users
    from ratchet.servers import Servers

    settings = current_settings()
    given: dict[str, Any] = {"messages_limit": messages_limit, "seed": seed}
    for name, path in (("messages", messages), ("queues", queues)):
        if path is not None:
            given[name] = path.resolve()
    if instruction is not None:
        given |= {"instruction": instruction, "max_new_tokens": max_new_tokens}
    _check_input(messages, queues, instruction, policy)
    refuse_among_real_users(settings, existing_store())
    loop: dict[str, Any] = {}
    if policy is not None:
        from ratchet.deploy.gate.policy import is_shipped

        named = str(policy) if is_shipped(policy) else str(policy.resolve())
        loop["deploy"] = {"policy": named}
    show_progress()
    servers = Servers(settings=settings, say=print)
    interrupt_on_signals()
    code = 130
    try:
        say("starting Prefect ...")
        servers.start_prefect(port=4200, environ=QUIET_STATES | os.environ)
        say(f"watch it live: {servers.prefect_api.removesuffix('/api')}")
        code = Demo(servers, DemoOptions(**given)).run(loop, environ=os.environ)
    except KeyboardInterrupt:
        say()
        say("stopped; the same command goes on from here")
    finally:
        servers.stop()
    if code == 0:
        if shutil.which("ratchet") is None:
            say(f"Here the command `ratchet` is {_relative(Path(sys.argv[0]))}")
        say("Both UIs show these runs after `ratchet up`:")
        say("  Prefect  http://127.0.0.1:4200   flow runs, logs, artifacts")
        say("  MLflow   http://127.0.0.1:5000   metrics, adapters, model versions")
    _exit(code)


def up(
    prefect_port: Annotated[
        int, typer.Option(min=1, max=65_535, help="Wanted port of the Prefect UI.")
    ] = 4200,
    mlflow_port: Annotated[
        int, typer.Option(min=1, max=65_535, help="Wanted port of the MLflow UI.")
    ] = 5000,
    pages_port: Annotated[
        int, typer.Option(min=1, max=65_535, help="Wanted port of the pages for people.")
    ] = 8100,
    pages: Annotated[bool, typer.Option(help="Serve the pages for people.")] = True,
    training: Annotated[
        bool,
        typer.Option(help="Train here; else a worker of ratchet-training elsewhere does."),
    ] = True,
) -> None:
    """Start Prefect, MLflow, the pages and workers for the deployments, until Ctrl-C."""
    from ratchet.deployments import read_deployments
    from ratchet.operate.opening import open_store
    from ratchet.servers import WORK_POOLS, Servers

    settings = current_settings()
    training = training and not read_deployments(settings.deployments).trains_elsewhere
    settings.make_home()
    with closing(open_store(settings)) as store:
        servers = Servers(settings=settings, say=print, store_id=store.identity)
    interrupt_on_signals()
    code = 0
    try:
        say("starting Prefect and MLflow ...")
        pools = [pool for pool in WORK_POOLS if training or pool != TRAINING]
        servers.start(
            prefect_port=prefect_port, mlflow_port=mlflow_port, environ=os.environ, pools=pools
        )
        say(f"Prefect  {servers.prefect_api.removesuffix('/api')}")
        say(f"MLflow   {servers.mlflow}")
        if pages:
            for line in pages_lines(servers.start_pages(port=pages_port, environ=os.environ)):
                say(line)
        served = " and ".join(pools)
        say(f"Workers serve the pools {served}. Ctrl-C stops all of them.")
        ended = servers.watch()
        say(f"ratchet: {ended} ended by itself, see logs/{ended}.log in the home", err=True)
        code = 1
    except KeyboardInterrupt:
        say()
        say("stopping ...")
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        servers.stop()
    _exit(code)


def pages_lines(said: dict[str, Any]) -> list[str]:
    """Return lines about the pages for people: where they are, and who makes the first account."""
    lines = [f"Pages    {said['address']}"]
    if said["first_admin"]:
        lines.append(f"         nobody has an account; the first admin: {said['first_admin']}")
    return lines


def interrupt_on_signals() -> None:
    """Stop in order on SIGTERM as on Ctrl-C, also where a shell started us in the background."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)


def _relative(path: Path) -> Path:
    folder = Path.cwd()
    return path.relative_to(folder) if path.is_relative_to(folder) else path


def _check_input(
    messages: Path | None, queues: Path | None, instruction: str | None, policy: Path | None
) -> None:
    """Refuse a bad file at once, before any server starts."""
    if policy is not None:
        from ratchet.deploy.gate.policy import load_policy
        from ratchet.evaluation.answer_scores import check_metrics

        check_metrics(load_policy(policy).metrics)
    if messages is None:
        for name, value in (("--queues", queues), ("--instruction", instruction)):
            if value is not None:
                raise InvalidInputError(
                    f"{name} needs --messages, got {name} alone; add --messages"
                )
        return
    from ratchet.collect.messages import check_labels, read_messages, read_queues, targets

    table = read_queues(queues) if queues else None
    read = read_messages(messages, queues=table, now=datetime.now(UTC))
    if instruction is None:
        check_labels(read.messages)
    else:
        targets(read.messages)


def _exit(code: int) -> NoReturn:
    raise SystemExit(code)
