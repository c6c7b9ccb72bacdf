"""What the analysis of failures stores: clusters, their frozen examples, requests for training."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ratchet.records.base import Identifier, Record, Share, UtcTime

Trend = Literal["new", "split", "growing", "steady", "shrinking", "merged", "gone"]


class FailureExample(Record):
    """One failed interaction of a cluster, beside what a good answer looks like.

    Attributes:
        prompt: The last thing the user said.
        answer: What the model said.
        why: What says that it failed, in words.
        better: A good answer; None where none is known.
        source: Where the good answer is from: the user's correction of this very answer, or a
            well-rated answer to the message `better_prompt`.
        better_prompt: The message that the good answer is to, where it is another one.
        borderline: Whether it lies at the edge of the cluster, not near its centre.
    """

    interaction_id: Identifier
    prompt: str
    answer: str
    why: str
    better: str | None = None
    source: Literal["correction", "similar"] | None = None
    better_prompt: str | None = None
    borderline: bool = False


class Breakdown(Record):
    """How many of the interactions of one model version or segment failed."""

    name: str
    failed: int = Field(ge=0)
    interactions: int = Field(ge=1)


class FailureCluster(Record):
    """Interactions that are about the same thing and fail more than the rest.

    Attributes:
        id: Stays the same from run to run as long as the cluster is known again.
        size: Failed interactions in it.
        interactions: All interactions in it, failed or not; None in older records.
        failure_rate: Share of its interactions that failed.
        rest_rate: Share of all others that failed.
        lift: Its failure rate over the rate of all interactions.
        interval: Two-sided 95 % interval of the failure rate.
        share: Its failed interactions over all failed ones.
        excess: Failures beyond those expected at the rate of the rest: what fixing it would win.
        p_value: How often chance alone gives any group that stands out as much.
        stability: Mean overlap (Jaccard) with the nearest group of half the texts; None where it
            could not be measured.
        stable: Whether half the texts give the same cluster.
        trend: How it stands to the run before.
        first_seen: When a run first found it.
        users: Distinct users with a failed interaction in it.
        versions: By model version.
        segments: By segment.
        safety: Failed interactions in it that are flagged or reported as unsafe.
        examples: Texts nearest the centre, for people to read.
        borderline: Texts farthest from it.
        beside: Failed interactions beside what a good answer looks like.
    """

    id: Identifier
    name: str
    size: int = Field(ge=1)
    interactions: int | None = Field(default=None, ge=1)
    failure_rate: Share
    rest_rate: Share | None = None
    lift: float
    interval: tuple[float, float]
    share: Share | None = None
    excess: float | None = None
    p_value: Share | None = None
    stability: Share | None = None
    stable: bool | None = None
    trend: Trend = "new"
    first_seen: UtcTime | None = None
    users: int | None = None
    versions: tuple[Breakdown, ...] = ()
    segments: tuple[Breakdown, ...] = ()
    safety: int = 0
    examples: tuple[str, ...]
    borderline: tuple[str, ...] = ()
    beside: tuple[FailureExample, ...] = ()


class EarlierCluster(Record):
    """A failure cluster of an earlier run that this run did not find.

    Attributes:
        trend: "merged" where it is part of `other` now, "gone" where its texts fail no more than
            the rest; any other where they do, though not enough to be found anew.
    """

    id: Identifier
    name: str
    trend: Trend
    first_seen: UtcTime
    other: str | None = None


class RegressionSet(Record):
    """The frozen examples of one failure cluster that no training set may hold.

    Attributes:
        id: The cluster's identity; a cluster has one set for good.
        name: What the cluster was called when the set was frozen.
        example_set_id: The set.
        users: Digests of the users whose examples they are, so that they can be kept out.
    """

    id: Identifier
    created_at: UtcTime
    name: str
    example_set_id: Identifier
    users: tuple[str, ...]


class TrainingRequest(Record):
    """What the next training set should hold to mend a failure cluster.

    Attributes:
        cluster_id: The cluster's identity.
        wanted: How many examples would be enough.
        interaction_ids: Interactions of the cluster whose right answer is known, none of them in
            the regression set; fewer than wanted where people have to write some.
        regression_set_id: The frozen examples that will tell whether it was mended; None with the
            reason beside it.
        blocked: Why nothing may be trained on it yet; None where it may.
        reviewed: Interactions of a cluster about safety that people look at first.
    """

    id: Identifier
    created_at: UtcTime
    cycle_id: Identifier
    cluster_id: Identifier
    name: str
    wanted: int = Field(ge=0)
    interaction_ids: tuple[str, ...]
    regression_set_id: str | None
    reason: str | None = None
    blocked: str | None = None
    reviewed: tuple[str, ...] = ()


class ClusterComparison(Record):
    """Champion and challenger on the frozen examples of one failure cluster.

    Attributes:
        cluster_id: The cluster's identity.
        examples: Examples that both answered.
        unscored: Examples without an answer of one of them.
        only_champion_right: The champion is right and the challenger wrong.
        only_challenger_right: The reverse.
        p_value: Exact McNemar test of the two.
    """

    cluster_id: Identifier
    name: str
    example_set_id: Identifier
    examples: int = Field(ge=0)
    unscored: int = Field(ge=0)
    champion_right: int = Field(ge=0)
    challenger_right: int = Field(ge=0)
    only_champion_right: int = Field(ge=0)
    only_challenger_right: int = Field(ge=0)
    p_value: Share
