"""The evaluation part of deploy: both models answer the frozen examples."""

from __future__ import annotations

from functools import partial

from prefect import task
from prefect.cache_policies import NO_CACHE

from ratchet.deploy.gate.head_to_head import Answers, FrozenSets, answer_recorded
from ratchet.evaluation.paired import decoding_name
from ratchet.flows._runtime import load_model, workspace


@task(name="evaluate", task_run_name="evaluate-{reference}", cache_policy=NO_CACHE)
def evaluate(sets: FrozenSets, reference: str) -> Answers:
    """Answer the frozen examples with one version; recorded answers are not made again."""
    work = workspace()
    examples = sets.read(work.store)
    return answer_recorded(
        examples.all,
        partial(load_model, reference),
        work.store,
        name=reference,
        model_digest=work.tracker.version(reference).digest,
        decoding=decoding_name(examples.max_new_tokens),
        max_new_tokens=examples.max_new_tokens,
    )
