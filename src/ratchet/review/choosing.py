"""Items chosen by the rules of a policy, from what arrived since the last pass.

    report = choose_items(store, policy, sampled_from=ids, now=now)
    report.in_words

| rule | chooses |
|---|---|
| `disagreement` | answers that a judge scores 0.75 or more and users rate badly, or the reverse |
| `low_confidence` | answers of which a judge gave no verdict or one from the middle of its scale, \
or of which judges differ by half of it |
| `emerging_cluster` | failed answers of clusters that the latest analysis found new or growing |
| `sample` | answers drawn at random; each keeps the chance that it had |

An answer is in the queue once on a dimension, whichever rules choose it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from ratchet.files.text import counted
from ratchet.records import Analysis, ReviewItem, derive_id
from ratchet.review.pairs import queue_pairs
from ratchet.review.policy import QueueRule, ReviewPolicy
from ratchet.review.queue import queue_sample
from ratchet.store import EventStore
from ratchet.store.event_rows import FeedbackRow
from ratchet.store.review_candidates import (
    RATINGS,
    Said,
    begin_step,
    chosen_since,
    in_queue,
    keep_step,
    next_step,
    verdicts_on,
)
from ratchet.store.rows import microseconds

HIGH, LOW = 0.75, 0.25
"""From these scores on a judge holds an answer to be good, or bad."""
APART = 0.5
"""Judges that differ by so much disagree."""
_GOOD_STARS, _BAD_STARS = 4.0, 2.0
_GROWING = ("new", "growing", "split")
_CHOSEN = "chosen for a second look"
"""What a reviewer is told of every rule that rests on a judge: nothing of its verdict."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """What a pass chose: new items by rule, and how many were left out beyond a day's limit."""

    new: Mapping[str, int]
    left_out: int

    @property
    def in_words(self) -> str:
        """One line that says what the pass did."""
        parts = [f"{count:,} by {rule}" for rule, count in self.new.items() if count]
        more = f"; {self.left_out:,} left out, beyond a day's limit" if self.left_out else ""
        total = counted(sum(self.new.values()), "item")
        return f"{total} for people to review" + (f" ({', '.join(parts)})" if parts else "") + more


def choose_items(
    store: EventStore,
    policy: ReviewPolicy,
    *,
    sampled_from: Iterable[str],
    now: datetime,
    most: int | None = None,
) -> Chosen:
    """Put in the queue what the rules of a policy choose, and the pairs that gates wait for.

    Args:
        store: The store.
        policy: The rules.
        sampled_from: Answers that random samples are drawn from: those that a pass looks at.
        now: The time.
        most: So many steps of a thousand verdicts and ratings at most, a rule; None for all.
    """
    people, unanimous = policy.people_for("win_rate")
    new = {"pairs": queue_pairs(store, now=now, people=people, unanimous=unanimous)}
    left_out = 0
    ids = list(sampled_from)
    for queue in policy.queues:
        if queue.rule == "sample":
            who = policy.people_for(queue.dimension)
            found, left = len(_sample(store, queue, who, ids, now)), 0
        elif queue.rule == "emerging_cluster":
            found, left = _put(store, policy, queue, _of_clusters(store), now)
        else:
            found, left = _judged(store, policy, queue, now, most)
        new[queue.rule] = new.get(queue.rule, 0) + found
        left_out += left
    return Chosen(new, left_out)


def _sample(
    store: EventStore, queue: QueueRule, who: tuple[int, bool], ids: Sequence[str], now: datetime
) -> tuple[ReviewItem, ...]:
    return queue_sample(
        store,
        ids,
        share=queue.share or 0.0,
        now=now,
        a_day=queue.a_day,
        dimension=queue.dimension,
        people=who[0],
        unanimous=who[1],
    )


def _judged(
    store: EventStore, policy: ReviewPolicy, queue: QueueRule, now: datetime, most: int | None
) -> tuple[int, int]:
    """Choose by what judges said, beside what users did for the rule `disagreement`."""
    name = f"{queue.rule}/{queue.dimension}"
    place = begin_step(store, name)
    found = left = steps = 0
    while most is None or steps < most:
        step = next_step(store, place, queue.dimension)
        if step.reached == place:
            break
        chosen = list(_those(store, step.ids, queue))
        here, over = _put(store, policy, queue, chosen, now)
        found, left, steps = found + here, left + over, steps + 1
        if not keep_step(store, name, before=place, after=step.reached):
            break  # another process was faster and goes on
        place = dict(step.reached)
    return found, left


def _those(store: EventStore, ids: Sequence[str], queue: QueueRule) -> Iterator[str]:
    """Yield those of the answers that a rule about judges chooses."""
    said = verdicts_on(store, ids, queue.dimension)
    about: dict[str, list[FeedbackRow]] = {}
    by_users = queue.rule == "disagreement"
    for row in store.feedback_about(set(said)) if said and by_users else ():
        about.setdefault(row.interaction_id, []).append(row)
    for key in ids:
        if key in said and (
            _disagree(said[key], about.get(key, ())) if by_users else _is_unsure(said[key])
        ):
            yield key


def _disagree(said: Sequence[Said], feedback: Sequence[FeedbackRow]) -> bool:
    """Tell whether a judge and users hold opposite views of an answer."""
    rated = users_view(feedback)
    scores = [one.score for one in said if one.score is not None]
    return rated is not None and any(score <= LOW if rated else score >= HIGH for score in scores)


def users_view(feedback: Sequence[FeedbackRow]) -> bool | None:
    """Return whether users rated an answer well, by their latest thumb, else their latest stars."""
    latest: dict[str, float] = {}
    for row in sorted(feedback, key=lambda row: (row.updated_at or row.created_at, row.id)):
        if row.kind in RATINGS and row.number is not None:
            latest[row.kind] = row.number
    if "thumbs" in latest:
        return latest["thumbs"] == 1.0
    stars = latest.get("stars")
    if stars is None or _BAD_STARS < stars < _GOOD_STARS:
        return None
    return stars >= _GOOD_STARS


def _is_unsure(said: Sequence[Said]) -> bool:
    """Tell whether judges gave no verdict, one from the middle of the scale, or differ."""
    scores = [one.score for one in said if one.score is not None]
    if len(scores) < len(said):
        return True
    return max(scores) - min(scores) >= APART or any(LOW < score < HIGH for score in scores)


def _of_clusters(store: EventStore) -> list[str]:
    """Return failed answers of the clusters that the latest analysis found new or growing."""
    analysis = store.latest(Analysis)
    clusters = analysis.clusters if analysis is not None else ()
    return [
        example.interaction_id
        for cluster in clusters
        if cluster.trend in _GROWING
        for example in cluster.beside
    ]


def _put(
    store: EventStore, policy: ReviewPolicy, queue: QueueRule, ids: Iterable[str], now: datetime
) -> tuple[int, int]:
    """Put answers in the queue that are not there; return how many are new, and left out."""
    wanted = list(dict.fromkeys(ids))
    if not wanted:
        return 0, 0
    day = microseconds(now.replace(hour=0, minute=0, second=0, microsecond=0))
    people, unanimous = policy.people_for(queue.dimension)
    with store.atomic():
        there = in_queue(store, wanted, queue.dimension)
        fresh = [key for key in wanted if key not in there]
        room = max(0, queue.a_day - chosen_since(store, queue.rule, queue.dimension, day))
        for key in fresh[:room]:
            store.append(
                ReviewItem(
                    id=derive_id("review", key, queue.dimension, queue.rule),
                    created_at=now,
                    interaction_id=key,
                    dimension=queue.dimension,
                    priority="normal",
                    raised_by=queue.rule,
                    why=_CHOSEN,
                    queue=queue.rule,
                    people=people,
                    unanimous=unanimous,
                )
            )
    return min(room, len(fresh)), max(0, len(fresh) - room)
