"""`ratchet curate`: look at what would be trained on, before anything is trained."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ratchet.cli.saying import say_json, say_text
from ratchet.cli.shared import (
    AsJson,
    current_settings,
    open_history,
    required_store,
    show_progress,
)
from ratchet.errors import InvalidInputError
from ratchet.files.text import clipped, counted, one_line, printable_path, shown_lines, wrapped

if TYPE_CHECKING:
    from ratchet.improve.curation.curating import Curated, CurateOptions
    from ratchet.improve.curation.difference import Difference
    from ratchet.improve.curation.rows import Row, RowKind
    from ratchet.records import TrainingSet
    from ratchet.settings import Settings
    from ratchet.store import EventStore

_HOLDS = "weights, curation, sources and finetune, as the options of the flow improve"
_PASSED_OVER = ("training",)
_TEXT_CHARACTERS = 400
_REDACTED_SHOWN = 5


class Method(StrEnum):
    """What a set is for."""

    SFT = "sft"
    KTO = "kto"
    DPO = "dpo"


def curate(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what the set would be; write none.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="New folder to write the set to, as a dataset.")
    ] = None,
    method: Annotated[
        Method | None, typer.Option(help="What the set is for; default: that of --options, or sft.")
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(help="From when on: 2026-11-01 (UTC), 2026-11-01T10:00Z, or 90d (ago)."),
    ] = None,
    until: Annotated[
        str | None, typer.Option(help="Before when, in the same forms; default: now.")
    ] = None,
    sample: Annotated[int, typer.Option(min=0, max=1_000, help="Rows to show.")] = 3,
    seed: Annotated[int, typer.Option(min=0, help="Chooses the rows that are shown.")] = 0,
    options: Annotated[
        Path | None,
        typer.Option(help="YAML or JSON with the options of the flow improve."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Curate a training set out of all that is stored; show its rows, and what was left out where.

    Neither a model nor a server is needed. History and what is derived of it are brought up to
    date, as the flow `improve` does; a run that was stopped goes on where it was.

    Exit codes: 0 where the set can be trained on, 1 where too little is left, 2 for bad input.
    """
    from ratchet.improve.curation.curating import latest_set

    _check_output(dry_run, out)
    kind, chosen = _read_options(options, method, since, until)
    store, settings = required_store("curation"), current_settings()
    show_progress()
    found = curated_now(store, settings, kind, chosen)
    before = latest_set(store, kind)
    shown = _shown(found, before, settings, sample, seed)
    if out is not None and found.refusal is None:
        found.required().write(out)
        shown["written"] = str(out)
    if as_json:
        say_json(shown, indent=2)
    else:
        say_text(shown_lines(_lines(shown)))
    if found.refusal is not None:
        raise typer.Exit(1)


def _check_output(dry_run: bool, out: Path | None) -> None:
    if dry_run == (out is not None):
        given = "both" if dry_run else "none"
        raise InvalidInputError(
            f"`ratchet curate` needs one of --dry-run and --out, got {given}; the flow "
            "improve writes the sets that are trained on"
        )
    if out is not None and out.exists():
        raise InvalidInputError(
            f"--out must name a new folder, got {printable_path(out)!r}, which exists; name "
            "another one, or delete it"
        )


def _read_options(
    path: Path | None, method: Method | None, since: str | None, until: str | None
) -> tuple[RowKind, CurateOptions]:
    from ratchet.files.yaml import read_yaml
    from ratchet.improve.curation.curating import CurateOptions

    content: dict[Any, Any] = {}
    if path is not None:
        content = dict(read_yaml(path, what="options", holds=_HOLDS))
    for name in _PASSED_OVER:
        content.pop(name, None)
    trained = content.pop("finetune", None) or {}
    named = trained.get("method") if isinstance(trained, Mapping) else trained
    curation = dict(content.get("curation") or {})
    curation |= {
        name: given for name, given in (("since", since), ("until", until)) if given is not None
    }
    chosen = CurateOptions.model_validate(content | {"curation": curation})
    return _method(method or named or Method.SFT).value, chosen


def _method(named: object) -> Method:
    try:
        return Method(str(named))
    except ValueError as error:
        raise InvalidInputError(
            f"finetune.method must be sft, kto or dpo, got {named!r}; correct it"
        ) from error


def curated_now(
    store: EventStore, settings: Settings, kind: RowKind, options: CurateOptions
) -> Curated:
    """Curate a set out of all that is stored, and write none."""
    from ratchet.analyze.failures.embedding import steady_vectors
    from ratchet.executors import executor_of
    from ratchet.improve.curation.agreement import KeptNeighbours
    from ratchet.improve.curation.curating import Asked, Known
    from ratchet.improve.curation.curating import curate as curate_stored
    from ratchet.judges.usable import usable_versions
    from ratchet.records import Cycle
    from ratchet.review.queue import open_safety_ids

    return curate_stored(
        store,
        open_history(store),
        Asked(kind, datetime.now(UTC), options, store.latest(Cycle)),
        Known(
            usable_versions(store),
            open_safety_ids(store),
            steady_vectors,
            executor_of(settings.executor),
        ),
        neighbours=KeptNeighbours(settings.home / "neighbours", drops=False),
    )


def _shown(
    found: Curated, before: TrainingSet | None, settings: Settings, sample: int, seed: int
) -> dict[str, Any]:
    """Return all that is shown, as JSON has it."""
    prepared, selection, asked = found.prepared, found.selection, found.asked
    since, until = asked.options.curation.period(asked.end)
    rows = prepared.rows if prepared else ()
    return {
        "method": asked.kind,
        "since": since and since.isoformat(),
        "until": until.isoformat(),
        "train": len(prepared.train) if prepared else 0,
        "validation": len(prepared.validation) if prepared else 0,
        "digest": prepared and prepared.digest,
        "too_few": found.refusal and str(found.refusal),
        "sources": dict(Counter(row.source for row in rows).most_common()),
        "labels": _labels(rows),
        "funnel": _funnel(selection.funnel),
        "set_aside": dict(selection.set_aside),
        "leaks": dict(selection.leaks),
        "findings": [finding.describe() for finding in selection.findings],
        "redaction": {
            "enabled": asked.options.curation.redaction.enabled,
            "rows": prepared.changed if prepared else 0,
            "passages": prepared.redacted.counts if prepared else {},
            "sample": list(prepared.redacted.sample) if prepared else [],
        },
        "last_set": _difference(found, before, settings),
        "sample": [row.canonical() for row in _sampled(rows, sample, seed)],
    }


def _labels(rows: Iterable[Row]) -> dict[str, int]:
    found = [getattr(row, "desirable", None) for row in rows]
    counted = {"liked": found.count(True), "disliked": found.count(False)}
    return counted if any(counted.values()) else {}


def _funnel(funnel: tuple[tuple[str, int], ...]) -> list[dict[str, Any]]:
    from ratchet.improve.curation.funnel import lost

    left_out = {step.step: step for step in lost(funnel)}
    return [
        {"step": name, "left": count}
        | (
            {"left_out": left_out[name].lost, "switch": left_out[name].switch}
            if name in left_out
            else {"left_out": 0, "switch": None}
        )
        for name, count in funnel
    ]


def _sampled(rows: tuple[Row, ...], size: int, seed: int) -> list[Row]:
    chosen = random.Random(seed).sample(range(len(rows)), min(size, len(rows)))
    return [rows[place] for place in sorted(chosen)]


def _difference(
    found: Curated, before: TrainingSet | None, settings: Settings
) -> dict[str, Any] | None:
    if before is None:
        return None
    shown: dict[str, Any] = {
        "id": before.id,
        "digest": before.digest,
        "created_at": before.created_at.isoformat(),
    }
    if not (settings.home / before.path).is_dir():
        return shown | {"gone": "its folder was deleted, by retention or with a user's data"}
    made: Difference = found.difference_to(before, settings.home)
    return shown | {
        "same": made.same,
        "added": dict(made.added),
        "removed": dict(made.removed),
        "changed": dict(made.changed),
        "unchanged": made.unchanged,
        "added_interactions": list(made.added_ids),
        "removed_interactions": list(made.removed_ids),
    }


# As text ------------------------------------------------------------------------------------------


def _lines(shown: Mapping[str, Any]) -> list[str]:
    lines = [_head(shown), *_funnel_lines(shown), *_counted("set aside", shown["set_aside"])]
    lines += _counted("too close to an evaluation set", shown["leaks"])
    lines += [line for text in shown["findings"] for line in wrapped("! ", text)]
    lines += _counted("come from", shown["sources"])
    lines += _counted("labels", shown["labels"])
    lines += [*_redaction_lines(shown["redaction"]), *_difference_lines(shown["last_set"])]
    for row in shown["sample"]:
        lines += _row_lines(row)
    if shown["too_few"]:
        lines += ["", f"too little to train on: {one_line(shown['too_few'])}"]
    if shown.get("written"):
        lines += ["", f"written to {printable_path(Path(shown['written']))}"]
        lines += wrapped("`ratchet forget` does not find sets outside the home; delete it yourself")
    return lines


def _head(shown: Mapping[str, Any]) -> str:
    digest = f", digest {shown['digest'][:16]}" if shown["digest"] else ""
    period = f"{shown['since'] or 'the beginning'} to {shown['until']}"
    return (
        f"{shown['method']}: {counted(shown['train'], 'row')} to train on, "
        f"{shown['validation']:,} for "
        f"validation{digest}; interactions from {period}"
    )


def _funnel_lines(shown: Mapping[str, Any]) -> list[str]:
    lines = ["", f"{'left after each step':<36}{'rows':>12}{'left out':>12}  what changes that"]
    for step in shown["funnel"]:
        switch = f"  {step['switch']}" if step["switch"] else ""
        gone = f"{step['left_out']:,}" if step["left_out"] else ""
        lines.append(
            f"{clipped(step['step'], 35):<36}{step['left']:>12,}{gone:>12}{switch}".rstrip()
        )
    return lines


def _counted(title: str, counts: Mapping[str, int]) -> list[str]:
    if not counts:
        return []
    return ["", title, *(f"{count:>12,}  {clipped(name, 80)}" for name, count in counts.items())]


def _redaction_lines(redaction: Mapping[str, Any]) -> list[str]:
    if not redaction["enabled"]:
        return ["", "personal data is not taken out: curation.redaction.enabled is false"]
    lines = _counted(
        f"personal data taken out of {counted(redaction['rows'], 'row')}", redaction["passages"]
    )
    passages = redaction["sample"]
    lines += [f"{'':>12}  … {clipped(text, 100)} …" for text in passages[:_REDACTED_SHOWN]]
    return lines or ["", "no personal data was found in the rows"]


def _difference_lines(last: Mapping[str, Any] | None) -> list[str]:
    if last is None:
        return ["", "no earlier set of this method"]
    title = f"the last set, {last['digest'][:16]} of {last['created_at'][:16]}"
    if "gone" in last:
        return ["", f"{title}: {last['gone']}"]
    if last["same"]:
        return ["", f"{title}, has the same rows"]
    lines = ["", f"since {title}: {counted(last['unchanged'], 'row')} the same"]
    for name in ("added", "removed", "changed"):
        lines += [f"{count:>12,}  {name}: {clipped(why, 70)}" for why, count in last[name].items()]
    return lines


def _row_lines(row: Mapping[str, Any]) -> list[str]:
    from ratchet.records import Message, called_in, offered, spoken

    lines = ["", f"row {one_line(row['interaction_id'])}, {row['source']}, weight {row['weight']}"]
    if "label" in row:
        lines[-1] += ", liked" if row["label"] else ", disliked"
    if "tools" in row:
        told = offered(json.loads(row["tools"]))
        lines += wrapped("could call: ", clipped(told.replace("\n", "; "), _TEXT_CHARACTERS))
    turns = {
        name: [Message.model_validate(turn) for turn in row.get(name, ())]
        for name in ("prompt", "completion", "chosen", "rejected")
    }
    called = called_in(turns["prompt"])
    for name, said in turns.items():
        for turn in said:
            who = turn.role if name in ("prompt", "completion") else name
            lines += wrapped(f"{who}: ", clipped(spoken(turn, called), _TEXT_CHARACTERS))
    return lines
