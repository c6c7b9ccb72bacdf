"""Read-out pages in a real Chromium: hostile names are shown, nothing runs, nothing is cut off."""

from __future__ import annotations

import pytest

from ratchet.records import Variant
from ratchet.views.pages.readouts import rollout_page
from tests.browser.hostile import HOSTILE
from tests.views.pages.test_readouts import NOW, page_of
from tests.views.text.test_rollouts import ROLLOUT, look


def test_hostile_texts_are_shown_as_they_are_and_no_script_runs(visit):
    texts = tuple(text for text in HOSTILE if text.strip() and len(text) < 300)
    page = visit(rollout_page(ROLLOUT, look(reasons=texts), "running", now=NOW))
    assert page.locator("script").count() == 0
    assert page.locator("main ul li").count() == len(texts)
    shown = page.locator("main ul li").nth(texts.index("<script>alert(1)</script>"))
    assert shown.inner_text() == "<script>alert(1)</script>"


@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_fits_its_window_and_wide_tables_scroll_by_themselves(visit, shot, width):
    page = visit(page_of(), viewport={"width": width, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator(".bar").count() == 3
    shot(page, f"readout-{width}")


def test_long_names_do_not_push_the_page_apart(visit):
    long = ROLLOUT.challenger.model_copy(update={"version": "v" * 200})
    assert isinstance(long, Variant)
    rollout = ROLLOUT.model_copy(update={"challenger": long})
    page = visit(rollout_page(rollout, look(), "running", now=NOW))
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280
