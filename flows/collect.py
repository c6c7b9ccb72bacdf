"""Collect: the champion answers messages, users react, and all of it goes into the store."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from prefect import State, flow, task
from prefect.cache_policies import NO_CACHE
from pydantic import BaseModel, ConfigDict, Field

from ratchet.analyze.failures.traffic_sample import SampleRules
from ratchet.collect.ingest import ingest
from ratchet.collect.messages import check_labels, read_messages, read_queues, targets
from ratchet.collect.sampling import held_out_count, hold_out, without
from ratchet.doors.configured import Source
from ratchet.files.rows import set_aside_lines
from ratchet.flows._derived import derive_new
from ratchet.flows._recorded import in_use, recorded_cycle, refuse_real_users, refuse_simulation
from ratchet.flows._runtime import load_model, logger, now, workspace
from ratchet.flows._sources import bring_in
from ratchet.flows._waiting import or_waiting
from ratchet.golden.rules import GoldenRules
from ratchet.records import LABEL_TOKENS, Cycle, LabelledMessage, digest
from ratchet.simulation.messages import support_messages
from ratchet.simulation.routing import (
    build_examples,
    conversation,
    reactions,
    record_answers,
    traffic_of_cycle,
)
from ratchet.simulation.traffic import in_chunks
from ratchet.simulation.users import ReactionRates, Visit, plan_traffic
from ratchet.store.cycles import freeze_examples, open_cycle, sole_loop

Count = Annotated[int, Field(ge=1)]


class CollectOptions(BaseModel):
    """What comes in.

    Attributes:
        messages: CSV with columns `text` and `label`, or JSON Lines with `text` and `target`;
            without it, made-up support messages.
        evaluation: A file of the same kind to evaluate on, instead of holding messages out.
        instruction: What the model is told to do with a message; None has it name the queue.
        max_new_tokens: The longest answer; left out, that of a label, or of real users' answers.
        queues: CSV with columns `label` and `queue`: which queue a label belongs to.
        messages_limit: Messages that come in during a cycle.
        held_out: Messages kept for evaluation, at most a quarter of all.
        generated_messages: How many are made up.
        users: How many people write in.
        reactions: How they react.
        seed: Of everything that is drawn.
        chunk: Messages answered and stored at a time.
        source: `recorded`, what real users did that no cycle had yet, also where this is left out;
            or `simulated`, which users never are in a store that holds real ones.
        examples: What both models answer at the gate: a file as for `ratchet gate --examples`.
        golden: Without a file, how the set grows that the gate asks; `sample` before it has any.
        sources: What is imported first, from where the last time ended.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    messages: Path | None = None
    evaluation: Path | None = None
    instruction: Annotated[str, Field(min_length=1)] | None = None
    max_new_tokens: Annotated[int, Field(ge=1, le=8_192)] | None = None
    queues: Path | None = None
    messages_limit: Count = 640
    held_out: Count = 300
    generated_messages: Annotated[int, Field(ge=100, le=6_000)] = 4_000
    users: Count = 120
    reactions: ReactionRates = ReactionRates()
    seed: Annotated[int, Field(ge=0)] = 0
    chunk: Count = 128
    source: Literal["simulated", "recorded"] | None = None
    examples: Path | None = None
    golden: GoldenRules | None = GoldenRules()
    sample: SampleRules = SampleRules()
    sources: tuple[Source, ...] = ()


DEFAULTS = CollectOptions()
_NOT_SIMULATED = {"source", "examples", "golden", "sample", "sources"}
_OF_ANY_CYCLE = {*_NOT_SIMULATED, "max_new_tokens", "seed"}
SIMULATION = set(CollectOptions.model_fields).difference(_OF_ANY_CYCLE)
"""Options about simulated users alone."""


@task(cache_policy=NO_CACHE)
def read(options: CollectOptions, path: Path | None) -> tuple[LabelledMessage, ...]:
    """Read or write the messages; bad rows are set aside in the store."""
    if path is None:
        rng = np.random.default_rng([options.seed, 0])
        return support_messages(rng, options.generated_messages)
    queues = read_queues(options.queues) if options.queues else None
    read = read_messages(path, queues=queues, now=now())
    workspace().store.set_aside(read.set_aside)
    logger.info("read %d messages, set aside %d rows", len(read.messages), len(read.set_aside))
    for line in set_aside_lines(read.set_aside):
        logger.warning("%s", line)
    return read.messages


@task(name="open-cycle", cache_policy=NO_CACHE)
def begin(
    options: CollectOptions, held_out: tuple[LabelledMessage, ...], labels: tuple[str, ...]
) -> Cycle:
    """Freeze the evaluation set and open the cycle, or go on with the open one."""
    work = workspace()
    champion = in_use()
    asked = build_examples(held_out, labels, options.instruction)
    examples = freeze_examples(work.store, "held-out", asked, now(), options.max_new_tokens)
    given = options.model_dump(mode="json", exclude=_NOT_SIMULATED)
    return open_cycle(
        work.store,
        champion=champion.reference,
        options_digest=digest([given, examples.id]),
        seed=options.seed,
        example_set_id=examples.id,
        now=now(),
    )


@task(name="answer-messages", cache_policy=NO_CACHE)
def answer(
    cycle: Cycle, visits: tuple[Visit, ...], labels: tuple[str, ...], options: CollectOptions
) -> int:
    """Answer a chunk of messages, let the users react, and store both; safe to repeat."""
    store = workspace().store
    stored = store.stored_interactions([visit.interaction_id for visit in visits])
    waiting = [visit for visit in visits if visit.interaction_id not in stored]
    if waiting:
        asked = options.instruction
        prompts = [conversation(labels, visit.message, asked) for visit in waiting]
        model = load_model(cycle.champion)
        completions = model.generate(prompts, max_new_tokens=options.max_new_tokens or LABEL_TOKENS)
        fresh = record_answers(
            waiting, completions, labels=labels, model_version=cycle.champion, instruction=asked
        )
        stored |= {interaction.id: interaction for interaction in fresh}
    events = reactions(
        visits, stored, rates=options.reactions, labels=labels, seed=cycle.seed,
        until=cycle.window_end,
    )  # fmt: skip
    with store.simulating():
        report = ingest([*stored.values(), *events], store, source="simulation", now=now())
    return report.feedback


def _separated(
    messages: tuple[LabelledMessage, ...], options: CollectOptions
) -> tuple[tuple[LabelledMessage, ...], tuple[LabelledMessage, ...]]:
    """Return what comes in and what is evaluated on."""
    if options.evaluation is not None:
        return without(messages, read(options, options.evaluation))
    count = held_out_count(messages, most=options.held_out)
    held_out, pool = hold_out(messages, count=count, key="evaluation")
    return pool, held_out


@flow(name="collect", validate_parameters=True)
def collect(options: CollectOptions = DEFAULTS) -> str | State[str]:
    """Collect one cycle's interactions and return the cycle's id."""
    with sole_loop(workspace().settings.home):
        return or_waiting(partial(_collect, options))


def _collect(options: CollectOptions) -> str:
    if options.source != "simulated":
        refuse_simulation(options.model_dump(include=SIMULATION, exclude_defaults=True))
        bring_in(options.sources)
        derive_new(most=None)
        longest, seed, golden = options.max_new_tokens, options.seed, options.golden
        return recorded_cycle(options.examples, golden, options.sample, longest, seed)
    refuse_real_users()
    options = options.model_copy(update={"max_new_tokens": options.max_new_tokens or LABEL_TOKENS})
    messages = read(options, options.messages)
    pool, held_out = _separated(messages, options)
    everything = (*pool, *held_out)
    labels = check_labels(everything) if options.instruction is None else targets(everything)
    cycle = begin(options, held_out, labels)
    limit = options.messages_limit
    traffic = traffic_of_cycle(pool, number=cycle.number, limit=limit, seed=cycle.seed)
    visits = plan_traffic(
        traffic,
        traffic_id=cycle.id,
        users=options.users,
        start=cycle.window_start,
        end=cycle.window_end,
        rng=np.random.default_rng([cycle.seed, cycle.number]),
    )
    for done, chunk in in_chunks(visits, options.chunk):
        answer(cycle, chunk, labels, options)
        logger.info("answered %d of %d messages", done, len(visits))
    return cycle.id
