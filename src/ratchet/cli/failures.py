"""`ratchet failures`: where the failures of a file pile up."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ratchet.cli.saying import say, say_json
from ratchet.cli.shared import AsJson, show_progress
from ratchet.files.rows import set_aside_lines
from ratchet.files.text import counted

if TYPE_CHECKING:
    from ratchet.analyze.failures import Cluster, FailureClusters
    from ratchet.analyze.failures.files import FailureFile


def failures(
    file: Annotated[
        Path,
        typer.Argument(
            help="CSV, JSON Lines, JSON or Parquet with text, failed and, where there is one, user."
        ),
    ],
    as_json: AsJson = False,
    embedding: Annotated[
        str,
        typer.Option(help="minilm, words, the folder of a model, or a server's address."),
    ] = "minilm",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the random draws.")] = 0,
) -> None:
    """Find the groups of texts that fail more than the rest."""
    from ratchet.analyze.failures.analysis import load_encoder
    from ratchet.analyze.failures.embedding import embed
    from ratchet.analyze.failures.files import clusters_of, read_failures

    show_progress()
    rows = read_failures(file)
    encoder = load_encoder(embedding)
    vectors = None if encoder is None else embed(rows.texts, encoder)
    result = clusters_of(rows, vectors, seed=seed)
    if as_json:
        say_json(_as_json(rows, result), ensure_ascii=False)
        return
    for line in _lines(rows, result):
        say(line)
    for line in set_aside_lines([row for _, row in rows.set_aside]):
        say(line, err=True)


def _as_json(rows: FailureFile, result: FailureClusters) -> dict[str, Any]:
    labels = [-1] * rows.rows
    for place, label in zip(rows.places, result.labels.tolist(), strict=True):
        labels[place] = label
    reasons = [
        {"row": number, "position": row.position, "reason": row.reason, "received": row.received}
        for number, row in rows.set_aside
    ]
    return {
        "clusters": [
            {
                "name": cluster.name,
                "members": [rows.places[member] for member in cluster.members],
                "rows": [rows.places[row] for row in cluster.rows],
                "failure_rate": cluster.failure_rate,
                "rest_rate": cluster.rest_rate,
                "lift": cluster.lift,
                "interval": [cluster.interval.lower, cluster.interval.upper],
                "share": cluster.share,
                "excess": cluster.excess,
                "p_value": cluster.p_value,
                "stability": cluster.stability,
                "stable": cluster.stable,
                "examples": list(cluster.examples),
                "borderline": list(cluster.borderline),
            }
            for cluster in result.clusters
        ],
        "labels": labels,
        "reason": result.reason,
        "rows": rows.rows,
        "failed": sum(rows.failed),
        "set_aside": {"count": len(reasons), "rows": reasons},
    }


def _lines(rows: FailureFile, result: FailureClusters) -> list[str]:
    aside = f", {counted(len(rows.set_aside), 'row')} set aside" if rows.set_aside else ""
    lines = [f"{sum(rows.failed):,} of {counted(len(rows.texts), 'row')} failed{aside}"]
    if result.reason:
        lines.append(f"no failure clusters: {result.reason}")
    for number, cluster in enumerate(result.clusters, start=1):
        lines += ["", f"{number}. {cluster.name}", f"   {_numbers(cluster)}"]
        lines += [f"   - {example}" for example in cluster.examples]
    return lines


def _numbers(cluster: Cluster) -> str:
    interval = cluster.interval
    stable = "stable"
    if not cluster.stable:
        stable = "stability not known" if cluster.stability is None else "unstable"
    return (
        f"{cluster.members.size} of {cluster.rows.size} failed, {cluster.failure_rate:.0%} "
        f"({interval.lower:.0%} to {interval.upper:.0%}), the rest {cluster.rest_rate:.0%}; "
        f"fixing it would spare about {cluster.excess:.0f}; p = {cluster.p_value:.2g}; {stable}"
    )
