"""One analysis of failures: what failed, where it piles up, what it is called, what is new.

found = analyze_failures(
    outcomes, scored, weights, encoder=encoder, cache=store, previous=previous, rng=rng, now=now
)
store.append(found.known)
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np

from ratchet.analyze.failure_rule import FailureRule
from ratchet.analyze.failures.clusters import FailureClusters, find_failure_clusters
from ratchet.analyze.failures.embedding import VectorCache, embed, word_vectors
from ratchet.analyze.failures.failed import DEFAULT_RULE, Failed, which_failed
from ratchet.analyze.failures.hierarchy import IntArray, Vectors, unit_rows
from ratchet.analyze.failures.identity import Identified, KnownClusters, identify
from ratchet.analyze.failures.profile import ShowAnswers, profile
from ratchet.analyze.failures.titles import Untitled
from ratchet.analyze.failures.words import text_hash
from ratchet.errors import ModelError
from ratchet.executors import INLINE, Executor
from ratchet.files.text import counted
from ratchet.models import MINILM, Encoder, SentenceEncoder, ServedEncoder
from ratchet.outcomes.join import BoolArray, FloatArray, Outcomes
from ratchet.outcomes.quality import Quality, QualityWeights
from ratchet.records import EarlierCluster, FailureCluster
from ratchet.store import EventStore

logger = logging.getLogger(__name__)

WORDS = "words"
_OTHERS = 4
MOST = 100_000
"""Interactions that are looked at: with 384 dimensions they take some 0.8 GB (docs/failures.md)."""
ReadTexts = Callable[[Outcomes], Outcomes]
GiveTitles = Callable[[Sequence[Untitled]], Sequence[str | None]]


@dataclass(frozen=True, slots=True)
class FailureAnalysis:
    """What an analysis of failures found.

    Attributes:
        clusters: By what fixing them would win, most first.
        earlier: Clusters of earlier runs that were not found.
        result: The clusters as they were found; its rows are those of `outcomes`.
        outcomes: The interactions of which it can be told whether they failed.
        texts: Their messages.
        flags: Whether each of them failed.
        explicit: What users said of each, nan where nothing.
        failed: What is known of all interactions that were looked at.
        vectors: One unit vector an interaction of `outcomes`.
        known: To be stored for the next run.
        first_run: Whether no earlier run has been.
        left_out: Interactions of which it can be told, and that were not looked at since they are
            too many; those of `outcomes` are a random part.
    """

    clusters: tuple[FailureCluster, ...]
    earlier: tuple[EarlierCluster, ...]
    result: FailureClusters
    outcomes: Outcomes
    texts: tuple[str, ...]
    flags: BoolArray
    explicit: FloatArray
    failed: Failed
    vectors: Vectors
    known: KnownClusters
    first_run: bool
    left_out: int = 0

    @property
    def part(self) -> str | None:
        """What was looked at, in words, where that is not all."""
        if not self.left_out:
            return None
        told = len(self.outcomes) + self.left_out
        return (
            f"{len(self.outcomes):,} of {counted(told, 'interaction')} were looked at, drawn "
            "at random; "
            "numbers of failures are those among them"
        )


def load_encoder(name: str) -> Encoder | None:
    """Return what turns texts into vectors; None for words, as where MiniLM is not installed.

    Args:
        name: `minilm`, `words`, the folder of a sentence-transformers model, or the address of a
            server with `/v1/embeddings`, its model's name after `#`.

    Raises:
        ModelError: The folder is not there or holds no model that can be read, or the server does
            not answer.
    """
    if name == WORDS:
        return None
    if name.startswith(("http://", "https://")):
        return ServedEncoder.connect(name)
    try:
        return SentenceEncoder.load(name)
    except ModelError as error:
        if name != MINILM:
            raise
        logger.warning("texts are compared by their words: %s", error)
        return None


def previous_clusters(store: EventStore, before: datetime) -> KnownClusters | None:
    """Return what the latest run of before a time left, None where there was none."""
    runs, origins = store.records(KnownClusters, latest=20), store.origins()
    earlier = (run for run in reversed(runs) if run.created_at < before)
    return next((run for run in earlier if origins.counts(run.created_at)), None)


def analyze_failures(
    outcomes: Outcomes,
    scored: Quality,
    weights: QualityWeights,
    *,
    rule: FailureRule = DEFAULT_RULE,
    encoder: Encoder | None,
    cache: VectorCache | None,
    executor: Executor = INLINE,
    previous: KnownClusters | None,
    flagged: Collection[str] = (),
    titles: GiveTitles | None = None,
    texts: ReadTexts = lambda outcomes: outcomes,
    shown: ShowAnswers = lambda _ids: {},
    most: int = MOST,
    rng: np.random.Generator,
    now: datetime,
) -> FailureAnalysis:
    """Find failure clusters among interactions, and say what is new about them.

    Where it can be told of more than `most` interactions whether they failed, a random part of them
    is looked at, the same one in every run: rates stay what they are, numbers are of that part.

    Args:
        outcomes: Interactions with their feedback.
        scored: Their quality.
        weights: What the quality was made with.
        rule: What counts as failed.
        encoder: Makes vectors of messages; their words do where None.
        cache: Keeps vectors.
        executor: Runs the encoder.
        previous: What the run before left.
        flagged: Ids of interactions that are flagged as unsafe or were found so.
        titles: Gives titles; what it cannot do (ModelError) is logged, and keywords stand.
        texts: Reads the texts of outcomes, of those alone that are looked at; by default they are
            there.
        shown: Returns the answers of interactions as people are shown them, of examples; the words
            alone where it has none.
        most: So many interactions are looked at, at most.
        rng: Source of randomness.
        now: When this run is.
    """
    failed = which_failed(outcomes, scored, weights, rule)
    rows = _looked_at(outcomes, failed.told, most)
    told = texts(outcomes.take(rows))
    flags, explicit = failed.failed[rows], scored.explicit[rows]
    said = tuple(str(prompt or "") for prompt in told.prompts)
    vectors = _vectors(said, encoder, cache, executor, rng)
    users = [str(user or "") for user in told.user_ids]
    result = find_failure_clusters(said, flags, embeddings=vectors, users=users, rng=rng)
    result = _titled(result, titles)
    identified = identify(
        result, said, flags, previous, now=now, encoder=encoder.digest if encoder else None
    )
    clusters = profile(
        result,
        identified.changes,
        told,
        explicit,
        vectors=vectors,
        known=identified.clusters,
        flagged=flagged,
        shown=shown,
    )
    return FailureAnalysis(
        clusters=clusters,
        earlier=_earlier(identified),
        result=result,
        outcomes=told,
        texts=said,
        flags=flags,
        explicit=explicit,
        failed=failed,
        vectors=vectors,
        known=identified.clusters,
        first_run=previous is None,
        left_out=int(np.count_nonzero(failed.told)) - len(told),
    )


def _looked_at(outcomes: Outcomes, told: BoolArray, most: int) -> IntArray:
    """Return the rows that are looked at, ascending: all that are told, or a random part."""
    rows = np.flatnonzero(told)
    if rows.size <= most:
        return rows
    places = [int.from_bytes(text_hash(str(key), 8)) for key in outcomes.interaction_ids[rows]]
    first = np.argsort(np.array(places, dtype=np.uint64), kind="stable")[:most]
    return np.sort(rows[first])


def _vectors(
    texts: Sequence[str],
    encoder: Encoder | None,
    cache: VectorCache | None,
    executor: Executor,
    rng: np.random.Generator,
) -> Vectors:
    if not texts:
        return np.zeros((0, 1), dtype=np.float32)
    if encoder is not None:
        return embed(texts, encoder, cache=cache, executor=executor)
    distinct = sorted(set(texts))
    place = {text: index for index, text in enumerate(distinct)}
    vectors = unit_rows(word_vectors(distinct, rng=rng))
    return vectors[[place[text] for text in texts]]


def _titled(result: FailureClusters, titles: GiveTitles | None) -> FailureClusters:
    """Give clusters the titles of a language model; one that comes twice is told apart by words."""
    if titles is None or not result.clusters:
        return result
    first = [cluster.examples[0] for cluster in result.clusters if cluster.examples]
    asked = [
        Untitled(
            cluster.name,
            cluster.examples,
            tuple(text for text in first if text not in cluster.examples)[:_OTHERS],
        )
        for cluster in result.clusters
    ]
    try:
        given = titles(asked)
    except ModelError as error:
        logger.warning("clusters are named by their words: %s", error)
        return result
    counts = {title: list(given).count(title) for title in given if title}
    named = [
        replace(cluster, name=title if counts[title] == 1 else f"{title} ({cluster.name})")
        if title
        else cluster
        for cluster, title in zip(result.clusters, given, strict=True)
    ]
    return replace(result, clusters=tuple(named))


def _earlier(identified: Identified) -> tuple[EarlierCluster, ...]:
    known = {item.id: item for item in identified.clusters.clusters}
    return tuple(
        EarlierCluster(
            id=change.id,
            name=known[change.id].name,
            trend=change.trend,
            first_seen=known[change.id].first_seen,
            other=change.other,
        )
        for change in identified.changes
        if change.index is None and change.id in known
    )
