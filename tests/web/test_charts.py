"""Charts are drawn in the background, are those of `ratchet chart`, and say how old they are."""

from __future__ import annotations

import time
from datetime import timedelta
from html import unescape

import pytest

from ratchet.analyze.monitoring.charts import find_signal
from ratchet.errors import InsufficientDataError
from ratchet.records import Erasure, Release
from ratchet.web.drawing import Asked, Drawer
from ratchet.web.refreshing import Kept, Refreshed
from tests.analyze.monitoring import charted_store
from tests.web.filled import OLD, alert


def drawn(browser, path, tries=1_200):
    """Return a page once its chart is drawn."""
    for _ in range(tries):
        answer = browser.get(path)
        if "is being drawn" not in answer.text:
            return answer
        time.sleep(0.05)
    raise AssertionError(f"{path} was not drawn")


def settled(refreshed, make):
    """Return a figure once it is made."""
    while (found := refreshed.get("x", make)).being_made:
        time.sleep(0.01)
    return found


@pytest.fixture
def charted(site):
    charted_store.fill(site.store)
    site.clock.now = charted_store.WINDOW.end
    return site.browser()


def test_a_chart_is_announced_first_and_shown_once_it_is_drawn(charted):
    first = charted.get("/charts/thumbs_down_rate")
    assert first.status_code == 200
    assert 'hx-get="/charts/thumbs_down_rate?"' in first.text
    page = drawn(charted, "/charts/thumbs_down_rate")
    assert "a false alarm about every 370 points" in page.text
    assert 'src="/chart-pictures/thumbs_down_rate?"' in page.text


def test_the_points_are_those_of_the_store_and_the_bad_release_signals(charted):
    page = unescape(drawn(charted, "/charts/thumbs_down_rate").text)
    for day in (21, 22, 23, 24):  # 30 of the day's 48 answers
        at = charted_store.START + timedelta(days=day)
        row = page.partition(f">{at:%Y-%m-%d} 00:00 UTC</th>")[2].partition("</tr>")[0]
        assert "62.5 %" in row, at
        assert "outside" in row, at


def test_the_picture_runs_nothing_and_is_there_only_once_it_is_drawn(charted):
    assert charted.get("/chart-pictures/thumbs_down_rate").status_code == 404
    drawn(charted, "/charts/thumbs_down_rate?by=version")
    answer = charted.get("/chart-pictures/thumbs_down_rate?by=version")
    assert answer.headers["content-type"].startswith("image/svg+xml")
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    assert "script-src" not in answer.headers["content-security-policy"]
    assert answer.text.count("<svg") == 1
    assert "<script" not in answer.text


def test_a_chart_that_cannot_be_drawn_says_why(site):
    page = drawn(site.browser(), "/charts/thumbs_down_rate")
    assert "needs at least" in page.text or "no " in page.text
    assert '<p class="warning">' in page.text


@pytest.mark.parametrize(
    "path",
    ["/charts/nothing", "/charts/thumbs_down_rate?by=user", "/charts/thumbs_down_rate?kind=pie"],
)
def test_a_chart_that_there_is_not_is_refused_with_the_rule(site, path):
    assert site.browser().get(path).status_code == 422


def test_a_figure_is_made_anew_after_five_minutes_and_the_old_one_is_shown_meanwhile(clock):
    refreshed, made = Refreshed(clock), iter("abc")
    assert refreshed.get("x", lambda: next(made)).value is None
    assert settled(refreshed, lambda: next(made)).value == "a"
    clock.pass_(minutes=5)
    found = refreshed.get("x", lambda: next(made))
    assert (found.value, found.being_made) == ("a", True)
    assert settled(refreshed, lambda: next(made)).value == "b"
    refreshed.close()


def test_a_figure_that_fails_says_so_and_hides_the_cause(clock):
    refreshed = Refreshed(clock)
    found = settled(refreshed, lambda: 1 / 0)
    assert found.problem is not None
    assert "division" not in found.problem
    refreshed.close()


def test_a_figure_of_something_is_made_anew_once_that_is_another_and_not_before(clock):
    refreshed, made = Refreshed(clock), iter("abc")

    def asked(of):
        while (found := refreshed.get("x", lambda: next(made), of=of)).being_made:
            time.sleep(0.01)
        return found.value

    assert asked({"label": 1}) == "a"
    clock.pass_(hours=1)
    assert asked({"label": 1}) == "a"
    assert asked({"label": 2}) == "b"
    refreshed.close()


def test_what_is_made_of_records_is_kept_until_one_of_them_or_an_erasure_is_written(site):
    kept, made = Kept(site.store, site.clock), iter(range(9))

    def asked():
        return kept.get("x", (Release,), lambda: next(made))

    assert (asked(), asked()) == (0, 0)
    site.store.append(alert("al-1", site.clock.now))
    assert asked() == 0
    site.store.append(
        Release(id="r", created_at=site.clock.now, action="start", champion=OLD, previous=None)
    )
    assert (asked(), asked()) == (1, 1)
    site.store.append(
        Erasure(
            id="e", created_at=site.clock.now, user_digest="d", interactions=1, feedback=0,
            verdicts=0, records=1, training_sets=(), candidates=(), versions=(), runs=(),
            example_sets=(),
        )
    )  # fmt: skip
    assert asked() == 2
    site.clock.pass_(minutes=6)  # an erasure may be done a second time, without a new record
    assert asked() == 3


def test_a_drawer_that_is_closed_leaves_no_process_behind(site):
    drawer = Drawer(site.settings.store_url)
    drawer.close()
    with pytest.raises(InsufficientDataError, match="the pages are closing"):
        drawer.draw(Asked(find_signal("thumbs_down_rate"), None, None), site.clock.now)
    assert drawer._child.poll() is not None
