from datetime import UTC, datetime, timedelta

import pytest

from ratchet.errors import InvalidInputError
from ratchet.records import (
    Readout,
    Release,
    Rollout,
    RolloutLook,
    RolloutPlan,
    RolloutStop,
    SampleRatio,
    Variant,
    VariantReadout,
    VariantTest,
)
from ratchet.views.plots import to_png
from ratchet.views.plots.rollouts import readout_chart, rollout_chart
from ratchet.views.text.rollouts import rollout_events, rollout_markdown, variants_markdown

AT = datetime(2026, 11, 24, 9, tzinfo=UTC)
HOUR = timedelta(hours=1)
PLAN = RolloutPlan()
HOSTILE = "a|b <script>alert(1)</script>\n# x"


def readout(signal="thumbs_down", says="open", arm="challenger", **changes):
    values = {
        "signal": signal, "arm": arm, "control": (80, 1_000, 400), "variant": (12, 100, 40),
        "rates": (0.08, 0.12), "difference": 0.04, "lower": -0.01, "upper": 0.09,
        "design_effect": 1.2, "log_alarm": 1.5, "alarm_threshold": 5.5, "margin": 0.02,
        "says": says,
    }  # fmt: skip
    return Readout.model_validate(values | changes)


UNREAD = {
    "rates": None, "difference": None, "lower": None, "upper": None, "design_effect": None,
}  # fmt: skip
RATIO = SampleRatio(
    users={"champion": 400, "challenger": 40}, log_evidence=-1.0, log_threshold=4.6, moved=0,
    ready=True,
)  # fmt: skip
ROLLOUT = Rollout(
    id="r", created_at=AT, champion=Variant(version="m/1", share=1.0, name="champion"),
    challenger=Variant(version="m/2", share=1.0, name="challenger", system_prompt="be brief"),
    plan=PLAN, signals=PLAN.signals[:2], unwatched=(("unsafe", "nobody checks"),),
)  # fmt: skip


def look(number=1, decision="wait", hours=1, **changes):
    values = {
        "id": f"l{number}", "created_at": AT + hours * HOUR, "rollout_id": "r",
        "model_version": "m/2", "number": number, "until": AT + hours * HOUR, "stage": 1,
        "share": 0.01, "decision": decision, "reasons": ("because",), "sample_ratio": RATIO,
        "readouts": (readout(), readout("failed", "passes")), "interactions": 1_100,
    }  # fmt: skip
    return RolloutLook.model_validate(values | changes)


def test_a_look_is_written_with_its_rates_its_check_and_its_guarantee():
    text = rollout_markdown(ROLLOUT, look(), "running")
    assert "# Rollout of m/2 with its own system prompt: running" in text
    assert "| thumbs down | 8.0% (80 of 1,000) | 12.0% (12 of 100) " in text
    assert "| +4.00 (−1.00 to +9.00) | +2.0 | 1.5 (harm from 5.5) | open |" in text
    assert "Users: 400 with champion, 40 with challenger. Assignment: as agreed" in text
    assert "unsafe: nobody checks" in text
    assert "stopped in at most 6% of rollouts" in text


def test_before_the_first_look_it_says_so():
    assert "No look was taken yet." in rollout_markdown(ROLLOUT, None, "running")


def test_what_was_not_read_has_no_number():
    made = look(readouts=(readout(says="no data", **UNREAD),))
    assert "| 80 of 1,000 | 12 of 100 | – |" in rollout_markdown(ROLLOUT, made, "running")


def test_a_broken_assignment_shows_no_rate():
    broken = RATIO.model_copy(update={"moved": 3})
    text = rollout_markdown(ROLLOUT, look(sample_ratio=broken, readouts=()), "aborted")
    assert "**broken** (3 users changed arms)" in text
    assert "No rate is read." in text


def test_text_of_others_cannot_break_the_page():
    made = look(reasons=(HOSTILE,))
    assert "<script>" not in rollout_markdown(ROLLOUT, made, "running")
    assert "a&#124;b" in rollout_markdown(ROLLOUT, made, "running")


def test_the_timeline_tells_what_happened_in_order_and_of_waiting_the_last():
    looks = [
        look(1, hours=1), look(2, "advance", hours=2), look(3, hours=3, stage=2),
        look(4, "abort", hours=4, stage=2, reasons=("harm: thumbs down",)),
    ]  # fmt: skip
    release = Release(
        id="x", created_at=AT + 5 * HOUR, action="rollback", champion="m/0", previous=None
    )
    lines = rollout_events(ROLLOUT, looks, None, [release])
    assert [line[:19] for line in lines] == [f"2026-11-24 {h:02}:00:00" for h in (9, 11, 13, 14)]
    assert "gets 1% of users, stage 1 of 4" in lines[0]
    assert "advance to stage 2, 5% of users" in lines[1]
    assert lines[2].endswith("abort, everybody has the champion: harm: thumbs down")
    assert lines[3].endswith("m/0 is the champion again")
    stop = RolloutStop(id="r", created_at=AT + HOUR, by="ann", person=True, note="it\nswears")
    assert rollout_events(ROLLOUT, looks[:1], stop)[-1].endswith("stopped by ann: it swears")
    assert "look 1: wait: because" in rollout_events(ROLLOUT, looks[:1], None)[1]


TEST = VariantTest(
    id="t", created_at=AT, name="tone",
    variants=(
        Variant(version="m/1", share=0.3, name="brief", system_prompt="be brief"),
        Variant(version="m/1", share=0.7, name="champion"),
    ),
    signals=PLAN.signals[:1],
)  # fmt: skip


def variants(**changes):
    values = {
        "id": "v", "created_at": AT, "test_id": "t", "until": AT, "control": "champion",
        "sample_ratio": RATIO, "readouts": (readout(arm="brief"),), "shown_better": (),
        "shown_worse": (), "conclusion": "no difference is shown for brief", "interactions": 1_100,
    }  # fmt: skip
    return VariantReadout.model_validate(values | changes)


def test_a_test_of_variants_is_written_with_its_family_error():
    text = variants_markdown(TEST, variants())
    assert "**no difference is shown for brief**" in text
    assert "| brief | m/1 | its own | 30% |" in text
    assert "| brief | thumbs down | 8.0%" in text
    assert "hold together with at least 95%, at all looks" in text


def is_picture(figure):
    return to_png(figure).startswith(b"\x89PNG") and len(to_png(figure)) > 5_000


def test_a_read_out_is_drawn_also_where_nothing_was_read():
    items = [
        readout(), readout("failed", "passes"), readout("slow", "uneven"),
        readout("unsafe", "harm"),
        readout("regenerated", "no data", **UNREAD), readout("not_copied", "harm", **UNREAD),
        readout(lower=-1.0, upper=1.0, arm="another variant with a long name"),
    ]  # fmt: skip
    figure = readout_chart(items, "A title")
    assert is_picture(figure)
    said = [text.get_text() for text in figure.axes[0].texts]
    assert {"no data", "worse (by the test on users)", "+4.00  no worse"} <= set(said)


def test_the_looks_are_drawn_with_what_was_decided():
    looks = [
        look(n, hours=n, readouts=(readout(lower=-0.1 / n, upper=0.1 / n),)) for n in range(1, 9)
    ]
    looks.append(look(9, "advance", hours=9))
    assert is_picture(rollout_chart(looks, "thumbs_down", "A rollout"))
    assert is_picture(rollout_chart([look(readouts=())], "thumbs_down", "Nothing read yet"))


def test_nothing_is_not_drawn():
    with pytest.raises(InvalidInputError):
        readout_chart([], "x")
    with pytest.raises(InvalidInputError):
        rollout_chart([], "thumbs_down", "x")
