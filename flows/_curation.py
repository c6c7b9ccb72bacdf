"""What curation is told besides interactions and feedback, read from the store."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from flows._runtime import Workspace
from ratchet.analyze.embedding import word_vectors
from ratchet.analyze.review import unreviewed_safety
from ratchet.evaluation.metrics import Outcomes, QualityWeights
from ratchet.improve.curation import (
    ClusterRequest,
    Context,
    CurationConfig,
    read_demonstrations,
    refused,
)
from ratchet.records import Analysis, Cycle, HumanLabel
from ratchet.store import Window


class Sources(BaseModel):
    """Where examples come from besides users.

    Attributes:
        demonstrations: JSON Lines with id, messages and target.
        per_cluster: Examples to take first for each failure cluster of the latest analysis.
        good_labels: Labels of reviewers that call an answer good; any other calls it bad.
        compare_users: Hold users against each other, in up to so many interactions.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    demonstrations: Path | None = None
    per_cluster: int = 8
    good_labels: tuple[str, ...] = ("good", "right", "correct", "helpful", "yes")
    compare_users: int = 50_000


def gather_context(
    work: Workspace,
    cycle: Cycle,
    window: Window,
    outcomes: Outcomes,
    config: CurationConfig,
    sources: Sources,
    weights: QualityWeights,
) -> Context:
    """Read from the store what a selection has to know."""
    ids = [str(key) for key in outcomes.interaction_ids]
    few = 0 < len(ids) <= sources.compare_users and config.poisoning.enabled
    rng = np.random.default_rng(cycle.seed)
    return Context(
        withheld=unreviewed_safety(work.store, ids),
        refused=refused(work.store.permissions(window), ids, config.consent, cycle.window_end),
        demonstrations=read_demonstrations(sources.demonstrations)
        if sources.demonstrations
        else (),
        requests=_requests(work, cycle, sources.per_cluster),
        reviewed={
            label.item_id: label.label.casefold() in sources.good_labels
            for label in work.store.records(HumanLabel)
            if label.dimension != "safety"
        },
        vectors=_vectors(outcomes, rng) if few else None,
        weights=weights,
    )


def _vectors(outcomes: Outcomes, rng: np.random.Generator) -> NDArray[np.float32]:
    return word_vectors([str(text) for text in outcomes.prompts], rng=rng).astype(np.float32)


def _requests(work: Workspace, cycle: Cycle, wanted: int) -> tuple[ClusterRequest, ...]:
    analyses = [found for found in work.store.records(Analysis) if found.cycle_id == cycle.id]
    if not analyses or not wanted:
        return ()
    return tuple(
        ClusterRequest(
            cluster_id=cluster.id,
            wanted=wanted,
            interaction_ids=tuple(example.interaction_id for example in cluster.beside),
        )
        for cluster in analyses[-1].clusters
        if cluster.beside
    )
