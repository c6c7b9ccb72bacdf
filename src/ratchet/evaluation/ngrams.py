"""Matched word n-grams of many answers at once: sacrebleu's counts for BLEU, many times faster.

An n-gram of a segment is a 64-bit number: the segment in its high bits, a hash of the words in the
others. That two n-grams of one segment meet is a matter of 1 in 10^8 for thousands of segments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ratchet.stats.arrays import FloatArray, IntArray

Words = Callable[[str], list[str]]
Keys = NDArray[np.uint64]
_MULTIPLIER, _MIXER = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9)
_FOLD = np.uint64(31)


@dataclass(frozen=True, slots=True, eq=False)
class _Counts:
    """N-grams of one order, ascending by segment, and how often each is there."""

    keys: Keys
    times: IntArray


@dataclass(frozen=True, slots=True, eq=False)
class _References:
    """What answers are matched with.

    Attributes:
        lengths: Words of each reference, by segment.
        counts: N-grams of each order; of several references the one with the most counts.
    """

    lengths: tuple[tuple[int, ...], ...]
    counts: tuple[_Counts, ...]


def matched_ngrams(
    answers: Sequence[str],
    references: Sequence[tuple[str, ...]],
    words: Words,
    *,
    orders: int = 4,
) -> FloatArray:
    """Return sacrebleu's statistics of each answer: lengths, matched and all n-grams by order.

    Args:
        answers: Texts.
        references: At least one of each answer.
        words: Splits a text; the same function for the same way to split, as references are kept.
        orders: Longest n-gram.

    Returns:
        Shape (answers, 2 + 2 orders): words, words of the closest reference, matches, totals.
    """
    against = _of_references(tuple(references), words, orders)
    split = [words(answer) for answer in answers]
    sizes = np.array([len(found) for found in split], dtype=np.int64)
    statistics = np.zeros((len(split), 2 + 2 * orders))
    statistics[:, 0] = sizes
    statistics[:, 1] = [
        min(options, key=lambda length: (abs(length - size), length))
        for size, options in zip(sizes.tolist(), against.lengths, strict=True)
    ]
    shift = _shift(len(split))
    for order, (keys, known) in enumerate(zip(_ngrams(split, orders), against.counts, strict=True)):
        found = _counted(keys)
        statistics[:, 2 + orders + order] = np.maximum(0, sizes - order)
        if not found.keys.size or not known.keys.size:
            continue
        places = np.minimum(np.searchsorted(known.keys, found.keys), known.keys.size - 1)
        both = known.keys[places] == found.keys
        matched = np.minimum(found.times, known.times[places])[both]
        segments = (found.keys[both] >> shift).astype(np.int64)
        statistics[:, 2 + order] = np.bincount(segments, matched, len(split))
    return statistics


@lru_cache(maxsize=4)
def _of_references(
    references: tuple[tuple[str, ...], ...], words: Words, orders: int
) -> _References:
    split = [[words(one) for one in options] for options in references]
    most = max((len(options) for options in split), default=0)
    layers = [
        [options[layer] if layer < len(options) else [] for options in split]
        for layer in range(most)
    ]
    by_layer = [[_counted(keys) for keys in _ngrams(layer, orders)] for layer in layers]
    return _References(
        tuple(tuple(map(len, options)) for options in split),
        tuple(_largest([counts[order] for counts in by_layer]) for order in range(orders)),
    )


def _largest(counts: Sequence[_Counts]) -> _Counts:
    """N-grams of several references, each as often as in the one that has it most."""
    if len(counts) == 1:
        return counts[0]
    keys = np.concatenate([np.empty(0, np.uint64), *(one.keys for one in counts)])
    times = np.concatenate([np.empty(0, np.int64), *(one.times for one in counts)])
    order = np.argsort(keys, kind="stable")
    keys, times = keys[order], times[order]
    starts = _starts(keys)
    return _Counts(keys[starts], np.maximum.reduceat(times, starts) if keys.size else times)


def _ngrams(split: Sequence[list[str]], orders: int) -> Iterator[Keys]:
    """Yield the n-grams of each order, in no order."""
    sizes = np.array([len(found) for found in split], dtype=np.int64)
    total = int(sizes.sum())
    hashes = np.fromiter((hash(word) for found in split for word in found), np.int64, total)
    tokens = hashes.view(np.uint64)
    shift = _shift(len(split))
    segments = np.repeat(np.arange(len(split), dtype=np.uint64), sizes) << shift
    left = np.repeat(np.cumsum(sizes), sizes) - np.arange(total)  # words from here to the end
    state = np.zeros(total, dtype=np.uint64)
    for order in range(orders):
        count = max(0, total - order)
        state = (state[:count] ^ tokens[order:]) * _MULTIPLIER
        state ^= state >> _FOLD
        state *= _MIXER
        whole = left[:count] > order
        yield segments[:count][whole] | (state[whole] >> (np.uint64(64) - shift))


def _counted(keys: Keys) -> _Counts:
    ascending = np.sort(keys)
    starts = _starts(ascending)
    return _Counts(ascending[starts], np.diff(starts, append=ascending.size))


def _starts(ascending: Keys) -> IntArray:
    """Where each distinct number begins."""
    new = np.ones(ascending.size, dtype=np.bool_)
    np.not_equal(ascending[1:], ascending[:-1], out=new[1:])
    return np.flatnonzero(new)


def _shift(segments: int) -> np.uint64:
    """How many low bits are left for the words."""
    return np.uint64(64 - max(1, segments).bit_length())
