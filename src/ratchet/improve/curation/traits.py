"""What curation has to know of texts, as numbers: hashes, lengths and whether they can be used.

A selection compares prompts and answers and counts their characters. It works on these numbers, at
some tens of bytes a row, and reads the texts of what it chose at the end. They depend on a text
alone, so that they are computed once, when it arrives (`ratchet.improve.curation.derived`).

Hashes are the first 64 bits of BLAKE2b. Among n texts two differing ones are taken for the same
with a probability of n^2 / 2^65: 3e-6 at ten million, 3e-4 at a hundred million, and then one row
more or less is in the set. Nobody can aim at somebody else's text, which takes 2^64 tries.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ratchet.evaluation.matching import normalise_answer
from ratchet.improve.curation.shingles import NO_LETTERS, compact

VERSION = 1
"""Of everything that is computed here: raise it where a number of a text becomes another one."""
FINE, BLANK, UNSOUND = range(3)
"""States of a text; an unsound one holds a NUL or an unpaired surrogate."""
_APART = "\x1f"

Texts = Sequence[str] | NDArray[np.object_]
HashArray = NDArray[np.uint64]


def hashes(texts: Iterable[str]) -> HashArray:
    """Return a hash of each text, shape (n,): the same on any machine, in any version."""
    digests = (
        blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest() for text in texts
    )
    return np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64)


def interaction_traits(prompts: Texts, answers: Texts, sessions: Texts) -> dict[str, NDArray[Any]]:
    """Return the numbers of interactions, shape (n,) each.

    - `prompt`: hash of the prompt without case, spacing and punctuation; `exact`: as it is
    - `answer`: hash of the answer as answers are compared
    - `same`: hash of both, the answer as it is: evidence on the same is pooled
    - `both`: hash of both without case, spacing and punctuation
    - `turn`: hash of the session with the prompt: where a user asked again
    - `prompt_length`, `answer_length`: characters; `prompt_state`, `answer_state`
    """
    sound_prompts, prompt_state = _sound(prompts)
    sound_answers, answer_state = _sound(answers)
    asked = compact(sound_prompts).to_pylist()
    said = compact(sound_answers).to_pylist()
    return {
        "prompt": hashes(asked),
        "exact": hashes(prompts),
        "answer": hashes(map(normalise_answer, answers)),
        "same": hashes(a + _APART + b for a, b in zip(asked, answers, strict=True)),
        "both": hashes(map(_joined, asked, said)),
        "turn": hashes(a + _APART + b for a, b in zip(sessions, asked, strict=True)),
        "prompt_length": _lengths(prompts),
        "answer_length": _lengths(answers),
        "prompt_state": prompt_state,
        "answer_state": answer_state,
    }


def correction_traits(texts: Texts) -> dict[str, NDArray[Any]]:
    """Return the numbers of corrections: `correction` as answers are compared, length and state."""
    return {
        "correction": hashes(map(normalise_answer, texts)),
        "correction_length": _lengths(texts),
        "correction_state": _sound(texts)[1],
    }


def _lengths(texts: Texts) -> NDArray[np.int32]:
    return np.fromiter(map(len, texts), dtype=np.int32, count=len(texts))


def _joined(prompt: str, answer: str) -> str:
    """Return `compact` of both texts, one after the other, from that of each."""
    parts = (prompt, answer)
    if all(part.startswith(NO_LETTERS) for part in parts):
        return NO_LETTERS + "".join(part.removeprefix(NO_LETTERS) for part in parts)
    return "".join(part for part in parts if not part.startswith(NO_LETTERS))


def _sound(texts: Texts) -> tuple[list[str], NDArray[np.int8]]:
    """Return texts that Arrow takes, and the state of each."""
    sound = [
        text if _is_unicode(text) else text.encode("utf-8", "replace").decode() for text in texts
    ]
    column = pa.array(sound, pa.large_string())
    states = np.full(len(sound), FINE, dtype=np.int8)
    states[np.asarray(pc.equal(pc.utf8_trim_whitespace(column), ""), dtype=np.bool_)] = BLANK
    broken = [
        place
        for place, (text, kept) in enumerate(zip(texts, sound, strict=True))
        if text is not kept or "\x00" in text
    ]
    states[broken] = UNSOUND
    return sound, states


def _is_unicode(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def distinct(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the distinct values, ascending.

    By sorting: the hash table of `np.unique` takes seconds a million of products such as
    `group * width + member`, whose lower bits are alike.
    """
    ordered = np.sort(values)
    return ordered[np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))[: len(ordered)]]
