"""What do the failed interactions have in common? Clusters with names, rates and examples.

A first cut on words alone: TF-IDF, singular value decomposition and k-means; better embeddings
can be passed in.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ratchet.errors import InvalidInputError
from ratchet.evaluation.metrics import BoolArray, FloatArray
from ratchet.records import FailureCluster, derive_id, digest
from ratchet.stats.intervals import Interval, wilson

IntArray = NDArray[np.int64]
Analyzer = Callable[[str], list[str]]

MINIMUM_FAILED = 10
MINIMUM_MEMBERS = 3
MOST_CLUSTERS = 12
NEAR_QUANTILE = 0.10
KEYWORDS = 3
EXAMPLES = 3
_DIMENSIONS = 50
_VOCABULARY = 20_000
_SILHOUETTE_SAMPLE = 1_000
# fmt: off
_MORE_STOP_WORDS = frozenset({
    "did", "didn", "didnt", "does", "doesn", "doesnt", "don", "got", "hasn", "haven",
    "hello", "help", "hey", "hi", "id", "im", "isn", "just", "know", "like", "ll",
    "need", "ok", "okay", "tell", "thank", "thanks", "ve", "want", "wants", "wasn",
    "won", "yes",
})
# fmt: on
_NAMELESS = "mixed"  # its texts share no word


@dataclass(frozen=True, slots=True)
class Cluster:
    """Failed rows that are about the same thing.

    Attributes:
        members: Row indices of the failed rows, ascending.
        name: The words that set it apart, most telling first.
        failure_rate: Share of the rows near its centre that failed.
        lift: That rate over the rate of all rows.
        interval: 95 % Wilson interval of the rate.
        examples: Distinct failed texts, nearest the centre first.
    """

    members: IntArray
    name: str
    failure_rate: float
    lift: float
    interval: Interval
    examples: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FailureClusters:
    """Result of `find_failure_clusters`.

    Attributes:
        clusters: By excess, the failures beyond those expected at the overall rate, largest first.
        labels: Index of its cluster for each row, -1 for none, shape (n,).
        reason: Why there are no clusters; None where there are.
    """

    clusters: tuple[Cluster, ...]
    labels: IntArray
    reason: str | None = None


def find_failure_clusters(
    texts: Sequence[str],
    failed: BoolArray,
    *,
    embeddings: FloatArray | None = None,
    rng: np.random.Generator,
) -> FailureClusters:
    """Group the failed rows by what they are about.

    Failed rows are clustered by k-means on the unit sphere, with the number of clusters (2 to 12)
    that has the best silhouette on a sample. A row, failed or not, is near a cluster when its
    centre is the nearest and at least as similar as to nine in ten of its failed rows; both rates
    and members count the rows that are near. Names are the top words of class-based TF-IDF.

    Units: rates in [0, 1], lift as a ratio.
    Assumptions: what fails together shares words (or lies together in the embeddings given).
    Error rate: none is claimed. Clusters are chosen and measured on the same rows, so that the
    rate of a small cluster is too high on average and its interval too narrow; confirm on
    later interactions before acting on a lift near 1.
    When not to use: on fewer than some fifty failures, or where answers fail for reasons that
    the text does not show.

    Args:
        texts: One text a row, e.g. the prompts; shape (n,).
        failed: Whether the row failed, shape (n,).
        embeddings: One vector a row, shape (n, d); TF-IDF of the texts where None.
        rng: Source of the seeds; the same state gives the same clusters.

    Raises:
        InvalidInputError: Lengths differ or an embedding is not finite.

    References:
        Rousseeuw, P. J. (1987). Silhouettes. J. Comput. Appl. Math. 20, 53-65.
        Grootendorst, M. (2022). BERTopic: neural topic modeling with a class-based TF-IDF
        procedure. arXiv:2203.05794.
    """
    failed = np.asarray(failed, dtype=np.bool_)
    _check_shapes(texts, failed, embeddings)
    count = int(failed.sum())
    if count < MINIMUM_FAILED:
        return _nothing(failed.size, f"{count} rows failed, {MINIMUM_FAILED} are needed")
    analyze = _analyzer()
    vectors = _unit_rows(_text_vectors(texts, analyze, rng) if embeddings is None else embeddings)
    placed = np.any(vectors != 0.0, axis=1)
    rows = np.flatnonzero(failed & placed)
    if rows.size < MINIMUM_FAILED:
        reason = f"{rows.size} failed rows have words to go by, {MINIMUM_FAILED} are needed"
        return _nothing(failed.size, reason)
    distinct = len(np.unique(np.round(vectors[rows], 9), axis=0))
    if distinct < 2:
        return _nothing(failed.size, "all failed rows say the same, there is nothing to group")
    centres = _centres(vectors[rows], distinct, rng)
    similarity = vectors @ centres.T
    near = _near(similarity, failed, placed)
    return _described(texts, failed, near, similarity, analyze)


def as_records(
    result: FailureClusters, texts: Sequence[str], *, cycle_id: str
) -> tuple[FailureCluster, ...]:
    """Return the clusters as records, whose ids depend on the cycle and the texts of the members.

    Args:
        result: The clusters.
        texts: The texts they were found in.
        cycle_id: The cycle in which they were found.
    """
    return tuple(
        FailureCluster(
            id=derive_id(cycle_id, cluster.name, digest(sorted(texts[i] for i in cluster.members))),
            name=cluster.name,
            size=cluster.members.size,
            failure_rate=cluster.failure_rate,
            lift=cluster.lift,
            interval=(cluster.interval.lower, cluster.interval.upper),
            examples=cluster.examples,
        )
        for cluster in result.clusters
    )


def _check_shapes(texts: Sequence[str], failed: BoolArray, embeddings: FloatArray | None) -> None:
    if failed.shape != (len(texts),):
        raise InvalidInputError(
            f"texts and failed must be equally long, got {len(texts)} and shape {failed.shape}; "
            "pass one flag a text"
        )
    if embeddings is None:
        return
    if embeddings.ndim != 2 or embeddings.shape[0] != len(texts):
        raise InvalidInputError(
            f"embeddings must have the shape ({len(texts)}, d), got {embeddings.shape}; "
            "pass one vector a text"
        )
    if not np.isfinite(embeddings).all():
        raise InvalidInputError("embeddings must be finite, got nan or inf; embed the texts anew")


def _nothing(size: int, reason: str) -> FailureClusters:
    return FailureClusters(clusters=(), labels=np.full(size, -1, dtype=np.int64), reason=reason)


def _analyzer() -> Analyzer:
    """Return what splits a text into its words and word pairs, stop words left out."""
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS, CountVectorizer

    stop_words = sorted(ENGLISH_STOP_WORDS | _MORE_STOP_WORDS)
    pattern = r"(?u)\b[^\W\d_]\w+\b"
    vectorizer = CountVectorizer(ngram_range=(1, 2), stop_words=stop_words, token_pattern=pattern)
    analyze: Analyzer = vectorizer.build_analyzer()
    return analyze


def _text_vectors(texts: Sequence[str], analyze: Analyzer, rng: np.random.Generator) -> FloatArray:
    """Return TF-IDF vectors reduced to at most 50 dimensions, shape (n, d)."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(analyzer=analyze, sublinear_tf=True, max_features=_VOCABULARY)
    try:
        matrix: Any = vectorizer.fit_transform(texts)
    except ValueError:  # scikit-learn's way to say that no text has a word
        return np.zeros((len(texts), 1))
    seed = _seed(rng)
    if matrix.shape[1] <= _DIMENSIONS:
        return np.asarray(matrix.toarray(), dtype=np.float64)
    components = min(_DIMENSIONS, matrix.shape[0] - 1)
    reduction = TruncatedSVD(n_components=components, random_state=seed)
    return np.asarray(reduction.fit_transform(matrix), dtype=np.float64)


def _unit_rows(vectors: FloatArray) -> FloatArray:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    scaled = vectors / np.where(norms > 0.0, norms, 1.0)
    return np.where(norms > 1e-9, scaled, 0.0)


def _seed(rng: np.random.Generator) -> int:
    return int(rng.integers(2**31))


def _centres(vectors: FloatArray, distinct: int, rng: np.random.Generator) -> FloatArray:
    """Return the unit centres of the clustering with the best silhouette, shape (k, d)."""
    from sklearn.cluster import KMeans
    from sklearn.metrics import silhouette_score

    seed = _seed(rng)
    size = min(len(vectors), _SILHOUETTE_SAMPLE)
    sample = np.sort(rng.choice(len(vectors), size=size, replace=False))
    best, best_score = None, -math.inf
    for clusters in range(2, min(MOST_CLUSTERS, distinct, len(vectors) - 1) + 1):
        model = KMeans(n_clusters=clusters, n_init=4, random_state=seed).fit(vectors)
        labels = model.labels_[sample]
        if not 2 <= len(np.unique(labels)) < size:
            continue
        score = float(silhouette_score(vectors[sample], labels))
        if score > best_score:
            best, best_score = np.asarray(model.cluster_centers_, dtype=np.float64), score
    if best is None:
        best = vectors.mean(axis=0, keepdims=True)
    return _unit_rows(best)


def _near(similarity: FloatArray, failed: BoolArray, placed: BoolArray) -> IntArray:
    """Return the cluster each row is near, -1 for none; the same rule for failed and not."""
    nearest = np.argmax(similarity, axis=1)
    closeness = similarity.max(axis=1)
    near = np.full(len(nearest), -1, dtype=np.int64)
    for cluster in range(similarity.shape[1]):
        here = placed & (nearest == cluster)
        if not (here & failed).any():
            continue
        # a tolerance, so that equal rows are all in or all out
        least = np.quantile(closeness[here & failed], NEAR_QUANTILE, method="lower") - 1e-9
        near[here & (closeness >= least)] = cluster
    return near


def _described(
    texts: Sequence[str],
    failed: BoolArray,
    near: IntArray,
    similarity: FloatArray,
    analyze: Analyzer,
) -> FailureClusters:
    found = _largest_excess_first(failed, near, similarity.shape[1])
    if not found:
        reason = f"no {MINIMUM_MEMBERS} failed rows are about the same thing"
        return _nothing(failed.size, reason)
    names = _names(texts, [members for _, members in found], analyze)
    labels = np.full(failed.size, -1, dtype=np.int64)
    clusters = []
    for index, ((cluster, members), name) in enumerate(zip(found, names, strict=True)):
        labels[members] = index
        around = int(np.count_nonzero(near == cluster))
        rate = members.size / around
        clusters.append(
            Cluster(
                members=members,
                name=name,
                failure_rate=rate,
                lift=rate / float(failed.mean()),
                interval=wilson(members.size, around),
                examples=_examples(texts, members, similarity[members, cluster]),
            )
        )
    return FailureClusters(clusters=tuple(clusters), labels=labels)


def _largest_excess_first(
    failed: BoolArray, near: IntArray, clusters: int
) -> list[tuple[int, IntArray]]:
    overall = float(failed.mean())
    found = []
    for cluster in range(clusters):
        members = np.flatnonzero(failed & (near == cluster))
        if members.size >= MINIMUM_MEMBERS:
            excess = members.size - overall * np.count_nonzero(near == cluster)
            found.append((-excess, int(members[0]), cluster, members))
    return [(cluster, members) for _, _, cluster, members in sorted(found, key=lambda x: x[:3])]


def _names(texts: Sequence[str], groups: Sequence[IntArray], analyze: Analyzer) -> list[str]:
    """Name each group by class-based TF-IDF against the other groups and all other rows."""
    counts = [Counter(term for i in group for term in analyze(texts[i])) for group in groups]
    grouped = {int(i) for group in groups for i in group}
    rest = Counter(t for i, text in enumerate(texts) if i not in grouped for t in analyze(text))
    overall = sum(counts, rest.copy())
    average = sum(overall.values()) / (len(groups) + bool(rest))
    names = []
    for group, count in zip(groups, counts, strict=True):
        shared = Counter(term for i in group for term in set(analyze(texts[i])))
        # the term's frequency in the group, up to the group's length, which changes no order
        scores = {
            term: uses * math.log1p(average / overall[term])
            for term, uses in count.items()
            if shared[term] > 1
        }
        names.append(_name([term for _, term in sorted((-v, term) for term, v in scores.items())]))
    return _distinct(names)


def _name(ranked: Sequence[str]) -> str:
    """Join the top terms, leaving out those that only repeat a word already there."""
    chosen: list[str] = []
    words: set[str] = set()
    for term in ranked:
        if len(chosen) == KEYWORDS:
            break
        parts = set(term.split())
        if not parts & words:
            chosen.append(term)
            words |= parts
    return ", ".join(chosen) or _NAMELESS


def _distinct(names: Sequence[str]) -> list[str]:
    seen: Counter[str] = Counter()
    distinct = []
    for name in names:
        seen[name] += 1
        distinct.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return distinct


def _examples(texts: Sequence[str], members: IntArray, closeness: FloatArray) -> tuple[str, ...]:
    order = np.lexsort((members, -closeness))
    distinct: dict[str, None] = {}
    for row in members[order]:
        text = re.sub(r"\s+", " ", texts[row]).strip()
        distinct.setdefault(text)
        if len(distinct) == EXAMPLES:
            break
    return tuple(distinct)
