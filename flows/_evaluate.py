"""The evaluation part of deploy: both models answer the frozen examples."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import replace

from prefect import task
from prefect.cache_policies import NO_CACHE

from ratchet.deploy.adapters import placed
from ratchet.deploy.backends import KEY_VARIABLE
from ratchet.deploy.gate.answering import (
    AnswerOptions,
    By,
    Load,
    by_backend,
    by_endpoint,
    by_process,
    way_of,
)
from ratchet.deploy.gate.decoding import sampling_of_users
from ratchet.deploy.gate.head_to_head import Answers, FrozenSets, GateExamples, answer_sets
from ratchet.deploy.gate.policy import GatePolicy
from ratchet.deploy.served import served_name
from ratchet.flows._runtime import load_model, workspace
from ratchet.models import LanguageModel, Sampling
from ratchet.models.endpoint import checked_key, key_from
from ratchet.records import Cycle, digest
from ratchet.store.cycles import cycle_window
from ratchet.tracking import ModelVersion


@task(name="evaluate", task_run_name="evaluate-{reference}", cache_policy=NO_CACHE)
def evaluate(
    sets: FrozenSets,
    reference: str,
    policy: GatePolicy,
    cycle: Cycle,
    options: AnswerOptions,
    *,
    ask: bool = True,
) -> Answers:
    """Answer the frozen examples with one version; recorded answers are not made again.

    Of a cycle of recorded traffic they are made as users get theirs: by the same server, with the
    same sampling, over several lines and as long. What people label are these very answers: once
    they were asked to, nothing more is asked for (`ask`).
    """
    work = workspace()
    by = options.by or ("backend" if work.settings.backend else "process")
    recorded = cycle.arrived_until is not None
    users = sampling_of_users(work.store, cycle_window(cycle)) if recorded else Sampling()
    sampling = options.sampling(users)
    version = work.tracker.version(reference)
    examples = sets.read(work.store)
    if options.max_new_tokens is not None:
        examples = replace(examples, max_new_tokens=options.max_new_tokens)
    with ExitStack() as held:
        return answer_sets(
            examples,
            policy,
            _loader(version, by, options, sampling, held, is_champion=reference == cycle.champion),
            work.store,
            name=reference,
            model_digest=_digest(version, by, cycle),
            one_line=by == "process" and not recorded and not _several_lines(examples),
            way=way_of(by, sampling, options.url or ""),
            ask=ask,
        )


def _several_lines(examples: GateExamples) -> bool:
    """Tell whether a right answer has several lines, so that answers must not end at the first."""
    return any("\n" in (one.target or "") for one in examples.all)


def _loader(
    version: ModelVersion,
    by: By,
    options: AnswerOptions,
    sampling: Sampling,
    held: ExitStack,
    *,
    is_champion: bool,
) -> Load:
    """Return what makes the model ready, the first time that an answer is missing."""
    work, reference = workspace(), version.reference
    if by == "endpoint":
        named = options.champion if is_champion else options.challenger
        variable = options.api_key_variable
        return by_endpoint(
            options.url or "",
            named or served_name(work.store, reference),
            sampling=sampling,
            key=key_from(os.environ, variable) if variable else None,
            variable=variable,
            at_once=options.concurrency,
        )
    if by == "process":
        return by_process(lambda one_line: _load(reference, one_line), sampling)
    serving = work.answering
    return held.enter_context(
        by_backend(
            serving.backend,
            reference,
            name=served_name(work.store, reference),
            place=lambda: placed(serving.shelf, work.store, serving.tracker, reference),
            sampling=sampling,
            key=checked_key(serving.key, KEY_VARIABLE),
            concurrency=options.concurrency,
        )
    )


def _digest(version: ModelVersion, by: By, cycle: Cycle) -> str:
    """Name what answers: what a server has under a name may be another model next week."""
    served = by != "process" and version.adapter is None
    return digest([version.digest, cycle.id]) if served else version.digest


def _load(reference: str, one_line: bool) -> LanguageModel:
    return load_model(reference) if one_line else load_model(reference, one_line=False)
