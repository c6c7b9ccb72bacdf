"""The command `ratchet`: starts flows through Prefect, imports what is slow only when needed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from ratchet import __version__
from ratchet.cli import judge, rollout
from ratchet.cli.approve import approve
from ratchet.cli.chart import chart
from ratchet.cli.failures import failures
from ratchet.cli.forget import forget
from ratchet.cli.gate import gate
from ratchet.cli.review import review
from ratchet.cli.serve import keys, serve
from ratchet.cli.shared import current_settings, nothing_stored, open_tracker
from ratchet.cli.timeline import timeline
from ratchet.errors import InvalidInputError, RatchetError
from ratchet.settings import Settings

if TYPE_CHECKING:
    from ratchet.store import EventStore

QUIET_STATES = {
    "PREFECT_LOGGING_LOGGERS_PREFECT_FLOW_RUNS_LEVEL": "WARNING",
    "PREFECT_LOGGING_LOGGERS_PREFECT_TASK_RUNS_LEVEL": "WARNING",
}
"""Keeps Prefect's line per state off the terminal, where Ratchet's own progress is to be read."""

app = typer.Typer(
    name="ratchet",
    help="LLM quality that only turns one way.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

app.add_typer(judge.app, name="judge")
app.add_typer(rollout.app, name="rollout")
app.add_typer(rollout.variants, name="variants")
app.command()(review)
app.command()(gate)
app.command()(approve)
app.command()(failures)
app.command()(forget)
app.add_typer(keys, name="keys")
app.command()(serve)
app.command()(timeline)
app.command()(chart)


def main() -> None:
    """Run the command line; an error of Ratchet's own is one message and exit code 2."""
    try:
        app()
    except RatchetError as error:
        sys.stderr.write(f"ratchet: {error}\n")
        raise SystemExit(2) from error


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        print(f"ratchet {__version__}")
        raise typer.Exit


@app.command()
def demo(
    messages: Annotated[
        Path | None,
        typer.Option(
            help="CSV with columns text,label, or JSON Lines with text and target; default: "
            "written by a grammar."
        ),
    ] = None,
    queues: Annotated[
        Path | None, typer.Option(help="CSV with columns label,queue, where labels are many.")
    ] = None,
    instruction: Annotated[
        str | None,
        typer.Option(help="What the model does with a message; default: it names the queue."),
    ] = None,
    max_new_tokens: Annotated[
        int, typer.Option(min=1, max=4_096, help="The longest answer, in tokens.")
    ] = 12,
    messages_limit: Annotated[
        int, typer.Option(min=1, help="Messages that come in during the cycle.")
    ] = 640,
    seed: Annotated[int, typer.Option(min=0, help="Of everything that is drawn.")] = 0,
    policy: Annotated[
        Path | None, typer.Option(help="YAML: what a challenger must show; default: the loop's.")
    ] = None,
) -> None:
    """Run one cycle of the loop with a real model; killed and started again, it goes on."""
    from ratchet.servers import Servers

    settings = current_settings()
    collect: dict[str, Any] = {"messages_limit": messages_limit, "seed": seed}
    collect["source"] = "simulated"
    for name, path in (("messages", messages), ("queues", queues)):
        if path is not None:
            collect[name] = str(path.resolve())
    if instruction is not None:
        collect |= {"instruction": instruction, "max_new_tokens": max_new_tokens}
    _check_input(messages, queues, instruction, policy)
    options: dict[str, Any] = {"collect": collect}
    if policy is not None:
        options["deploy"] = {"policy": str(policy.resolve())}
    servers = Servers(settings=settings, say=print)
    _interrupt_on_signals()
    code = 130
    try:
        print("starting Prefect ...", flush=True)
        servers.start_prefect(port=4200, environ=QUIET_STATES | os.environ)
        print(f"watch it live: {servers.prefect_api.removesuffix('/api')}", flush=True)
        code = servers.run(["ratchet.flows.loop", json.dumps(options)])
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on from here", flush=True)
    finally:
        servers.stop()
    if code == 0:
        if shutil.which("ratchet") is None:
            print(f"Here the command `ratchet` is {_relative(Path(sys.argv[0]))}")
        print("Both UIs show these runs after `ratchet up`:")
        print("  Prefect  http://127.0.0.1:4200   flow runs, logs, artifacts")
        print("  MLflow   http://127.0.0.1:5000   metrics, adapters, model versions")
    _exit(code)


@app.command()
def up(
    prefect_port: Annotated[
        int, typer.Option(min=1, max=65_535, help="Wanted port of the Prefect UI.")
    ] = 4200,
    mlflow_port: Annotated[
        int, typer.Option(min=1, max=65_535, help="Wanted port of the MLflow UI.")
    ] = 5000,
) -> None:
    """Start Prefect, MLflow and a worker for the deployments; stop them all on Ctrl-C."""
    from ratchet.servers import Servers

    settings = current_settings()
    servers = Servers(settings=settings, say=print)
    _interrupt_on_signals()
    code = 0
    try:
        print("starting Prefect and MLflow ...", flush=True)
        servers.start(prefect_port=prefect_port, mlflow_port=mlflow_port, environ=os.environ)
        print(f"Prefect  {servers.prefect_api.removesuffix('/api')}")
        print(f"MLflow   {servers.mlflow}")
        print("A worker serves the deployments. Ctrl-C stops all three.", flush=True)
        ended = servers.watch()
        sys.stderr.write(f"ratchet: {ended} ended by itself, see logs/{ended}.log in the home\n")
        code = 1
    except KeyboardInterrupt:
        print("\nstopping ...", flush=True)
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        servers.stop()
    _exit(code)


@app.command()
def status(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show the champion, its last decision, what was collected and the last alerts."""
    found = _gather_status(current_settings())
    if as_json:
        print(json.dumps(found, indent=2))
        return
    decision = found["last_decision"]
    print(f"champion      {found['champion'] or 'none yet: run `ratchet demo`'}")
    print(f"previous      {found['previous'] or 'none'}")
    if decision:
        print(f"last decision {decision['verdict']} {decision['challenger']} ({decision['at']})")
        print(f"              {'; '.join(decision['reasons'])}")
    for waiting in found["waiting"]:
        print(f"waits         for a person: ratchet approve {waiting[:8]}")
    if found["cycle"]:
        print(f"cycle         {found['cycle']['number']} ({found['cycle']['state']})")
    print(f"interactions  {found['interactions']}")
    print(f"feedback      {', '.join(f'{n} {kind}' for kind, n in found['feedback'].items())}")
    print(f"set aside     {found['set_aside']}")
    if found["rollout"]:
        print(f"rollout       {found['rollout']['challenger']}, {found['rollout']['says']}")
    if found["registry"] != "nothing to do":
        print(f"registry      {found['registry']}")
    for alert in found["alerts"]:
        print(f"alert         {alert['severity']}: {alert['message']} {alert['action']}")


@app.command()
def ingest(
    file: Annotated[
        Path, typer.Argument(help="JSON Lines, one interaction or piece of feedback a line.")
    ],
    dialogues: Annotated[
        bool, typer.Option("--dialogues", help="The file is a log of whole dialogues.")
    ] = False,
) -> None:
    """Store events from a file; bad rows are set aside with their reasons, the others go on."""
    from ratchet.collect.dialogues import harvest_dialogues
    from ratchet.collect.ingest import ingest_file
    from ratchet.store import EventStore

    settings = current_settings()
    settings.home.mkdir(parents=True, exist_ok=True)
    store, now = EventStore.open(settings.store_url), datetime.now(UTC)
    read = harvest_dialogues if dialogues else ingest_file
    report = read(file, store, now=now)
    print(f"{report.interactions} interactions and {report.feedback} pieces of feedback stored")
    print(f"{report.repeated} were there before, {report.set_aside} rows set aside")
    for reason, count in report.reasons[:5]:
        print(f"{count:>8} × {reason}")


@app.command()
def alerts(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    everything: Annotated[bool, typer.Option("--all", help="Resolved ones too.")] = False,
    acknowledge: Annotated[
        str | None, typer.Option(help="Id of an alert that you look after, or its start.")
    ] = None,
    resolve: Annotated[
        str | None, typer.Option(help="Id of an alert that is settled, or its start.")
    ] = None,
    by: Annotated[str, typer.Option(help="Who you are.")] = "",
    note: Annotated[str, typer.Option(help="Why.")] = "",
) -> None:
    """List the open alerts; acknowledge or resolve one."""
    from ratchet.analyze.monitoring.alerts import by_hand, standing
    from ratchet.records import AlertEvent
    from ratchet.store import EventStore
    from ratchet.views.text.cycle import alerts_text

    if acknowledge is not None and resolve is not None:
        raise InvalidInputError(
            "one of --acknowledge and --resolve goes with a call, got both; call twice"
        )
    settings = current_settings()
    store = None if nothing_stored(settings) else EventStore.open(settings.store_url)
    known = store.records(AlertEvent, latest=1_000) if store else ()
    key = resolve if acknowledge is None else acknowledge
    if key is not None:
        event = by_hand(
            known if key else (),  # an empty id would be the start of any
            key,
            "acknowledged" if resolve is None else "resolved",
            by=by or os.environ.get("USER", "somebody"),
            note=note or None,
            now=datetime.now(UTC),
        )
        if store:
            store.append(event)
        known = (*known, event)
    shown = [e for e in standing(known).values() if everything or e.change != "resolved"]
    if as_json:
        print(json.dumps([event.canonical() for event in shown], indent=2))
    else:
        print(alerts_text(shown))


@app.command("rollback")
def roll_back_now(
    by: Annotated[str, typer.Option(help="Who you are.")] = "",
    note: Annotated[str, typer.Option(help="Why.")] = "",
) -> None:
    """Take away what is newest in front of users: a rollout, else a test, else the champion."""
    from ratchet.deploy.rollout.rollback import roll_back
    from ratchet.deploy.routing import waiting_move
    from ratchet.store import EventStore

    settings = current_settings()
    if nothing_stored(settings):
        raise InvalidInputError(
            f"a rollback needs a home folder with a store, got none in {settings.home.name!r}; "
            "run it where `ratchet demo` ran, or set RATCHET_HOME"
        )
    store = EventStore.open(settings.store_url)
    done = roll_back(
        store,
        open_tracker(settings),
        now=datetime.now(UTC),
        by=by or os.environ.get("USER", "somebody"),
        person=True,
        note=note,
    )
    if done.did != "champion replaced":
        print(f"{done.did}: {done.version}")
    print(f"champion is now {done.champion}")
    if waiting_move(store) is not None:
        print("MLflow does not answer; its alias is moved when it does")


def _interrupt_on_signals() -> None:
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
                    f"{name} goes with --messages, got it alone; add --messages"
                )
        return
    from ratchet.collect.messages import check_labels, read_messages, read_queues, targets

    table = read_queues(queues) if queues else None
    found = read_messages(messages, queues=table, now=datetime.now(UTC))
    if instruction is None:
        check_labels(found.messages)
    else:
        targets(found.messages)


def _gather_status(settings: Settings) -> dict[str, Any]:
    from ratchet.deploy.approval import waiting_decisions
    from ratchet.records import FEEDBACK_KINDS, Alert, Analysis, Cycle, CycleEnd, Decision, Release
    from ratchet.store import EventStore

    found: dict[str, Any] = {
        "home": str(settings.home),
        "champion": None,
        "previous": None,
        "last_decision": None,
        "cycle": None,
        "interactions": 0,
        "feedback": dict.fromkeys(FEEDBACK_KINDS, 0),
        "set_aside": 0,
        "alerts": [],
        "waiting": [],
        "rollout": None,
        "registry": "nothing to do",
    }
    if nothing_stored(settings):
        return found
    store = EventStore.open(settings.store_url)
    found["waiting"] = [one.id for one in waiting_decisions(store)]
    release, decision = store.latest(Release), store.latest(Decision)
    analysis, cycle = store.latest(Analysis), store.latest(Cycle)
    counts = store.counts()
    found["interactions"] = counts["interactions"]
    found["set_aside"] = counts["set_aside"]
    found["feedback"] = {kind: counts[kind] for kind in FEEDBACK_KINDS}
    if release:
        found |= {"champion": release.champion, "previous": release.previous}
    if decision:
        found["last_decision"] = _decision_summary(decision.canonical())
    if cycle:
        end = store.get(CycleEnd, cycle.id)
        found["cycle"] = {"number": cycle.number, "state": end.outcome if end else "running"}
    found["rollout"], found["registry"] = _rollout_summary(store), _caught_up(store, settings)
    alerts: tuple[Alert, ...] = analysis.alerts if analysis else ()
    found["alerts"] = [alert.canonical() for alert in alerts]
    return found


def _decision_summary(decision: dict[str, Any]) -> dict[str, Any]:
    kept = (
        "verdict", "champion", "challenger", "reasons", "champion_value", "challenger_value",
        "difference", "interval", "p_value", "examples",
    )  # fmt: skip
    return {"at": decision["created_at"]} | {name: decision[name] for name in kept}


def _rollout_summary(store: EventStore) -> dict[str, Any] | None:
    from ratchet.deploy.routing import last_look, running_rollout

    running = running_rollout(store)
    if running is None:
        return None
    look = last_look(store, running)
    says = f"{running.plan.stages[0].share:.0%} of users, no look yet"
    if look is not None:
        says = f"{look.share:.0%} of users, {look.decision}: {'; '.join(look.reasons)}"
    return {"challenger": running.challenger.version, "says": says}


def _caught_up(store: EventStore, settings: Settings) -> str:
    """Let the registry catch up with a switch that was made while MLflow was down."""
    from ratchet.deploy.routing import reconcile, waiting_move

    if waiting_move(store) is None:
        return "nothing to do"
    return reconcile(store, open_tracker(settings), datetime.now(UTC))


def _exit(code: int) -> NoReturn:
    raise SystemExit(code)
