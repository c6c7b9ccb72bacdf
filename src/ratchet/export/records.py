"""Decisions of the gate with their evidence, and the labels that people gave."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from ratchet.export.grammar import Request
from ratchet.export.parts import Part, Tally, batches_of, json_line
from ratchet.export.redacting import redact_values, texts_redactor
from ratchet.records import (
    WIN_RATE,
    Approval,
    Decision,
    HumanLabel,
    PairLabel,
    Release,
    ReviewDecision,
    ReviewItem,
    ReviewUndo,
)
from ratchet.store import EventStore

_DECISION_JSON = (
    "reasons", "measured", "clusters", "evidence", "policy", "rollout", "example_set_ids",
)  # fmt: skip
_PREFERRED = {"1": "challenger", "2": "champion", "tie": "tie"}


def decisions(store: EventStore, request: Request) -> Part:
    """Return the gate's decisions as a part: flat columns, and the rest as JSON."""
    import pyarrow as pa

    text, number, moment = pa.string(), pa.float64(), pa.timestamp("us", "UTC")
    schema = pa.schema(
        [
            *((name, text) for name in ("id", "cycle_id")),
            ("created_at", moment),
            *((name, text) for name in ("champion", "challenger", "verdict", "primary_metric")),
            ("higher_is_better", pa.bool_()),
            *(
                (name, number)
                for name in ("champion_value", "challenger_value", "difference", "lower", "upper",
                             "p_value", "level")
            ),
            *((name, pa.int64()) for name in ("examples", "units", "look", "needed")),
            *((name, text) for name in ("example_set_id", "approval")),
            ("expires_at", moment),
            ("approved", pa.bool_()),
            *((name, text) for name in ("approved_by", "approval_reason")),
            *((name, moment) for name in ("approved_at", "released_at")),
            *((name, text) for name in _DECISION_JSON),
        ]
    )  # fmt: skip
    rows = _decision_rows(store, request)
    return Part("decisions", schema, batches_of(rows, schema), json_line(_DECISION_JSON),
                "Decisions of the gate")  # fmt: skip


def labels(store: EventStore, request: Request, tally: Tally) -> Part:
    """Return every label that a person gave as a part: of answers, of review, of pairs.

    A label of a whole session (`unit`) names the session's last answer.
    """
    import pyarrow as pa

    text = pa.string()
    schema = pa.schema(
        [
            ("id", text),
            ("created_at", pa.timestamp("us", "UTC")),
            *(
                (name, text)
                for name in ("source", "unit", "interaction_id", "example_id", "dimension",
                             "label", "reviewer", "note", "review_item", "sheet_id", "pair")
            ),
        ]
    )  # fmt: skip
    rows = sorted(_label_rows(store, request), key=lambda row: (row["created_at"], row["id"]))
    if request.redacts:
        redact_values(rows, ["note"], texts_redactor(tally))
    return Part("labels", schema, batches_of(rows, schema), json_line(()), "Labels of people")


def _within(request: Request, moment: datetime) -> bool:
    return (request.since is None or moment >= request.since) and (
        request.until is None or moment < request.until
    )


def _decision_rows(store: EventStore, request: Request) -> Iterator[dict[str, Any]]:
    approvals = {one.id: one for one in store.records(Approval)}
    released = {one.decision_id: one for one in store.records(Release) if one.decision_id}
    wanted = request.model_version
    for decision in store.records(Decision):
        both = (decision.champion, decision.challenger)
        if not _within(request, decision.created_at) or (wanted is not None and wanted not in both):
            continue
        body = decision.canonical()
        lower, upper = decision.interval or (None, None)
        approval, release = approvals.get(decision.id), released.get(decision.id)
        flat = {name: value for name, value in body.items() if name != "interval"}
        yield flat | {
            "created_at": decision.created_at,
            "expires_at": decision.expires_at,
            "higher_is_better": decision.higher_is_better,
            "lower": lower,
            "upper": upper,
            "units": decision.measured[0].units if decision.measured else None,
            "approved": approval and approval.approved,
            "approved_by": approval and approval.by,
            "approval_reason": approval and approval.reason,
            "approved_at": approval and approval.created_at,
            "released_at": release and release.created_at,
        }


def _label_rows(store: EventStore, request: Request) -> Iterator[dict[str, Any]]:
    items = {one.id: one for one in store.records(ReviewItem)}
    undone = {one.decision_id for one in store.records(ReviewUndo)}
    records: list[HumanLabel | ReviewDecision | PairLabel] = []
    records += store.records(HumanLabel)
    records += (one for one in store.records(ReviewDecision) if one.id not in undone)
    records += store.records(PairLabel)
    for record in records:
        if _within(request, record.created_at):
            row = {"id": record.id, "created_at": record.created_at, "reviewer": record.reviewer}
            yield row | _said(record, items)


def _said(
    record: HumanLabel | ReviewDecision | PairLabel, items: dict[str, ReviewItem]
) -> dict[str, Any]:
    if isinstance(record, HumanLabel):
        return {
            "source": "label", "unit": record.unit, "interaction_id": record.item_id,
            "dimension": record.dimension, "label": record.label, "note": record.note,
        }  # fmt: skip
    if isinstance(record, PairLabel):
        return {
            "source": "pair", "example_id": record.example_id, "dimension": WIN_RATE,
            "label": _PREFERRED[record.winner], "sheet_id": record.sheet_id, "pair": record.pair,
        }  # fmt: skip
    item = items.get(record.item_id)
    return {
        "source": "review", "interaction_id": item and item.interaction_id,
        "dimension": item and item.dimension, "label": record.label, "note": record.note,
        "review_item": record.item_id,
    }  # fmt: skip
