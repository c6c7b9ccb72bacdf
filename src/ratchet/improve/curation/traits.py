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

from ratchet.evaluation.call_metrics import comparable
from ratchet.evaluation.matching import normalise_answer
from ratchet.improve.curation.shingles import NO_LETTERS, compact
from ratchet.records.tool_calls import MARK

VERSION = 2
"""Of everything that is computed here: raise it where a number of a text becomes another one."""
FINE, BLANK, UNSOUND, CALLING = range(4)
"""States of a text: an unsound one holds a NUL or an unpaired surrogate, a calling one is an answer
that calls tools."""
_APART = "\x1f"

Texts = Sequence[str] | NDArray[np.object_]
HashArray = NDArray[np.uint64]


def hashes(texts: Iterable[str]) -> HashArray:
    """Return a hash of each text, shape (n,): the same on any machine, in any version."""
    digests = (
        blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest() for text in texts
    )
    return np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64)


def interaction_traits(
    prompts: Texts, answers: Texts, sessions: Texts, tools: Sequence[str | None] | None = None
) -> dict[str, NDArray[Any]]:
    """Return the numbers of interactions, shape (n,) each.

    - `prompt`: hash of the prompt without case, spacing and punctuation; `exact`: as it is
    - `answer`: hash of the answer as answers are compared
    - `same`: hash of both, the answer as it is: evidence on the same is pooled
    - `both`: hash of both without case, spacing and punctuation
    - `turn`: hash of the session with the prompt: where a user asked again
    - `tools`: hash of the tools that could be called, 0 where none could
    - `prompt_length`, `answer_length`: characters; `prompt_state`, `answer_state`

    Prompts that come with different tools are different ones.

    Args:
        prompts: What was asked, with results of tools that came after it
            (`ratchet.records.tool_calls.asked`).
        answers: Whole answers, calls of tools included (`ratchet.records.tool_calls.written`).
        sessions: Their sessions.
        tools: Digests of the tools that could be called; None where none could.
    """
    sound_prompts, prompt_state = _sound(prompts)
    sound_answers, answer_state = _sound(answers)
    given = [None] * len(prompts) if tools is None else tools
    asked = list(map(_with_tools, compact(sound_prompts).to_pylist(), given))
    said = compact(sound_answers).to_pylist()
    compared = [comparable(text) if MARK in text else normalise_answer(text) for text in answers]
    calls = [key if MARK in text else "" for key, text in zip(compared, answers, strict=True)]
    return {
        "prompt": hashes(asked),
        "exact": hashes(map(_with_tools, prompts, given)),
        "answer": hashes(compared),
        "same": hashes(a + _APART + b for a, b in zip(asked, answers, strict=True)),
        "both": hashes(_joined(a, b) + c for a, b, c in zip(asked, said, calls, strict=True)),
        "turn": hashes(a + _APART + b for a, b in zip(sessions, asked, strict=True)),
        "tools": _tool_hashes(given),
        "prompt_length": _lengths(prompts),
        "answer_length": _lengths(answers),
        "prompt_state": prompt_state,
        "answer_state": _calling(answers, answer_state),
    }


def correction_traits(texts: Texts) -> dict[str, NDArray[Any]]:
    """Return the numbers of corrections: `correction` as answers are compared, length and state."""
    return {
        "correction": hashes(
            comparable(text) if MARK in text else normalise_answer(text) for text in texts
        ),
        "correction_length": _lengths(texts),
        "correction_state": _calling(texts, _sound(texts)[1]),
    }


def _tool_hashes(tools: Sequence[str | None]) -> HashArray:
    found = np.zeros(len(tools), dtype=np.uint64)
    rows = [row for row, name in enumerate(tools) if name is not None]
    found[rows] = hashes(name for name in tools if name is not None)
    return found


def _with_tools(prompt: str, tools: str | None) -> str:
    return prompt if tools is None else f"{prompt}{_APART}{tools}"


def _calling(answers: Texts, states: NDArray[np.int8]) -> NDArray[np.int8]:
    """Return the states of answers, where those that call tools are told."""
    calls = np.fromiter((MARK in text for text in answers), dtype=np.bool_, count=len(answers))
    return np.where(calls & (states == FINE), np.int8(CALLING), states)


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
