"""Keep the messages apart that the gate tests on, the same ones in every cycle."""

from __future__ import annotations

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from ratchet.errors import InsufficientDataError, InvalidInputError
from ratchet.records import LabelledMessage

Messages = tuple[LabelledMessage, ...]


def normalise_text(text: str) -> str:
    """Return what two spellings of the same text have in common.

    Compatibility characters are replaced (NFKC), case is folded, runs of white space become one
    space, and punctuation at both ends goes. A text of nothing but punctuation keeps it. Applying
    it twice changes nothing.

    >>> normalise_text("  Where is my CARD ?! ")
    'where is my card'
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    words = " ".join(unicodedata.normalize("NFKC", folded).split())
    start, end = 0, len(words)
    while start < end and _is_edge(words[start]):
        start += 1
    while start < end and _is_edge(words[end - 1]):
        end -= 1
    return words[start:end] or words


def held_out_count(messages: Sequence[LabelledMessage], *, most: int) -> int:
    """Return how many messages to hold out: at most a quarter of them, and at least one."""
    return max(1, min(most, len(messages) // 4))


def hold_out(
    messages: Sequence[LabelledMessage], *, count: int, key: str
) -> tuple[Messages, Messages]:
    """Split messages into a held-out part and traffic.

    Texts are ordered by the SHA-256 of `key` and the normalised text, and each label gives its
    first ones. So the split is the same for any order of the rows and on any machine, and another
    `key` gives another split. Each label's share of the held-out part is that of the whole, within
    one message (largest remainders).

    Args:
        messages: What to split; usually from `read_messages`, so without duplicates.
        count: How many messages to hold out, at most half of them.
        key: Names the split.

    Returns:
        The held-out messages and the traffic, each in hash order. Together they are all messages,
        and no normalised text is in both. All copies of a text go to the same side, so a few less
        than `count` may be held out where copies do not fit.

    Raises:
        InvalidInputError: `count` is below 1.
        InsufficientDataError: There are fewer than twice `count` messages.
    """
    _check_count(count, len(messages))
    strata = _strata(messages, key)
    sizes = {label: sum(map(len, texts)) for label, texts in strata.items()}
    quotas = _largest_remainders(sizes, count)
    held_out: list[LabelledMessage] = []
    traffic: list[LabelledMessage] = []
    for label, texts in strata.items():
        room = quotas[label]
        for copies in texts:
            side = held_out if len(copies) <= room else traffic
            room -= len(copies) if side is held_out else 0
            side.extend(copies)
    return _in_hash_order(held_out, key), _in_hash_order(traffic, key)


def without(
    messages: Sequence[LabelledMessage], held_out: Sequence[LabelledMessage]
) -> tuple[Messages, Messages]:
    """Return the messages that are not among those held out, and those held out.

    Raises:
        InsufficientDataError: No message is left.
    """
    known = {normalise_text(message.text) for message in held_out}
    left = tuple(message for message in messages if normalise_text(message.text) not in known)
    if not left:
        raise InsufficientDataError(
            f"messages must hold some that are not evaluated on, got {len(messages):,} that all "
            "are; bring other messages"
        )
    return left, tuple(held_out)


def _is_edge(character: str) -> bool:
    return character == " " or unicodedata.category(character).startswith("P")


def _check_count(count: int, available: int) -> None:
    if count < 1:
        raise InvalidInputError(f"count must be at least 1, got {count}; pass 100, for example")
    if 2 * count > available:
        raise InsufficientDataError(
            f"at most half of the messages may be held out, got {count:,} of {available:,}; "
            f"bring at least {2 * count:,} messages or hold out at most {available // 2:,}"
        )


def _rank(normalised: str, key: str) -> bytes:
    content = f"{key}\x1f{normalised}".encode("utf-8", "surrogatepass")
    return hashlib.sha256(content).digest()


def _in_hash_order(messages: Iterable[LabelledMessage], key: str) -> Messages:
    def order(message: LabelledMessage) -> tuple[bytes, str, str]:
        return _rank(normalise_text(message.text), key), message.label, message.text

    return tuple(sorted(messages, key=order))


def _strata(messages: Iterable[LabelledMessage], key: str) -> dict[str, list[Messages]]:
    """Return the texts of each label in hash order; a text with two labels is under its first."""
    copies: dict[str, list[LabelledMessage]] = {}
    for message in _in_hash_order(messages, key):
        copies.setdefault(normalise_text(message.text), []).append(message)
    strata: dict[str, list[Messages]] = {}
    for same_text in copies.values():
        strata.setdefault(same_text[0].label, []).append(tuple(same_text))
    return strata


def _largest_remainders(sizes: Mapping[str, int], count: int) -> Counter[str]:
    """Share `count` out in proportion to `sizes`, each within one of its exact part."""
    total = sum(sizes.values())
    quotas = Counter({label: count * size // total for label, size in sizes.items()})
    by_remainder = sorted(sizes, key=lambda label: (-(count * sizes[label] % total), label))
    quotas.update(by_remainder[: count - quotas.total()])
    return quotas
