"""Improve: a training set from what users showed to be good, and an adapter trained on it."""

from __future__ import annotations

from datetime import UTC, datetime

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from pydantic import BaseModel, ConfigDict

from flows._runtime import base_folder, cycle_run, now, publish_figure, workspace
from ratchet import plots
from ratchet.analyze.review import unreviewed_safety
from ratchet.analyze.validations import usable_versions
from ratchet.cycles import latest_cycle, sole_loop
from ratchet.evaluation.metrics import QualityWeights, join_feedback, quality
from ratchet.improve.curation import (
    CurationConfig,
    build_rows,
    frame,
    read_rows,
    select,
    write_training_set,
)
from ratchet.improve.finetune import FinetuneConfig, FinetuneResult, finetune, finetune_key
from ratchet.models import adapter_digest, model_digest
from ratchet.records import Candidate, Cycle, ExampleSet, TrainingSet, derive_id
from ratchet.store import Window

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class ImproveOptions(BaseModel):
    """What is trained on, and how."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    weights: QualityWeights = QualityWeights()
    curation: CurationConfig = CurationConfig()
    finetune: FinetuneConfig = FinetuneConfig()


DEFAULTS = ImproveOptions()


@task(cache_policy=NO_CACHE)
def curate(cycle: Cycle, options: ImproveOptions) -> TrainingSet:
    """Choose what to train on out of everything stored up to the end of the cycle's window."""
    work = workspace()
    window = Window(EPOCH, cycle.window_end)
    outcomes = join_feedback(
        work.store.interactions(window),
        work.store.feedback(window),
        judges=usable_versions(work.store),
    )
    protected = [e.prompt for found in work.store.records(ExampleSet) for e in found.examples]
    selection = select(
        outcomes,
        quality(outcomes, options.weights),
        protected,
        options.curation,
        withheld=unreviewed_safety(work.store, [str(key) for key in outcomes.interaction_ids]),
    )
    interactions = work.store.stored_interactions([row.interaction_id for row in selection.rows])
    rows = build_rows(selection, interactions, options.curation, cycle.seed)
    training_set = write_training_set(
        rows, selection, protected, home=work.settings.home, cycle_id=cycle.id, now=now()
    )
    stored = work.store.get(TrainingSet, training_set.id)
    if stored is None:
        work.store.append(training_set)
    return stored or training_set


@task(
    name="finetune",
    cache_key_fn=lambda _context, parameters: f"finetune-{parameters['key']}",
    persist_result=True,
    result_serializer="json",
)
def train(
    training_set: TrainingSet, config: FinetuneConfig, champion: str, key: str
) -> FinetuneResult:
    """Train the adapter; cached on the dataset, the configuration and what it starts from."""
    work = workspace()
    return finetune(
        read_rows(work.settings.home / training_set.path),
        config,
        base=base_folder(),
        start_from=work.tracker.adapter_folder(work.tracker.version(champion)),
        key=key,
        home=work.settings.home,
    )


@task(cache_policy=NO_CACHE)
def register(
    cycle: Cycle, training_set: TrainingSet, options: ImproveOptions, result: FinetuneResult
) -> Candidate:
    """Log the run with its data, and register the adapter as the challenger, once."""
    work = workspace()
    key = derive_id("candidate", cycle.id, training_set.digest, result.adapter_digest)
    folder = work.settings.home / result.folder
    with cycle_run(cycle, "improve", key) as run:
        run.params(options.finetune.model_dump(mode="json") | options.curation.model_dump())
        run.params(
            {
                "base_model": work.settings.base_model,
                "start_from": cycle.champion,
                "dataset_digest": training_set.digest,
                "dataset_size": training_set.size,
                "device": result.device,
            }
        )
        data = work.settings.home / training_set.path
        run.dataset(
            frame(read_rows(data))[["target", "source"]],
            name="training-set",
            digest=training_set.digest,
            source=str(data),
            context="training",
        )
        run.folder(data, "training_set")
        run.series("loss", result.losses)
        run.metrics({"training_seconds": result.seconds, "training_tokens": result.tokens})
        publish_figure(run, "loss", plots.loss_curve(result.losses), "Training loss")
        publish_figure(run, "funnel", plots.funnel(training_set.funnel), "From traffic to data")
        source = run.folder(folder, "adapter")
        version = work.tracker.register_adapter(
            run.run_id, source, model_digest(base_folder(), folder)
        )
    stored = work.store.get(Candidate, key)
    if stored is not None:
        return stored
    candidate = Candidate(
        id=key,
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


@flow(name="improve", validate_parameters=True)
def improve(options: ImproveOptions = DEFAULTS) -> str:
    """Train a challenger on the latest cycle's feedback and return the candidate's id."""
    with sole_loop(workspace().settings.home):
        return _improve(options)


def _improve(options: ImproveOptions) -> str:
    work = workspace()
    cycle = latest_cycle(work.store)
    training_set = curate(cycle, options)
    start = work.tracker.adapter_folder(work.tracker.version(cycle.champion))
    key = finetune_key(
        training_set.digest,
        options.finetune,
        model_digest(base_folder()),
        adapter_digest(start) if start else None,
    )
    missing = not (work.settings.home / "adapters" / key[:16]).exists()
    result = train.with_options(refresh_cache=missing)(
        training_set, options.finetune, cycle.champion, key
    )
    return register(cycle, training_set, options, result).id
