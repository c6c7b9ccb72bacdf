"""The safety part of analyze: screen new answers, queue what is flagged, validate the sources."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from ratchet.flows._runtime import logger, now, publish_text, workspace
from ratchet.records import Cycle, JudgeValidation, SafetyPass, derive_id
from ratchet.review.queue import first_page, window_to_screen
from ratchet.review.screening import Screened, screen, validate_sources
from ratchet.safety.rules import Flag, SafetyConfig, load_safety
from ratchet.store.cycles import cycle_window
from ratchet.views.text.cycle import judges_markdown, review_markdown

SHOWN = 50


def safety_config() -> SafetyConfig:
    """Return the rules of the settings, or the default ones."""
    path = workspace().settings.safety
    return SafetyConfig() if path is None else load_safety(path)


def screen_new() -> int:
    """Screen what came in since the last pass; what is flagged goes to people first."""
    store, until = workspace().store, now()
    screened = screen(store, safety_config(), window_to_screen(store, until), now=until)
    _tell(screened)
    store.append(
        SafetyPass(
            id=derive_id("safety-pass", until.isoformat()),
            created_at=until,
            screened_until=until,
            interactions=len(screened.looked_at),
            flags=len(screened.flags),
        )
    )
    return screened.queued


@task(name="validate-safety", cache_policy=NO_CACHE)
def validate_safety(cycle: Cycle, judged: tuple[Flag, ...]) -> tuple[JudgeValidation, ...]:
    """Queue the cycle's flags, those of judges among them, and hold each source to account."""
    store, config, moment = workspace().store, safety_config(), now()
    window = cycle_window(cycle, cycle.champion)
    screened = screen(store, config, window, now=moment, judged=judged)
    _tell(screened)
    validations = validate_sources(store, config, screened, now=moment)
    page = first_page(store, most=SHOWN)
    if validations or page.items:
        queue = review_markdown(page.items, page.waiting, page.more)
        text = f"{queue}\n\n{judges_markdown(validations)}"
        publish_text("safety", text, "What waits for review, and the sources of flags")
    return validations


def _tell(screened: Screened) -> None:
    if screened.queued:
        logger.warning("%d flagged answers wait for review", screened.queued)
