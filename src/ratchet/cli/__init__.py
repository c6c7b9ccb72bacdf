"""The command `ratchet`: starts flows through Prefect, imports what is slow only when needed.

Commands are listed by the stage of the loop that they belong to, in the loop's order.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from pydantic import ValidationError

from ratchet import __version__
from ratchet.cli import accounts, alerts, golden, judge, report, review, rollout, signals
from ratchet.cli.adopt import adopt
from ratchet.cli.approve import approve
from ratchet.cli.backup import backup
from ratchet.cli.chart import chart
from ratchet.cli.curate import curate
from ratchet.cli.doctor import doctor
from ratchet.cli.export import export
from ratchet.cli.failures import failures
from ratchet.cli.forget import forget
from ratchet.cli.gate import gate
from ratchet.cli.history import history
from ratchet.cli.import_ import import_source
from ratchet.cli.ingest import ingest
from ratchet.cli.init import init
from ratchet.cli.prune import prune
from ratchet.cli.restore import restore
from ratchet.cli.rollback import rollback
from ratchet.cli.saying import say, say_text
from ratchet.cli.serve import keys, serve
from ratchet.cli.set_aside import set_aside
from ratchet.cli.stages import analyze, collect, train
from ratchet.cli.start import demo, up
from ratchet.cli.status import status
from ratchet.cli.timeline import timeline
from ratchet.cli.verify import verify
from ratchet.cli.worker import register, worker
from ratchet.errors import RatchetError
from ratchet.files.logs import harmless_logs
from ratchet.files.text import printable, printable_path

app = typer.Typer(
    name="ratchet",
    help="LLM quality that only turns one way.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

START, COLLECT, ANALYZE, IMPROVE = "Start", "Collect", "Analyze", "Improve"
DEPLOY, SERVE, LOOK_AFTER = "Deploy", "Serve", "Look after"

app.command(rich_help_panel=START, epilog="Example: ratchet demo --messages-limit 640 --seed 1")(
    demo
)
app.command(rich_help_panel=START, epilog="Example: ratchet init --dry-run")(init)
app.command(rich_help_panel=START, epilog="Example: ratchet up --prefect-port 4201")(up)
app.command(rich_help_panel=START, epilog="Example: ratchet worker --pool ratchet-training")(worker)
app.command(
    rich_help_panel=START, epilog="Example: ratchet register --training-jobs training-job.json"
)(register)
app.command(
    rich_help_panel=START,
    epilog="Example: ratchet adopt --backend http://127.0.0.1:8001 --dry-run",
)(adopt)

app.command(
    "import", rich_help_panel=COLLECT, epilog="Example: ratchet import export.jsonl --dry-run"
)(import_source)
app.command(rich_help_panel=COLLECT, epilog="Example: ratchet ingest events.jsonl")(ingest)
app.command(
    "set-aside", rich_help_panel=COLLECT, epilog="Example: ratchet set-aside --source events.jsonl"
)(set_aside)

app.command(rich_help_panel=COLLECT, epilog="Example: ratchet collect --dry-run")(collect)
app.add_typer(signals.app, name="signals", rich_help_panel=COLLECT)

app.command(rich_help_panel=ANALYZE, epilog="Example: ratchet analyze --watch-only")(analyze)

app.command(
    rich_help_panel=ANALYZE, epilog="Example: ratchet failures rated.csv --embedding words"
)(failures)
app.command(
    rich_help_panel=ANALYZE,
    epilog="Example: ratchet chart thumbs_down_rate --by day --out chart.png",
)(chart)
app.add_typer(judge.app, name="judge", rich_help_panel=ANALYZE)
app.add_typer(review.app, name="review", rich_help_panel=ANALYZE)

app.command(
    rich_help_panel=IMPROVE, epilog="Example: ratchet curate --dry-run --since 90d --method kto"
)(curate)

app.command(rich_help_panel=IMPROVE, epilog="Example: ratchet train --dry-run --method kto")(train)

app.add_typer(golden.app, name="golden", rich_help_panel=DEPLOY)
app.command(
    rich_help_panel=DEPLOY,
    epilog="Example: ratchet gate --champion smollm2 --challenger support-router/3 "
    "--examples golden.jsonl",
)(gate)
app.command(
    rich_help_panel=DEPLOY,
    epilog="Example: ratchet approve 3f9a --approve --by ada --reason 'read 20 answers'",
)(approve)
app.add_typer(rollout.app, name="rollout", rich_help_panel=DEPLOY)
app.add_typer(rollout.variants, name="variants", rich_help_panel=DEPLOY)
app.command(
    rich_help_panel=DEPLOY, epilog="Example: ratchet rollback --by ada --note 'wrong queue'"
)(rollback)

app.command(rich_help_panel=SERVE, epilog="Example: ratchet serve --backend http://127.0.0.1:8001")(
    serve
)
app.add_typer(keys, name="keys", rich_help_panel=SERVE)
app.add_typer(accounts.app, name="accounts", rich_help_panel=SERVE)

app.command(rich_help_panel=LOOK_AFTER, epilog="Example: ratchet status --json")(status)
app.add_typer(alerts.app, name="alerts", rich_help_panel=LOOK_AFTER)
app.add_typer(report.app, name="report", rich_help_panel=LOOK_AFTER)
app.command(rich_help_panel=LOOK_AFTER, epilog="Example: ratchet timeline --hours 48")(timeline)
app.command(rich_help_panel=LOOK_AFTER, epilog="Example: ratchet history --show-only")(history)
app.command(
    rich_help_panel=LOOK_AFTER,
    epilog="Example: ratchet export dataset --format openai --out train.jsonl",
)(export)
app.command(rich_help_panel=LOOK_AFTER, epilog="Example: ratchet prune --dry-run")(prune)
app.command(rich_help_panel=LOOK_AFTER, epilog="Example: ratchet forget user-17 --yes")(forget)
app.command(rich_help_panel=LOOK_AFTER, epilog="Example: ratchet backup /backups/2026-12-01")(
    backup
)
app.command(
    rich_help_panel=LOOK_AFTER, epilog="Example: ratchet restore /backups/2026-12-01 --replace"
)(restore)
app.command(rich_help_panel=LOOK_AFTER, epilog="Example: ratchet verify --json")(verify)
app.command(rich_help_panel=LOOK_AFTER, epilog="Example: ratchet doctor --json")(doctor)


def main() -> None:
    """Run the command line; an error of Ratchet's own is one message and exit code 2.

    So is a value that a record refuses, since what a command was given goes into records unchanged,
    and a file that cannot be read or written.
    """
    harmless_logs()
    os.umask(0o077)  # what is made in the home is for its owner alone
    try:
        app()
    except RatchetError as error:
        _refuse(str(error), error)
    except OSError as error:
        if not error.filename:
            raise
        path = printable_path(Path(os.fsdecode(error.filename)))
        _refuse(f"{path}: {error.strerror}; check the path", error)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = ".".join(map(str, first["loc"])) or error.title
        rule = first["msg"].removeprefix("Value error, ")
        _refuse(f"{name}: {rule}, got {printable(repr(first['input']))}; correct it", error)


def _refuse(message: str, error: Exception) -> NoReturn:
    say_text(f"ratchet: {message}", err=True)
    raise SystemExit(2) from error


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        say(f"ratchet {__version__}")
        raise typer.Exit
