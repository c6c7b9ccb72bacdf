"""What a judge's validation leaves in MLflow: numbers, plots and assessments of traces."""

from __future__ import annotations

from collections.abc import Sequence

from ratchet.flows._runtime import EXPERIMENT, publish_figure, run_tags, workspace
from ratchet.judges.judge import Judge, Judgement
from ratchet.judges.on_store import Validated
from ratchet.judges.validation import Bar
from ratchet.judges.validation_report import SAYS, validations_text
from ratchet.records import Cycle, Figure, Interaction, JudgeValidation
from ratchet.records.asking import MLFLOW_TRACE as TRACE
from ratchet.store.review_labels import human_labels
from ratchet.tracking import Run
from ratchet.views import plots


def publish_judge(
    cycle: Cycle, judge: Judge, validated: Validated, drift: Sequence[Figure], bar: Bar
) -> None:
    """Put a validation into MLflow: numbers, words, confusion, effects, agreement over time."""
    record, spec = validated.record, judge.spec
    history = workspace().store.records(JudgeValidation)
    past = [
        past_validation
        for past_validation in history
        if past_validation.judge == spec.name and past_validation.figure("kappa")
    ]
    with workspace().tracker.run(
        EXPERIMENT,
        key=f"judge:{record.judge_version}:{record.labels_digest}",
        name=f"judge {spec.name}",
        tags=run_tags(cycle.number, "judge") | {"ratchet.decision": record.decision},
    ) as run:
        run.params({"judge_version": record.judge_version, "dimension": record.dimension})
        figures = (*record.figures, *drift)
        run.metrics(
            {
                past_validation.name: past_validation.value
                for past_validation in figures
                if past_validation.value is not None
            }
        )
        if validated.validation is None:
            run.text("; ".join(record.reasons), "validation.txt")
            return
        run.text(validations_text([(spec.name, validated.validation)], (), ()), "validation.txt")
        table = plots.confusion_matrix(record.categories, record.confusion, f"{spec.name}")
        publish_figure(run, "confusion", table, "Labels of people and verdicts of the judge")
        _publish_effects(run, spec.name, figures)
        if past:
            over_time = plots.agreement_over_time(past, bar.kappa, f"{spec.name} over time")
            publish_figure(run, "agreement-over-time", over_time, "Kappa of each validation")


def _publish_effects(run: Run, name: str, figures: Sequence[Figure]) -> None:
    effects = [
        figure
        for figure in figures
        if figure.name.endswith(("effect", "uplift", "drift", "ceiling"))
    ]
    if any(figure.value is not None for figure in effects):
        picture = plots.effect_forest(effects, SAYS, f"What moves {name}")
        publish_figure(run, "judge-effects", picture, "Biases of the judge")


def write_assessments(
    judge: Judge,
    sample: Sequence[Interaction],
    judgements: Sequence[Judgement],
    record: JudgeValidation,
) -> None:
    """Write scores and labels as MLflow assessments where the interaction came from a trace."""
    tracker, name = workspace().tracker, judge.spec.dimension.name
    traces = {
        interaction.id: interaction.metadata[TRACE]
        for interaction in sample
        if TRACE in interaction.metadata
    }
    for judgement in judgements:
        if judgement.item_id in traces and judgement.outcome is not None:
            tracker.assess(
                traces[judgement.item_id],
                name,
                judgement.outcome,
                by=judge.version,
                human=False,
                why=judgement.verdicts[0].reply,
                metadata={"decision": record.decision},
            )
    for label in human_labels(workspace().store, name) if traces else ():
        if label.item_id in traces and label.unit == judge.spec.unit:
            tracker.assess(
                traces[label.item_id], name, label.label, by=label.reviewer, human=True,
                why=label.note,
            )  # fmt: skip
