"""The evaluation part of deploy: both models answer the frozen examples."""

from __future__ import annotations

from functools import partial

from prefect import task
from prefect.cache_policies import NO_CACHE

from ratchet.deploy.gate.head_to_head import Answers, FrozenSets, answer_sets
from ratchet.deploy.gate.policy import GatePolicy
from ratchet.flows._runtime import load_model, workspace
from ratchet.models import LanguageModel


@task(name="evaluate", task_run_name="evaluate-{reference}", cache_policy=NO_CACHE)
def evaluate(sets: FrozenSets, reference: str, policy: GatePolicy, *, ask: bool = True) -> Answers:
    """Answer the frozen examples with one version; recorded answers are not made again.

    What people label are these very answers: once they were asked to, nothing more is asked for.
    """
    work = workspace()
    return answer_sets(
        sets.read(work.store),
        policy,
        partial(_load, reference),
        work.store,
        name=reference,
        model_digest=work.tracker.version(reference).digest,
        ask=ask,
    )


def _load(reference: str, one_line: bool) -> LanguageModel:
    return load_model(reference) if one_line else load_model(reference, one_line=False)
