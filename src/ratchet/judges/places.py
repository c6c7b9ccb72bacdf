"""Labels of pairs by the place at which an answer was shown, not by whose answer it is.

Where one system wins nearly every pair, two who look say its name nearly always, and so does one
who never looks: coded by winner, kappa is near 0 for all of them. Which place an answer has is
chance, and says nothing of whose is better. Who agrees about places has looked.

- A judge that saw both orders saw each pair in both places: the pair counts half in each.
- A judge of one order saw a place by chance (`second_first`): the pair counts in that one.
- Where the place is unknown, as of a file that does not say, the winner is all there is.

A tie is a tie in either place.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ratchet.judges.label_sets import TIE, LabelledVerdict

OTHER = {"1": "2", "a": "b", "first": "second", "model_a": "model_b"}
OPPOSITE = OTHER | {two: one for one, two in OTHER.items()}
NAMELESS = "the other answer"


@dataclass(frozen=True, slots=True)
class Placed:
    """Labels of people and a judge, of pairs by place where places are known.

    Attributes:
        human: Labels of people.
        judge: The judge's verdicts.
        places: The two labels that name a place; None where labels are no places.
        in_both: Whether each pair counts in both places.
    """

    human: tuple[str, ...]
    judge: tuple[str, ...]
    places: tuple[str, str] | None = None
    in_both: bool = False

    @property
    def exchangeable(self) -> tuple[str, str] | None:
        """Both places, where each pair counts in both."""
        return self.places if self.in_both else None

    def ratings(self) -> list[list[str]]:
        """Return both labels of each item; of one that counts in both places, twice."""
        found = [list(both) for both in zip(self.human, self.judge, strict=True)]
        if self.exchangeable is None:
            return found
        turned = _turn(self.exchangeable)
        return found + [[turned.get(label, label) for label in both] for both in found]

    def names(self, names: Sequence[str]) -> list[str]:
        """Return these labels, and a place that nobody named."""
        return [*names, *(name for name in self.places or () if name not in names)]


def by_place(rows: Sequence[LabelledVerdict], names: Sequence[str]) -> Placed:
    """Return the labels and verdicts of rows by place, as far as places are known.

    Args:
        rows: Each with a verdict.
        names: The labels that are used.
    """
    human = tuple(row.human for row in rows)
    judge = tuple(str(row.verdict) for row in rows)
    shown = {row.shown for row in rows}
    winners = _winners(names)
    if winners is None or not shown - {None}:
        return Placed(human, judge)
    if shown == {"both"}:
        return Placed(human, judge, winners, in_both=True)
    turned = _turn(winners)
    second = [row.shown == "second" for row in rows]
    return Placed(
        tuple(turned.get(x, x) if turn else x for x, turn in zip(human, second, strict=True)),
        tuple(turned.get(x, x) if turn else x for x, turn in zip(judge, second, strict=True)),
        winners,
    )


def are_winners(labels: Iterable[str]) -> bool:
    """Whether labels are the usual names of the winners of pairs, of one kind."""
    named = {label.casefold() for label in labels} - {TIE}
    return any(named <= {one, two} for one, two in OTHER.items())


def _winners(names: Sequence[str]) -> tuple[str, str] | None:
    """Return the two winners that labels name; one that nobody named has a name too."""
    found = [name for name in names if name != TIE]
    if len(found) == 1:
        found.append(OPPOSITE.get(found[0].casefold(), NAMELESS))
    return (found[0], found[1]) if len(found) == 2 else None


def _turn(winners: tuple[str, str]) -> dict[str, str]:
    one, other = winners
    return {one: other, other: one}
