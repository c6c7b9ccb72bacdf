"""What people ask the assistant of a garden shop, and what it should answer.

    topic.ask(rng), topic.right, topic.wrong

A question is a template with words filled in, so that hundreds of them differ. Returns and refunds
are the topic on which the assistant fails most; the rate at which it fails is known for each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

SYSTEM = "You are the assistant of a garden shop. Answer in one or two sentences."
FILLED: Mapping[str, tuple[str, ...]] = {
    "plant": (
        "tomatoes", "lavender", "a lemon tree", "roses", "hydrangeas", "basil", "a fig tree",
        "geraniums", "peonies", "a young apple tree", "strawberries", "a camellia", "rosemary",
        "sunflowers", "an olive tree", "dahlias", "chillies", "a maple in a pot",
    ),
    "place": (
        "on a balcony that faces south", "in a shady yard", "on a windowsill", "in clay soil",
        "in a raised bed", "in a greenhouse", "beside a wall", "in a large pot", "near the sea",
        "on a roof terrace",
    ),
    "sign": (
        "yellow leaves", "brown tips", "white spots", "sticky leaves", "curled leaves",
        "holes in the leaves", "black stems", "no flowers", "tiny flies around the pot",
    ),
    "thing": (
        "a hose", "secateurs", "a rake", "two bags of compost", "a wheelbarrow", "a parasol",
        "a set of pots", "a hedge trimmer", "a watering can", "a bench", "seed trays", "a trellis",
    ),
    "when": (
        "in March", "in midsummer", "before the first frost", "after flowering", "in a dry May",
        "this weekend", "in autumn", "during a heat wave",
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Topic:
    """Something that people ask about.

    Attributes:
        name: What it is.
        asks: Templates of questions.
        right: Good answers.
        wrong: Bad answers, which people rate down.
        fails: How often the assistant gives a bad one.
        weight: How often it is asked about.
    """

    name: str
    asks: Sequence[str]
    right: Sequence[str]
    wrong: Sequence[str]
    fails: float
    weight: float

    def ask(self, rng: np.random.Generator) -> tuple[str, dict[str, str]]:
        """Return a question, and the words that it was filled in with."""
        words = {name: str(rng.choice(list(choices))) for name, choices in FILLED.items()}
        return str(rng.choice(list(self.asks))).format(**words), words


TOPICS = (
    Topic(
        "watering",
        (
            "How often do I water {plant} {place}?", "Do {plant} need water {when}?",
            "How much water do {plant} want {place} {when}?",
            "Can I water {plant} in the evening {when}?", "I am away {when}, who waters {plant}?",
            "Is rain enough for {plant} {place}?", "Do I water {plant} from above or below?",
        ),
        (
            "Water {plant} when the top two centimetres are dry, early in the day, and let the "
            "rest run off.",
            "{place}: about twice a week is enough for {plant}; push a finger into the soil first.",
            "Give {plant} a deep drink once or twice a week {when} rather than a little each day.",
        ),
        ("Water it every day.", "Plants need water."),
        0.08, 3.0,
    ),
    Topic(
        "pests",
        (
            "My {plant} have {sign}, what is it?", "What helps against {sign} on {plant}?",
            "There are {sign} on {plant} {place}. Is it a pest?", "Do I spray {plant} for {sign}?",
            "I found {sign} {when}; are {plant} lost?", "Why do {plant} get {sign} {place}?",
            "Is {sign} on {plant} dangerous for the others?",
        ),
        (
            "With {sign} on {plant}, rinse the leaves, take off the worst ones and check again "
            "in a week.",
            "{sign} usually come from too much water or aphids: look under the leaves of {plant} "
            "and wash them with soapy water.",
            "Move {plant} away from the others, cut what has {sign}, and water less for two weeks.",
        ),
        ("It may be a pest.", "Buy a spray."),
        0.12, 2.5,
    ),
    Topic(
        "returns",
        (
            "I want to send {thing} back, how do I do that?", "Can I return {thing} {when}?",
            "Where is the refund for {thing}?", "{thing} arrived broken, do I get my money back?",
            "How long may I return {thing} without the receipt?",
            "I returned {thing} two weeks ago and have no refund yet.",
            "Who pays the postage if I send back {thing}?", "I want my money back for {thing}.",
        ),
        (
            "You can return {thing} within 30 days; print the label from your order page and we "
            "refund you within five working days.",
            "Send {thing} back with the label from your order page, which is free; the refund "
            "takes five working days from when it reaches us.",
        ),
        (
            "I am sorry to hear that. Please contact our support.",
            "I cannot help with orders.",
            "All sales of {thing} are final.",
        ),
        0.62, 2.0,
    ),
    Topic(
        "delivery",
        (
            "When does {thing} arrive?", "Do you deliver {thing} to an island?",
            "Can {thing} come {when}?", "What does delivery of {thing} cost?",
            "Can I pick up {thing} at the shop?", "Will the driver carry {thing} upstairs?",
            "Can I still change the address for {thing}?",
        ),
        (
            "{thing} usually arrives in two to four working days; the link in your confirmation "
            "shows where it is.",
            "Delivery of {thing} costs 4.90 and is free from 50; you can also pick it up at the "
            "shop the next day.",
        ),
        ("Soon.", "Please look at the website."),
        0.10, 2.0,
    ),
    Topic(
        "soil",
        (
            "Which soil do {plant} like {place}?", "Do I need compost for {plant} {place}?",
            "Can I reuse old soil for {plant}?", "How do I improve clay for {plant}?",
            "Which fertiliser for {plant} {when}?", "Is coffee good for {plant}?",
        ),
        (
            "{plant} do well in loose soil with a third of compost; {place} add sand so that "
            "water runs off.",
            "Feed {plant} with a slow fertiliser {when}, half of what the packet says to begin "
            "with.",
        ),
        ("Any soil will do.", "Use fertiliser."),
        0.09, 1.5,
    ),
    Topic(
        "pruning",
        (
            "When do I cut back {plant}?", "Can I prune {plant} {when}?",
            "How far down may I cut {plant}?", "My {plant} grew too tall {place}, what now?",
            "Do I cut off the old flowers of {plant}?",
        ),
        (
            "Cut {plant} back by a third {when}, just above a bud that points outwards.",
            "Take off old flowers of {plant} as they fade and leave the hard cut for late winter.",
        ),
        ("Cut it.", "Pruning depends on the plant."),
        0.11, 1.5,
    ),
)  # fmt: skip
