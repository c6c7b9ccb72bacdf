"""The safety part of analyze: screen new answers, queue what is flagged, validate the sources."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from ratchet.flows._runtime import logger, now, publish_text, workspace
from ratchet.records import Cycle, JudgeValidation, SafetyPass, derive_id
from ratchet.review.choosing import choose_items
from ratchet.review.policy import ReviewPolicy, policy_at
from ratchet.review.queue import first_page, window_to_screen
from ratchet.review.screening import Screened, screen, validate_sources
from ratchet.safety.rules import Flag, SafetyConfig, load_safety
from ratchet.safety.source_validation import SAFETY
from ratchet.store.cycles import cycle_window
from ratchet.views.text.cycle import judges_markdown, review_markdown

SHOWN = 50
MOST_STEPS = 20
"""Steps of a thousand verdicts and ratings that one pass looks at; the next one goes on."""


def safety_config() -> SafetyConfig:
    """Return the rules of the settings, or the default ones."""
    path = workspace().settings.safety
    return SafetyConfig() if path is None else load_safety(path)


def review_policy() -> ReviewPolicy:
    """Return the review policy of the settings, or the default one."""
    return policy_at(workspace().settings.review)


def screen_new() -> int:
    """Screen what came in since the last pass; what is flagged goes to people first.

    The rules of the review policy choose further items from what judges and users said since.
    """
    store, until, policy = workspace().store, now(), review_policy()
    people, unanimous = policy.people_for(SAFETY)
    window = window_to_screen(store, until)
    screened = screen(store, safety_config(), window, now=until, people=people, unanimous=unanimous)
    _tell(screened)
    chosen = choose_items(
        store, policy, sampled_from=screened.looked_at, now=until, most=MOST_STEPS
    )
    if any(chosen.new.values()):
        logger.info("%s", chosen.in_words)
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
    people, unanimous = review_policy().people_for(SAFETY)
    screened = screen(
        store, config, window, now=moment, judged=judged, people=people, unanimous=unanimous
    )
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
