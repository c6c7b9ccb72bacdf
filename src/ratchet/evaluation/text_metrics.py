"""Scores of answers, example by example: accuracy, token F1, length, refusals, perplexity.

    first = token_f1(champion_answers, targets)
    second = token_f1(challenger_answers, targets)
    second.values - first.values          # paired, for ratchet.stats

Overlap with references is in `overlap_metrics`, structured answers are in `json_metrics`, running
code is in `code_execution`. An answer that is missing has no score, which is not 0.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from ratchet.errors import InvalidInputError
from ratchet.evaluation.scored import (
    Answer,
    Scored,
    checked_lengths,
    mean_scored,
    summed_scored,
)

Targets = Sequence[str | Sequence[str]]
"""What is right of each example; where several answers are, the best match counts."""

_ARTICLES = frozenset({"a", "an", "the"})
_BETWEEN_DIGITS = re.compile(r"(?<=\d),(?=\d{3}\b)")

# Where an answer opens with one of these it refuses. Said later in an answer they are content.
_REFUSAL = re.compile(
    r"^\W*(?:(?:i(?:'|’)?m|i am) (?:very |so |truly )?(?:sorry|afraid)\b"
    r"|(?:sorry|apologies|unfortunately)\b,?(?: but)? (?:i|we)\b"
    r"|i (?:must|have to) (?:decline|refuse)\b"
    r"|i (?:cannot|can(?:'|’)t|can not|won(?:'|’)t|will not|am unable to|am not able to)"
    r" (?:help|assist|provide|answer|comply|do that|fulfil|support|create|generate|share|discuss)"
    r"|as an? (?:ai|language model|assistant)\b.{0,80}?\b(?:cannot|can(?:'|’)t|unable|not able))",
    re.IGNORECASE,
)
_SYMPATHY = re.compile(
    r"^\W*(?:i(?:'|’)?m|i am) (?:very |so |truly )?sorry (?:to hear|for (?:the|your|any)|that you)",
    re.IGNORECASE,
)
_CLAUSE_END = re.compile(r"[.,;!?](?:\s+but)?\s+|\s+but\s+", re.IGNORECASE)


def answer_tokens(text: str) -> list[str]:
    """Return the words of a text in the form in which answers are compared.

    As SQuAD's script: case and punctuation are dropped, and so are articles; beyond it, Unicode is
    brought to one form and separators of thousands are dropped. A text of nothing else keeps what
    it has, so that "the" is not the empty answer.

    Example:
        >>> answer_tokens("The U.S. paid $1,000!")
        ['us', 'paid', '1000']
    """
    folded = _BETWEEN_DIGITS.sub("", unicodedata.normalize("NFKC", text).casefold())
    kept = "".join(c for c in folded if not unicodedata.category(c).startswith(("P", "S")))
    words = kept.split()
    return [word for word in words if word not in _ARTICLES] or words or folded.split()


def normalised_accuracy(answers: Sequence[Answer], targets: Targets) -> Scored:
    """Score 1 where an answer has the words of a target in their order, else 0.

    References:
        Rajpurkar, P., et al. (2016). SQuAD: 100,000+ questions for machine comprehension of text.
        EMNLP (the normalisation of its evaluation script).
    """
    return _highest_of("normalised_accuracy", answers, targets, lambda one, two: float(one == two))


def token_f1(answers: Sequence[Answer], targets: Targets) -> Scored:
    """Score each answer by the F1 of its words against those of the target, order aside.

    References:
        Rajpurkar et al. (2016), as `normalised_accuracy`.
    """
    return _highest_of("token_f1", answers, targets, _overlap_f1)


def contains_answer(answers: Sequence[Answer], targets: Targets) -> Scored:
    """Score 1 where an answer has the words of a target in their order somewhere, else 0.

    For answers in sentences. An answer that names everything is always right by it: go with a
    guardrail on `length`.
    """
    return _highest_of("contains_answer", answers, targets, _contains)


def answer_length(answers: Sequence[Answer], count: Callable[[str], int] | None = None) -> Scored:
    """Return how long each answer is, in words, or as `count` counts it; shorter is better."""
    measure = count or (lambda text: len(text.split()))
    values = [np.nan if text is None else float(measure(text)) for text in answers]
    return mean_scored("length", values)


def refusals(answers: Sequence[Answer]) -> Scored:
    """Score 1 where an answer opens by refusing, else 0; fewer is better.

    By the opening words of English refusals: it misses other languages and refusals that come
    late. Sympathy ("I'm sorry to hear that") is none. For what must hold, have a validated judge
    decide.
    """
    values = [np.nan if text is None else float(is_refusal(text)) for text in answers]
    return mean_scored("refusal_rate", values)


def empty_answers(answers: Sequence[Answer]) -> Scored:
    """Score 1 where an answer has no text but white space, else 0; fewer is better."""
    values = [np.nan if text is None else float(not text.strip()) for text in answers]
    return mean_scored("empty_rate", values)


def is_refusal(text: str) -> bool:
    """Tell whether an answer opens by refusing.

    Example:
        >>> is_refusal("I'm sorry, but I can't help with that."), is_refusal("Sorry is a word.")
        (True, False)
    """
    opening = text.strip()[:300]
    sympathy = _SYMPATHY.match(opening)
    if sympathy:
        opening = _CLAUSE_END.split(opening[sympathy.end() :], maxsplit=1)[-1]
    return bool(_REFUSAL.match(opening))


def perplexity(log_likelihoods: Sequence[float], tokens: Sequence[int]) -> Scored:
    """Score held-out answers by how likely a model finds them; less is better.

    An example's value is its mean negative log-likelihood a token, in nats: differences of it are
    paired. The whole is exp(-sum of log-likelihoods / sum of tokens), the perplexity.

    Args:
        log_likelihoods: Natural log of each target's probability, as of
            `HuggingFaceModel.log_likelihoods`; nan where there is none.
        tokens: Tokens of each target; comparable between models of one tokenizer only.

    Raises:
        InvalidInputError: Lengths differ, a log-likelihood is above 0 or a count below 1.
    """
    likely, counts = np.asarray(log_likelihoods, float), np.asarray(tokens, float)
    if likely.shape != counts.shape:
        raise InvalidInputError(
            f"each target needs its number of tokens, got {likely.size} log-likelihoods and "
            f"{counts.size} counts; pass arrays of one length"
        )
    seen = ~np.isnan(likely)
    if (likely[seen] > 0.0).any() or (counts[seen] < 1.0).any():
        raise InvalidInputError(
            "log-likelihoods must be at most 0 and targets have at least 1 token, got "
            f"{likely[seen].max():g} and {counts[seen].min():g}; pass sums of natural logs"
        )
    statistics = np.column_stack([-likely, np.where(seen, counts, np.nan)])
    values = np.full(likely.shape, np.nan)
    np.divide(-likely, counts, out=values, where=seen)
    return summed_scored(
        "perplexity", values, statistics, lambda sums: np.exp(sums[:, 0] / sums[:, 1])
    )


def _highest_of(
    name: str,
    answers: Sequence[Answer],
    targets: Targets,
    score: Callable[[list[str], list[str]], float],
) -> Scored:
    checked_lengths(answers, targets)
    values = np.full(len(answers), np.nan)
    for place, (answer, target) in enumerate(zip(answers, targets, strict=True)):
        options = (target,) if isinstance(target, str) else tuple(target)
        if answer is None or not options:
            continue
        words = answer_tokens(answer)
        values[place] = max(score(words, answer_tokens(option)) for option in options)
    return mean_scored(name, values)


def _contains(answer: list[str], target: list[str]) -> float:
    size = len(target)
    places = range(len(answer) - size + 1)
    return float(any(answer[place : place + size] == target for place in places))


def _overlap_f1(answer: list[str], target: list[str]) -> float:
    if not answer or not target:
        return float(answer == target)
    shared = sum((Counter(answer) & Counter(target)).values())
    return 2.0 * shared / (len(answer) + len(target))
