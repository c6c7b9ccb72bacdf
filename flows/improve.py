"""Improve: a training set from what users showed to be good, and an adapter trained on it."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial

from prefect import State, flow, task
from prefect.cache_policies import NO_CACHE

from ratchet.flows._curation import curated
from ratchet.flows._runtime import base_folder, cycle_run, now, publish_figure, run_id, workspace
from ratchet.flows._training import (
    TrainingOptions,
    as_begun,
    choose_config,
    starting_point,
    train,
    training_key,
)
from ratchet.flows._training_report import log_training
from ratchet.flows._waiting import or_waiting
from ratchet.improve.curation.curating import CurateOptions
from ratchet.improve.curation.dataset import frame, read_any_rows, write_prepared
from ratchet.improve.training.config import FinetuneConfig
from ratchet.improve.training.finetune import FinetuneResult
from ratchet.improve.training.news import Planned, await_news
from ratchet.improve.training.search import SearchResult
from ratchet.models import model_digest
from ratchet.records import Candidate, Cycle, TrainingSet, derive_id
from ratchet.store.cycles import open_for, sole_loop, sole_training
from ratchet.views import plots


class ImproveOptions(CurateOptions):
    """What is trained on, and how."""

    finetune: FinetuneConfig = FinetuneConfig()
    training: TrainingOptions = TrainingOptions()


DEFAULTS = ImproveOptions()


@task(cache_policy=NO_CACHE)
def curate(cycle: Cycle, options: ImproveOptions) -> TrainingSet:
    """Choose what to train on out of everything stored up to the end of the cycle's window."""
    work = workspace()
    prepared = curated(work, cycle, options.finetune.method, options)
    training_set = write_prepared(prepared, home=work.settings.home, cycle_id=cycle.id, now=now())
    stored = work.store.get(TrainingSet, training_set.id)
    if stored is None:
        work.store.append(training_set)
    return stored or training_set


@task(cache_policy=NO_CACHE)
def register(
    cycle: Cycle,
    training_set: TrainingSet,
    options: ImproveOptions,
    result: FinetuneResult,
    key: str,
    search: SearchResult | None,
) -> Candidate:
    """Log the run with its data, and register the adapter as the challenger, once.

    Args:
        cycle: The cycle.
        training_set: What was trained on.
        options: With the configuration that was trained.
        result: The adapter.
        key: From `training_key`.
        search: What was tried before.
    """
    work = workspace()
    candidate_id = derive_id("candidate", cycle.id, training_set.digest, result.adapter_digest)
    folder = work.settings.home.joinpath(result.folder)
    with cycle_run(cycle, "improve", key) as run:
        log_training(run, result, options.finetune, search)
        run.params(
            options.curation.model_dump()
            | {
                "base_model": work.settings.base_model,
                "start_from": cycle.champion,
                "dataset_digest": training_set.digest,
                "dataset_size": training_set.size,
            }
        )
        data = work.settings.home.joinpath(training_set.path)
        run.dataset(
            frame(read_any_rows(data)),
            name="training-set",
            digest=training_set.digest,
            source=str(data),
            context="training",
        )
        run.folder(data, "training_set")
        publish_figure(run, "funnel", plots.funnel(training_set.funnel), "From traffic to data")
        made = model_digest(base_folder(), folder)
        facts = {
            "base_model": work.settings.base_model,
            "base_digest": model_digest(base_folder()),
            "chat_template": work.settings.chat_template,
            "digest": made,
        }
        model_id, source = run.model(folder, facts)
        version = work.tracker.register_adapter(
            run.run_id, source, made, adapter_digest=result.adapter_digest, model_id=model_id
        )
    stored = work.store.get(Candidate, candidate_id)
    if stored is not None:
        return stored
    candidate = Candidate(
        id=candidate_id,
        cycle_id=cycle.id,
        created_at=now(),
        model_name=work.settings.model_name,
        version=version.version,
        adapter_digest=result.adapter_digest,
        path=result.folder,
        training_set_id=training_set.id,
        run_id=run.run_id,
        losses=result.losses,
        training_seconds=result.seconds,
    )
    work.store.append(candidate)
    return candidate


@flow(
    name="improve",
    flow_run_name="train a challenger by {options.finetune.method}",
    validate_parameters=True,
)
def improve(options: ImproveOptions = DEFAULTS, handed_over: str | None = None) -> str | State[str]:
    """Train a challenger on the latest cycle's feedback and return the candidate's id.

    Args:
        options: What is trained on, and how.
        handed_over: The cycle for which a loop waits that is the only one meanwhile; people leave
            it out.
    """
    store = workspace().store
    with nullcontext() if handed_over else sole_loop(store), sole_training(store, run_id()):
        return or_waiting(partial(_improve, options, handed_over))


def _improve(options: ImproveOptions, handed_over: str | None) -> str:
    work = workspace()
    cycle = open_for(work.store, handed_over)
    training_set = curate(cycle, options)
    search = None
    if options.training.search is not None:
        asked = options.training.search
        search = choose_config(training_set, options.finetune, asked, cycle.champion)
        options = options.model_copy(update={"finetune": search.best})
    start = starting_point(cycle.champion)
    config = as_begun(training_set, options.finetune, start)
    options = options.model_copy(update={"finetune": config})
    key = training_key(training_set, options.finetune, start)
    key_of = partial(start.key, config=options.finetune)
    await_news(work.store, work.settings.home, cycle, Planned.of(training_set), key_of)
    missing = not work.settings.home.joinpath("adapters", key[:16]).exists()
    trained = train.with_options(refresh_cache=missing)(
        cycle, training_set, options.finetune, options.training, key
    )
    result = FinetuneResult.of_cache(trained)
    open_for(work.store, handed_over)
    return register(cycle, training_set, options, result, key, search).id
