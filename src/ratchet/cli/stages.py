"""One stage of the loop, as its deployment runs it: `ratchet collect`, `analyze`, `train`.

`ratchet gate --candidate` and `ratchet rollout look` run theirs by what stands here too.
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from ratchet.cli.curate import Method, curated_now
from ratchet.cli.import_server import access
from ratchet.cli.saying import say
from ratchet.cli.shared import current_settings, existing_store, show_progress
from ratchet.cli.start import QUIET_STATES, interrupt_on_signals
from ratchet.deployments import Stage, read_deployments
from ratchet.errors import InvalidInputError
from ratchet.files.hub_ids import is_hub_id
from ratchet.files.rows import set_aside_lines
from ratchet.files.text import counted

if TYPE_CHECKING:
    from ratchet.doors.configured import Source
    from ratchet.flows.improve import ImproveOptions
    from ratchet.improve.training.given_data import DatasetOptions
    from ratchet.settings import Settings

_Options = Annotated[
    Path | None,
    typer.Option(
        "--options",
        help="YAML or JSON with the options of the flow, over those of RATCHET_DEPLOYMENTS.",
    ),
]
_DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Show what would be done, and change nothing.")
]
_SHOWN = 10
_NO_STORE = "nothing is stored yet: `ratchet serve` answers users, `ratchet import` brings a log in"


def collect(
    dry_run: _DryRun = False,
    examples: Annotated[
        Path | None,
        typer.Option(help="What both models answer at the gate; default: drawn from traffic."),
    ] = None,
    options: _Options = None,
) -> None:
    """Bring in what the sources have that is new, and open a cycle of what no cycle had.

    Exit codes: 0 also where there is nothing new yet, 2 for bad input.
    """
    given = _given("collect", options)
    if examples is not None:
        given["examples"] = str(examples.resolve())
    if dry_run:
        _would_collect(given)
        return
    _run("collect", given)


def analyze(
    dry_run: _DryRun = False,
    watch_only: Annotated[
        bool, typer.Option("--watch-only", help="Only every version's board, no cycle.")
    ] = False,
    options: _Options = None,
) -> None:
    """Bring every version's board up to date, and analyze the latest cycle.

    Exit codes: 0 also where there is nothing new yet, 2 for bad input.
    """
    given = _given("analyze", options)
    if watch_only:
        given["cycle"] = False
    if dry_run:
        _would_analyze()
        return
    _run("analyze", given)


def train(
    dry_run: _DryRun = False,
    method: Annotated[
        Method | None, typer.Option(help="How; default: that of the options, or sft.")
    ] = None,
    options: _Options = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            help="Train on this data set in the place of users' feedback: a file, a folder, or an "
            "id of the Hugging Face Hub, in TRL's formats for SFT, DPO or KTO."
        ),
    ] = None,
    examples: Annotated[
        Path | None,
        typer.Option(
            help="With --dataset: what both models answer at the gate, or `latest` for what the "
            "latest cycle's gate asked; default: rows held out."
        ),
    ] = None,
    join: Annotated[
        Path | None,
        typer.Option(
            help="Train nothing of one's own: be a further node of the trainings that begin in "
            "this folder (training.launch.nodes.folder), until Ctrl-C."
        ),
    ] = None,
) -> None:
    """Curate a training set of the latest cycle, or take a data set, and train a candidate on it.

    A dry run brings history up to date, as `ratchet curate` does, and changes nothing else.

    Exit codes: 0 also where there is nothing new to learn, 2 for bad input.
    """
    if join is not None:
        if dry_run or method or options or dataset or examples:
            raise InvalidInputError(
                "a further node is told everything by the one that starts the training, got "
                "--join with another option; leave the other out"
            )
        _join(join)
        return
    given = _given("improve", options)
    if method is not None:
        given["finetune"] = {**given.get("finetune", {}), "method": method.value}
    _with_dataset(given, dataset, examples)
    if dry_run:
        _would_train(given)
        return
    _run("train", given)


def _with_dataset(given: dict[str, Any], dataset: str | None, examples: Path | None) -> None:
    """Put a data set into the options of the flow, with a path that means the same elsewhere.

    Raises:
        InvalidInputError: Examples are named without one.
    """
    if dataset is None:
        if examples is not None:
            raise InvalidInputError(
                "--examples goes with --dataset, got it alone; the examples of users' traffic are "
                "those of `ratchet collect --examples`"
            )
        return
    source = dataset if is_hub_id(dataset) else str(Path(dataset).expanduser().resolve())
    before = given.get("dataset")
    given["dataset"] = {**(before if isinstance(before, dict) else {}), "source": source}
    if examples is not None:
        is_file = str(examples) != "latest"
        given["dataset"]["examples"] = str(examples.resolve() if is_file else examples)


def _join(folder: Path) -> None:
    """Be a further node of trainings that another machine starts; the store is not opened."""
    from ratchet.improve.training.nodes import join
    from ratchet.models import prepare_base_model

    settings = current_settings()
    show_progress()
    interrupt_on_signals()
    base = prepare_base_model(settings.base_model, settings.cache, settings.chat_template)
    try:
        join(folder, base)
    except KeyboardInterrupt:
        say("stopped; a training that this node took part in ends on the others")


def gate_candidate(*, dry_run: bool, options: Path | None) -> None:
    """Gate the latest candidate as the flow `deploy` does, or say what that would do."""
    given = _given("deploy", options)
    if dry_run:
        _would_gate(given)
        return
    _run("gate", given)


def look_at_rollout() -> NoReturn:
    """Look once at the running rollout, as the flow `rollout` does."""
    _run("rollout", {})


def _given(stage: Stage, path: Path | None) -> dict[str, Any]:
    """Return the options of the home's deployment, and over them those of a file."""
    from ratchet.files.yaml import read_yaml

    given = dict(read_deployments(current_settings().deployments).options_of(stage))
    if path is not None:
        given |= read_yaml(path, what="options", holds=f"options of the flow {stage}")
    return given


def _run(stage: str, given: dict[str, Any]) -> NoReturn:
    """Run a stage's flow in a process over the home, with its Prefect or one of its own."""
    from ratchet.servers import Servers

    servers = Servers(settings=current_settings(), say=say)
    interrupt_on_signals()
    code = 130
    try:
        servers.start_prefect(port=4200, environ=QUIET_STATES | os.environ)
        code = servers.run(["ratchet.flows._command", stage, json.dumps(given, default=str)])
    except KeyboardInterrupt:
        say("stopped; the same command goes on from here")
    finally:
        servers.stop()
    raise SystemExit(code)


def _would_collect(given: dict[str, Any]) -> None:
    from ratchet.flows.collect import CollectOptions
    from ratchet.operate.readiness import NextCycle
    from ratchet.operate.stage_plans import collect_plan

    settings, now = current_settings(), datetime.now(UTC)
    options = CollectOptions.model_validate(given)
    for source in options.sources:
        _would_import(source, now)
    store = existing_store()
    if store is None:
        say(_NO_STORE)
    else:
        asked = NextCycle(options.examples, options.sample, *_of_gate(settings))
        wanted = replace(asked, golden=options.golden)
        for line in collect_plan(settings, store, wanted, environ=os.environ, now=now):
            say(line)
    say("nothing was changed; next: ratchet collect")


def _of_gate(settings: Settings) -> tuple[Any, ...]:
    """Return what the home's gate asks of a cycle: policy, judge, and who answers."""
    from ratchet.flows.deploy import DeployOptions

    given = read_deployments(settings.deployments).options_of("deploy")
    options = DeployOptions.model_validate(given)
    return options.policy, options.win_rate.judge, options.answers.by


def _would_import(source: Source, now: datetime) -> None:
    from ratchet.doors.servers import is_server

    door, shown = source.previewed(access(), now)
    told = "on its first pages" if is_server(source.source) else "in all"
    say(
        f"{source.source} ({door}): {counted(shown.interactions, 'interaction')} and "
        f"{counted(shown.feedback, 'piece')} of feedback {told}, "
        f"{counted(sum(shown.reasons.values()), 'row')} set aside; what is stored already adds "
        "nothing"
    )


def _would_analyze() -> None:
    from ratchet.operate.stage_plans import analyze_plan

    store = existing_store()
    for line in [_NO_STORE] if store is None else analyze_plan(store, datetime.now(UTC)):
        say(line)
    judges = current_settings().judges
    say(f"judges: {'none' if judges is None else judges.name}")
    say("nothing was changed; next: ratchet analyze")


def _would_gate(given: dict[str, Any]) -> None:
    from ratchet.flows.deploy import DeployOptions
    from ratchet.operate.stage_plans import gate_plan

    options, store = DeployOptions.model_validate(given), existing_store()
    lines = [_NO_STORE] if store is None else gate_plan(store, options.policy, options.approval)
    for line in lines:
        say(line)
    say("nothing was changed; next: ratchet gate --candidate")


def _would_train_on(dataset: DatasetOptions, options: ImproveOptions, settings: Settings) -> None:
    """Say what a data set would give, what is set aside of it, and how many steps it would be."""
    from ratchet.improve.curation.given import prepared_of
    from ratchet.improve.training.given_data import config_for, read_for_gate
    from ratchet.operate.stage_plans import steps_plan

    given, examples, longest = read_for_gate(dataset, settings.cache, existing_store())
    config = config_for(given, options.finetune)
    ready = prepared_of(given, [one.prompt for one in examples], options.curation)
    say(f"{given.origin}: {counted(given.read, 'row')} for {config.method}")
    for line in set_aside_lines(given.set_aside, shown=_SHOWN):
        say(line)
    say(f"gate: {counted(len(examples), 'example')}, answers of at most {longest} tokens")
    say(steps_plan(len(ready.train), config.method, config.epochs, config.batch_size))
    say(f"validation: {counted(len(ready.validation), 'row')}; base: {settings.base_model}")
    say("no model was trained; next: the same command without --dry-run")


def _would_train(given: dict[str, Any]) -> None:
    from ratchet.flows.improve import ImproveOptions
    from ratchet.improve.curation.curating import CurateOptions
    from ratchet.improve.training.news import Planned
    from ratchet.operate.stage_plans import train_plan

    options = ImproveOptions.model_validate(given)
    store, settings, config = existing_store(), current_settings(), options.finetune
    if options.dataset is not None:
        _would_train_on(options.dataset, options, settings)
        return
    if store is None:
        say(_NO_STORE)
        return
    show_progress()
    asked = CurateOptions(
        weights=options.weights, curation=options.curation, sources=options.sources
    )
    found = curated_now(store, settings, config.method, asked)
    if found.refusal is not None:
        say(f"nothing to train on yet: {found.refusal}")
    else:
        ready = found.required()
        planned, home = Planned.of(ready), settings.home
        for line in train_plan(
            store, home, planned, config.method, config.epochs, config.batch_size
        ):
            say(line)
        say(f"validation: {counted(len(ready.validation), 'row')}; base: {settings.base_model}")
    say("no model was trained; next: ratchet train (its rows: ratchet curate --dry-run)")
