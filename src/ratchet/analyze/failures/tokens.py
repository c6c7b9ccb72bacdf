"""Texts cut into terms, in scripts with and without spaces between words.

A word with its combining marks is one term (Hindi vowel signs, Arabic points, decomposed accents),
and so is a pair of neighbouring words. Of scripts that put no spaces between words, terms are runs
of katakana, which are mostly words, pairs of other Chinese and Japanese characters, and triples of
Thai, Lao, Khmer and Burmese ones; a character is one together with its marks.

References:
    McNamee, P., Mayfield, J. (2004). Character n-gram tokenization for European language text
    retrieval. Information Retrieval 7, 73-97 (n-grams in place of words; for Chinese and Japanese
    pairs are the usual choice, as in Lucene's CJKAnalyzer).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator

import regex

Analyzer = Callable[[str], list[str]]

_CJK = r"\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Bopomofo}\u30fc"
_COMPLEX = r"\p{Line_Break=SA}"  # South East Asian scripts, of Unicode's line breaking (UAX 14)
_UNSPACED = rf"[{_CJK}{_COMPLEX}]"
_IN_WORD = rf"[[\p{{L}}\p{{M}}\p{{N}}_\u200c\u200d]--{_UNSPACED}]"
_RUNS = regex.compile(
    rf"(?V1)(?P<cjk>[{_CJK}]+)|(?P<complex>(?:{_COMPLEX}\p{{M}}*)+)"
    rf"|(?<!{_IN_WORD})(?P<word>[\p{{L}}--{_UNSPACED}]{_IN_WORD}+)"
)
_SPACED = regex.compile(rf"(?V1)[\p{{L}}--{_UNSPACED}]")
_KATAKANA = regex.compile(r"(?V1)[\p{Script=Katakana}\u30fc]{2,}")
_HIRAGANA = regex.compile(r"\p{Script=Hiragana}+")
_PICTURE = regex.compile(r"\p{Emoji_Presentation}")
_CHARACTER = regex.compile(r"\X")
# fmt: off
_MORE_STOP_WORDS = frozenset({
    "did", "didn", "didnt", "does", "doesn", "doesnt", "don", "got", "hasn", "haven",
    "hello", "help", "hey", "hi", "id", "im", "isn", "just", "know", "like", "ll",
    "need", "ok", "okay", "tell", "thank", "thanks", "ve", "want", "wants", "wasn",
    "won", "yes",
})
# fmt: on
_CHINESE_FUNCTION_CHARACTERS = frozenset(
    "的了我你您他她它们是在有和就不都也很到要去会着没这那个吗吧呢啊请請给給想如何怎样樣么麼为為什能可以把被与與及或"
)
_AM = (("\u0e4d\u0e32", "\u0e33"), ("\u0ecd\u0eb2", "\u0eb3"))
"""Thai and Lao AM, which NFKC takes apart and nobody writes so."""


def normalized(text: str) -> str:
    """Return a text in lower case and in Unicode's form NFKC, so that equal words are equal."""
    text = unicodedata.normalize("NFKC", text).lower()
    for apart, whole in _AM:
        text = text.replace(apart, whole)
    return text


def term_analyzer() -> Analyzer:
    """Return what cuts a text into terms; English stop words are left out."""
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    stop_words = ENGLISH_STOP_WORDS | _MORE_STOP_WORDS

    def analyze(text: str) -> list[str]:
        terms: list[str] = []
        before: str | None = None
        for run in _RUNS.finditer(normalized(text)):
            word = run["word"]
            if word is None:
                before = None
                terms += _pieces(run["cjk"] or "", 2) if run["cjk"] else _grams(run["complex"], 3)
            elif word not in stop_words:
                terms += [word] if before is None else [word, f"{before} {word}"]
                before = word
        return terms

    return analyze


def telling(term: str) -> float:
    """Return how much a term can say in a name, in (0, 1]: endings and particles say little."""
    if _HIRAGANA.fullmatch(term):
        return 0.1
    grammar = _HIRAGANA.search(term) or _CHINESE_FUNCTION_CHARACTERS.intersection(term)
    return 0.5 if grammar else 1.0


def pictures(text: str) -> set[str]:
    """Return the emojis of a text."""
    return set(_PICTURE.findall(text))


def parts_of(term: str) -> set[str]:
    """Return the words of a term, or its characters where it is of a script without spaces."""
    return set(term.split()) if _SPACED.search(term) else set(_CHARACTER.findall(term))


def _pieces(run: str, size: int) -> Iterator[str]:
    """Yield runs of katakana as they are, and n-grams of what lies between them."""
    end = 0
    for word in _KATAKANA.finditer(run):
        yield from _grams(run[end : word.start()], size)
        yield word.group()
        end = word.end()
    yield from _grams(run[end:], size)


def _grams(run: str, size: int) -> Iterator[str]:
    characters = _CHARACTER.findall(run)
    if len(characters) <= size:
        if len(characters) > 1:
            yield run
        return
    for start in range(len(characters) - size + 1):
        yield "".join(characters[start : start + size])
