"""What groups of texts are about: names by class-based TF-IDF, examples from centre and border."""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
Analyzer = Callable[[str], list[str]]

KEYWORDS = 3
EXAMPLES = 3
TEXTS_A_GROUP = 2_000
TEXTS_OF_THE_REST = 20_000
CHARACTERS_A_GROUP = 1_000_000
CHARACTERS_OF_THE_REST = 10_000_000
FEWEST_CHARACTERS = 500
LONGEST_FOR_WORDS = 4_000
LONGEST_EXAMPLE = 2_000
_NAME_OF_A_TEXT = 32
# fmt: off
_MORE_STOP_WORDS = frozenset({
    "did", "didn", "didnt", "does", "doesn", "doesnt", "don", "got", "hasn", "haven",
    "hello", "help", "hey", "hi", "id", "im", "isn", "just", "know", "like", "ll",
    "need", "ok", "okay", "tell", "thank", "thanks", "ve", "want", "wants", "wasn",
    "won", "yes",
})
# fmt: on


def word_analyzer() -> Analyzer:
    """Return what splits a text into its words and word pairs, stop words left out."""
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS, CountVectorizer

    stop_words = sorted(ENGLISH_STOP_WORDS | _MORE_STOP_WORDS)
    pattern = r"(?u)\b[^\W\d_]\w+\b"
    vectorizer = CountVectorizer(ngram_range=(1, 2), stop_words=stop_words, token_pattern=pattern)
    analyze: Analyzer = vectorizer.build_analyzer()
    return analyze


def text_hash(text: str, size: int) -> bytes:
    """Return a hash of a text's content, of `size` bytes; the same in every process."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=size).digest()


def cut_for_words(text: str, longest: int = LONGEST_FOR_WORDS) -> str:
    """Return the beginning of a text, which says what it is about, without half a word."""
    return text if len(text) <= longest else text[:longest].rsplit(None, 1)[0]


def name_groups(texts: Sequence[str], groups: Sequence[IntArray]) -> list[str]:
    """Name each group by class-based TF-IDF against the other groups and all other texts.

    A term counts where two texts of the group share it. A group whose texts share no word is named
    by its most frequent text. Of a group 2,000 texts are read, of the rest 20,000, evenly spaced;
    of long ones the beginning, so that a group is about a million characters at most.

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
    analyze = word_analyzer()
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
        ranked = sorted(uses_of, key=lambda t: (-uses_of[t] * math.log1p(average / overall[t]), t))
        names.append(_name(ranked) or _most_frequent(texts, group))
    return _distinct(names)


def _terms(
    analyze: Analyzer, texts: Sequence[str], rows: IntArray, characters: int
) -> Iterator[list[str]]:
    longest = max(FEWEST_CHARACTERS, characters // max(len(rows), 1))
    longest = min(longest, LONGEST_FOR_WORDS)
    return (analyze(cut_for_words(texts[row], longest)) for row in rows)


def _spaced(rows: IntArray, most: int) -> IntArray:
    places = np.linspace(0, len(rows) - 1, min(most, len(rows))).astype(np.int64)
    return rows[places]


def _outside(count: int, groups: Sequence[IntArray]) -> IntArray:
    outside = np.ones(count, dtype=np.bool_)
    for group in groups:
        outside[group] = False
    rows = np.flatnonzero(outside)
    return _spaced(rows, TEXTS_OF_THE_REST) if rows.size else rows


def _name(ranked: Sequence[str]) -> str:
    """Join the top terms, leaving out those that only repeat a word already there."""
    chosen: list[str] = []
    words: set[str] = set()
    for term in ranked:
        if len(chosen) == KEYWORDS:
            break
        parts = set(term.split())
        if not parts & words:
            chosen.append(term)
            words |= parts
    return ", ".join(chosen)


def _most_frequent(texts: Sequence[str], group: IntArray) -> str:
    counts = Counter(_in_one_line(texts[i], _NAME_OF_A_TEXT) for i in group)
    return min(counts, key=lambda text: (-counts[text], text)) or "no words"


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
