"""The examples that a decision won and lost, side by side, from the table in its MLflow run.

The gate writes every answer with its scores there (`answers.json`); nothing is scored anew. The
table takes a while to fetch, so it is read in the background and shown once it is there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field

from ratchet.errors import InvalidInputError
from ratchet.records import Decision, Erasure
from ratchet.review.showing import changes_between
from ratchet.tracking import Tracker, stage_key
from ratchet.web.links import RunLinks, run_links
from ratchet.web.refreshing import Figure

A_PAGE = 10
MOST_KEPT = 1_000
"""So many of either side are kept to be shown, the worst losses and the greatest wins."""
_MOST_CHARACTERS = 20_000


class ExamplesAsked(BaseModel):
    """Which examples an address asks for.

    Attributes:
        metric: The metric; where empty, what was decided on.
        set_name: The set of examples; where empty, the one that was decided on.
        side: Those that were lost or won.
        number: The page, from 1.
    """

    model_config = ConfigDict(frozen=True)

    metric: str = ""
    set_name: str = Field(default="", alias="set")
    side: Literal["lost", "won"] = "lost"
    number: int = Field(default=1, ge=1, le=MOST_KEPT, alias="page")


@dataclass(frozen=True, slots=True)
class Compared:
    """An example with both answers.

    Attributes:
        example: Its id.
        message: What was asked.
        target: The right answer, where there is one.
        champion: The champion's answer; None where it gave none.
        challenger: The challenger's.
        scores: Of champion and challenger; None without a score.
        gain: By how much the challenger is better; below 0 it lost.
    """

    example: str
    message: str
    target: str | None
    champion: str | None
    challenger: str | None
    scores: tuple[float | None, float | None]
    gain: float

    def parts(self) -> tuple[tuple[tuple[str, str], ...], ...]:
        """Return both answers in parts, each with the tag of what stands in one of them alone."""
        changes = changes_between(self.champion or "", self.challenger or "")
        return tuple(
            tuple(
                ("" if which == "same" else tag, text) for which, text in changes if which in kept
            )
            for kept, tag in ((("same", "left"), "del"), (("same", "right"), "ins"))
        )


@dataclass(frozen=True, slots=True)
class GateExamples:
    """What a decision's table shows of one metric on one set of examples.

    Attributes:
        metric: The metric.
        set_name: The set; `golden` is what the primary metric is decided on.
        lost: Examples on which the challenger is worse, the worst first.
        won: Those on which it is better, the greatest win first.
        counts: How many were lost, won, and the same on both.
    """

    metric: str
    set_name: str
    lost: tuple[Compared, ...]
    won: tuple[Compared, ...]
    counts: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Evidence:
    """A decision's run, and its examples.

    Attributes:
        links: Where MLflow and Prefect show the run.
        parts: The examples by metric and set, what was decided on first; empty where the run has
            no table.
    """

    links: RunLinks
    parts: tuple[GateExamples, ...]

    def part(self, metric: str, set_name: str) -> GateExamples | None:
        """Return the examples of a metric and a set; where either is empty, the first that fits."""
        return next(
            (
                one
                for one in self.parts
                if one.metric == (metric or one.metric)
                and one.set_name == (set_name or one.set_name)
            ),
            None,
        )


def evidence_of(request: Request, decision: Decision) -> Figure:
    """Return a decision's `Evidence`, read in the background; anew once somebody is forgotten."""
    shared = request.app.state.pages
    erased = shared.store.records(Erasure, latest=3)
    state = ",".join(f"{one.id[:8]}{one.state}" for one in erased)
    figure: Figure = shared.refreshed.get(
        f"examples {decision.id} {state}", lambda: _read(shared, decision)
    )
    return figure


def _read(shared: Any, decision: Decision) -> Evidence:
    tracker: Tracker = shared.tracker()
    key = stage_key(decision.cycle_id, "deploy", decision.id)
    run = tracker.find_run(key)
    if run is None:
        raise InvalidInputError(
            "the examples stand in the decision's MLflow run, which is not there: it was deleted "
            "by age, or the gate did not come to write it"
        )
    text = tracker.read_text(run.run_id, "answers.json")
    links = run_links(shared.settings, run)
    return Evidence(links, () if text is None else examples_in(decision, json.loads(text)))


def examples_in(decision: Decision, table: Mapping[str, Any]) -> tuple[GateExamples, ...]:
    """Return a decision's examples by metric and set, what was decided on first.

    Args:
        decision: Says which metrics there are, and which direction of each is better.
        table: Columns and rows as `ratchet.deploy.gate.head_to_head.answer_table` makes them.
    """
    columns: list[str] = table["columns"]
    rows = [dict(zip(columns, row, strict=True)) for row in table["data"]]
    better = {one.metric: one.higher_is_better for one in decision.measured}
    better = {decision.primary_metric: decision.higher_is_better} | better
    sets = dict.fromkeys(str(row["set"]) for row in rows)
    parts = (
        _part(metric, name, [row for row in rows if row["set"] == name], higher)
        for metric, higher in better.items()
        if f"champion {metric}" in columns
        for name in sets
    )
    return tuple(one for one in parts if sum(one.counts.values()))


def _part(
    metric: str, set_name: str, rows: Sequence[Mapping[str, Any]], higher: bool
) -> GateExamples:
    lost: list[tuple[float, Mapping[str, Any]]] = []
    won: list[tuple[float, Mapping[str, Any]]] = []
    same = 0
    for row in rows:
        first, second = row[f"champion {metric}"], row[f"challenger {metric}"]
        if first is None:
            continue  # not measured on this example
        gain = -abs(first) if second is None else (second - first) * (1.0 if higher else -1.0)
        if gain == 0.0 and second is not None:
            same += 1
            continue
        (won if gain > 0.0 else lost).append((gain, row))
    lost.sort(key=lambda pair: pair[0])
    won.sort(key=lambda pair: -pair[0])
    return GateExamples(
        metric,
        set_name,
        tuple(_compared(gain, row, metric) for gain, row in lost[:MOST_KEPT]),
        tuple(_compared(gain, row, metric) for gain, row in won[:MOST_KEPT]),
        {"lost": len(lost), "won": len(won), "same": same},
    )


def _compared(gain: float, row: Mapping[str, Any], metric: str) -> Compared:
    def text(name: str) -> str | None:
        found = row[name]
        return None if found is None else str(found)[:_MOST_CHARACTERS]

    return Compared(
        example=str(row["example"]),
        message=text("message") or "",
        target=text("target"),
        champion=text("champion"),
        challenger=text("challenger"),
        scores=(row[f"champion {metric}"], row[f"challenger {metric}"]),
        gain=gain,
    )
