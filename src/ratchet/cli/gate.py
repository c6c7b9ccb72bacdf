"""`ratchet gate`: champion against challenger on recorded scores, for people and for CI."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ratchet.cli.shared import current_settings, nothing_stored
from ratchet.errors import InvalidInputError

EXIT_CODES = {"promote": 0, "hold": 10, "reject": 11, "inconclusive": 12}


def gate(
    scores: Annotated[
        Path,
        typer.Option(
            help="CSV or JSON Lines with example_id, metric, champion, challenger and, where there "
            "are, user_id, cluster."
        ),
    ],
    policy: Annotated[
        Path | None,
        typer.Option(help="YAML; default: the first metric must be better, at 5 %."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    earlier: Annotated[
        str, typer.Option(help="Examples at each look before this one, e.g. 1000,2000.")
    ] = "",
    usable_judge: Annotated[
        list[str] | None,
        typer.Option(help="A judge that is usable, beside those that the home's store holds."),
    ] = None,
    approved_by: Annotated[
        str, typer.Option(help="Who approved, where the policy asks for a person.")
    ] = "",
) -> None:
    """Decide on recorded scores: promote, hold, reject or inconclusive.

    Exit codes: 0 promote, 10 hold (also a promotion that waits for approval), 11 reject, 12
    inconclusive, 2 bad input.
    """
    from ratchet.deploy.gate import run_gate
    from ratchet.deploy.gate_report import gate_json, gate_text
    from ratchet.deploy.policy import default_policy, load_policy
    from ratchet.deploy.scores import read_scores

    asked = load_policy(policy) if policy is not None else None
    found = read_scores(scores)
    if asked is None:
        asked = default_policy(list(found.metrics), has_clusters=bool(found.cluster_names))
    judges = {*(usable_judge or ()), *(_usable_judges() if asked.judges else ())}
    result = run_gate(found, asked, earlier=_looks(earlier), usable_judges=judges)
    waits = result.verdict == "promote" and result.approval is not None and not approved_by
    if as_json:
        report = gate_json(result) | {"approved_by": approved_by or None}
        print(json.dumps(report, indent=2, allow_nan=False))
    else:
        print(gate_text(result))
    raise typer.Exit(EXIT_CODES["hold" if waits else result.verdict])


def _looks(earlier: str) -> list[int]:
    try:
        looks = [int(part) for part in earlier.split(",") if part.strip()]
    except ValueError:
        looks = [0]
    if any(look < 1 for look in looks):
        raise InvalidInputError(
            f"--earlier must be numbers of examples, e.g. 1000,2000, got {earlier!r}"
        )
    return looks


def _usable_judges() -> frozenset[str]:
    """Names and versions of the judges that the home's store holds to be usable."""
    from ratchet.analyze.validations import usable_judges
    from ratchet.store import EventStore

    settings = current_settings()
    if nothing_stored(settings):
        return frozenset()
    return usable_judges(EventStore.open(settings.store_url))
