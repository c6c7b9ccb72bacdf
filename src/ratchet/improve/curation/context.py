"""What curation is told besides interactions and feedback."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ratchet.executors import INLINE, Executor
from ratchet.improve.curation.agreement import KeptNeighbours
from ratchet.improve.curation.calls import LookUp
from ratchet.improve.curation.config import ClusterRequest, Demonstration, JudgedPair
from ratchet.outcomes.quality import QualityWeights
from ratchet.store.reporting import Reporting

IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Context:
    """What is known besides interactions and feedback.

    Attributes:
        withheld: Ids of interactions that are flagged as unsafe and that nobody reviewed yet; those
            that were found unsafe are left out as well.
        refused: Ids of interactions that must not be trained on: no consent, or kept too long.
        endings: Finish reasons by interaction, at least those of answers that are not whole.
        shapes: Shapes of the conversations (`ratchet.improve.curation.shapes`) by interaction, of
            those that are not words alone.
        judged: Answers that a judge compared, in both orders.
        demonstrations: Answers of experts.
        requests: Examples wanted for failure clusters.
        reviewed: What reviewers hold answers to be, by interaction: good or not.
        propensity: Chance that an interaction gets feedback, where it is known.
        vectors_of: Returns vectors of the prompts at some places of the outcomes, for the agreement
            of users with each other.
        neighbours: What earlier runs found of that, block by block.
        weights: How the quality was weighed.
        reporting: How applications report, of what is read from history; outcomes in memory are
            joined by it already.
        definitions: Returns the definitions with some digests that are stored: the tools that
            requests had.
        held_out: What stands for users (`user_digest`) whose questions the gate asks: nothing that
            they wrote is trained on.
        executor: Signs texts.
    """

    withheld: Collection[str] = ()
    refused: Collection[str] = ()
    endings: Mapping[str, str] = field(default_factory=dict)
    shapes: Mapping[str, int] = field(default_factory=dict)
    judged: tuple[JudgedPair, ...] = ()
    demonstrations: tuple[Demonstration, ...] = ()
    requests: tuple[ClusterRequest, ...] = ()
    reviewed: Mapping[str, bool] = field(default_factory=dict)
    propensity: Mapping[str, float] = field(default_factory=dict)
    vectors_of: Callable[[IntArray], NDArray[np.float32]] | None = None
    neighbours: KeptNeighbours | None = None
    weights: QualityWeights = field(default_factory=QualityWeights)
    reporting: Reporting | None = None
    held_out: Collection[str] = ()
    definitions: LookUp = lambda _: {}
    executor: Executor = INLINE
