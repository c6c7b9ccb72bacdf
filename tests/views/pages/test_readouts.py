"""The read-out pages: what they say, and that nothing in them can escape."""

from datetime import UTC, datetime

import pytest

from ratchet.records import Variant, VariantReadout, VariantTest
from ratchet.views.pages.readouts import rollout_page, variants_page
from tests.views.pages.test_failures import Reader
from tests.views.text.test_rollouts import HOSTILE, PLAN, RATIO, ROLLOUT, UNREAD, look, readout

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
TEST = VariantTest(
    id="t", created_at=NOW, name="tone", error=0.05, signals=PLAN.signals[:2],
    variants=(
        Variant(version="m/1", share=0.3, name="brief", system_prompt="be brief"),
        Variant(version="m/2", share=0.3, name="tuned"),
        Variant(version="m/1", share=0.4, name="champion"),
    ),
)  # fmt: skip
READOUTS = (
    readout(arm="brief", says="harm", difference=0.04, lower=0.01, upper=0.07),
    readout(arm="tuned", says="passes", difference=-0.02, lower=-0.05, upper=0.01),
    readout("regenerated", "open", arm="brief"),
    readout("regenerated", "no data", arm="tuned", **UNREAD),
)


def page_of(readouts=READOUTS, ratio=RATIO, conclusion="tuned is shown to be better"):
    found = VariantReadout(
        id="o", created_at=NOW, test_id="t", until=NOW, control="champion", sample_ratio=ratio,
        readouts=readouts, shown_better=("tuned",), shown_worse=("brief",), conclusion=conclusion,
        interactions=12_345,
    )  # fmt: skip
    return variants_page(TEST, found, now=NOW)


def words_of(page):
    return " ".join(" ".join(Reader(page).words).split())


def test_every_variant_is_shown_with_its_share_and_its_numbers():
    words = words_of(page_of())
    assert "tuned is shown to be better" in words
    assert "brief m/1 its own 30%" in words
    assert "8.0% (80 of 1,000) 12.0% (12 of 100) +4.00 +1.00 to +7.00 +2.00 worse" in words
    assert "−2.00 −5.00 to +1.00 +2.00 no worse" in words
    assert "thumbs down primary" in words
    assert "hold together with at least 95%" in words


def test_an_interval_is_drawn_where_its_numbers_are():
    """On a line of 1,000 that ends at the widest end (7 points): 4 points lie at 785.7."""
    tags = Reader(page_of(READOUTS[:1])).tags
    (bar,) = [dict(found) for name, found in tags if found.get("class") == "bar"]
    (dot,) = [dict(found) for name, found in tags if found.get("class") == "dot"]
    assert (bar["x1"], bar["x2"]) == ("571.4", "1000.0")
    assert dot["x1"] == "785.7"


def test_what_was_not_read_has_no_number_and_no_bar():
    page = page_of(READOUTS[3:])
    assert "not read" in words_of(page)
    assert 'class="bar"' not in page


def test_a_broken_assignment_shows_no_rate():
    broken = RATIO.model_copy(update={"moved": 3})
    words = words_of(page_of((), broken))
    assert "The assignment is broken" in words
    assert "3 users changed arms" in words
    assert "No rate can be trusted while users do not fall into the arms as agreed." in words


@pytest.mark.parametrize("hostile", [HOSTILE, "</style><script>alert(1)</script>", "a\x00b\u202e"])
def test_text_of_others_cannot_escape(hostile):
    page = page_of(conclusion=hostile)
    assert [name for name, _ in Reader(page).tags if name == "script"] == []
    made = look(reasons=(hostile,))
    page = rollout_page(ROLLOUT, made, "running", now=NOW, events=(hostile,))
    assert [name for name, _ in Reader(page).tags if name == "script"] == []
    assert "script-src &#39;none&#39;" in page
    assert "\x00" not in page


def test_a_rollout_tells_its_stage_its_look_and_what_happened():
    page = rollout_page(ROLLOUT, look(), "running", now=NOW, events=("09:00 begun",))
    words = words_of(page)
    assert "m/2 at 1% of users: running" in words
    assert "Look 1: wait because" in words
    assert "09:00 begun" in words
    assert "challenger m/2 its own 1% 40" in words
    assert "stopped in at most 6% of rollouts" in words


def test_a_rollout_before_its_first_look_says_so():
    words = words_of(rollout_page(ROLLOUT, None, "running", now=NOW))
    assert "There is not enough to read yet." in words
