"""Random small worlds to curate: traffic with feedback, and every setting that a selection reads.

    made = world(seed)
    fill(store, made.interactions, made.feedback)
    curated(store, made, "sft")         # what curating everything at once gives

Texts come from few parts, so that prompts and answers repeat, nearly repeat, and break each rule.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from ratchet.analyze.failures.embedding import word_vectors
from ratchet.errors import InsufficientDataError
from ratchet.improve.curation.config import (
    ClusterRequest,
    CurationConfig,
    Demonstration,
    JudgedPair,
)
from ratchet.improve.curation.dataset import build, choose, without_leaks, write_training_set
from ratchet.improve.curation.poisoning import PoisoningConfig
from ratchet.improve.curation.pool import Context
from ratchet.improve.curation.propensity import PropensityConfig
from ratchet.improve.curation.rows import RowKind
from ratchet.improve.curation.selection import Selection
from ratchet.outcomes.join import join_feedback
from ratchet.outcomes.quality import QualityWeights, quality
from ratchet.records import (
    Comment,
    Copy,
    Correction,
    Feedback,
    Interaction,
    JudgeScore,
    Message,
    Regenerate,
    SafetyViolation,
    SessionEnd,
    Stars,
    TaskCompleted,
    Thumbs,
    digest,
)
from ratchet.store import EventStore, Window

KINDS: tuple[RowKind, ...] = ("sft", "kto", "dpo")
EPOCH, START = datetime(1970, 1, 1, tzinfo=UTC), datetime(2026, 3, 1, tzinfo=UTC)
LATER = datetime(2100, 1, 1, tzinfo=UTC)
DAYS = 12
USABLE = ("judge/1",)
TOPICS = ("card", "transfer", "top-up", "account", "refund", "exchange rate", "PIN", "Straße")
QUESTIONS = (
    "Where is my {}?", "where IS my {}", "My {} was charged twice, what can I do about that now",
    "my {} was charged twice; what can i do about that now?!", "Why was my {} refused",
    "My {} was charged twicf, what can I do about that now", "{}", "Can I change my {} abroad?",
    "I have been waiting for my {} for two weeks now and nobody tells me what happened to it.",
)  # fmt: skip
ODD = ("?", "!", "?!", " ", "a\u0301b", "é" * 90, "x" * 400, "ﬁne Print", "🙂", "\u00a0")
ANSWERS = ("cards", "Cards.", "refunds", "transfers", "accounts", "loans")
METADATA: tuple[dict[str, str], ...] = (
    {"training_consent": "no"}, {"training_consent": " YES "}, {"training_consent": "perhaps"},
    {"retain_until": "2026-03-05T00:00:00+00:00"}, {"retain_until": "2030-01-01T00:00:00Z"},
    {"retain_until": "2030-01-01"}, {"retain_until": "one day"}, {"finish_reason": "length"},
    {"finish_reason": "Stop"}, {"stop_reason": " max_tokens "}, {"done_reason": "a new\nreason"},
    {"finish_reason": "", "stop_reason": "length"}, {"finishReason": "END_TURN", "a": "ß"},
    {"training_consent": "yes", "retain_until": "2026-04-01T00:00:00+02:00"},
)  # fmt: skip


@dataclass(frozen=True)
class World:
    """What happened, and what is asked of curation.

    Attributes:
        context: What it is told besides what the store holds of interactions and feedback.
        compare: Whether users are held against each other.
    """

    interactions: tuple[Interaction, ...]
    feedback: tuple[Feedback, ...]
    config: CurationConfig
    context: Context
    protected: tuple[str, ...]
    end: datetime
    seed: int
    compare: bool


def world(seed: int, *, size: int | None = None) -> World:
    """Draw a world."""
    rng = np.random.default_rng([seed, 18])
    size = int(rng.integers(60, 400)) if size is None else size
    users = int(rng.integers(8, 120))
    interactions = _interactions(rng, size, users)
    feedback = tuple(_feedback(rng, interactions))
    ids = [item.id for item in interactions]
    end = START + timedelta(days=DAYS - int(rng.integers(0, 2)))
    return World(
        interactions=interactions,
        feedback=feedback,
        config=_config(rng),
        context=_context(rng, ids, interactions),
        protected=tuple(
            item.prompt for item in interactions if rng.random() < 0.01 and item.prompt.strip()
        ),
        end=end,
        seed=seed,
        compare=bool(rng.random() < 0.5),
    )


def _interactions(rng: np.random.Generator, size: int, users: int) -> tuple[Interaction, ...]:
    own_words = rng.random() < 0.4
    coarse = 3_600_000_000 if rng.random() < 0.4 else 1_000  # equal times are common, or are not
    moments = np.sort(rng.integers(0, DAYS * 86_400_000_000, size)) // coarse * coarse
    hostile = int(rng.integers(8, 25)) if rng.random() < 0.5 else 0
    found = []
    names = rng.permutation(size)
    for place in range(size):
        user = f"user-{rng.integers(0, users)}"
        answer = str(rng.choice(ANSWERS))
        if own_words:
            answer += f" as of {rng.integers(0, 40)}, and " + "so on " * int(rng.integers(0, 60))
        if place >= size - hostile:
            user, answer = f"new-{place}", "planted"
        if rng.random() < 0.03:
            answer = str(rng.choice(ODD))
        found.append(
            Interaction(
                id=f"i{names[place]:04d}", user_id=user,
                session_id=f"{user}-{rng.integers(0, 3)}",
                created_at=START + timedelta(microseconds=int(moments[place])),
                model_version="support/1", segment=str(rng.choice(["web", "app", "mail"])),
                messages=_messages(rng), response=answer,
                error="timeout" if rng.random() < 0.05 else None,
                latency_seconds=float(rng.random()) if rng.random() < 0.9 else None,
                metadata=dict(METADATA[rng.integers(len(METADATA))]) if rng.random() < 0.2 else {},
            )
        )  # fmt: skip
    return tuple(found)


def _messages(rng: np.random.Generator) -> tuple[Message, ...]:
    def asked() -> str:
        if rng.random() < 0.04:
            return str(rng.choice(ODD))
        text = QUESTIONS[rng.integers(len(QUESTIONS))].format(TOPICS[rng.integers(len(TOPICS))])
        return text + (f" ({rng.integers(0, 90)})" if rng.random() < 0.5 else "")

    said = [Message(role="system", content="Be kind.")] if rng.random() < 0.5 else []
    if rng.random() < 0.2:
        said += [Message(role="user", content=asked()), Message(role="assistant", content="well")]
    return (*said, Message(role="user", content=asked()))


def _feedback(rng: np.random.Generator, interactions: Sequence[Interaction]) -> list[Feedback]:
    events: list[Feedback] = []
    kind_of_user = {item.user_id: rng.random() for item in interactions}
    keys = [*interactions, interactions[0].model_copy(update={"id": "never-arrived"})]
    for item in keys:
        happy = kind_of_user[item.user_id] < 0.8 or item.user_id.startswith("new")
        for name, kind, chance, value in _said(rng, happy):
            for turn in range(1 + int(rng.random() < 0.15)):
                if rng.random() >= chance:
                    continue
                late = timedelta(hours=float(rng.integers(0, 96)) if rng.random() < 0.3 else 0.0)
                given = item.created_at + late
                about: dict[str, Any] = {
                    "id": f"{name}-{item.id}-{turn}", "interaction_id": item.id,
                    "created_at": given, "user_id": item.user_id, **value(),
                }  # fmt: skip
                events.append(kind(**about))
                if rng.random() < 0.1:
                    again = {"updated_at": given + timedelta(minutes=int(rng.integers(1, 900)))}
                    events.append(kind(**(about | again | value())))
    return events


def _said(rng: np.random.Generator, happy: bool) -> list[Any]:
    def flag(chance: float) -> Any:
        return lambda: {"value": bool(rng.random() < chance)}

    def corrected() -> dict[str, str]:
        if rng.random() < 0.05:
            return {"value": str(rng.choice(ODD))}
        own = f" in words of my own {rng.integers(0, 30)}" if rng.random() < 0.5 else ""
        return {"value": f" {rng.choice(ANSWERS)}{own}"}

    judge = {"judge_version": str(rng.choice(["judge/1", "judge/2"]))}
    good = 0.85 if happy else 0.2
    return [
        ("thumbs", Thumbs, 0.5, lambda: {"value": "up" if rng.random() < good else "down"}),
        ("stars", Stars, 0.15, lambda: {"value": int(rng.integers(4, 6) if happy else 2)}),
        ("correction", Correction, 0.15, corrected),
        ("comment", Comment, 0.05, lambda: {"value": "fine"}),
        ("copy", Copy, 0.2, flag(good)),
        ("regenerate", Regenerate, 0.3, flag(0.4)),
        ("done", TaskCompleted, 0.3, flag(good)),
        ("end", SessionEnd, 0.2, lambda: {"value": float(rng.integers(0, 30))}),
        ("unsafe", SafetyViolation, 0.1, flag(0.2)),
        ("judged", JudgeScore, 0.15, lambda: {"value": float(rng.random()), **judge}),
    ]


def _config(rng: np.random.Generator) -> CurationConfig:
    return CurationConfig(
        maximum_examples=int(rng.choice([20, 60, 320])),
        minimum_examples=int(rng.choice([1, 1, 16])),
        minimum_quality=float(rng.choice([0.5, 0.75])),
        minimum_lower_bound=float(rng.choice([0.0, 0.3, 0.4])),
        balance="traffic" if rng.random() < 0.5 else "equal",
        length_ratio=None if rng.random() < 0.2 else float(rng.choice([1.0, 1.25])),
        length_free=int(rng.choice([0, 8, 200])),
        maximum_characters=int(rng.choice([80, 300, 20_000])),
        consent="only if given" if rng.random() < 0.1 else "unless refused",
        validation_from=int(rng.choice([2, 100])),
        propensity=PropensityConfig(enabled=bool(rng.random() < 0.8)),
        poisoning=PoisoningConfig(
            enabled=bool(rng.random() < 0.8),
            brigade_users=int(rng.choice([3, 5])),
            new_user_days=float(rng.choice([1.0, 7.0])),
            minimum_trust=float(rng.choice([0.3, 0.5])),
            user_rows=int(rng.choice([2, 10])),
            source_share=float(rng.choice([0.4, 1.0])),
        ),
    )


def _context(
    rng: np.random.Generator, ids: Sequence[str], interactions: Sequence[Interaction]
) -> Context:
    def some(share: float) -> list[str]:
        return [key for key in ids if rng.random() < share]

    others = [str(rng.choice(ids)) for _ in range(30)]
    sides = ("first", "second", "tie", None)
    pairs = tuple(
        JudgedPair(first_id=one, second_id=other, given=sides[n], swapped=sides[n])
        for one, other, n in zip(others[::2], others[1::2], rng.integers(0, 4, 15), strict=True)
    )
    same = _same_prompt(interactions)[:6]
    pairs += tuple(JudgedPair(first_id=a, second_id=b, given="first", swapped="first")
                   for a, b in same)  # fmt: skip
    said = tuple(
        Demonstration(
            id=f"expert-{n}", messages=_messages(rng), target=str(rng.choice(ANSWERS)),
            segment=str(rng.choice(["web", "desk"])),
        )
        for n in range(int(rng.integers(0, 6)))
    )  # fmt: skip
    requests = tuple(
        ClusterRequest(cluster_id=f"cluster {n}", wanted=3, interaction_ids=tuple(some(0.1)))
        for n in range(int(rng.integers(0, 3)))
    )
    return Context(
        withheld=frozenset(some(0.03)),
        judged=pairs,
        demonstrations=said,
        requests=requests,
        reviewed={key: bool(rng.random() < 0.5) for key in some(0.1)} if rng.random() < 0.5 else {},
        weights=QualityWeights(judge=float(rng.choice([0.0, 0.5]))),
    )


def _same_prompt(interactions: Sequence[Interaction]) -> list[tuple[str, str]]:
    by_prompt: dict[str, str] = {}
    found = []
    for item in interactions:
        first = by_prompt.setdefault(item.prompt, item.id)
        if first != item.id:
            found.append((first, item.id))
    return found


def fill(
    store: EventStore, interactions: Sequence[Interaction], feedback: Sequence[Feedback]
) -> None:
    """Store what happened."""
    store.add_interactions(interactions)
    store.add_feedback(feedback)


def _refused(stored: Mapping[str, Interaction], made: World) -> set[str]:
    """Return what must not be trained on, by the rules of docs/curation.md, one by one."""

    def ended(said: str) -> bool:
        try:
            end = datetime.fromisoformat(said)
        except ValueError:
            return True
        return end.tzinfo is None or made.end >= end

    silent_refuses = made.config.consent == "only if given"
    found, latest = set(), {}
    for item in sorted(stored.values(), key=lambda item: item.created_at):
        if "training_consent" in item.metadata:
            agrees = item.metadata["training_consent"].strip().lower() in ("yes", "true")
            at, before = latest.get(item.user_id, (None, True))
            latest[item.user_id] = item.created_at, agrees and (before or at != item.created_at)
    for key, item in stored.items():
        consent = item.metadata.get("training_consent")
        said_no = consent is not None and consent.strip().lower() not in ("yes", "true")
        said_no |= not latest.get(item.user_id, (None, True))[1]
        until = item.metadata.get("retain_until")
        if said_no or (consent is None and silent_refuses) or (until is not None and ended(until)):
            found.add(key)
    return found


def _endings(interactions: Mapping[str, Interaction]) -> dict[str, str]:
    keys = ("finish_reason", "finishReason", "stop_reason", "done_reason")
    return {
        key: next(item.metadata[name] for name in keys if name in item.metadata)
        for key, item in interactions.items()
        if any(name in item.metadata for name in keys)
    }


def vectors(texts: Sequence[str]) -> Any:
    """Return vectors of prompts, the same for the same texts."""
    return word_vectors(list(texts), rng=np.random.default_rng(0))


def chosen(store: EventStore, made: World, kind: RowKind) -> Selection:
    """Select out of everything that is stored, read whole."""
    window = Window(EPOCH, made.end)
    outcomes = join_feedback(store.interactions(window), store.told_feedback(window), judges=USABLE)
    ids = [str(key) for key in outcomes.interaction_ids]
    every = store.interactions(Window(EPOCH, LATER))["id"].to_pylist()

    def vectors_of(places: Any) -> Any:
        return vectors([str(text) for text in outcomes.prompts[places]])

    context = replace(
        made.context,
        refused=_refused(store.stored_interactions(every), made),
        endings=_endings(store.stored_interactions(ids)),
        vectors_of=vectors_of if made.compare else None,
    )
    scores = quality(outcomes, made.context.weights)
    return choose(kind, outcomes, scores, made.protected, made.config, context=context)


def curated(store: EventStore, made: World, kind: RowKind) -> dict[str, Any]:
    """Return what is curated, as JSON-able values: counts, and a digest of the rows."""
    try:
        return summary(store, made, chosen(store, made, kind))
    except InsufficientDataError as error:
        return {"refused": str(error)}


def summary(store: EventStore, made: World, selection: Selection) -> dict[str, Any]:
    """Write a selection as a training set and say what is in it."""
    stored = store.stored_interactions([row.interaction_id for row in selection.rows])
    rows = without_leaks(
        build(selection, stored, made.config, made.seed), made.protected, made.config
    )
    found: dict[str, Any] = {
        "funnel": [list(step) for step in selection.funnel],
        "set_aside": [list(step) for step in selection.set_aside],
        "leaks": [list(step) for step in selection.leaks],
        "findings": [finding.describe() for finding in selection.findings],
        "clusters": digest([[row.cluster, row.segment, row.moment] for row in selection.rows])[:16],
    }
    if rows:
        with tempfile.TemporaryDirectory() as home:
            written = write_training_set(
                rows, selection, made.protected, home=Path(home), cycle_id="c", now=made.end,
                config=made.config,
            )  # fmt: skip
        found["digest"] = written.digest
    return found
