"""Which direction of a metric is better, by its name: Ratchet's own, and those that people write.

    direction_of("exact match"), direction_of("Val-Loss"), direction_of("latency_ms")
    direction_of("m7")      # None: nobody can tell

How a name is read: case is folded; spaces, hyphens, underscores and `. / : ( ) [ ] %` between its
words count alike; words that say which statistic, unit or part of the data it is (`mean`, `p99`,
`ms`, `eval`, `@5`) are left out, and so is a last `score`, `rate` or `count`. A name that begins
with a minus sign, and one with any other word (`loss_gain`), is not known.
"""

from __future__ import annotations

import re
import unicodedata

HIGHER = frozenset(
    {
        "exactmatch", "em", "right", "correct", "correctness", "match", "accuracy", "acc",
        "normalisedaccuracy", "normalizedaccuracy", "tokenf1", "fieldf1", "f1", "precision",
        "recall", "containsanswer", "win", "wins", "winrate", "score", "pass", "passed",
        "passrate", "success", "solved", "sacrebleu", "chrf", "meteor", "bertscore", "comet",
        "auc", "auroc", "mrr", "ndcg", "map", "hits", "jsonvalidity", "reward", "toolnamematch",
        "callexactmatch", "argumentf1", "callvalidity", "formatvalidity",
    }
)  # fmt: skip
LOWER = frozenset(
    {
        "loss", "nll", "crossentropy", "perplexity", "ppl", "wer", "worderrorrate", "cer",
        "charactererrorrate", "ter", "error", "errors", "err", "mae", "mse", "rmse", "brier",
        "ece", "wrong", "incorrect", "failed", "failure", "failures", "refusal", "refusals",
        "refused", "toxicity", "toxic", "hallucination", "hallucinations", "latency", "seconds",
        "duration", "responsetime", "ttft", "timetofirsttoken", "cost", "price", "tokens",
        "length", "empty", "needlesscall", "unparsablecall", "toolcalls",
        "tokensin", "tokensout",
    }
)  # fmt: skip
UNSURE = frozenset({"score", "refusal", "refusals", "refused", "tokens", "length", "toolcalls"})
"""Names whose usual direction one may turn: who asks unsafe questions wants refusals."""
HIGHER_FAMILIES = ("rouge", "bleu")
LOWER_FAMILIES = ("latency",)
"""Every name that begins with one of them; their direction may be turned too."""

_BETWEEN = re.compile(r"[\s_\-./:()\[\]%]+")
_AT = re.compile(r"[\s_\-]at[\s_\-](?=(?:\d+|k)$)")
_CUT_AT = re.compile(r"@(?:\d+|k)$")
_LEFT_OUT = re.compile(
    r"mean|avg|average|median|min|max|total|overall|macro|micro|weighted|p\d{1,3}|\d{1,3}th"
    r"|s|secs?|seconds|ms|millis|milliseconds|us|usd|eur|percent|pct"
    r"|val|validation|eval|evaluation|test|train|dev|heldout"
)
_LAST = ("score", "rate", "count")


def direction_of(name: str) -> bool | None:
    """Return True where higher is better, False where lower is, None where the name is not known.

    Example:
        >>> direction_of("F1 score"), direction_of("WER"), direction_of("helpfulness")
        (True, False, None)
    """
    is_higher, _ = _look_up(name)
    return is_higher


def may_be_turned(name: str) -> bool:
    """Tell whether a name leaves open that the other direction is meant.

    Example:
        >>> may_be_turned("length"), may_be_turned("accuracy")
        (True, False)
    """
    is_higher, turned = _look_up(name)
    return is_higher is None or turned


def _look_up(name: str) -> tuple[bool | None, bool]:
    """The direction, and whether it may be turned."""
    text = unicodedata.normalize("NFKC", name).casefold().strip()
    if text.startswith(("-", "\u2212")):  # a negated metric: less of it is more
        return None, True
    words = [word for word in _BETWEEN.split(_AT.sub("@", text)) if word]
    for part in _readings(words):
        if part in HIGHER or part in LOWER:
            return part in HIGHER, part in UNSURE
        if part.startswith(HIGHER_FAMILIES + LOWER_FAMILIES):
            return part.startswith(HIGHER_FAMILIES), True
    return None, True


def _readings(words: list[str]) -> list[str]:
    """The name whole, then without what is left out, then without a last word such as rate."""
    kept = [_CUT_AT.sub("", word) for word in words if not _LEFT_OUT.fullmatch(word)]
    readings = ["".join(words), "".join(kept)]
    if len(kept) > 1 and kept[-1] in _LAST:
        readings.append("".join(kept[:-1]))
    return readings
