"""How users are answered, as their requests say: the gate asks both models in the same way."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping

from ratchet.models import Sampling
from ratchet.store import EventStore, Window

LOOKED_AT = 2_000
"""Answers that are looked at, the latest of the window."""
FEWEST_ANSWERS = 20
"""With fewer of them the length is `UNKNOWN_LENGTH`."""
UNKNOWN_LENGTH = 1_024
SHORTEST, LONGEST = 16, 8_192
_SHARE, _ROOM = 0.99, 1.25
_CHARACTERS_A_TOKEN = 2.0


def sampling_of_users(store: EventStore, window: Window) -> Sampling:
    """Return the temperature and top_p that most requests name, None where most name none."""
    said = Counter(
        (_number(metadata, "temperature"), _number(metadata, "top_p"))
        for metadata, _ in store.latest_answers(window, most=LOOKED_AT)
    )
    if not said:
        return Sampling()
    ((temperature, top_p), _), *_ = said.most_common(1)
    return Sampling(temperature, top_p)


def answer_length(store: EventStore, window: Window) -> int:
    """Return how many tokens an answer may have so that those that users get are whole.

    A quarter more than the length that 99 % of the latest answers stay within, up to the next power
    of two, so that the sets of one week and the next are asked alike. Where a server did not count
    tokens, two characters are taken for one.
    """
    lengths = sorted(
        _tokens(metadata, characters)
        for metadata, characters in store.latest_answers(window, most=LOOKED_AT)
    )
    if len(lengths) < FEWEST_ANSWERS:
        return UNKNOWN_LENGTH
    long = lengths[math.ceil(_SHARE * len(lengths)) - 1]
    wanted = SHORTEST
    while wanted < min(LONGEST, _ROOM * long):
        wanted *= 2
    return wanted


def _tokens(metadata: Mapping[str, str], characters: int) -> float:
    counted = _number(metadata, "completion_tokens")
    return characters / _CHARACTERS_A_TOKEN if counted is None else counted


def _number(metadata: Mapping[str, str], name: str) -> float | None:
    """Return what a client wrote as a number; None where it is none."""
    try:
        value = float(metadata[name])
    except (KeyError, ValueError):
        return None
    return value if math.isfinite(value) and value >= 0.0 else None
