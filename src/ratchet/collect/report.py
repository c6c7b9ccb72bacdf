"""What became of rows that were brought in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from ratchet.files.text import counted
from ratchet.records import SetAside


@dataclass(frozen=True, slots=True)
class IngestReport:
    """What became of the rows.

    The five counts, and those of `passed`, add up to all events of rows that are not blank.

    Attributes:
        interactions: Interactions stored.
        feedback: Feedback events stored.
        repeated: Events that were stored before with the same content.
        recognised: Events that are stored already under other ids; see
            `ratchet.collect.recognising`.
        set_aside: Rows that broke a rule.
        reasons: The broken rules with their counts, most frequent first; what exceeds 1,000 rules
            is counted as "other reasons".
        examples: Of each of these rules the first row that broke it.
        noted: What is odd about stored feedback, with its count; see `ratchet.collect.times`.
        passed: Why rows of a foreign format are nothing to store, with their counts.
    """

    interactions: int
    feedback: int
    repeated: int
    set_aside: int
    reasons: tuple[tuple[str, int], ...]
    examples: tuple[SetAside, ...] = field(default=(), compare=False)
    noted: tuple[tuple[str, int], ...] = ()
    recognised: int = 0
    passed: tuple[tuple[str, int], ...] = ()

    def lines(self) -> list[str]:
        """Return a line for each reason: how often, the first row of it, what is wrong with it.

        The counts of these lines add up to the rows that were set aside. Then a line for each note.
        """
        first = {rule_of(row.reason): row for row in self.examples}
        lines, left = [], self.set_aside
        for rule, count in self.reasons:
            if (row := first.get(rule)) is None:
                continue
            left -= count
            lines.append(f"{count:>8,} × {row.position}: {row.reason}")
        if left:
            lines.append(f"and {counted(left, 'more row')} set aside for other reasons")
        lines += [f"{count:>8,} × passed over: {reason}" for reason, count in self.passed]
        return lines + [f"{count:>8,} × noted: {note}" for note, count in self.noted]


def combined(reports: Iterable[IngestReport]) -> IngestReport:
    """Return one report of several: of each rule the first row that broke it."""
    found = list(reports)
    reasons, passed, noted = Counter[str](), Counter[str](), Counter[str]()
    examples: dict[str, SetAside] = {}
    for one in found:
        reasons.update(dict(one.reasons))
        passed.update(dict(one.passed))
        noted.update(dict(one.noted))
        for row in one.examples:
            examples.setdefault(rule_of(row.reason), row)
    return IngestReport(
        interactions=sum(one.interactions for one in found),
        feedback=sum(one.feedback for one in found),
        repeated=sum(one.repeated for one in found),
        set_aside=sum(one.set_aside for one in found),
        reasons=tuple(reasons.most_common()),
        examples=tuple(examples.values()),
        noted=tuple(noted.most_common()),
        recognised=sum(one.recognised for one in found),
        passed=tuple(passed.most_common()),
    )


def rule_of(reason: str) -> str:
    """Return the rule that a reason names, without what was received."""
    return reason.partition(", got ")[0]
