"""Which judges may count: the latest validation of each version, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence

from ratchet.errors import JudgeNotUsableError
from ratchet.records import JudgeValidation
from ratchet.store import EventStore


def latest_validations(store: EventStore) -> dict[str, JudgeValidation]:
    """Return the latest validation of each version of a judge."""
    return store.latest_by_subject(JudgeValidation)


def usable_versions(store: EventStore) -> frozenset[str]:
    """Return the versions of judges whose scores may count."""
    found = latest_validations(store).values()
    return frozenset(record.judge_version for record in found if record.decision == "usable")


def usable_judges(store: EventStore) -> frozenset[str]:
    """Return the names and the versions of judges that a policy may ask for."""
    found = [one for one in latest_validations(store).values() if one.decision == "usable"]
    return frozenset(one.judge for one in found) | frozenset(one.judge_version for one in found)


def require_usable(store: EventStore, judge_version: str) -> JudgeValidation:
    """Return the validation of a judge that may gate.

    Raises:
        JudgeNotUsableError: It was never validated, or its latest validation does not allow it.
    """
    found = store.records(JudgeValidation, latest=1, subject=judge_version)
    if not found or found[0].decision != "usable":
        state = "which was never validated"
        if found:
            state = f"whose latest validation says {found[0].decision}: {found[0].reasons[0]}"
        raise JudgeNotUsableError(
            f"scores count only from a judge that was found usable, got {judge_version!r}, "
            f"{state}; label more items or take another judge"
        )
    return found[0]


def judges_without_labels(store: EventStore, names: Sequence[str]) -> tuple[JudgeValidation, ...]:
    """Return the latest validation of each named judge that more labels could make usable.

    Args:
        store: The store.
        names: Of judges, or of versions of them.
    """
    known = list(latest_validations(store).values())
    waiting = []
    for name in names:
        found = [one for one in known if name in (one.judge, one.judge_version)]
        if found and not any(one.decision == "usable" for one in found):
            waiting += [one for one in found if one.decision == "not enough labels"][-1:]
    return tuple(waiting)
