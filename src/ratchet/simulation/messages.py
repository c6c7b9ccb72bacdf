"""Customer messages to the support desk of an online shop, each with its right queue.

The shop sells electronics and a subscription plan. A message is a matter (one wording of one
intent of a queue), perhaps with an opening, a sentence beside the matter and a closing, written in
one of four tones and typed as people type. The intent alone decides the queue, so the truth is
known; neighbouring queues share their vocabulary, as they do in practice.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from math import prod
from types import MappingProxyType
from typing import TypeVar

import numpy as np

from ratchet.errors import InvalidInputError
from ratchet.records import LabelledMessage
from ratchet.simulation import intents_accounts, intents_orders
from ratchet.simulation.intents_orders import Intents
from ratchet.simulation.phrases import (
    CALM_QUEUES,
    CALM_TONES,
    CONTEXTS,
    NEIGHBOURS,
    SLANG,
    SLOTS,
    TONES,
    Tone,
)

INTENTS: Mapping[str, Intents] = MappingProxyType(
    {
        "billing": intents_orders.BILLING,
        "refunds": intents_orders.REFUNDS,
        "delivery": intents_orders.DELIVERY,
        "account access": intents_accounts.ACCOUNT_ACCESS,
        "technical": intents_accounts.TECHNICAL,
        "subscription": intents_accounts.SUBSCRIPTION,
        "security": intents_accounts.SECURITY,
        "product questions": intents_orders.PRODUCT_QUESTIONS,
    }
)
QUEUES: tuple[str, ...] = tuple(INTENTS)
QUEUE_GUIDE: Mapping[str, str] = MappingProxyType(
    {
        "billing": "what was charged and how it is paid: amounts, cards, vouchers, invoices",
        "refunds": "returns, exchanges and money back",
        "delivery": "parcels: sending, tracking, address, damage, wrong or missing items",
        "account access": "signing in, passwords, codes, changing or closing an account",
        "technical": "a device, the app or the website does not work",
        "subscription": "starting, changing, pausing or ending a plan, and what it includes",
        "security": "fraud, scams, strangers in an account, stolen devices, privacy",
        "product questions": "questions before buying: fit, features, stock, warranty",
    }
)

_T = TypeVar("_T")
_MOST_WORDS = 32
_GROUP = re.compile(r"\(([^()]*)\)")
_SLOT = re.compile(r"\{(\w+)\}")
_COUNT = re.compile(r"<(\d+)>")
_SENTENCE_START = re.compile(r"(^|[.?!]\s+)([a-z])")
_SLANG_WORDS = re.compile(
    r"\b(" + "|".join(sorted(map(re.escape, SLANG), key=len, reverse=True)) + r")\b"
)
_DIGIT = re.compile(r"\d")


def support_messages(rng: np.random.Generator, count: int) -> tuple[LabelledMessage, ...]:
    """Write `count` distinct messages, balanced over the queues and shuffled.

    Distinct means: different even after lower-casing, collapsing white space and blanking out
    digits, so that no two messages differ in an order number alone.

    Args:
        rng: Source of all choices; the same state gives the same messages.
        count: Number of messages, from 0 to `capacity()`.

    Returns:
        `count` messages; the queues' shares differ by at most one message.

    Raises:
        InvalidInputError: If `count` is negative or more than the grammar can give.
    """
    if not 0 <= count <= capacity():
        raise InvalidInputError(
            f"count must be from 0 to {capacity()}, which is what the grammar can give, got "
            f"{count}; ask for fewer, or add wordings to ratchet.simulation"
        )
    seen: set[str] = set()
    order = rng.permutation(len(QUEUES))
    labels = [QUEUES[order[index % len(QUEUES)]] for index in range(count)]
    messages = [LabelledMessage(text=_unseen(label, seen, rng), label=label) for label in labels]
    return tuple(messages[index] for index in rng.permutation(count))


def capacity() -> int:
    """Return how many messages the grammar can surely give.

    That is eight times the number of matters of the poorest queue: wordings times the values of
    their slots, numbers counted once. Openings, closings, tones and typos come on top.
    """
    sizes = [
        sum(_wordings(template) for templates in intents.values() for template in templates)
        for intents in INTENTS.values()
    ]
    return len(QUEUES) * min(sizes)


def _wordings(template: str) -> int:
    """Return in how many ways a template can be worded."""
    text = _SLOT.sub(lambda slot: f"<{len(SLOTS[slot[1]])}>", template)

    def weigh(group: re.Match[str]) -> str:
        return f"<{sum(_product(option) for option in group[1].split('|'))}>"

    while _GROUP.search(text):
        text = _GROUP.sub(weigh, text)
    return _product(text)


def _product(text: str) -> int:
    return prod(int(count) for count in _COUNT.findall(text))


def _unseen(queue: str, seen: set[str], rng: np.random.Generator) -> str:
    """Write messages until one is new, and remember it in `seen`."""
    while True:
        text = _write(queue, rng)
        key = _DIGIT.sub("0", " ".join(text.lower().split()))
        if key not in seen:
            seen.add(key)
            return text


def _write(queue: str, rng: np.random.Generator) -> str:
    tone = _tone(queue, rng)
    matter, fragment = _matter(queue, tone, rng)
    parts = [matter]
    if not fragment and rng.random() < tone.context:
        context = _expand(_pick(CONTEXTS[queue], rng), rng)
        after = context.endswith(".") and rng.random() < 0.5
        parts.insert(int(after), context)
    if rng.random() < tone.opening:
        parts.insert(0, _pick(tone.openings, rng))
    if rng.random() < tone.closing:
        parts.append(_pick(tone.closings, rng))
    if sum(len(part.split()) for part in parts) > _MOST_WORDS:
        parts = [matter]
    return _typed(" ".join(parts), tone, rng)


def _matter(queue: str, tone: Tone, rng: np.random.Generator) -> tuple[str, bool]:
    """Return the words of one intent, punctuated, and whether they are a fragment."""
    intents = INTENTS[queue]
    templates = intents[_pick(tuple(intents), rng)]
    fragment = rng.random() < tone.fragment
    fitting = [text for text in templates if text.startswith("~") == fragment]
    text = _expand(_pick(fitting or templates, rng).removeprefix("~"), rng)
    if text[-1] not in "?.!":
        text += "!!!" if rng.random() < tone.exclaim else "."
    elif text[-1] == "?" and rng.random() < tone.exclaim:
        text += "?!"
    return (text.upper() if rng.random() < tone.shout else text), fragment


def _expand(template: str, rng: np.random.Generator) -> str:
    """Choose among the options, fill the slots, and tidy the blanks."""
    text = template
    while _GROUP.search(text):
        text = _GROUP.sub(lambda group: _pick(group[1].split("|"), rng), text)
    text = _SLOT.sub(lambda slot: _pick(SLOTS[slot[1]], rng), text)
    text = re.sub(r"[_^]", lambda mark: str(rng.integers(mark[0] == "^", 10)), text)
    return re.sub(r"\s+([,.?])", r"\1", " ".join(text.split()))


def _typed(text: str, tone: Tone, rng: np.random.Generator) -> str:
    """Type a text with the habits of a tone: slang, case, punctuation, typos."""
    if rng.random() < tone.slang:
        text = _SLANG_WORDS.sub(lambda word: _abbreviated(word[0], rng), text)
    text = _SENTENCE_START.sub(lambda start: start[1] + start[2].upper(), text)
    if rng.random() < tone.lower:
        text = text.lower()
    if text.endswith(".") and rng.random() < tone.no_stop:
        text = text.rstrip(".")
    for _ in range(2):
        if rng.random() >= tone.typos:
            break
        text = _mistyped(text, rng)
    return text


def _abbreviated(word: str, rng: np.random.Generator) -> str:
    return SLANG[word] if rng.random() < 0.6 else word


def _mistyped(text: str, rng: np.random.Generator) -> str:
    """Make one typo inside a word of four or more letters: swap, drop, double or neighbour."""
    words = text.split(" ")
    long = [index for index, word in enumerate(words) if len(word) > 3 and word.isalpha()]
    if not long:
        return text
    index = _pick(long, rng)
    word = words[index]
    at = int(rng.integers(1, len(word) - 1))
    before, letter, after = word[:at], word[at], word[at + 1 :]
    words[index] = _pick(
        (
            before + after[0] + letter + after[1:],
            before + after,
            before + letter + letter + after,
            before + _pick(NEIGHBOURS.get(letter, letter), rng) + after,
        ),
        rng,
    )
    return " ".join(words)


def _pick(options: Sequence[_T], rng: np.random.Generator) -> _T:
    return options[int(rng.integers(len(options)))]


def _tone(queue: str, rng: np.random.Generator) -> Tone:
    tones = CALM_TONES if queue in CALM_QUEUES else TONES
    weights = np.array([tone.weight for tone in tones])
    return tones[int(rng.choice(len(tones), p=weights / weights.sum()))]
