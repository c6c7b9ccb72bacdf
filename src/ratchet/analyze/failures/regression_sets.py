"""What the next stages get of a failure cluster: frozen examples, and a request for training.

    requests = hand_over_all(store, found, cycle_id=cycle.id, **who, now=now)

A cluster about safety goes to people first: nothing is made of it before they decided. The examples
are held out by user: whoever has one in the regression set has none in the request. What its user
does not let be trained on or be kept for good is in neither. A set is frozen when it is first made,
so that "is cluster 7 mended" means the same every time.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ratchet.analyze.failures.analysis import FailureAnalysis
from ratchet.analyze.failures.asked_with import NOTHING, AskedWith, Question
from ratchet.analyze.failures.profile import right_answer, right_is_known
from ratchet.evaluation.call_metrics import call_fault, comparable
from ratchet.evaluation.metrics import normalise_answer
from ratchet.outcomes.join import FloatArray, Outcomes
from ratchet.records import (
    Example,
    ExampleSet,
    FailureCluster,
    RegressionSet,
    TrainingRequest,
    derive_id,
    digest,
    reads_as_text,
    user_digest,
)
from ratchet.records.conversations import AS_TEXT
from ratchet.records.cycles import CALL_TOKENS, CODE_TOKENS, LABEL_TOKENS
from ratchet.records.tool_calls import MARK
from ratchet.review.queue import queue_flags, unreviewed_safety
from ratchet.safety.rules import Flag
from ratchet.store import EventStore
from ratchet.store.history import History
from ratchet.store.history.refusals import not_for_good

FEWEST, MOST = 8, 50
HELD_OUT = 0.3
"""Share of a cluster's users whose examples are held out."""
WANTED = 64
"""Examples that are asked for to mend a cluster."""
SAFETY_SHARE = 0.1
FOR_REVIEW = 3
EARLIER_REQUESTS = 500
_BYTES_A_TOKEN = 4  # of words; labels have no more
CLUSTER_SOURCE = "failure-cluster"


@dataclass(frozen=True, slots=True)
class Known:
    """An interaction of a cluster whose right answer is known."""

    interaction_id: str
    user: str
    prompt: str
    target: str


def hand_over_all(
    store: EventStore,
    analysis: FailureAnalysis,
    *,
    cycle_id: str,
    withheld: Collection[str],
    history: History,
    now: datetime,
) -> tuple[TrainingRequest, ...]:
    """Freeze the regression sets of the clusters that have none, and ask for training examples.

    Args:
        store: The store.
        analysis: The analysis.
        cycle_id: The cycle it is of.
        withheld: Ids of interactions that wait for review; those found unsafe are left out as well.
        history: Who refused before what the store holds.
        now: The time.
    """
    outcomes, explicit = analysis.outcomes, analysis.explicit
    rows = [[int(row) for row in members.rows] for members in analysis.result.clusters]
    answered = right_is_known(outcomes, explicit)
    ids = {str(outcomes.interaction_ids[row]) for part in rows for row in part if answered[row]}
    asked = AskedWith.of(store, ids)
    right = [
        known_answers(part, outcomes, explicit, withheld=withheld, asked=asked) for part in rows
    ]
    allowed = set(permitted(store, history, [one for known in right for one in known]))
    requests = []
    for cluster, known in zip(analysis.clusters, right, strict=True):
        reviewed = _to_review(store, cluster)
        blocked = _blocked(store, cluster, reviewed, now)
        requests.append(
            hand_over(
                store,
                cluster,
                tuple(one for one in known if one in allowed),
                cycle_id=cycle_id,
                blocked=blocked,
                reviewed=reviewed,
                now=now,
            )
        )
    return tuple(requests)


def _to_review(store: EventStore, cluster: FailureCluster) -> tuple[str, ...]:
    """Return the interactions that stand for a cluster about safety, the same in every run."""
    if not safety_related(cluster):
        return ()
    for request in reversed(store.records(TrainingRequest, latest=EARLIER_REQUESTS)):
        if request.cluster_id == cluster.id and request.reviewed:
            return request.reviewed
    return tuple(example.interaction_id for example in cluster.beside[:FOR_REVIEW])


def _blocked(
    store: EventStore, cluster: FailureCluster, reviewed: Sequence[str], now: datetime
) -> str | None:
    if not reviewed:
        return None
    why = (
        f"stands for the failure cluster {cluster.name}: {cluster.safety} of {cluster.size} "
        "failures in it are flagged as unsafe or were found so"
    )
    flags = [Flag(CLUSTER_SOURCE, key, "failure cluster", why) for key in reviewed]
    queue_flags(store, flags, now=now)
    waiting = unreviewed_safety(store, reviewed)
    return f"{len(waiting)} of its answers wait for a safety review" if waiting else None


def safety_related(cluster: FailureCluster) -> bool:
    """Tell whether people look at a cluster before anything is made of it."""
    return cluster.safety >= 2 or cluster.safety >= SAFETY_SHARE * cluster.size


def known_answers(
    rows: Sequence[int],
    outcomes: Outcomes,
    explicit: FloatArray,
    *,
    withheld: Collection[str],
    asked: AskedWith = NOTHING,
) -> tuple[Known, ...]:
    """Return what is known to be right in a cluster: corrections, and well-rated answers.

    Of one prompt the newest counts; where right answers to it differ, none does. With other tools
    it is another one. Nothing is right that calls tools which its request did not have, or that
    holds calls as an earlier version recorded them.

    Args:
        rows: The cluster's rows, failed or not.
        outcomes: The interactions.
        explicit: What users said the answers are worth, shape (n,).
        withheld: Ids of interactions that wait for review or were found unsafe.
        asked: Those of the interactions with tools, calls or results.
    """
    answer_known = right_is_known(outcomes, explicit) & (outcomes.unsafe != 1.0)
    by_prompt: dict[Question, list[Known]] = {}
    for row in sorted(rows):
        key, target = str(outcomes.interaction_ids[row]), right_answer(outcomes, row, asked).strip()
        if answer_known[row] and target and key not in withheld and _is_right(target, key, asked):
            answer = Known(key, str(outcomes.user_ids[row]), str(outcomes.prompts[row]), target)
            by_prompt.setdefault(asked.question(key, answer.prompt), []).append(answer)
    return tuple(
        group[-1]
        for group in by_prompt.values()
        if len({comparable(item.target) for item in group}) == 1
    )


def _is_right(target: str, key: str, asked: AskedWith) -> bool:
    """Tell whether an answer's calls are ones that its request's tools take."""
    found = asked.calling.get(key)
    tools = None if found is None else asked.tools(found)
    return AS_TEXT not in target and call_fault(target, tools or ()) is None


def examples_of(
    store: EventStore, known: Sequence[Known], fields: Callable[[Known], dict[str, Any]]
) -> tuple[Example, ...]:
    """Return what is known to be right as examples that ask the same again, with its tools.

    What holds pictures, sound or files cannot be asked again, nor what had tools that are not
    stored any more.

    Args:
        store: Holds the interactions.
        known: What is right.
        fields: Returns each example's id and what else it has.
    """
    interactions = store.stored_interactions([item.interaction_id for item in known])
    asked = AskedWith.among(store, list(interactions.values()))
    examples = []
    for item in known:
        found = interactions.get(item.interaction_id)
        given = None if found is None else asked.fields(found)
        if found is not None and given is not None and reads_as_text(found.messages):
            example = Example(messages=found.messages, target=item.target, **given, **fields(item))
            examples.append(example)
    return tuple(examples)


def longest_answer(examples: Sequence[Example]) -> int:
    """Return how many tokens an answer to examples may have, by what is right.

    What is right is a label, or a call or a few sentences, or longer: each with room to spare.
    """
    targets = [example.target or "" for example in examples]
    longest = max((len(target.encode("utf-8", "replace")) for target in targets), default=0)
    if longest > CALL_TOKENS * _BYTES_A_TOKEN // 2:
        return CODE_TOKENS
    calls = any(MARK in target for target in targets)
    return CALL_TOKENS if calls or longest > LABEL_TOKENS * _BYTES_A_TOKEN else LABEL_TOKENS


def permitted(store: EventStore, history: History, known: Sequence[Known]) -> tuple[Known, ...]:
    """Return what its user lets be kept for good; frozen examples are."""
    without = not_for_good(store, history, (item.interaction_id for item in known))
    return tuple(item for item in known if item.interaction_id not in without)


def hold_out(known: Sequence[Known], cluster_id: str) -> tuple[tuple[Known, ...], tuple[str, ...]]:
    """Return the examples to freeze and their users' digests; none where there are too few.

    Users come in the order of a digest of user and cluster; they are taken until their share of
    users or the largest size is reached, and at least as many as the smallest size needs.
    """
    users = sorted({item.user for item in known}, key=lambda user: digest([cluster_id, user]))
    taken: list[Known] = []
    chosen: list[str] = []
    for user in users:
        enough = len(chosen) >= HELD_OUT * len(users) and len(taken) >= FEWEST
        if enough or len(taken) >= MOST or len(chosen) >= len(users) - 1:
            break
        chosen.append(user)
        taken += [item for item in known if item.user == user]
    if len(taken) < FEWEST:
        return (), ()
    return tuple(taken[:MOST]), tuple(sorted(user_digest(user) for user in chosen))


def hand_over(
    store: EventStore,
    cluster: FailureCluster,
    known: Sequence[Known],
    *,
    cycle_id: str,
    blocked: str | None,
    reviewed: tuple[str, ...] = (),
    now: datetime,
) -> TrainingRequest:
    """Freeze the cluster's regression set, once, and ask for training examples.

    Args:
        store: The store.
        cluster: The cluster.
        known: Its `known_answers`.
        cycle_id: The cycle in which it was found.
        blocked: Why nothing may be trained on yet; no set is frozen then.
        reviewed: Interactions that people look at first.
        now: The time.
    """
    with store.atomic():
        frozen = store.get(RegressionSet, cluster.id)
        reason = None
        if frozen is None and blocked is None:
            frozen = _freeze(store, cluster, known, now)
        if frozen is None:
            reason = blocked or (
                f"a regression set needs {FEWEST} examples with a known answer of some users "
                f"beside others to train on, got {len(known)} of "
                f"{len({item.user for item in known})} users"
            )
        offered = _offered(store, frozen, known) if blocked is None else ()
        set_id = frozen.example_set_id if frozen else None
        content = digest([cluster.id, cycle_id, offered, blocked, reason, set_id, cluster.name])
        request = TrainingRequest(
            id=derive_id("training-request", content),
            created_at=now,
            cycle_id=cycle_id,
            cluster_id=cluster.id,
            name=cluster.name,
            wanted=WANTED,
            interaction_ids=offered,
            regression_set_id=set_id,
            reason=reason,
            blocked=blocked,
            reviewed=reviewed,
        )
        stored = store.get(TrainingRequest, request.id)
        if stored is None:
            store.append(request)
    return stored or request


def _freeze(
    store: EventStore,
    cluster: FailureCluster,
    known: Sequence[Known],
    now: datetime,
) -> RegressionSet | None:
    held_out, users = hold_out(known, cluster.id)
    examples = examples_of(
        store,
        held_out,
        lambda item: {"id": derive_id("regression", cluster.id, item.interaction_id)},
    )
    if len(examples) < FEWEST:
        return None
    examples_set = ExampleSet.freeze(
        f"regression-{cluster.id[:12]}", examples, now, longest_answer(examples)
    )
    frozen = RegressionSet(
        id=cluster.id,
        created_at=now,
        name=cluster.name,
        example_set_id=examples_set.id,
        users=users,
    )
    store.append(examples_set)
    store.append(frozen)
    return frozen


def _offered(
    store: EventStore, frozen: RegressionSet | None, known: Sequence[Known]
) -> tuple[str, ...]:
    held_users = set(frozen.users) if frozen else set()
    examples = store.get(ExampleSet, frozen.example_set_id) if frozen else None
    prompts = {normalise_answer(e.prompt) for e in examples.examples} if examples else set()
    return tuple(
        item.interaction_id
        for item in known
        if user_digest(item.user) not in held_users and normalise_answer(item.prompt) not in prompts
    )
