"""`ratchet rollout` and `ratchet variants`: what is new in front of users, and its end."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer
from pydantic import BaseModel, ValidationError

from ratchet.cli.saying import say, say_json, say_text
from ratchet.cli.shared import (
    AsJson,
    By,
    Note,
    current_settings,
    existing_store,
    open_answering,
    open_tracker,
    person,
    required_store,
)
from ratchet.errors import InvalidInputError
from ratchet.files.text import printable_path

if TYPE_CHECKING:
    from ratchet.records import Rollout

R = TypeVar("R", bound=BaseModel)
app = typer.Typer(help="Give a challenger to more users in stages.", no_args_is_help=True)
variants = typer.Typer(help="Compare several variants on users at once.", no_args_is_help=True)
_Page = Annotated[Path | None, typer.Option(help="File to write as an HTML page.")]


@app.command(epilog="Example: ratchet rollout status --page rollout.html")
def status(as_json: AsJson = False, page: _Page = None) -> None:
    """Show the latest rollout: how it stands and what happened when."""
    from ratchet.deploy.rollout.canary import outcome
    from ratchet.deploy.routing import last_look, looks_of
    from ratchet.records import Release, Rollout, RolloutStop
    from ratchet.views.text.rollouts import rollout_events

    store = existing_store()
    rollout = store.latest(Rollout) if store else None
    if store is None or rollout is None:
        say("null" if as_json else "nothing was rolled out yet")
        return
    look, stands = last_look(store, rollout), outcome(store, rollout)
    if as_json:
        state = {"outcome": stands, "rollout": rollout.canonical()}
        say_json(state | {"look": look.canonical() if look else None}, indent=2)
        return
    say(f"rollout of {rollout.challenger.version} against {rollout.champion.version}: {stands}")
    stop, releases = store.get(RolloutStop, rollout.id), store.records(Release, latest=20)
    lines = rollout_events(rollout, looks_of(store, rollout), stop, releases)
    for line in lines:
        say(line)
    if page is not None:
        from ratchet.views.pages.readouts import rollout_page

        text = rollout_page(rollout, look, stands, now=datetime.now(UTC), events=lines)
        page.write_text(text, "utf-8")


@app.command(epilog="Example: ratchet rollout look --dry-run")
def look(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show how it stands; look at nothing new.")
    ] = False,
) -> None:
    """Look once at the running rollout and do what that decides, as its schedule does."""
    from ratchet.cli.stages import look_at_rollout

    if dry_run:
        status()
        say("nothing was changed; next: ratchet rollout look")
        return
    look_at_rollout()


@app.command(epilog="Example: ratchet rollout stop --by ada --note 'slow answers'")
def stop(
    by: By = "",
    note: Note = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be stopped; stop nothing.")
    ] = False,
) -> None:
    """Send all users to the champion again. It is final: the version is not rolled out again."""
    from ratchet.deploy.rollout.canary import stop_rollout

    if dry_run:
        status()
        say("nothing was changed; next: ratchet rollout stop")
        return
    store, now = existing_store(), datetime.now(UTC)
    stopped = stop_rollout(store, by=person(by), now=now, note=note) if store else None
    if stopped is None:
        raise InvalidInputError(
            "only a running rollout can be stopped, got none; see `ratchet rollout status`"
        )
    say(f"{stopped.challenger.version} is stopped; everybody has {stopped.champion.version}")


@app.command(epilog="Example: ratchet rollout start support-router/3 --by ada")
def start(
    version: Annotated[str, typer.Argument(help="The version, e.g. support-router/3.")],
    prompt: Annotated[
        Path | None, typer.Option(help="File with the system prompt that this version gets.")
    ] = None,
    plan: Annotated[
        Path | None, typer.Option(help="YAML file with a plan; default: the built-in one.")
    ] = None,
    by: By = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show stages and signals; send nobody anywhere.")
    ] = False,
) -> None:
    """Begin to roll out a version by hand, without the gate's decision."""
    from ratchet.deploy.rollout.canary import start_rollout
    from ratchet.files.yaml import read_yaml
    from ratchet.records import RolloutPlan, Variant

    store = required_store("a rollout")
    text = None if prompt is None else _read(prompt)
    rules = (
        RolloutPlan()
        if plan is None
        else _valid(RolloutPlan, read_yaml(plan, what="a plan", holds="a rollout's plan"))
    )
    started: Rollout = start_rollout(
        store,
        Variant(version=version, share=1.0, system_prompt=text),
        rules,
        now=datetime.now(UTC),
        by=person(by),
        answering=open_answering(current_settings(), store),
        dry_run=dry_run,
    )
    if dry_run:
        stages = ", ".join(f"{stage.share:.0%}" for stage in started.plan.stages)
        say(f"{version} would get {stages} of the users of {started.champion.version}, in turn")
        say(f"watched: {', '.join(signal.name for signal in started.signals)}")
    else:
        share = started.plan.stages[0].share
        say(f"{version} gets {share:.0%} of users; the deployment `rollout` takes it on from here")
    for note in started.fitted:
        say(f"the plan was changed to suit the number of users: {note}")
    for name, reason in started.unwatched:
        say(f"not watched: {name}, {reason}")
    if dry_run:
        say(f"nothing was changed; next: ratchet rollout start {version}")


@variants.command("start", epilog="Example: ratchet variants start test.yaml --dry-run")
def start_variants(
    file: Annotated[
        Path,
        typer.Argument(help="YAML: name, variants (name, version, share, system_prompt), signals."),
    ],
    by: By = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the shares; send nobody anywhere.")
    ] = False,
) -> None:
    """Send users to variants at fixed shares; the champion is the control and gets the rest."""
    from ratchet.deploy.rollout.variants import start_test
    from ratchet.files.yaml import read_yaml
    from ratchet.records import Variant, WatchedSignal
    from ratchet.records.rollout import SIGNALS

    plan = read_yaml(file, what="a test of variants", holds="name and variants")
    unknown = set(plan) - {
        "name", "variants", "signals", "error", "imbalance", "slow_seconds", "limits",
    }  # fmt: skip
    if unknown or not {"name", "variants"} <= set(plan):
        raise InvalidInputError(
            "a test is a file with name and variants, and perhaps signals, error, imbalance, "
            f"slow_seconds and limits, got {sorted(plan)}; correct the file"
        )
    given, store = plan.get("signals"), required_store("a test of variants")
    test = start_test(
        store,
        str(plan["name"]),
        [_valid(Variant, item) for item in plan["variants"]],
        now=datetime.now(UTC),
        signals=[_valid(WatchedSignal, item) for item in given] if given else SIGNALS,
        error=float(plan.get("error", 0.05)),
        imbalance=float(plan.get("imbalance", 11 / 9)),
        slow_seconds=plan.get("slow_seconds"),
        limits=plan.get("limits"),
        by=person(by),
        answering=open_answering(current_settings(), store),
        dry_run=dry_run,
    )
    shares = ", ".join(f"{variant.label} {variant.share:.0%}" for variant in test.variants)
    say(f"{test.name}: {shares}")
    if dry_run:
        say(f"compared: {', '.join(signal.name for signal in test.signals)}")
        say(f"nothing was changed; next: ratchet variants start {printable_path(file)}")


@variants.command("read", epilog="Example: ratchet variants read --page test.html")
def read_variants(
    as_json: AsJson = False,
    page: _Page = None,
    picture: Annotated[Path | None, typer.Option(help="Picture to write, .png or .svg.")] = None,
) -> None:
    """Compare the variants of the latest test; as often as you like."""
    from ratchet.deploy.rollout.variants import read_test
    from ratchet.records import VariantTest
    from ratchet.views.text.rollouts import variants_markdown

    store = existing_store()
    test = store.latest(VariantTest) if store else None
    if store is None or test is None:
        raise InvalidInputError(
            "reading a test needs one that was started, got none; run `ratchet variants start`"
        )
    readout = read_test(store, test, datetime.now(UTC))
    if as_json:
        say_json(readout.canonical(), indent=2)
    else:
        say_text(variants_markdown(test, readout))
    if page is not None:
        from ratchet.views.pages.readouts import variants_page

        page.write_text(variants_page(test, readout, now=datetime.now(UTC)), "utf-8")
    if picture is not None:
        from ratchet.views.plots import to_png, to_svg
        from ratchet.views.plots.rollouts import readout_chart

        figure = readout_chart(readout.readouts, f"Test of variants: {test.name}")
        svg = picture.suffix.lower() == ".svg"
        picture.write_bytes(to_svg(figure).encode() if svg else to_png(figure))


@variants.command("end", epilog="Example: ratchet variants end --winner brief --by ada")
def end_variants(
    winner: Annotated[
        str | None, typer.Option(help="Name of the variant that all users get.")
    ] = None,
    by: By = "",
    note: Note = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what all users would get; end nothing.")
    ] = False,
) -> None:
    """End the running test: all users get the champion again, or the named winner."""
    from ratchet.deploy.rollout.variants import end_test
    from ratchet.deploy.routing import follow, serving_champion

    store, now = required_store("ending a test"), datetime.now(UTC)
    answering = open_answering(current_settings(), store)
    move = end_test(
        store,
        by=person(by),
        now=now,
        winner=winner,
        note=note,
        answering=answering,
        dry_run=dry_run,
    )
    if dry_run:
        say(f"everybody would have {winner or 'the champion'}")
        say("nothing was changed; next: ratchet variants end")
        return
    if move is not None:
        follow(store, open_tracker(current_settings()), move, now)
    champion = serving_champion(store)
    say(f"everybody has {champion.label if champion and winner else 'the champion'}")


def _valid(kind: type[R], given: object) -> R:
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or kind.__name__
        raise InvalidInputError(
            f"{field}: {first['msg']}, got {first['input']!r}; correct the file"
        ) from error


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"a file must be readable as UTF-8, got: {error}") from error
