"""Texts as sets of hashed character runs, the same for any case, spacing and punctuation.

Everything works on whole columns: a text is looked at in Python only where it is not ASCII.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

UintArray = NDArray[np.uint64]
IntArray = NDArray[np.int64]

CHUNK = 20_000
_BASE = np.uint64(0x9E3779B97F4A7C15)
NO_LETTERS = "="
"""How a compact text without letters and digits begins."""


def compact(texts: Sequence[str] | NDArray[np.object_]) -> pa.Array:
    r"""Return what is left of texts without case, spacing and punctuation.

    Compatibility characters are replaced (NFKC), case is folded, and all but letters and digits
    removed. A text without any keeps its other characters, so that "?" and "!" differ.

    Example:
        >>> compact(["My card, was CHARGED\ttwice?!", "Straße"]).to_pylist()
        ['mycardwaschargedtwice', 'strasse']
    """
    column = pa.array(texts, pa.large_string())
    is_ascii = pc.string_is_ascii(column)
    bare = pc.replace_substring_regex(pc.ascii_lower(column), "[^a-z0-9]+", "")
    others = column.filter(pc.invert(is_ascii)).to_pylist()
    if others:
        folded = pa.array([_bare(text) for text in others], pa.large_string())
        bare = pc.replace_with_mask(bare, pc.invert(is_ascii), folded)
    nothing_left = pc.equal(bare, "")
    if pc.any(nothing_left).as_py():
        symbols = [_symbols(text) for text in column.filter(nothing_left).to_pylist()]
        bare = pc.replace_with_mask(bare, nothing_left, pa.array(symbols, pa.large_string()))
    return bare


def _bare(text: str) -> str:
    folded = unicodedata.normalize("NFKC", text).casefold()
    return "".join(filter(str.isalnum, unicodedata.normalize("NFKC", folded)))


def _symbols(text: str) -> str:
    return NO_LETTERS + "".join(text.casefold().split())


def run_hashes(texts: pa.Array, length: int) -> tuple[UintArray, IntArray]:
    """Return the hashes of all runs of `length` characters, and where each text's begin.

    Args:
        texts: From `compact`.
        length: Characters in a run.

    Returns:
        Hashes of shape (r,), and offsets of shape (n + 1,): those of text i are
        `hashes[offsets[i]:offsets[i + 1]]`. A shorter text has none.
    """
    codes, starts = _codes(texts)
    sizes = np.diff(starts)
    counts = np.maximum(sizes - length + 1, 0)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    if not offsets[-1]:
        return np.empty(0, dtype=np.uint64), offsets
    places = np.arange(offsets[-1]) + np.repeat(starts[:-1] - offsets[:-1], counts)
    return _mixed(_rolling(codes, length)[places]), offsets


def shingles(texts: pa.Array, length: int) -> tuple[UintArray, IntArray]:
    """Return the run hashes of texts; one that is shorter than a run has one for all of it."""
    return run_hashes(pc.utf8_rpad(texts, length, "\x00"), length)


def chunks(texts: pa.Array, size: int = CHUNK) -> Iterator[tuple[int, pa.Array]]:
    """Yield a column in parts, each with the place where it begins."""
    for start in range(0, len(texts), size):
        yield start, texts.slice(start, size)


def _codes(texts: pa.Array) -> tuple[UintArray, IntArray]:
    """Return the code points of all texts, one after the other, and where each begins."""
    sizes = np.asarray(pc.utf8_length(texts), dtype=np.int64)
    whole = "".join(texts.to_pylist()).encode("utf-32-le", "surrogatepass")
    starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    return np.frombuffer(whole, dtype=np.uint32).astype(np.uint64) + np.uint64(1), starts


def _rolling(codes: UintArray, length: int) -> UintArray:
    """Return the polynomial hash (modulo 2^64) of each run, by doubling; wrapping is meant."""
    done, hashes = 0, np.zeros(len(codes), dtype=np.uint64)
    power, block, size = _BASE, codes, 1
    with np.errstate(over="ignore"):
        while True:
            if length & size:
                hashes = hashes * power + _shifted(block, done)
                done += size
            if 2 * size > length:
                return hashes
            block = block * power + _shifted(block, size)
            power, size = power * power, 2 * size


def _shifted(values: UintArray, places: int) -> UintArray:
    moved = np.zeros_like(values)
    if places < len(values):
        moved[: len(values) - places] = values[places:]
    return moved


def _mixed(values: UintArray) -> UintArray:
    """Spread the bits (the finaliser of SplitMix64)."""
    with np.errstate(over="ignore"):
        values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
