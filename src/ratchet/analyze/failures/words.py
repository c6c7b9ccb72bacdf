"""What groups of texts are about: names by class-based TF-IDF, examples from centre and border."""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from ratchet.analyze.failures.tokens import (
    Analyzer,
    normalized,
    parts_of,
    pictures,
    telling,
    term_analyzer,
)

IntArray = NDArray[np.int64]

KEYWORDS = 3
EXAMPLES = 3
TEXTS_A_GROUP = 2_000
TEXTS_OF_THE_REST = 20_000
CHARACTERS_A_GROUP = 1_000_000
CHARACTERS_OF_THE_REST = 10_000_000
FEWEST_CHARACTERS = 500
LONGEST_FOR_WORDS = 4_000
LONGEST_EXAMPLE = 2_000
LONGEST_TERM = 32
"""A longer word is as good as a message: a link, or a language whose words are not told apart."""
NO_WORDS = "no shared words"


def text_hash(text: str, size: int) -> bytes:
    """Return a hash of a text's content, of `size` bytes; the same in every process."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=size).digest()


def cut_for_words(text: str, longest: int = LONGEST_FOR_WORDS) -> str:
    """Return the beginning of a text, which says what it is about, without half a word."""
    return text if len(text) <= longest else text[:longest].rsplit(None, 1)[0]


def name_groups(texts: Sequence[str], groups: Sequence[IntArray]) -> list[str]:
    """Name each group by class-based TF-IDF against the other groups and all other texts.

    A term counts where two texts of the group share it. What users wrote is not repeated: no name
    is the whole of one of their messages that has more than one word. Of a group 2,000 texts are
    read, of the rest 20,000, evenly spaced; of long ones the beginning, so that a group is about a
    million characters at most.

    Args:
        texts: All texts.
        groups: Row indices of each group, ascending and disjoint.

    Returns:
        Distinct names, in the order of the groups.

    References:
        Grootendorst, M. (2022). BERTopic: neural topic modeling with a class-based TF-IDF
        procedure. arXiv:2203.05794.
    """
    if not groups:
        return []
    analyze = term_analyzer()
    read = [_spaced(group, TEXTS_A_GROUP) for group in groups]
    overall: Counter[str] = Counter()
    shared: list[dict[str, int]] = []
    for group in read:
        count: Counter[str] = Counter()
        texts_with: Counter[str] = Counter()
        for terms in _terms(analyze, texts, group, CHARACTERS_A_GROUP):
            count.update(terms)
            texts_with.update(set(terms))
        overall.update(count)
        shared.append({term: uses for term, uses in count.items() if texts_with[term] > 1})
    total = sum(overall.values())
    # what no group shares can be in no name, and is too much to keep
    asked = {term for terms_of_group in shared for term in terms_of_group}
    overall = Counter({term: overall[term] for term in asked})
    rest = _outside(len(texts), groups)
    in_rest = 0
    for terms in _terms(analyze, texts, rest, CHARACTERS_OF_THE_REST):
        in_rest += len(terms)
        overall.update(term for term in terms if term in asked)
    average = (total + in_rest) / (len(groups) + bool(in_rest))
    names = []
    for group, uses_of in zip(read, shared, strict=True):
        # the term's frequency in the group, up to the group's length, which changes no order
        score = {
            term: uses * telling(term) * math.log1p(average / overall[term])
            for term, uses in uses_of.items()
        }
        messages = {" ".join(normalized(_beginning(texts[row])).split()) for row in group}
        ranked = sorted(score, key=lambda term: (-score[term], term))
        names.append(_name(ranked, messages) or _shared_picture(texts, group))
    return _distinct(names)


def _terms(
    analyze: Analyzer, texts: Sequence[str], rows: IntArray, characters: int
) -> Iterator[list[str]]:
    longest = max(FEWEST_CHARACTERS, characters // max(len(rows), 1))
    longest = min(longest, LONGEST_FOR_WORDS)
    return (analyze(cut_for_words(texts[row], longest)) for row in rows)


def _spaced(rows: IntArray, most: int) -> IntArray:
    chosen = np.linspace(0, len(rows) - 1, min(most, len(rows))).astype(np.int64)
    return rows[chosen]


def _outside(count: int, groups: Sequence[IntArray]) -> IntArray:
    outside = np.ones(count, dtype=np.bool_)
    for group in groups:
        outside[group] = False
    rows = np.flatnonzero(outside)
    return _spaced(rows, TEXTS_OF_THE_REST) if rows.size else rows


def _name(ranked: Sequence[str], messages: Collection[str]) -> str:
    """Join the top terms, leaving out those that only repeat a word already there."""
    chosen: list[str] = []
    words: set[str] = set()
    for term in ranked:
        if len(chosen) == KEYWORDS:
            break
        parts = parts_of(term)
        whole = term in messages and " " in term
        if not parts & words and not whole and len(term) <= LONGEST_TERM:
            chosen.append(term)
            words |= parts
    while len(chosen) > 1 and ", ".join(chosen) in messages:
        chosen.pop()
    return ", ".join(chosen)


def _shared_picture(texts: Sequence[str], group: IntArray) -> str:
    """Return the emoji that most of a group's texts hold, where two do."""
    counts = Counter(shown for row in group for shown in pictures(_beginning(texts[row])))
    shared = sorted((-count, shown) for shown, count in counts.items() if count > 1)
    return shared[0][1] if shared else NO_WORDS


def _beginning(text: str) -> str:
    """Return as much of a text as any name could be the whole of."""
    return text[: 4 * KEYWORDS * LONGEST_TERM]


def _distinct(names: Sequence[str]) -> list[str]:
    seen: Counter[str] = Counter()
    distinct = []
    for name in names:
        seen[name] += 1
        distinct.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return distinct


def examples(
    texts: Sequence[str], members: IntArray, closeness: NDArray[np.floating], *, nearest: bool
) -> tuple[str, ...]:
    """Return up to three distinct texts of a group, the nearest to its centre or the farthest.

    Args:
        texts: All texts.
        members: Row indices of the group.
        closeness: Of each member to the centre, shape of `members`.
        nearest: Whether the representative ones are asked for, or the borderline ones.
    """
    order = np.argsort(-closeness if nearest else closeness, kind="stable")
    # equally close ones come in the order of their texts, whatever the order of the rows
    ranked = [(float(closeness[i]), _in_one_line(texts[members[i]])) for i in order[:200]]
    sign = -1.0 if nearest else 1.0
    ranked.sort(key=lambda item: (sign * round(item[0], 6), item[1]))
    return tuple(list(dict.fromkeys(text for _, text in ranked))[:EXAMPLES])


def _in_one_line(text: str, longest: int = LONGEST_EXAMPLE) -> str:
    line = re.sub(r"\s+", " ", text[: 2 * longest]).strip()
    return line if len(line) <= longest else line[: longest - 1] + "…"
