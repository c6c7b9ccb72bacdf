"""What curation is told besides interactions and feedback, read from the store."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from ratchet.analyze.failures.embedding import word_vectors
from ratchet.flows._runtime import Workspace
from ratchet.improve.curation.config import (
    ClusterRequest,
    CurationConfig,
    read_demonstrations,
    read_judged,
)
from ratchet.improve.curation.consent import refused
from ratchet.improve.curation.endings import WHOLE
from ratchet.improve.curation.pool import Context
from ratchet.outcomes.join import Outcomes
from ratchet.outcomes.quality import QualityWeights
from ratchet.records import Cycle, HumanLabel, TrainingRequest
from ratchet.review.queue import unreviewed_safety
from ratchet.store import Window

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
    return Context(
        withheld=unreviewed_safety(work.store, ids),
        refused=refused(work.store.permissions(window), ids, config.consent, cycle.window_end),
        endings=work.store.endings(window, besides=WHOLE),
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
        vectors_of=partial(_vectors, outcomes),
        weights=weights,
    )


def _vectors(outcomes: Outcomes, places: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return vectors of some prompts: the same in every cycle, since a block may be kept."""
    texts = [str(text) for text in outcomes.prompts[places]]
    return word_vectors(texts, rng=np.random.default_rng(VECTOR_SEED))


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
