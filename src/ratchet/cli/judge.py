"""`ratchet judge`: validate judges against people, run them, import people's labels."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ratchet.cli.saying import say, say_json, say_text
from ratchet.cli.shared import (
    AsJson,
    created_store,
    current_settings,
    existing_store,
    finite,
    required_store,
    show_progress,
)
from ratchet.errors import InvalidInputError, ModelError, RatchetError
from ratchet.files.rows import set_aside_lines
from ratchet.files.text import counted, printable, wrapped
from ratchet.files.whole import write_whole

if TYPE_CHECKING:
    from ratchet.judges.label_sets import LabelFile
    from ratchet.judges.rubrics import JudgeSpec
    from ratchet.judges.validation import Validation

_ITEMS_SHOWN = 10

app = typer.Typer(
    help="Judges: validate them against people, run them, import labels.", no_args_is_help=True
)


@app.command(epilog="Example: ratchet judge validate labels.jsonl --categories 1,2,3,4,5")
def validate(
    file: Annotated[
        Path,
        typer.Argument(
            help="JSON Lines with item_id, human, judge and, where there are, judge_swapped, "
            "human_2, ...; or one line per run, whose fields are lists."
        ),
    ],
    as_json: AsJson = False,
    columns: Annotated[
        str, typer.Option(help="Other names of fields, e.g. human=label,judge=orig.")
    ] = "",
    categories: Annotated[
        str, typer.Option(help="The possible labels in their order, e.g. 1,2,3,4,5.")
    ] = "",
    weights: Annotated[
        str | None, typer.Option(help="Weights of kappa: linear or quadratic.")
    ] = None,
    kappa: Annotated[
        float,
        typer.Option(
            min=0.01,
            max=0.99,
            help="Least that the lower bound of kappa must be.",
            callback=finite,
        ),
    ] = 0.6,
    agreement: Annotated[
        float,
        typer.Option(min=0.01, max=0.99, help="Minimum agreement with people.", callback=finite),
    ] = 0.8,
    consistency: Annotated[
        float,
        typer.Option(
            min=0.01,
            max=0.99,
            help="Minimum agreement when the answers are swapped.",
            callback=finite,
        ),
    ] = 0.8,
    judge_family: Annotated[
        str | None, typer.Option(help="The judge's model family, to measure self-preference.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the bootstrap.")] = 0,
) -> None:
    """Compare a judge's verdicts with people's labels: usable, not usable, or not enough labels."""
    from ratchet.judges.label_sets import read_label_file
    from ratchet.judges.validation import Bar, validate_runs
    from ratchet.judges.validation_report import validations_text

    if weights not in (None, "linear", "quadratic"):
        raise InvalidInputError(f"--weights must be linear or quadratic, got {weights!r}")
    bar = Bar(kappa=kappa, agreement=agreement, consistency=consistency)
    labelled = read_label_file(file, _pairs(columns))
    menu = [name.strip() for name in categories.split(",") if name.strip()] or None
    results = validate_runs(
        labelled.runs,
        seed=seed,
        bar=bar,
        categories=menu,
        weights=weights,  # type: ignore[arg-type]
        judge_family=judge_family,
    )
    refused = [result for _, result in results if isinstance(result, RatchetError)]
    if len(refused) == len(results):
        raise refused[0]
    if as_json:
        say_json(_report(labelled, results), indent=2, allow_nan=False)
    else:
        say_text(validations_text(results, labelled.set_aside, labelled.unused))


@app.command(epilog="Example: ratchet judge run judges.yaml items.jsonl")
def run(
    judges: Annotated[Path, typer.Argument(help="YAML with judges.")],
    items: Annotated[
        Path,
        typer.Argument(
            help="JSON Lines with item_id, prompt or messages, answer and, where there are, "
            "other, reference, human, human_2, ..."
        ),
    ],
    as_json: AsJson = False,
    probes: Annotated[
        bool, typer.Option(help="Measure what a confident tone and instructions do to the judge.")
    ] = True,
    again: Annotated[
        str | None,
        typer.Option(
            help="'unscored': ask once more where a reply gave no verdict, such as one cut off or "
            "refused."
        ),
    ] = None,
) -> None:
    """Judge a file's answers, compare the verdicts with its labels, measure the judge's biases.

    Labels are compared with the judges' options first. For pairs, use A/B, model_a/model_b or tie.
    Verdicts are kept in the home's store: a run that was stopped goes on where
    it stopped, and no verdict is paid for twice.
    """
    from ratchet.judges.jury import load_juries
    from ratchet.judges.jury_on_files import jury_file
    from ratchet.judges.on_files import check_labels, judge_file, read_items
    from ratchet.judges.rubrics import load_judges
    from ratchet.judges.validation_report import validations_text

    if again not in (None, "unscored"):
        raise InvalidInputError(f"--again takes 'unscored', got {again!r}")
    specs = load_judges(judges)
    juries = load_juries(judges, specs)
    read, set_aside = read_items(items)
    checked = {spec.name: check_labels(spec, read) for spec in specs}
    show_progress()
    store, settings = created_store(), current_settings()
    results = [
        (
            spec.name,
            judge_file(
                store,
                spec,
                fitting,
                (*set_aside, *odd),
                cache=settings.cache,
                probes=probes,
                now=_now,
                again=again is not None,
            ),
        )
        for spec in specs
        for fitting, odd in [checked[spec.name]]
    ]
    by_name = {spec.name: (spec, result) for spec, (_, result) in zip(specs, results, strict=True)}
    results += [
        (
            jury.name,
            jury_file(jury, [by_name[name] for name in jury.judges], checked[jury.judges[0]][0]),
        )
        for jury in juries
    ]
    if as_json:
        report = [result.as_json(name) for name, result in results]
        say_json(report, indent=2, allow_nan=False)
    for name, result in [] if as_json else results:
        say_text(result.text(name))
        if result.validation is not None:
            say_text(validations_text([(name, result.validation)], (), ()))
    if not any(
        judgement.verdicts for _, result in results for judgement in result.judged.judgements
    ):
        raise ModelError("no judge gave any verdict; see the reasons above and run it again")


@app.command(epilog="Example: ratchet judge items judges.yaml --out items.jsonl")
def items(
    judges: Annotated[Path, typer.Argument(help="YAML with judges.")],
    as_json: AsJson = False,
    judge: Annotated[
        str, typer.Option(help="Whose items; the first judge of the file unless given.")
    ] = "",
    most: Annotated[int, typer.Option(min=1, help="How many at most.")] = 50,
    days: Annotated[int, typer.Option(min=1, help="Look back so many days.")] = 30,
    out: Annotated[
        Path | None, typer.Option(help="JSON Lines to write, for labels; printed without it.")
    ] = None,
    redact: Annotated[
        bool, typer.Option("--redact/--no-redact", help="Take personal data out.")
    ] = False,
) -> None:
    """Sample what a judge judges: answers, or whole sessions for a judge with `unit: session`.

    Fill in label and reviewer, and bring the file back with `ratchet judge label`.
    """
    from ratchet.export.judge_items import items_to_label
    from ratchet.judges.rubrics import load_judges
    from ratchet.store import Window

    spec, now = _one_of(load_judges(judges), judge), _now()
    window = Window(now - timedelta(days=days), now)
    store = required_store("a sample for a judge")
    rows, tally = items_to_label(store, spec, window, most=most, redacts=redact)
    if not rows:
        raise InvalidInputError(
            f"a sample needs answers of the last {counted(days, 'day')}, got none; collect some, "
            "or look back further with --days"
        )
    if out is not None:
        write_whole(out, "".join(json.dumps(row) + "\n" for row in rows).encode())
    if as_json:
        say_json(rows, indent=2)
    elif out is None:
        for row in rows:
            say(f"item {row['item_id']}  {row['dimension']}")
            # a line of a turn's text is indented, so that it is none of the next turn
            for turn in re.split(r"\n(?=\S)", row["shown"]):
                say("\n".join(wrapped(turn)))
    else:
        what = counted(len(rows), spec.unit)
        say(f"{what} for {spec.name} in {out.name}: label each {' or '.join(spec.menu)}")
    for kind, count in sorted(tally.redacted.items()):
        say(f"taken out: {count:,} × {kind}", err=as_json)


def _one_of(specs: Sequence[JudgeSpec], name: str) -> JudgeSpec:
    found = [spec for spec in specs if name in ("", spec.name)]
    if not found:
        known = ", ".join(spec.name for spec in specs)
        raise InvalidInputError(f"--judge must be one of {known}, got {printable(name, 60)!r}")
    return found[0]


@app.command(epilog="Example: ratchet judge label labels.jsonl")
def label(
    file: Annotated[
        Path,
        typer.Argument(
            help="JSON Lines with item_id, dimension, label, reviewer and, perhaps, note."
        ),
    ],
    judges: Annotated[
        Path | None,
        typer.Option(
            help="YAML with judges, whose dimensions may be labelled besides helpfulness, "
            "harmlessness, factual_accuracy and dissatisfied; RATCHET_JUDGES unless given."
        ),
    ] = None,
) -> None:
    """Store people's labels of interactions, for the validation of judges."""
    from ratchet.judges.next_turn import DISSATISFIED
    from ratchet.judges.on_files import import_labels
    from ratchet.judges.rubrics import DIMENSIONS, load_judges

    named = judges or current_settings().judges
    specs = load_judges(named) if named else ()
    own = {DISSATISFIED.name: DISSATISFIED}
    dimensions = {**DIMENSIONS, **own, **{spec.dimension.name: spec.dimension for spec in specs}}
    done = import_labels(created_store(), file, now=_now(), dimensions=dimensions)
    say(f"{counted(done.new, 'label')} stored, {done.repeated} were there before")
    for line in set_aside_lines(done.set_aside):
        say(line)
    if done.unknown:
        shown = ", ".join(printable(key, 40) for key in done.unknown[:_ITEMS_SHOWN])
        more = len(done.unknown) - _ITEMS_SHOWN
        say(
            f"{counted(len(done.unknown), 'item')} with labels not in the store: {shown}"
            + (f" and {more:,} more" if more > 0 else "")
            + "; their labels count once these interactions are ingested"
        )


@app.command("list", epilog="Example: ratchet judge list --json")
def list_judges(
    as_json: AsJson = False,
) -> None:
    """Show which versions of judges are usable, and why not."""
    from ratchet.judges.usable import latest_validations

    store = existing_store()
    validations = latest_validations(store) if store else {}
    if as_json:
        report = [record.canonical() for record in validations.values()]
        say_json(report, indent=2, allow_nan=False)
        return
    if not validations:
        say("no judge was validated yet")
    for record in validations.values():
        say(f"{record.judge_version}  {record.dimension}  {record.decision}")
        for reason in record.reasons:
            say(f"    {reason}")


def _now() -> datetime:
    return datetime.now(UTC)


def _pairs(columns: str) -> dict[str, str]:
    pairs = [pair.split("=", 1) for pair in columns.split(",") if pair.strip()]
    wrong = [pair[0] for pair in pairs if len(pair) != 2]
    if wrong:
        raise InvalidInputError(f"--columns must be name=field,..., got {wrong[0]!r}")
    return {name.strip(): field.strip() for name, field in pairs}


def _report(
    labelled: LabelFile, results: list[tuple[str, Validation | RatchetError]]
) -> dict[str, Any]:
    """One run is the report itself; of several, each is in `runs`."""
    from ratchet.judges.validation_report import validation_json

    runs = [
        {"run": name, "decision": "refused", "error": str(result)}
        if isinstance(result, RatchetError)
        else {"run": name, **validation_json(result)}
        for name, result in results
    ]
    head = runs[0] if len(runs) == 1 else {}
    aside = [{"line": row.place, "reason": row.reason} for row in labelled.set_aside]
    return {**head, "runs": runs, "set_aside": aside, "unused_fields": list(labelled.unused)}
