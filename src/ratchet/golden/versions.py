"""Versions of the golden set as they are stored: found by number, compared, and written as a file.

    latest = golden_versions(store)[-1]
    examples = examples_of(store, latest)

A decision compares champion and challenger on the same version. Numbers of two versions do not
compare as they are; models are compared across versions on the examples that both have.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

from ratchet.errors import InvalidInputError
from ratchet.records import Example, ExampleSet, GoldenVersion, digest
from ratchet.store import EventStore
from ratchet.store.cycles import example_set


@dataclass(frozen=True, slots=True)
class Changes:
    """How a version differs from an earlier one, in numbers of examples.

    Attributes:
        shared: In both, with the same right answer.
        answered_anew: In both, with another right answer.
        added: In the later one alone.
        retired: In the earlier one alone.
    """

    shared: int
    answered_anew: int
    added: int
    retired: int


def golden_versions(store: EventStore) -> tuple[GoldenVersion, ...]:
    """Return every version, the first one first.

    What was frozen of simulated users is left out as soon as the store holds real ones.
    """
    return store.records(GoldenVersion, since=store.origins().found_since)


def latest_version(store: EventStore) -> GoldenVersion | None:
    """Return the latest version; None before the first."""
    return (golden_versions(store) or (None,))[-1]


def golden_version(store: EventStore, number: int | None = None) -> GoldenVersion:
    """Return the version with a number, the latest where none is given.

    Raises:
        InvalidInputError: There is none.
    """
    versions = golden_versions(store)
    found = next((one for one in reversed(versions) if number in (None, one.number)), None)
    if found is None:
        known = ", ".join(str(one.number) for one in versions) or "none"
        raise InvalidInputError(
            f"a version of the golden set must be there, got {number or 'no number'} of {known}; "
            "`ratchet golden build` makes one"
        )
    return found


def golden_of(store: EventStore, example_set_id: str) -> GoldenVersion | None:
    """Return the version whose examples a set holds; None where it is no golden set."""
    every = store.records(GoldenVersion)
    return next((one for one in every if one.example_set_id == example_set_id), None)


def frozen_examples(store: EventStore, version: GoldenVersion) -> ExampleSet:
    """Return the examples of a version, without those of users who were forgotten since."""
    return example_set(store, version.example_set_id)


def content_digest(examples: tuple[Example, ...]) -> str:
    """Return the SHA-256 of examples, by which a version is known again."""
    return digest([example.canonical() for example in examples])


def changes(before: ExampleSet, after: ExampleSet) -> Changes:
    """Compare the examples of two versions by id."""
    earlier = {example.id: example.target for example in before.examples}
    later = {example.id: example.target for example in after.examples}
    both = earlier.keys() & later.keys()
    same = sum(earlier[key] == later[key] for key in both)
    return Changes(same, len(both) - same, len(later) - len(both), len(earlier) - len(both))


def decision_note(store: EventStore, example_set_id: str) -> tuple[str, ...]:
    """Return the note with which a decision names its golden version; none of another set."""
    version = golden_of(store, example_set_id)
    if version is None:
        return ()
    return (
        f"golden set: version {version.number} ({example_set_id}); both models answered it, and "
        "numbers of decisions on other versions do not compare with these",
    )


def lines_of(examples: ExampleSet) -> Iterator[str]:
    """Yield examples as lines of JSON, as `ratchet gate --examples` reads them."""
    for example in examples.examples:
        row = example.canonical()
        named = {name: row[name] for name in _FIELDS if row.get(name) is not None}
        yield json.dumps(named)


_FIELDS = ("id", "messages", "target", "user_id", "cluster", "tests", "entry_point", "tools",
           "response_format")  # fmt: skip
