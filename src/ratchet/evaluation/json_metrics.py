"""Scores of structured answers: is it JSON, has it the fields, and are their values right."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ratchet.evaluation.scored import (
    Answer,
    Scored,
    checked_lengths,
    mean_scored,
    summed_scored,
)
from ratchet.stats.arrays import FloatArray
from ratchet.strict_json import no_number

MISSING = object()
Fields = Counter[tuple[tuple[str, ...], str]]
"""Leaves of a JSON value with their paths, counted."""


def parse_json(text: str) -> Any:
    r"""Return the value of a text that is JSON, or `MISSING`.

    A code fence around it is taken off, since models put it there; anything else before or after
    makes it no JSON. NaN and Infinity are none.

    Example:
        >>> parse_json('```json\n{"a": 1}\n```')
        {'a': 1}
        >>> parse_json("The answer is {}") is MISSING
        True
    """
    stripped = text.strip()
    if stripped.startswith("```") and stripped.endswith("```") and len(stripped) > 6:
        stripped = stripped[3:-3]
        first, _, rest = stripped.partition("\n")
        stripped = rest if first.strip().casefold() in ("", "json") else stripped
    try:
        return json.loads(stripped, parse_constant=no_number)
    except (ValueError, RecursionError):
        return MISSING


def json_validity(answers: Sequence[Answer], required: Sequence[str] = ()) -> Scored:
    """Score 1 where an answer is JSON (and an object with the required keys), else 0."""
    values = np.full(len(answers), np.nan)
    for place, answer in enumerate(answers):
        if answer is not None:
            value = parse_json(answer)
            has_keys = isinstance(value, dict) and all(key in value for key in required)
            values[place] = float(has_keys if required else value is not MISSING)
    return mean_scored("json_validity", values)


def field_f1(answers: Sequence[Answer], targets: Sequence[str | Mapping[str, Any]]) -> Scored:
    """Score the fields of each answer against those of the target, by F1.

    A field is the path of a leaf with its value; items of a list have no order. An answer that is
    no JSON has no fields. The whole is micro F1, over all fields of all examples.

    Args:
        answers: What the system said; None for no answer.
        targets: JSON, as text or as an object. An example whose target is no JSON has no score.

    Raises:
        InvalidInputError: Lengths differ.
    """
    checked_lengths(answers, targets)
    pairs: list[tuple[Fields, Fields] | None] = []
    for answer, target in zip(answers, targets, strict=True):
        wanted = parse_json(target) if isinstance(target, str) else target
        if answer is None or wanted is MISSING:
            pairs.append(None)
            continue
        said = parse_json(answer)
        pairs.append((Counter() if said is MISSING else fields_of(said), fields_of(wanted)))
    return f1_scored("field_f1", pairs)


def f1_scored(name: str, pairs: Sequence[tuple[Fields, Fields] | None]) -> Scored:
    """Score what was found against what was expected by F1; the whole is over all of them.

    Args:
        name: Of the metric.
        pairs: Found and expected fields of each example; None for no score.
    """
    statistics = np.full((len(pairs), 3), np.nan)
    for place, pair in enumerate(pairs):
        if pair is not None:
            found, expected = pair
            shared = sum((found & expected).values())
            statistics[place] = shared, sum(found.values()), sum(expected.values())
    values = np.full(len(pairs), np.nan)
    seen = ~np.isnan(statistics[:, 0])
    values[seen] = f1_of_sums(statistics[seen])
    return summed_scored(name, values, statistics, f1_of_sums)


def f1_of_sums(sums: FloatArray) -> FloatArray:
    """F1 of rows of shared, found and expected fields; nothing found of nothing expected is 1."""
    both = sums[:, 1] + sums[:, 2]
    scores = np.ones(len(sums))
    np.divide(2.0 * sums[:, 0], both, out=scores, where=both > 0.0)
    return scores


def fields_of(value: Any, path: tuple[str, ...] = ()) -> Fields:
    """Return the leaves of a JSON value with their paths, counted; an empty container is a leaf.

    Texts are compared without case and outer white space, and 1 is 1.0.
    """
    if isinstance(value, Mapping) and value:
        parts = [fields_of(item, (*path, str(key))) for key, item in value.items()]
    elif isinstance(value, list | tuple) and value:
        parts = [fields_of(item, (*path, "[]")) for item in value]
    else:
        return Counter([(path, _leaf(value))])
    return sum(parts, Counter())


def _leaf(value: Any) -> str:
    if isinstance(value, str):
        return json.dumps(" ".join(value.casefold().split()))
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return json.dumps(value)
