"""What curation is told besides interactions and feedback, read from the store."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from ratchet.analyze.failures.embedding import word_vectors
from ratchet.analyze.failures.traffic_sample import held_out_users
from ratchet.flows._runtime import Workspace, logger
from ratchet.improve.curation.agreement import KeptNeighbours
from ratchet.improve.curation.config import (
    ClusterRequest,
    CurationConfig,
    read_demonstrations,
    read_judged,
)
from ratchet.improve.curation.context import Context
from ratchet.improve.curation.dataset import choose_among
from ratchet.improve.curation.derived import Derived
from ratchet.improve.curation.pool import Background
from ratchet.improve.curation.rows import RowKind
from ratchet.improve.curation.selection import Selection
from ratchet.improve.curation.stored import stored_traffic
from ratchet.improve.curation.traffic import Texts, read_at
from ratchet.outcomes.quality import QualityWeights
from ratchet.records import Cycle, ExampleSet, HumanLabel, Interaction, TrainingRequest
from ratchet.review.queue import open_safety_ids
from ratchet.store.history import Advanced, History

MEMORY = "600MB"
"""What DuckDB may take; what does not fit lies in a temporary folder."""
EARLIER_REQUESTS = 2_000
VECTOR_SEED = 0


class Sources(BaseModel):
    """Where examples come from besides users.

    Attributes:
        demonstrations: JSON Lines with id, messages and target.
        preferences: JSON Lines of two interactions that a judge compared, in both orders.
        per_cluster: Examples to take first for each failure cluster that the analysis found.
        good_labels: Labels of reviewers that call an answer good; any other calls it bad.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    demonstrations: Path | None = None
    preferences: Path | None = None
    per_cluster: Annotated[int, Field(ge=0)] = 16
    good_labels: tuple[str, ...] = ("good", "right", "correct", "helpful", "yes")

    @model_validator(mode="before")
    @classmethod
    def _compares_at_any_size(cls, given: object) -> object:
        """Take settings from when users were compared up to a number of interactions."""
        if not isinstance(given, Mapping) or "compare_users" not in given:
            return given
        if given["compare_users"] == 0:
            raise ValueError(
                "compare_users must not be 0: users are compared at any number of interactions; "
                "leave it out, or pass enabled: false in curation.poisoning to believe everybody"
            )
        return {name: value for name, value in given.items() if name != "compare_users"}


def bring_up_to_date(work: Workspace) -> Derived:
    """Copy what is new in the store into history, and compute what curation needs of it."""
    history = History.open(work.settings.history, memory=MEMORY)
    new = history.advance(work.store, progress=_log_copied)
    derived = Derived.open(history)
    files = derived.advance(_log_derived)
    logger.info(
        "history: %d new interactions and %d new events of feedback; %d files derived",
        new.interactions, new.feedback, files,
    )  # fmt: skip
    return derived


def _log_copied(copied: Advanced) -> None:
    logger.info("copied %d interactions and %d events", copied.interactions, copied.feedback)


def _log_derived(made: int, files: int) -> None:
    logger.info("derived %d of %d files", made, files)


def gather_context(
    work: Workspace,
    cycle: Cycle,
    sources: Sources,
    weights: QualityWeights,
) -> Context:
    """Read from the store what a selection has to know."""
    return Context(
        withheld=open_safety_ids(work.store),
        demonstrations=read_demonstrations(sources.demonstrations)
        if sources.demonstrations
        else (),
        judged=read_judged(sources.preferences) if sources.preferences else (),
        requests=_requests(work, cycle, sources.per_cluster),
        reviewed={
            label.item_id: label.label.casefold() in sources.good_labels
            for label in work.store.records(HumanLabel)
            if label.dimension != "safety"
        },
        neighbours=KeptNeighbours(work.settings.home.joinpath("neighbours")),
        weights=weights,
        held_out=held_out_users(work.store.records(ExampleSet)),
    )


def choose_stored(
    derived: Derived,
    kind: RowKind,
    cycle: Cycle,
    protected: Collection[str],
    config: CurationConfig,
    context: Context,
    judges: Collection[str],
) -> Selection:
    """Choose rows out of history up to the end of the cycle's window."""
    traffic = stored_traffic(
        derived, kind, end=cycle.window_end, judges=judges, consent=config.consent, context=context
    )
    logger.info("joined %d interactions; somebody spoke about %d", traffic.size, len(traffic))
    known = replace(context, vectors_of=partial(_vectors, traffic.texts))
    return choose_among(kind, Background(traffic, protected, config, known))


def chosen_interactions(
    work: Workspace, derived: Derived, selection: Selection
) -> dict[str, Interaction]:
    """Return the interactions of a selection: from the store, else from history."""
    ids = [row.interaction_id for row in selection.rows]
    stored = work.store.stored_interactions(ids)
    demonstrated = selection.demonstrations
    gone = [key for key in ids if key not in stored and key not in demonstrated]
    return {**stored, **(derived.history.fetch_interactions(gone) if gone else {})}


def _vectors(texts: Texts, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return vectors of some prompts: the same in every cycle, since a block may be kept."""
    (prompts,) = read_at(texts, rows, "prompt")
    rng = np.random.default_rng(VECTOR_SEED)
    return word_vectors([str(text) for text in prompts], rng=rng)


def _requests(work: Workspace, cycle: Cycle, most: int) -> tuple[ClusterRequest, ...]:
    """Return what the analysis of the cycle asked for, for each cluster that may be trained on."""
    asked = {
        request.cluster_id: request
        for request in work.store.records(TrainingRequest, latest=EARLIER_REQUESTS)
        if request.cycle_id == cycle.id
    }
    return tuple(
        ClusterRequest.of(request, most)
        for request in asked.values()
        if most and request.wanted and request.interaction_ids and request.blocked is None
    )
