"""Answers against targets: the form in which they are compared."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from ratchet.errors import InsufficientDataError

_EDGE = r"\s,;:!?…\"'`“”„‘’‚«»‹›*_，。！？、；：¡¿"
_LEADING = re.compile(rf"^(?:[{_EDGE}]|\.(?!\d))+")  # keeps the point of ".5"
_TRAILING = re.compile(rf"[{_EDGE}.]+$")


def normalise_answer(text: str) -> str:
    """Return the text in the form in which answers are compared.

    Case is folded, white space collapsed, and punctuation, quotes and emphasis marks at either
    end removed; brackets, signs and a leading decimal point stay. A text of nothing else keeps
    its marks, so that "?" and "!" differ.

    Example:
        >>> normalise_answer(' "Card  Payments." ')
        'card payments'
    """
    folded = " ".join(text.casefold().split())
    return _TRAILING.sub("", _LEADING.sub("", folded)) or folded


def exact_match(answer: str, target: str) -> bool:
    """Tell whether both are the same after `normalise_answer`."""
    return normalise_answer(answer) == normalise_answer(target)


def constant_answer_rate(targets: Sequence[str]) -> float:
    """Share that always giving the most common target would get right.

    A model that does not beat this number has learnt nothing but that target.

    Raises:
        InsufficientDataError: There are no targets.
    """
    if not targets:
        raise InsufficientDataError("the rate needs at least 1 target, got 0; pass the examples'")
    ((_, count),) = Counter(normalise_answer(target) for target in targets).most_common(1)
    return count / len(targets)
