"""Overlap of answers with references: BLEU and chrF by sacrebleu, ROUGE by rouge-score.

Both keep the sufficient statistics of each example, from which corpus scores of any resample follow
by sums: `bootstrap_scored` compares two systems as sacrebleu does, many times faster.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Literal, get_args

import numpy as np

from ratchet.errors import InvalidInputError
from ratchet.evaluation.ngrams import matched_ngrams
from ratchet.evaluation.scored import (
    Answer,
    Scored,
    checked_lengths,
    mean_scored,
    summed_scored,
)
from ratchet.stats.arrays import FloatArray

Rouge = Literal["rouge1", "rouge2", "rougeL", "rougeLsum"]
Measure = Literal["fmeasure", "precision", "recall"]
References = Sequence[str | Sequence[str]]
"""References of each example: one, or several of which the best n-gram matches count."""

NGRAMS = 4
CHRF_BETA = 2.0


def bleu(answers: Sequence[Answer], references: References, *, tokenize: str = "13a") -> Scored:
    """Score answers by BLEU, 0 to 100, as sacrebleu does.

    An example's value is its sentence BLEU (effective order); the whole is corpus BLEU, computed
    from summed counts with sacrebleu's exponential smoothing.

    Args:
        answers: What the system said; None for no answer.
        references: Of each example, at least one.
        tokenize: sacrebleu's tokenizer: "13a", "intl", "char", "none", ...

    Raises:
        InvalidInputError: Lengths differ, an example has no reference, or there is no such
            tokenizer.

    References:
        Post, M. (2018). A call for clarity in reporting BLEU scores. WMT, 186-191.
    """
    from sacrebleu.metrics.bleu import BLEU

    if tokenize not in BLEU.TOKENIZERS:
        raise InvalidInputError(
            f"tokenize must be one of {sorted(BLEU.TOKENIZERS)}, got {tokenize!r}"
        )
    pairs = _pairs(answers, references)
    seen = [place for place, (answer, _) in enumerate(pairs) if answer is not None]
    statistics = np.full((len(pairs), 2 + 2 * NGRAMS), np.nan)
    statistics[seen] = matched_ngrams(
        [pairs[place][0] or "" for place in seen],
        [pairs[place][1] for place in seen],
        _words(tokenize),
        orders=NGRAMS,
    )
    values = _scores_of_rows(statistics, bleu_of_sums, effective_order=True)
    return summed_scored("bleu", values, statistics, bleu_of_sums)


def chrf(answers: Sequence[Answer], references: References, *, word_order: int = 0) -> Scored:
    """Score answers by chrF, 0 to 100, as sacrebleu does; chrF++ with `word_order=2`.

    Raises:
        InvalidInputError: Lengths differ, or an example has no reference.

    References:
        Popović, M. (2015). chrF: character n-gram F-score for automatic MT evaluation. WMT,
        392-395.
    """
    from sacrebleu.metrics.chrf import CHRF

    metric = CHRF(word_order=word_order)
    statistics = _statistics(metric, answers, references, 3 * (metric.char_order + word_order))
    values = _scores_of_rows(statistics, chrf_of_sums)
    return summed_scored("chrf", values, statistics, chrf_of_sums)


def rouge(
    answers: Sequence[Answer],
    references: References,
    *,
    kind: Rouge = "rougeL",
    measure: Measure = "fmeasure",
) -> Scored:
    """Score answers by ROUGE, 0 to 1; of several references the best counts.

    rouge-score's tokenizer keeps the letters a to z and digits only: other scripts and letters with
    accents are lost, so take chrF for them. "rougeLsum" takes each line for a sentence.

    Raises:
        InvalidInputError: Lengths differ, an example has no reference, or there is no such kind or
            measure.

    References:
        Lin, C.-Y. (2004). ROUGE: a package for automatic evaluation of summaries. ACL workshop,
        74-81.
    """
    from rouge_score.rouge_scorer import RougeScorer

    if kind not in get_args(Rouge):
        raise InvalidInputError(f"kind must be one of {get_args(Rouge)}, got {kind!r}")
    if measure not in get_args(Measure):
        raise InvalidInputError(f"measure must be one of {get_args(Measure)}, got {measure!r}")
    scorer = RougeScorer([kind])
    values = np.full(len(answers), np.nan)
    for place, (answer, options) in enumerate(_pairs(answers, references)):
        if answer is not None:
            values[place] = max(
                getattr(scorer.score(one, answer)[kind], measure) for one in options
            )
    return mean_scored(kind if measure == "fmeasure" else f"{kind}_{measure}", values)


def bleu_of_sums(sums: FloatArray, *, effective_order: bool = False) -> FloatArray:
    """Corpus BLEU of rows of sacrebleu's sums: lengths, matched and all n-grams of orders 1 to 4.

    Args:
        sums: Shape (rows, 10).
        effective_order: Whether orders that the answer is too short for are left out.
    """
    matched, total = sums[:, 2 : 2 + NGRAMS], sums[:, 2 + NGRAMS :]
    missed = (matched == 0.0) & (total > 0.0)
    smoothed = 0.5 ** np.cumsum(missed, axis=1)  # each order without a match halves again
    counted = np.where(missed, smoothed, matched)
    logs = np.zeros_like(matched)
    np.log(counted / np.maximum(total, 1.0), out=logs, where=(total > 0.0) & (counted > 0.0))
    orders = np.count_nonzero(total > 0.0, axis=1)
    divisor = np.maximum(orders, 1) if effective_order else NGRAMS
    system, reference = sums[:, 0], sums[:, 1]
    penalty = np.minimum(0.0, 1.0 - reference / np.maximum(system, 1e-9))
    scores = 100.0 * np.exp(penalty + logs.sum(axis=1) / divisor)
    empty = (matched.sum(axis=1) == 0.0) | (system == 0.0)
    undefined = empty if effective_order else empty | (orders < NGRAMS)
    return np.where(undefined, 0.0, scores)


def chrf_of_sums(sums: FloatArray) -> FloatArray:
    """Corpus chrF of rows of sacrebleu's sums: n-grams of answer, reference and both by order.

    Args:
        sums: Shape (rows, 3 x orders).
    """
    answer, reference, both = (sums[:, part::3] for part in range(3))
    defined = (answer > 0.0) & (reference > 0.0)
    orders = np.maximum(1, np.count_nonzero(defined, axis=1))
    precision = np.where(defined, both / np.maximum(answer, 1.0), 0.0).sum(axis=1) / orders
    recall = np.where(defined, both / np.maximum(reference, 1.0), 0.0).sum(axis=1) / orders
    factor = CHRF_BETA**2
    weighed = factor * precision + recall
    scores = np.zeros(len(sums))
    np.divide((1.0 + factor) * precision * recall, weighed, out=scores, where=weighed > 0.0)
    return 100.0 * scores


def _scores_of_rows(statistics: FloatArray, score: Any, **options: bool) -> FloatArray:
    values = np.full(len(statistics), np.nan)
    seen = ~np.isnan(statistics[:, 0])
    values[seen] = score(statistics[seen], **options)
    return values


@lru_cache
def _words(tokenize: str) -> Callable[[str], list[str]]:
    """Split as sacrebleu does."""
    from sacrebleu.metrics.bleu import BLEU

    tokenizer = BLEU(tokenize=tokenize).tokenizer
    return lambda text: tokenizer(text.rstrip()).split()


def _statistics(
    metric: Any, answers: Sequence[Answer], references: References, width: int
) -> FloatArray:
    """Return sacrebleu's sufficient statistics of each example."""
    pairs = _pairs(answers, references)
    statistics = np.full((len(pairs), width), np.nan)
    for place, (answer, options) in enumerate(pairs):
        if answer is not None:
            # what sacrebleu's own significance test starts from
            known = metric._extract_reference_info([metric._preprocess_segment(o) for o in options])
            answered = metric._preprocess_segment(answer.rstrip())
            statistics[place] = metric._compute_segment_statistics(answered, known)
    return statistics


def _pairs(
    answers: Sequence[Answer], references: References
) -> list[tuple[Answer, tuple[str, ...]]]:
    checked_lengths(answers, references)
    pairs = [
        (answer, (found,) if isinstance(found, str) else tuple(found))
        for answer, found in zip(answers, references, strict=True)
    ]
    without = next((place for place, (_, options) in enumerate(pairs) if not options), None)
    if without is not None:
        raise InvalidInputError(
            f"each example needs at least 1 reference, got none for example {without}; leave it out"
        )
    return pairs
