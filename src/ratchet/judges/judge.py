"""Judges: one answer against a rubric, two against each other, one against a reference.

    judge = Judge(spec, model_digest="...")
    judged = judge_items(judge, items, ask=ask, recorded=recorded, save=save, now=now)

A verdict is kept with its prompt, raw reply and model. What cannot be read as a verdict is unscored
with its reason and counted; it never becomes a number. A question is keyed by the judge's version
and by everything that the judge is shown, so that no verdict is paid for twice.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path

from ratchet.errors import InvalidInputError, ModelError
from ratchet.evaluation.paired import FAILED_SHARE
from ratchet.executors import INLINE, Executor
from ratchet.judges.prompts import (
    PROMPT_VERSION,
    Item,
    Reading,
    build_prompt,
    clean_text,
    menu_with_meanings,
    read_guard,
    read_verdict,
    response_schema,
    second_first,
    wording,
)
from ratchet.judges.rubrics import JudgeSpec
from ratchet.judges.spread import ask_spread
from ratchet.models import HuggingFaceModel, LanguageModel, prepare_base_model
from ratchet.models.asking import Asked, ask_endpoint, ask_model
from ratchet.models.endpoint import Question, Reply, key_in
from ratchet.models.endpoint_run import CEILING_REACHED, STOPPED
from ratchet.records import MAX_TEXT_CHARACTERS, JudgeVerdict, digest

Save = Callable[[Sequence[JudgeVerdict]], None]
LOCAL_BATCH = 8
NOT_ANSWERED = "not answered"
EXPLAINED_TOKENS = 256
BARE_TOKENS = 8
Ask = Callable[[Sequence[Question], Callable[[Sequence[Reply]], None]], Asked]


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a judge says of one item.

    Attributes:
        item_id: The item.
        outcome: Option chosen, of a pair `first`, `second` or `tie`; None when it is unscored.
        score: Its worth in [0, 1], of a pair that of the first answer; None when it is unscored.
        reason: Why it is unscored.
        consistent: Whether both orders of a pair agree; None where one is unscored or not asked.
        verdicts: The replies that it rests on, of a pair in both orders in the order given, then
            swapped; none after one that is missing, so that their places tell the order.
    """

    item_id: str
    outcome: str | None
    score: float | None
    reason: str | None
    consistent: bool | None
    verdicts: tuple[JudgeVerdict, ...]


@dataclass(frozen=True, slots=True)
class Judged:
    """Judgements of a batch, in the order of its items, and what asking for them took.

    Attributes:
        asked: Replies got now; the others were recorded before.
        unscored: Items without a score, by kind of reason (what stands before its colon).
    """

    judgements: tuple[Judgement, ...]
    asked: Asked
    reused: int
    unscored: dict[str, int]


class Judge:
    """A judge of one version: the same version puts the same question in the same words."""

    def __init__(self, spec: JudgeSpec, *, model_digest: str) -> None:
        self.spec = spec
        content = [
            PROMPT_VERSION,
            wording(spec),
            longest_reply(spec) if spec.local is not None else None,
            spec.dimension.model_dump(mode="json"),
            spec.mode,
            spec.both_orders,
            spec.explain,
            [example.model_dump(mode="json") for example in spec.examples],
            model_digest,
        ]
        if spec.mode == "pairwise" and not spec.both_orders:
            content.append("placed by chance")
        if spec.unit == "session":
            content.append("session")
        self.version = f"{spec.name[:60]}-{digest(content)[:16]}"

    def orders(self, item: Item) -> tuple[bool, ...]:
        """Return whether the second answer of a pair is shown as A, each time that it is asked.

        A judge of one order sees each pair as chance places it: always in the order given, its
        taste for a place could not be told from a taste for whoever stands there.
        """
        if self.spec.mode != "pairwise":
            return (False,)
        return (False, True) if self.spec.both_orders else (second_first(item),)

    def question(
        self,
        item: Item,
        *,
        swapped: bool = False,
        occasion: str | None = None,
        shielded: bool = True,
    ) -> tuple[Question, int]:
        """Return the question about an item and how many passages the judge is not shown.

        Args:
            item: What is judged.
            swapped: Whether the second answer of a pair is shown as A.
            occasion: Asks anew what was asked before, for anchors that watch the judge's drift.
            shielded: Whether the answer's instructions to the judge are cut out; only probes that
                measure what those do to the judge leave them in.

        Raises:
            InvalidInputError: The item lacks what the judge's mode needs.
        """
        self._check(item)
        prompt, cuts = build_prompt(self.spec, item, swapped=swapped, shielded=shielded)
        shown = [self.version, occasion, [message.canonical() for message in prompt]]
        structured = self.spec.endpoint is not None and self.spec.endpoint.structured
        schema = response_schema(self.spec) if structured and self.spec.mode != "guard" else None
        return Question(digest(shown), prompt, schema), cuts

    def verdict(
        self, question: Question, cuts: int, reply: Reply, now: datetime, item: Item | None = None
    ) -> JudgeVerdict:
        """Read a reply as a verdict, which names what it is about."""
        if reply.refused:  # "No, I cannot say" is no verdict "no"
            reading = Reading(None, "refused: the model, or a filter, did not answer")
        elif self.spec.mode == "guard":
            reading = read_guard(reply.text, self.spec.menu)
        elif reply.cut_off and self.spec.explain:  # its last verdict may be one it quotes
            reading = Reading(None, "cut off: the reply ended at the token limit")
        else:
            reading = read_verdict(reply.text, self.spec.menu, menu_with_meanings(self.spec))
        outcome = reading.outcome
        return JudgeVerdict(
            id=question.key,
            created_at=now,
            judge=self.spec.name,
            judge_version=self.version,
            dimension=self.spec.dimension.name,
            mode=self.spec.mode,
            model=reply.model[:200] or "unnamed",
            prompt=tuple(question.conversation),
            reply=clean_text(reply.text)[:MAX_TEXT_CHARACTERS],
            outcome=outcome,
            score=None if outcome is None else self.spec.score(outcome),
            reason=reading.reason,
            shielded=cuts,
            input_tokens=reply.input_tokens,
            output_tokens=reply.output_tokens,
            cost=reply.cost,
            latency_seconds=reply.latency_seconds,
            attempts=reply.attempts,
            item_id=None if item is None else item.id,
            shows=() if item is None else item.shows,
        )

    def _check(self, item: Item) -> None:
        lacks = {
            "pairwise": ("a second answer", item.other),
            "reference": ("a reference", item.reference),
        }.get(self.spec.mode)
        if lacks is not None and lacks[1] is None:
            raise InvalidInputError(
                f"a judge in mode {self.spec.mode} needs {lacks[0]}, got none for item "
                f"{item.id!r}; add it or take another mode"
            )


def judge_items(
    judge: Judge,
    items: Sequence[Item],
    *,
    ask: Ask,
    recorded: Callable[[Sequence[str]], Mapping[str, JudgeVerdict]],
    save: Save,
    now: Callable[[], datetime],
    occasion: str | None = None,
    shielded: bool = True,
    again: bool = False,
) -> Judged:
    """Judge items; what was asked before is taken from the record.

    A question whose reply gave no verdict may be asked again. Each time has a key of its own, so
    that all replies are kept, and the latest verdict counts.

    Args:
        judge: The judge.
        items: What it judges; ids are distinct.
        ask: Puts questions to the judge's model and hands replies over as they come (`asker`).
        recorded: Returns the verdicts that are there already, by key.
        save: Keeps new verdicts; called as they come.
        now: The clock.
        occasion: See `Judge.question`.
        shielded: See `Judge.question`.
        again: Whether what was asked and gave no verdict is asked once more.

    Raises:
        InvalidInputError: An item lacks what the judge's mode needs.
        ModelError: The model refuses every question.
    """
    slots = [(item, swapped) for item in items for swapped in judge.orders(item)]
    times_each = len(slots) // max(1, len(items))

    def put(place: int, times: int) -> tuple[Question, int]:
        item, swapped = slots[place]
        named = occasion if times == 0 else f"{occasion or 'first'}, asked again {times}"
        return judge.question(item, swapped=swapped, occasion=named, shielded=shielded)

    asked_for, known, before = _latest_questions(len(slots), put, recorded, again=again)
    questions = {question.key: (question, cuts) for question, cuts in asked_for}
    reused = sum(key in known for key in questions)
    about: dict[str, Item] = {}
    for (question, _), (item, _) in zip(asked_for, slots, strict=True):
        about.setdefault(question.key, item)

    def keep(replies: Sequence[Reply]) -> None:
        fresh = [
            judge.verdict(*questions[reply.key], reply, now(), about[reply.key])
            for reply in replies
        ]
        save(fresh)
        known.update((verdict.id, verdict) for verdict in fresh)

    asked = ask([q for q, _ in questions.values() if q.key not in known], keep)
    verdicts = [known.get(q.key) or before.get(q.key) for q, _ in asked_for]
    judgements = tuple(
        _judgement(judge, item, verdicts[place * times_each : (place + 1) * times_each])
        for place, item in enumerate(items)
    )
    unscored = Counter((j.reason or "").split(":")[0] for j in judgements if j.score is None)
    return Judged(judgements, asked, reused, dict(unscored.most_common()))


def _latest_questions(
    count: int,
    put: Callable[[int, int], tuple[Question, int]],
    recorded: Callable[[Sequence[str]], Mapping[str, JudgeVerdict]],
    *,
    again: bool,
) -> tuple[list[tuple[Question, int]], dict[str, JudgeVerdict], dict[str, JudgeVerdict]]:
    """Return the questions whose verdicts count: each as it was asked last, or is to be asked now.

    Args:
        count: How many there are.
        put: Returns a question as it is asked for the first time (0), again (1), once more (2).
        recorded: See `judge_items`.
        again: See `judge_items`.

    Returns:
        The questions, the verdicts that are recorded, and by the key of a question the verdict of
        the time before, which stands until that question is answered.
    """
    asked_for = [put(place, 0) for place in range(count)]
    known = dict(recorded([question.key for question, _ in asked_for]))
    before: dict[str, JudgeVerdict] = {}
    times = 0
    while unread := [p for p, (q, _) in enumerate(asked_for) if _is_unread(known.get(q.key))]:
        times += 1
        later = {place: put(place, times) for place in unread}
        there = recorded([question.key for question, _ in later.values()])
        known.update(there)
        for place, (question, cuts) in later.items():
            if again or question.key in there:
                before[question.key] = known[asked_for[place][0].key]
                asked_for[place] = question, cuts
        if not there:
            break
    return asked_for, known, before


def _is_unread(verdict: JudgeVerdict | None) -> bool:
    return verdict is not None and verdict.outcome is None


def model_of(spec: JudgeSpec, cache: Path) -> tuple[LanguageModel | None, str]:
    """Return a judge's local model, None where it has an endpoint, and the digest of its model.

    Raises:
        ModelError: The local model is not there.
    """
    if spec.endpoint is not None:
        return None, digest(
            ["endpoint", spec.endpoint.model_dump(mode="json", exclude={"api_key_variable"})]
        )
    model = HuggingFaceModel.load(
        prepare_base_model(spec.local or "", cache),
        batch_size=LOCAL_BATCH,
        one_line=not spec.explain,  # the verdict alone stands in the first line
    )
    return model, model.digest


def asker(
    spec: JudgeSpec,
    model: LanguageModel | None,
    *,
    environ: Mapping[str, str] = os.environ,
    executor: Executor = INLINE,
) -> Ask:
    """Return how this judge's model is asked: its endpoint, or the local model given.

    An endpoint without a spend ceiling is asked by the executor's workers, which share the pace
    and find its key in their own environment. A ceiling holds in one process alone.

    Raises:
        ModelError: The variable that should hold the endpoint's key is not set.
    """
    if spec.endpoint is None:
        if model is None:
            raise ModelError(f"judge {spec.name!r} needs its local model, got none")
        return partial(_ask_local, model, spec)
    key = key_in(environ, spec.endpoint, needs=f"judge {spec.name!r} needs its key")
    if executor is not INLINE and spec.limits.spend_ceiling is None:
        return partial(ask_spread, endpoint=spec.endpoint, limits=spec.limits, executor=executor)
    return partial(_ask_endpoint, spec, key)


def refuse_failure(name: str, asked: Asked) -> None:
    """Refuse to go on with a judge that left many questions without an answer.

    Raises:
        ModelError: It left more than `FAILED_SHARE`; what it answered is kept.
    """
    failed = sum(asked.failed.values())
    left, total = failed + asked.not_asked, asked.asked + asked.not_asked
    if left <= FAILED_SHARE * total or asked.why_not_asked in (STOPPED, CEILING_REACHED):
        return
    reasons = asked.why_not_asked or max(asked.failed, key=lambda reason: asked.failed[reason])
    raise ModelError(
        f"judge {name!r} must answer what it is asked, got no answer to {left} of {total} "
        f"questions: {reasons}; see that its endpoint is up, then start again: what it answered is "
        "kept"
    )


def longest_reply(spec: JudgeSpec) -> int:
    """Return the tokens that a local model may use: its reasons, or the longest option."""
    longest = max(len(option.encode("utf-8")) for option in spec.menu)  # a token is a byte or more
    return EXPLAINED_TOKENS if spec.explain else max(BARE_TOKENS, longest)


def _ask_local(
    model: LanguageModel,
    spec: JudgeSpec,
    questions: Sequence[Question],
    save: Callable[[Sequence[Reply]], None],
) -> Asked:
    return ask_model(questions, model, max_new_tokens=longest_reply(spec), save=save)


def _ask_endpoint(
    spec: JudgeSpec,
    key: str | None,
    questions: Sequence[Question],
    save: Callable[[Sequence[Reply]], None],
) -> Asked:
    if spec.endpoint is None:
        raise ModelError(f"judge {spec.name!r} has no endpoint")
    return ask_endpoint(questions, spec.endpoint, spec.limits, api_key=key, save=save)


def _judgement(judge: Judge, item: Item, verdicts: Sequence[JudgeVerdict | None]) -> Judgement:
    answered = verdicts.index(None) if None in verdicts else len(verdicts)
    there = tuple(verdict for verdict in verdicts[:answered] if verdict is not None)
    reason = None if answered == len(verdicts) else NOT_ANSWERED
    for verdict in there:
        reason = reason or verdict.reason
    if judge.spec.mode != "pairwise":
        outcome = there[0].outcome if there else None
        score = there[0].score if there else None
        return Judgement(item.id, outcome, score, reason, None, there)
    if reason is not None:
        return Judgement(item.id, None, None, reason, None, there)
    worth = [verdict.score or 0.0 for verdict in there]
    if len(worth) == 1:
        only = 1.0 - worth[0] if second_first(item) else worth[0]
        return Judgement(item.id, _winner(only), only, None, None, there)
    first, second = worth[0], 1.0 - worth[1]
    consistent = first == second
    combined = first if consistent else 0.5  # what depends on the order is no preference
    return Judgement(item.id, _winner(combined), combined, None, consistent, there)


def _winner(score: float) -> str:
    return {1.0: "first", 0.0: "second"}.get(score, "tie")
