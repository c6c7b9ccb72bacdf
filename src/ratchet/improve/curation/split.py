"""Training and validation rows: by user and by time, so that no user is in both."""

from __future__ import annotations

from collections.abc import Sequence

from ratchet.improve.curation.rows import Row


def split_rows(rows: Sequence[Row], *, share: float, smallest: int) -> tuple[list[Row], list[Row]]:
    """Split rows into what is trained on and what validates it.

    Users are ordered by their first row, and the newest go to the validation side, whole, as long
    as it holds at most `share` of the rows. So no user is on both sides, and every row of the
    validation side is by somebody who came after everybody that is trained on.

    Experts' demonstrations are trained on, always. Rows without a user are users of their own.

    Args:
        rows: In any order; the split does not depend on it.
        share: Most that the validation side holds, in [0, 1).
        smallest: Fewer rows are not split.

    Returns:
        Both sides, in order of time.
    """
    ordered = sorted(rows, key=lambda row: (row.moment, row.interaction_id))
    room = int(share * len(ordered))
    if len(ordered) < smallest or room == 0:
        return ordered, []
    by_user: dict[str, list[Row]] = {}
    for row in ordered:
        if row.source != "demonstration":
            by_user.setdefault(row.user_id or f"\x1f{row.interaction_id}", []).append(row)
    newest = list(by_user)[::-1]
    chosen: set[str] = set()
    for user in newest:
        if len(by_user[user]) > room:
            break
        room -= len(by_user[user])
        chosen.update(row.interaction_id for row in by_user[user])
    train = [row for row in ordered if row.interaction_id not in chosen]
    return train, [row for row in ordered if row.interaction_id in chosen]
