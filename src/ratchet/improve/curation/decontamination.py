"""Keep what the gate tests on out of training: the same, a shared run, or a near duplicate.

guard = Guard.build(prompts, DecontaminationConfig())
guard.leaks(texts)                   # one reason a text, "" where there is none
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Annotated, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from ratchet.improve.curation.duplicates import (
    DuplicateConfig,
    Signatures,
    band_keys,
    estimate,
    sign,
)
from ratchet.improve.curation.rows import Row
from ratchet.improve.curation.shingles import (
    IntArray,
    UintArray,
    chunks,
    compact,
    run_hashes,
    shingles,
)

ReasonArray = NDArray[np.object_]

SAME, CONTAINED, SHARED_RUN, NEAR = "the same", "contained", "a shared run", "a near duplicate"
_TABLE_BITS = 22
_SCREEN_MARGIN = 0.15


class DecontaminationConfig(BaseModel):
    """When a text is too close to an example that the gate tests on.

    Attributes:
        run: Characters (letters and digits alone) in a row that may not be shared.
        contained: An example of at least so many may not be contained; a shorter one, which
            anybody may say, has to be the same or a near duplicate.
        similarity: Jaccard similarity of character 5-grams from where on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    run: Annotated[int, Field(ge=8, le=1_000)] = 50
    contained: Annotated[int, Field(ge=8, le=1_000)] = 20
    similarity: Annotated[float, Field(gt=0.0, le=1.0)] = 0.7

    @model_validator(mode="after")
    def _runs_are_longer(self) -> Self:
        if self.run < self.contained:
            raise ValueError(
                f"run must be at least contained, got {self.run} and {self.contained}; "
                "leave them at 50 and 20"
            )
        return self


@dataclass(frozen=True, slots=True)
class Guard:
    """Examples that must not be trained on, made ready to be looked for.

    Texts are compared without case, spacing and punctuation (`compact`). A text leaks where it is
    the same as an example, contains one of `contained` characters or more, shares `run` characters
    in a row with one, or has a Jaccard similarity of `similarity` or more with one.

    Error rate:
        The same, contained and shared runs are found always. A near duplicate of similarity J is
        never compared with probability (1 - J^4)^31: 0.02 % at 0.7. What is compared is settled by
        the exact similarity.

    When not to use:
        It knows characters, not meanings: a question in other words gets through.

    References:
        OpenAI (2023). GPT-4 technical report, appendix C: substrings of 50 characters, letters and
        digits alone (three of them drawn at random; here all are looked at).
    """

    texts: pa.Array
    config: DecontaminationConfig
    runs: UintArray
    starts: UintArray
    owners: dict[int, list[int]]
    signatures: Signatures
    bands: DuplicateConfig

    @classmethod
    def build(cls, examples: Collection[str], config: DecontaminationConfig) -> Guard:
        """Make examples ready to be looked for; their order does not matter."""
        texts = pa.array(sorted(set(compact(sorted(examples)).to_pylist())), pa.large_string())
        bands = DuplicateConfig(
            similarity=max(0.05, config.similarity - _SCREEN_MARGIN), bands=31, rows=4
        )
        short = texts.filter(pc.less(pc.utf8_length(texts), config.run))
        places = np.flatnonzero(np.asarray(pc.less(pc.utf8_length(texts), config.run)))
        hashes, offsets = run_hashes(short, config.contained)
        owners: dict[int, list[int]] = defaultdict(list)
        for place, start, end in zip(places, offsets, offsets[1:], strict=False):
            if end > start:
                owners[int(hashes[start])].append(int(place))
        return cls(
            texts=texts,
            config=config,
            runs=np.unique(run_hashes(texts, config.run)[0]),
            starts=np.array(sorted(owners), dtype=np.uint64),
            owners=dict(owners),
            signatures=sign(texts, bands.bands * bands.rows),
            bands=bands,
        )

    @property
    def knows_any(self) -> bool:
        """Whether there is any example."""
        return len(self.texts) > 0

    def leaks(self, texts: Sequence[str] | NDArray[np.object_]) -> ReasonArray:
        """Say for each text how it leaks an example, "" where it does not, shape (n,)."""
        reasons = np.full(len(texts), "", dtype=np.object_)
        if not self.knows_any:
            return reasons
        bare = compact(texts)
        for start, part in chunks(bare):
            same = np.asarray(pc.is_in(part, value_set=self.texts))
            found = reasons[start : start + len(part)]
            found[same] = SAME
            self._find_runs(part, found)
            self._find_near(part, found)
        return reasons

    def _find_runs(self, texts: pa.Array, reasons: ReasonArray) -> None:
        hashes, offsets = run_hashes(texts, self.config.run)
        shared = np.flatnonzero(_is_among(hashes, self.runs))
        rows = np.searchsorted(offsets, shared, side="right") - 1
        reasons[rows[reasons[rows] == ""]] = SHARED_RUN
        hashes, offsets = run_hashes(texts, self.config.contained)
        for hit in np.flatnonzero(_is_among(hashes, self.starts)):
            row = int(np.searchsorted(offsets, hit, side="right")) - 1
            if reasons[row] != "":
                continue
            text = texts[row].as_py()
            if any(self.texts[place].as_py() in text for place in self.owners[int(hashes[hit])]):
                reasons[row] = CONTAINED

    def _find_near(self, texts: pa.Array, reasons: ReasonArray) -> None:
        """Compare row and example where a band is equal; a row that is found is done."""
        rows = np.flatnonzero(reasons == "")
        if not len(rows):
            return
        signatures = sign(texts.take(pa.array(rows)), self.bands.bands * self.bands.rows)
        keys = zip(
            band_keys(signatures, self.bands), band_keys(self.signatures, self.bands), strict=True
        )
        compared: set[tuple[int, int]] = set()
        for mine, theirs in keys:
            open_ = np.flatnonzero(reasons[rows] == "")
            left, right = _equal_pairs(mine[open_], theirs)
            left = open_[left]
            close = estimate(signatures, left, self.signatures, right) >= self.bands.similarity
            for pair in zip(rows[left[close]].tolist(), right[close].tolist(), strict=True):
                if pair not in compared and reasons[pair[0]] == "":
                    compared.add(pair)
                    if self._is_near(texts[pair[0]].as_py(), pair[1]):
                        reasons[pair[0]] = NEAR

    def _is_near(self, text: str, place: int) -> bool:
        return jaccard(text, self.texts[place].as_py()) >= self.config.similarity


def leaking(
    rows: Sequence[Row], protected: Collection[str], config: DecontaminationConfig
) -> dict[int, str]:
    """Return the places of rows in which a user says what the gate tests on, with how."""
    turns = [
        (place, message.text)
        for place, row in enumerate(rows)
        for message in row.messages
        if message.role == "user"
    ]
    reasons = Guard.build(protected, config).leaks([text for _, text in turns])
    return {place: reason for (place, _), reason in zip(turns, reasons, strict=True) if reason}


def jaccard(one: str, other: str) -> float:
    """Return the Jaccard similarity of the character 5-grams of two texts (from `compact`).

    Example:
        >>> round(jaccard("mycardwascharged", "mycardwaschargedtwice"), 3)
        0.706
    """
    first, offsets = shingles(pa.array([one, other], pa.large_string()), 5)
    mine, theirs = set(first[: offsets[1]].tolist()), set(first[offsets[1] :].tolist())
    return len(mine & theirs) / len(mine | theirs)


def _is_among(hashes: UintArray, wanted: UintArray) -> NDArray[np.bool_]:
    """Tell which hashes are among sorted ones: a table of their first bits settles most."""
    if not len(wanted) or not len(hashes):
        return np.zeros(len(hashes), dtype=np.bool_)
    shift = np.uint64(64 - _TABLE_BITS)
    table = np.zeros(1 << _TABLE_BITS, dtype=np.bool_)
    table[(wanted >> shift).astype(np.int64)] = True
    among = table[(hashes >> shift).astype(np.int64)]
    places = np.flatnonzero(among)
    nearest = np.minimum(np.searchsorted(wanted, hashes[places]), len(wanted) - 1)
    among[places] = wanted[nearest] == hashes[places]
    return among


def _equal_pairs(one: UintArray, other: UintArray) -> tuple[IntArray, IntArray]:
    """Return all pairs of places with equal values."""
    order = np.argsort(other, kind="stable")
    low = np.searchsorted(other[order], one, side="left")
    high = np.searchsorted(other[order], one, side="right")
    counts = high - low
    left = np.repeat(np.arange(len(one)), counts)
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return left, order[np.repeat(low, counts) + within]
