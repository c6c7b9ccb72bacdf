"""The safety part of analyze: screen new answers, queue what is flagged, validate the sources."""

from __future__ import annotations

from collections.abc import Sequence

from prefect import task
from prefect.cache_policies import NO_CACHE

from ratchet.flows._runtime import logger, now, publish_text, workspace
from ratchet.records import Cycle, Interaction, JudgeValidation, SafetyPass, derive_id
from ratchet.review.queue import (
    count_unflagged,
    open_items,
    queue_flags,
    queue_sample,
    user_reports,
    validate_flags,
    window_to_screen,
)
from ratchet.safety.rules import REPORT, Flag, SafetyConfig, load_safety, rule_flags
from ratchet.store import Window
from ratchet.store.cycles import cycle_window
from ratchet.views.text.cycle import judges_markdown, review_markdown


def safety_config() -> SafetyConfig:
    """Return the rules of the settings, or the default ones."""
    path = workspace().settings.safety
    return SafetyConfig() if path is None else load_safety(path)


def screen_new() -> int:
    """Screen what came in since the last pass; what is flagged goes to people first."""
    store, until = workspace().store, now()
    window = window_to_screen(store, until)
    answers = _answers(window)
    config = safety_config()
    flags = (*rule_flags(config.rules, answers), *user_reports(store, window))
    items = _queue(config, answers, flags)
    store.append(
        SafetyPass(
            id=derive_id("safety-pass", until.isoformat()),
            created_at=until,
            screened_until=until,
            interactions=len(answers),
            flags=len(flags),
        )
    )
    return items


@task(name="validate-safety", cache_policy=NO_CACHE)
def validate_safety(cycle: Cycle, judged: tuple[Flag, ...]) -> tuple[JudgeValidation, ...]:
    """Queue the cycle's flags, those of judges among them, and hold each source to account."""
    store, config = workspace().store, safety_config()
    window = cycle_window(cycle, cycle.champion)
    answers = _answers(window)
    flags = (*rule_flags(config.rules, answers), *user_reports(store, window), *judged)
    _queue(config, answers, flags)
    names = {rule.version: rule.name for rule in config.rules} | {REPORT: "users' reports"}
    looked_at = [answer.id for answer in answers]
    sources = sorted({flag.source for flag in flags})
    validations = tuple(
        validate_flags(
            store,
            source,
            looked_at=looked_at,
            flags=flags,
            now=now(),
            name=names.get(source),
            bar=config.bar,
        )
        for source in sources
    )
    waiting = open_items(store)
    if validations or waiting:
        text = f"{review_markdown(waiting)}\n\n{judges_markdown(validations)}"
        publish_text("safety", text, "What waits for review, and the sources of flags")
    return validations


def _answers(window: Window) -> list[Interaction]:
    store = workspace().store
    ids = store.interactions(window)["id"].to_pylist()
    return list(store.stored_interactions(ids).values())


def _queue(config: SafetyConfig, answers: Sequence[Interaction], flags: Sequence[Flag]) -> int:
    store, moment = workspace().store, now()
    queued = queue_flags(store, flags, now=moment)
    queue_sample(store, [a.id for a in answers], share=config.sample_share, now=moment)
    for rule in config.rules:
        count_unflagged(store, rule.version, answers, flags)
    if queued.items:
        logger.warning("%d flagged answers wait for review", len(queued.items))
    return len(queued.items)
