"""What a training leaves in its run: what it was, how it went, what it answers."""

from __future__ import annotations

import json

from ratchet.flows._runtime import publish_figure
from ratchet.improve.training.config import FinetuneConfig
from ratchet.improve.training.finetune import FinetuneResult
from ratchet.improve.training.search import SearchResult
from ratchet.tracking import Run
from ratchet.views import plots


def log_training(
    run: Run, result: FinetuneResult, config: FinetuneConfig, search: SearchResult | None
) -> None:
    """Log what was trained, how it went, on what, and what it answers."""
    most = result.maximum_tokens or config.maximum_tokens
    used = {"device": result.device, "batch": result.batch, "maximum_tokens": most}
    run.params(config.resolved() | used)
    run.tags(
        {
            "ratchet.rows_too_long": str(result.rows_too_long),
            "mlflow.note.content": f"Training: {result.lengths_said}.",
        }
    )
    run.params({f"environment.{name}": value for name, value in result.environment.items()})
    run.text(json.dumps(config.resolved(), indent=2), "config.json")
    run.steps(result.history)
    run.metrics(
        {
            "training_seconds": result.seconds,
            "training_tokens": result.tokens,
            "tokens_per_second": result.tokens_per_second,
            "peak_memory_megabytes": result.peak_memory_megabytes,
            "interruptions": len(result.resumed_at),
            "rows_left_out": result.rows_left_out,
            "rows_too_long": result.rows_too_long,
        }
    )
    if result.samples:
        columns = [sample.model_dump() for sample in result.samples]
        run.table({name: [row[name] for row in columns] for name in columns[0]}, "samples.json")
    if search is not None:
        trials = [
            {
                "settings": json.dumps(trial.settings),
                "loss": trial.losses[-1][1] if trial.losses else None,
                "share": trial.losses[-1][0] if trial.losses else 0.0,
                "seconds": trial.seconds,
                "status": trial.status,
                "reason": trial.reason,
            }
            for trial in search.trials
        ]
        run.table({name: [row[name] for row in trials] for name in trials[0]}, "trials.json")
    publish_figure(run, "loss", plots.loss_curve(result.losses), "Training loss")
