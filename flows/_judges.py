"""The judges' part of analyze: validate, ask about the window, let usable ones count, publish."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from prefect import task
from prefect.cache_policies import NO_CACHE

from ratchet.analyze.failures.analysis import load_encoder
from ratchet.analyze.next_turns import any_labels, read_by_embeddings
from ratchet.collect.derived import kinds_off
from ratchet.flows._judge_options import JudgeOptions
from ratchet.flows._judge_report import publish_judge, write_assessments
from ratchet.flows._runtime import executor, logger, now, publish_text, workspace
from ratchet.judges.judge import Ask, Judge, Judgement, asker, model_of
from ratchet.judges.next_turn import (
    in_words,
    read_by_judge,
    reads_next_turns,
    validate_next_turns,
)
from ratchet.judges.on_store import (
    assess_judge,
    in_halves,
    watch_drift,
)
from ratchet.judges.rubrics import JudgeSpec, load_judges
from ratchet.records import Cycle, Figure, JudgeValidation
from ratchet.safety.rules import Flag, judge_flags
from ratchet.store.cycles import cycle_window
from ratchet.views.text.cycle import judges_markdown


def run_judges(cycle: Cycle, options: JudgeOptions) -> tuple[Flag, ...]:
    """Validate and ask the judges of the settings, if any; return what safety judges flag."""
    path = workspace().settings.judges
    if path is None:
        return ()
    flags: list[Flag] = []
    records, counting = [], set[str]()
    for spec in load_judges(path):
        if reads_next_turns(spec):
            continue  # asked and validated with the other readers of next turns
        record, counts, flagged = assess(spec, cycle, options, may_count=spec.unit not in counting)
        counting |= {spec.unit} if counts else set()
        records.append(record)
        flags.extend(flagged)
    publish_text("judges", judges_markdown(records), "Judges and whether they may count")
    return tuple(flags)


def validate_readings(cycle: Cycle, options: JudgeOptions) -> tuple[JudgeValidation, ...]:
    """Hold what is read of users' next turns against people's labels; say where it counts."""
    rng = np.random.default_rng(options.seed)
    if "next_turn" not in kinds_off(workspace().store, workspace().settings.not_derived):
        read_embedded(cycle)
        read_judged(cycle, options)
    records = validate_next_turns(workspace().store, rng=rng, now=now(), bar=options.bar)
    logger.info("%s", in_words(records))
    return records


def read_embedded(cycle: Cycle) -> None:
    """Have a classifier on sentence embeddings read next turns where people labelled enough."""
    work = workspace()
    if not any_labels(work.store):
        return
    encoder = load_encoder(work.settings.embedding)
    if encoder is None:
        logger.info("next turns are not read by embeddings: there is no sentence encoder")
        return
    for report in read_by_embeddings(work.store, encoder, cycle_window(cycle), now=now()):
        logger.info("%s", report.in_words)


def read_judged(cycle: Cycle, options: JudgeOptions) -> None:
    """Have the judges of the settings on the dimension `dissatisfied` read next turns."""
    work = workspace()
    for spec in load_judges(work.settings.judges) if work.settings.judges else ():
        if reads_next_turns(spec):
            model, digest = model_of(spec, work.settings.cache)
            judge = Judge(spec, model_digest=digest)
            window, ask = cycle_window(cycle), asker(spec, model, executor=executor())
            new = read_by_judge(work.store, judge, window, most=options.sample, ask=ask, now=now)
            logger.info("%s read what users wrote after %d answers", judge.version, new)


@task(name="assess-judge", cache_policy=NO_CACHE)
def assess(
    spec: JudgeSpec, cycle: Cycle, options: JudgeOptions, *, may_count: bool
) -> tuple[JudgeValidation, bool, tuple[Flag, ...]]:
    """Validate one judge, ask it about the window; its scores count if it is usable.

    The scores of one judge of answers and of one of sessions count, the first usable ones of the
    file: an interaction has one score of each. Those of the others are kept and shown.
    """
    store = workspace().store
    model, digest = model_of(spec, workspace().settings.cache)
    judge, ask = Judge(spec, model_digest=digest), asker(spec, model, executor=executor())
    found = assess_judge(
        store,
        judge,
        cycle_window(cycle, cycle.champion),
        most=options.sample,
        may_count=may_count,
        ask=ask,
        now=now,
        rng=np.random.default_rng(options.seed),
        bar=options.bar,
    )
    if found.counts:
        logger.info("%s: %d new scores count", judge.version, found.new)
    drift = _drift(judge, ask, options, cycle, found.judgements)
    publish_judge(cycle, judge, found.validated, drift, options.bar)
    write_assessments(judge, found.sample, found.judgements, found.validated.record)
    is_safety = spec.dimension.violation_below is not None
    flags = judge_flags(judge, found.judgements) if is_safety else ()
    return found.validated.record, found.counts, flags


def _drift(
    judge: Judge,
    ask: Ask,
    options: JudgeOptions,
    cycle: Cycle,
    judgements: Sequence[Judgement],
) -> tuple[Figure, ...]:
    """Tell the judge's drift from the system's; a local model is the same every day."""
    halves = in_halves(judgements)
    if judge.spec.endpoint is None or not options.drift_anchors or halves is None:
        return ()
    before, after = halves
    year, week, _ = cycle.window_end.isocalendar()
    drift, figures = watch_drift(
        workspace().store,
        judge,
        ask=ask,
        now=now,
        occasion=f"{year}-W{week:02}",
        traffic_before=before,
        traffic_after=after,
        anchors=options.drift_anchors,
    )
    if drift is not None and drift.cause in ("judge", "both"):
        logger.warning("%s drifts: %s", judge.version, drift.cause)
    return figures
