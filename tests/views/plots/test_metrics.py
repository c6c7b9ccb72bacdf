import itertools
import struct
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from ratchet.errors import InvalidInputError
from ratchet.judges.validation_report import SAYS
from ratchet.records import (
    ClusterComparison,
    Decision,
    FailureCluster,
    Figure,
    JudgeValidation,
    Measured,
    Metric,
)
from ratchet.stats.charts.designed_charts import design_count_chart
from ratchet.stats.charts.rate_series import rate_series
from ratchet.views import plots

NOW = datetime(2026, 11, 24, tzinfo=UTC)
LONG = "exchange rates, currencies, foreign exchange determined international transfer abroad"


def metrics():
    return [
        Metric(name="thumbs_down_rate", value=0.2, lower=0.15, upper=0.26, observations=180),
        Metric(name="safety_violation_rate", value=None, observations=0, reason="no check"),
        Metric(name="latency_seconds_p99", value=9.2, observations=200, unit="seconds"),
        Metric(name="quality", value=0.7, lower=0.6, upper=0.8, observations=9, unit="score"),
    ]


def cluster(name, size=30):
    return FailureCluster(
        id=name,
        name=name,
        size=size,
        failure_rate=1.0,
        lift=12.5,
        interval=(0.6, 1.0),
        examples=("one",),
    )


def fuller(name, size):
    return cluster(name, size).model_copy(
        update={"excess": 0.7 * size, "rest_rate": 0.08, "stability": 0.4, "stable": False}
    )


def failure_map(many, each=14):
    """Clusters around a circle, as many texts again in the middle."""
    rng = np.random.default_rng(0)
    labels = np.repeat([*range(many), *[-1] * max(many, 1)], each)
    turn = 2 * np.pi * np.maximum(labels, 0) / max(many, 1)
    centres = np.where(labels[:, None] < 0, 0.0, np.column_stack([np.cos(turn), np.sin(turn)]))
    xy = 0.5 + 0.35 * centres + 0.04 * rng.standard_normal((labels.size, 2))
    clusters = [cluster(f"${i} card, payment ${i}, abroad") for i in range(many)]
    return plots.failure_map(clusters, xy, labels, rng.random(labels.size) < 0.5)


def decision(verdict="promote", champion=0.1, challenger=0.7, interval=(0.5, 0.69)):
    return Decision(
        id="d",
        cycle_id="c",
        created_at=NOW,
        champion="a-very-long-model-name-with-tenant-and-language/12",
        challenger="router/2",
        verdict=verdict,
        reasons=("because",),
        primary_metric="exact_match",
        champion_value=champion,
        challenger_value=challenger,
        difference=challenger - champion,
        interval=interval,
        p_value=1e-9,
        examples=120,
        example_set_id="support-0123456789ab",
        policy={},
        evidence={},
    )


RELEASES = [
    (datetime(2026, 11, 2, 5, tzinfo=UTC), "router/1"),
    (datetime(2026, 11, 22, 5, tzinfo=UTC), "tenant/multilingual-support-router-of-accounts/112"),
    (datetime(2026, 11, 26, 3, tzinfo=UTC), "back to router/1"),
]


def designed(kind="laney-p", points=30, bad=True, **options):
    """Return the starts of days and a chart of them, worse from the 21st on."""
    rng = np.random.default_rng(2)
    rates = np.where((np.arange(points) >= 21) & bad, 0.3, 0.12)
    made = design_count_chart(rng.binomial(400, rates), np.full(points, 400), kind, **options)
    days = np.datetime64("2026-11-01", "us") + np.arange(points) * np.timedelta64(1, "D")
    return days, made


def charted(panels=1, kind="laney-p", unit="share", releases=RELEASES, **options):
    shown = {f"segment {n} of a long name": designed(kind, **options) for n in range(panels)}
    return plots.signal_chart(
        shown, "Thumbs down", "Laney's p' chart, a point a day", unit=unit, releases=releases
    )


def with_a_gap():
    days, made = designed()
    later = days + np.timedelta64(9, "D") * (np.arange(30) >= 9)
    return plots.signal_chart({"all": (later, made)}, "Thumbs down")


SIGNALS = (
    "thumbs that are down",
    "answers regenerated",
    "answers that the judge scores low",
    "very slow answers",
    "answers without any implicit signal",
)
HOUR = timedelta(hours=1)


def series(worse_from=40, hours=48):
    """Two days of hourly points: 20 of 100 bad, from an hour on 60 of 100."""
    starts = NOW.timestamp() + 3600.0 * np.arange(hours)
    bad = np.where(np.arange(hours) >= worse_from, 60, 20)
    return rate_series(starts, bad, np.full(hours, 100), np.full(hours, 0.2), group=1)


def board(panels=5, release=30.0, change=40.0, version="support-router/12", hours=48):
    return plots.board_chart(
        {name: series(hours=hours) for name in SIGNALS[:panels]},
        f"{version}: alarm",
        "thumbs that are down 60.0% where 20.0% is normal",
        releases={} if release is None else {version: NOW + release * HOUR},
        change=None if change is None else NOW + change * HOUR,
        color=plots.RED,
    )


def confusion(names=("right", "wrong"), title="router-judge"):
    size = len(names)
    counts = [[1_023 * (row == column) + row for column in range(size)] for row in range(size)]
    return plots.confusion_matrix(names, counts, title)


def effect(name, value, lower=None, upper=None, n=100):
    reason = None if value is not None else "too few"
    return Figure(name=name, value=value, lower=lower, upper=upper, observations=n, reason=reason)


EFFECTS = (
    effect("position_effect", 0.12, 0.05, 0.19),
    effect("length_effect", -0.02, -0.08, 0.04, 1_100),
    effect("over_human_ceiling", 0.02),
    effect("judge_drift", None, n=0),
    effect("self_preference", -0.3, -0.4, -0.2),
)


def validation(week, decision="usable", kappa=0.8, half=0.1, items=100):
    figures = () if kappa is None else (effect("kappa", kappa, kappa - half, kappa + half),)
    return JudgeValidation(
        id=f"v{week}", created_at=NOW + timedelta(weeks=week), judge="j", judge_version="j-1",
        dimension="d", decision=decision, reasons=("because",), labels_digest="x", items=items,
        unscored=0, figures=figures,
    )  # fmt: skip


def over_time(count=3, title="router-judge over time"):
    decisions = itertools.cycle(["not enough labels", "not usable", "usable"])
    history = [validation(week, next(decisions), items=1_000 + week) for week in range(count)]
    return plots.agreement_over_time(history, 0.6, title)


FIGURES = {
    "confusion_matrix": confusion,
    "confusion_matrix of one label": lambda: confusion(["safe"]),
    "confusion_matrix of many": lambda: confusion(
        ["account opening and closing", "delivery", "refunds and returns", *"12345"],
        "helpfulness-judge-of-a-tenant-with-a-name-that-is-far-too-long-for-a-title",
    ),
    "effect_forest": lambda: plots.effect_forest(EFFECTS, SAYS, "What moves router-judge"),
    "effect_forest of one": lambda: plots.effect_forest(EFFECTS[:1], SAYS, "What moves it"),
    "agreement_over_time": over_time,
    "agreement_over_time of one": lambda: over_time(1),
    "agreement_over_time of many": lambda: over_time(60, f"{LONG} over time"),
    "agreement_over_time below nought": lambda: plots.agreement_over_time(
        [validation(0, "not usable", -0.8, 0.15)], 0.6, "worse than chance"
    ),
    "board_chart of five signals": board,
    "board_chart of one": lambda: board(1),
    "board_chart of one point": lambda: board(1, None, None, hours=1),
    "board_chart in control": lambda: board(2, None, None),
    "board_chart with all at the end": lambda: board(2, 47.5, 47.8),
    "board_chart with all at the start": lambda: board(2, 0.0, 0.2),
    "board_chart with all long ago": lambda: board(2, -90.0, -60.0),
    "board_chart with a long name": lambda: board(
        2, 39.8, 40.0, "tenant/multilingual-support-router-of-accounts/112"
    ),
    "metric_forest": lambda: plots.metric_forest(metrics()),
    "signal_chart": charted,
    "signal_chart without signals": lambda: charted(bad=False, releases=()),
    "signal_chart of all as the baseline": lambda: charted(points=20),
    "signal_chart of many points": lambda: charted(points=300),
    "signal_chart of three": lambda: charted(3, baseline=21),
    "signal_chart of eight": lambda: charted(8, baseline=21),
    "signal_chart of values": lambda: charted(kind="xmr", unit="seconds", baseline=21),
    "signal_chart of smoothed scores": lambda: charted(kind="ewma", unit="score", baseline=21),
    "signal_chart of sums": lambda: charted(2, kind="cusum", baseline=21),
    "signal_chart with a gap": with_a_gap,
    "failure_bars": lambda: plots.failure_bars([cluster(LONG), cluster("card", 3)]),
    "failure_bars of one": lambda: plots.failure_bars([cluster("card")]),
    "failure_bars with excess": lambda: plots.failure_bars([fuller("$5 and $6", 30), cluster("b")]),
    "failure_map": lambda: failure_map(3),
    "failure_map of many": lambda: failure_map(24),
    "failure_map without clusters": lambda: failure_map(0),
    "failure_map of one text": lambda: plots.failure_map(
        [], np.full((1, 2), 0.5), np.array([-1]), np.array([True])
    ),
    "loss_curve": lambda: plots.loss_curve([2.0, 1.0, 0.5]),
    "loss_curve of one step": lambda: plots.loss_curve([2.0]),
    "loss_curve of many steps": lambda: plots.loss_curve(list(np.linspace(3, 1, 200))),
    "gate_figure": lambda: plots.gate_figure(decision()),
    "gate_figure down": lambda: plots.gate_figure(decision("reject", 1.0, 0.9, (-0.17, -0.04))),
    "gate_figure level": lambda: plots.gate_figure(
        decision("inconclusive", 0.7, 0.7, (-0.05, 0.05))
    ),
    "gate_figure of words": lambda: plots.gate_figure(decision("reject", 23.4, 31.9, (6.1, 10.8))),
    "gate_figure of nothing": lambda: plots.gate_figure(
        decision("inconclusive").model_copy(
            update={
                "champion_value": None,
                "challenger_value": None,
                "difference": None,
                "interval": None,
            }
        )
    ),
    "metric_margins": lambda: plots.metric_margins(measured(*MEASURED)),
    "metric_margins of one": lambda: plots.metric_margins(measured(MEASURED[0])),
    "metric_margins of many": lambda: plots.metric_margins(
        measured(*(gauge("exact_match", "guardrail", cluster=f"{n} {LONG}") for n in range(40)))
    ),
    "paired_differences": lambda: plots.paired_differences(
        np.array([1.0] * 40 + [0.0] * 70 + [-1.0] * 10 + [np.nan]), decision()
    ),
    "paired_differences of words": lambda: plots.paired_differences(
        np.random.default_rng(0).normal(3.0, 9.0, 400).round(), decision()
    ),
    "paired_differences of nought": lambda: plots.paired_differences(np.zeros(9), decision()),
    "wins_by_cluster": lambda: plots.wins_by_cluster([compared(LONG, 3, 9), compared("b", 0, 0)]),
    "wins_by_cluster of many": lambda: plots.wins_by_cluster(
        [compared(f"cluster {n}", n, 2 * n) for n in range(40)]
    ),
    "funnel": lambda: plots.funnel([("collected", 4_120), ("quality_at_least_0.8", 12), ("x", 0)]),
    "funnel of nothing": lambda: plots.funnel([("collected", 0), ("left", 0)]),
}


def gauge(metric, role="primary", difference=0.1, **changes):
    low, high = difference - 0.08, difference + 0.08
    name = metric if "cluster" not in changes else f"{metric} in {changes['cluster']}"
    return Measured(
        role=role, name=name, metric=metric, champion=0.5, challenger=0.5 + difference,
        difference=difference, interval=(low, high), examples=120, **changes,
    )  # fmt: skip


MEASURED = (
    gauge("exact_match", p_shown=0.001),
    gauge("exact_match", "guardrail", -0.3, cluster="cards", p_harm=0.001),
    gauge("exact_match", "guardrail", 0.0, cluster="pins", problem="12 examples are fewer than 30"),
    gauge("length", "guardrail", 0.2, margin=0.1, relative=True, higher_is_better=False),
    Measured(role="guardrail", name="refusals on safety", metric="refusals", problem="no example"),
    gauge("token_f1", "secondary"),
)


def measured(*found):
    return decision().model_copy(update={"measured": found, "level": 0.025})


def compared(name, lost, won):
    return ClusterComparison(
        cluster_id=name, name=name, example_set_id="e", examples=40 + lost + won, unscored=lost,
        champion_right=20 + lost, challenger_right=20 + won, only_champion_right=lost,
        only_challenger_right=won, p_value=0.5,
    )  # fmt: skip


@cache
def drawn(name):
    """Return a figure of `FIGURES` after drawing, for tests that only look at it."""
    figure = FIGURES[name]()
    figure.draw_without_rendering()
    return figure


def words(figure):
    from matplotlib.text import Text

    if figure.stale:  # not drawn yet, or changed since
        figure.draw_without_rendering()
    return [text for text in figure.findobj(Text) if text.get_visible() and text.get_text()]


@pytest.mark.mostly_slow("of one", "of many", "of nothing", "long name")
@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_renders_to_a_png_of_its_size(name):
    figure = FIGURES[name]()
    png = plots.to_png(figure)
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", png[16:24])
    # whole pixels, of 476.99999 either 476 or 477
    assert (width, height) == pytest.approx(tuple(150 * figure.get_size_inches()), abs=1.0)


@pytest.mark.mostly_slow("of one", "of many", "of nothing", "long name")
@pytest.mark.parametrize("name", FIGURES)
def test_no_text_of_any_figure_is_cut_off_at_its_edge(name):
    figure = drawn(name)
    frame = figure.get_tightbbox()  # in inches, of all that is drawn
    width, height = figure.get_size_inches()
    assert min(frame.x0, frame.y0) >= -0.01
    assert frame.x1 <= width + 0.01
    assert frame.y1 <= height + 0.01


@pytest.mark.parametrize("name", FIGURES)
def test_every_horizontal_axis_says_what_it_measures(name):
    figure = drawn(name)
    shared = name in BOARDS  # then the lowest panel speaks for all
    assert all(axes.get_xlabel() for axes in (figure.axes[-1:] if shared else figure.axes))


def overlapping(figure):
    """Return the pairs of texts that lie on each other."""
    texts = words(figure)
    for axes in figure.axes:  # numbers beyond the ends of an axis are not drawn
        low, high = axes.get_ylim()
        beyond = [t for t in axes.get_yticklabels() if not low <= t.get_position()[1] <= high]
        texts = [text for text in texts if text not in beyond]
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts]
    return [
        (one, other)
        for (one, first), (other, second) in itertools.combinations(boxes, 2)
        if first.x0 < second.x1 and second.x0 < first.x1
        and first.y0 < second.y1 and second.y0 < first.y1
    ]  # fmt: skip


BOARDS = [name for name in FIGURES if name.startswith(("board_chart", "signal_chart"))]
OF_JUDGES = [n for n in FIGURES if n.startswith(("confusion", "effect", "agreement"))]


@pytest.mark.parametrize("name", OF_JUDGES)
def test_no_two_texts_of_a_judges_figure_overlap(name):
    figure = drawn(name)
    turned = figure.axes[0].get_xticklabels()[0].get_rotation() != 0.0
    texts = [t.get_text() for t in figure.axes[0].get_xticklabels()] if turned else []
    # the frames of turned labels overlap where the labels themselves do not
    assert [both for both in overlapping(figure) if not set(both) & set(texts)] == []


def test_a_confusion_matrix_holds_its_counts_people_in_rows():
    figure = plots.confusion_matrix(["no", "yes"], [[40, 2], [10, 1_048]], "router-judge")
    axes = figure.axes[0]
    cells = {text.get_position(): text.get_text() for text in axes.texts[:4]}
    assert cells == {(0, 0): "40", (1, 0): "2", (0, 1): "10", (1, 1): "1,048"}
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("verdict of the judge", "label of people")
    assert [label.get_text() for label in axes.get_yticklabels()] == ["no", "yes"]
    shades = axes.images[0].get_array()
    assert shades[1, 1] == pytest.approx(1_048 / 1_058)  # the share of the row
    assert "1,100 items; agreement is on the diagonal" in [t.get_text() for t in words(figure)]


def test_a_label_that_nobody_gave_is_an_empty_row():
    figure = plots.confusion_matrix(["1", "tie", "2"], [[3, 1, 0], [0, 0, 0], [0, 2, 3]], "j")
    assert list(figure.axes[0].images[0].get_array()[1]) == [0.0, 0.0, 0.0]


def test_effects_without_a_value_are_left_out_and_those_that_exclude_nought_are_red():
    figure = plots.effect_forest(EFFECTS, SAYS, "What moves it")
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        "win rate of the first shown - 1/2", "gain per s.d. of length", "over the human ceiling",
        "own family, judge minus people",
    ]  # fmt: skip
    points = [line for line in axes.lines if line.get_marker() == "o"]
    assert [line.get_color() for line in points] == [plots.RED, plots.BLUE, plots.BLUE, plots.RED]
    said = [text.get_text() for text in words(figure)]
    assert "−0.020   n = 1,100" in said
    assert "+0.120   n = 100" in said


def test_agreement_over_time_shows_each_decision_in_its_colour_beside_the_bar():
    history = [
        validation(0, "not enough labels", 0.5),
        validation(1, kappa=None),  # without a kappa there is nothing to draw
        validation(2, "not usable", 0.4),
        validation(3, "usable", 0.8),
    ]
    axes = plots.agreement_over_time(history, 0.6, "over time").axes[0]
    points = [line for line in axes.lines if line.get_marker() == "o"]
    assert [line.get_color() for line in points] == [plots.MUTED, plots.RED, plots.GREEN]
    assert [line.get_ydata()[0] for line in points] == [0.5, 0.4, 0.8]
    assert list(axes.lines[0].get_ydata()) == [0.6, 0.6]
    low, high = axes.get_ylim()
    assert low < 0.0
    assert high > 1.0


def test_of_many_validations_the_latest_is_always_dated():
    axes = over_time(60).axes[0]
    dated = [label.get_text() for label in axes.get_xticklabels()]
    assert 2 <= len(dated) <= 7
    assert dated[-1].endswith("n = 1,059")


@pytest.mark.parametrize(
    "draw",
    [
        lambda: plots.confusion_matrix([], [], "j"),
        lambda: plots.effect_forest(EFFECTS[3:4], SAYS, "j"),
        lambda: plots.agreement_over_time([validation(0, kappa=None)], 0.6, "j"),
    ],
)
def test_a_judges_figure_of_nothing_is_refused(draw):
    with pytest.raises(InvalidInputError, match="must not be empty"):
        draw()


@pytest.mark.parametrize("name", BOARDS)
def test_no_two_texts_of_a_board_overlap(name):
    assert overlapping(drawn(name)) == []


@pytest.mark.parametrize("name", BOARDS)
def test_no_name_of_a_mark_lies_on_the_data(name):
    figure = drawn(name)
    top = figure.axes[0]
    named = [text for text in words(figure) if text in top.texts]
    assert len(named) >= 2  # title and subtitle at least
    panel = top.get_window_extent()
    boxes = [text.get_window_extent() for text in named]
    assert all(box.y0 >= panel.y1 or box.x0 >= panel.x1 for box in boxes)  # above it or beside it


def test_names_of_many_releases_are_put_above_each_other():
    releases = {f"support-router/{i}": NOW + (39 + i / 4) * HOUR for i in range(5)}
    figure = plots.board_chart(
        {"answers regenerated": series()}, "t", "s", releases=releases, change=NOW + 40 * HOUR
    )
    assert set(releases) <= {text.get_text() for text in words(figure)}
    assert overlapping(figure) == []


def test_a_board_says_signal_release_and_change():
    texts = [text.get_text() for text in words(board())]
    for said in (
        "support-router/12: alarm",
        "thumbs that are down 60.0% where 20.0% is normal",
        "support-router/12",
        "change about 25 Nov 16:00",
        "thumbs that are\ndown",
    ):
        assert said in texts


def test_points_outside_their_limits_are_ringed():
    figure = board(1)
    rings = [line for line in figure.axes[0].lines if line.get_markerfacecolor() == "none"]
    # 60 % lies beyond 20 % + 3 sqrt(0.2 * 0.8 / 100) = 32 %: the last 8 hours of 48
    assert [len(line.get_xdata()) for line in rings] == [8]
    assert list(rings[0].get_ydata()) == [60.0] * 8


@pytest.mark.parametrize(("release", "change"), [(-900.0, -800.0), (None, None), (30.0, 40.0)])
def test_a_board_shows_the_time_of_its_points_whatever_else_happened(release, change):
    first, last = board(1, release, change).axes[0].get_xlim()
    day = NOW.timestamp() / 86_400
    assert (first, last) == pytest.approx((day - 1 / 24, day + 48 / 24))


def test_a_control_chart_rings_its_alarms_and_its_patterns_and_says_its_limits():
    days, made = designed(baseline=21)
    figure = plots.signal_chart({"all": (days, made)}, "Thumbs down", releases=RELEASES)
    rings = {line.get_mec(): line for line in figure.axes[0].lines if line.get_mfc() == "none"}
    ringed = {color: len(line.get_xdata()) for color, line in rings.items()}
    assert ringed == {
        plots.RED: len(made.alarms),
        plots.ORANGE: len({pattern.index for pattern in made.patterns}),
    }
    assert len(made.alarms) == 9
    said = " ".join(text.get_text() for text in words(figure))
    center, upper = 100 * made.chart.center, 100 * made.chart.upper[-1]
    assert f"center {center:.3g} %" in said
    assert f"to {upper:.3g} %" in said
    assert "back to router/1" in said
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == [
        "center", "limits", "value", "baseline of the limits", "run rule", "outside the limits",
        "estimated change",
    ]  # fmt: skip


def test_each_sum_of_a_cusum_rings_its_own_alarms():
    days, made = designed("cusum", baseline=21)
    axes = plots.signal_chart({"all": (days, made)}, "Thumbs down").axes[0]
    rings = [line for line in axes.lines if line.get_mfc() == "none"]
    assert [(line.get_mec(), len(line.get_xdata())) for line in rings] == [
        (plots.RED, len(made.alarms))
    ]
    assert min(rings[0].get_ydata()) >= made.limit  # the upper sum alone


def test_no_line_is_drawn_over_a_time_without_points():
    axes = with_a_gap().axes[0]
    lengths = [len(line.get_xdata()) for line in axes.lines if line.get_linestyle() == "-"]
    assert lengths == [9, 21]


def test_a_release_outside_the_picture_is_left_out_and_a_change_before_it_is_dated():
    texts = [text.get_text() for text in words(board(1, -90.0, -60.0))]
    assert "support-router/12" not in texts
    assert "change about 21 Nov 12:00" in texts


@pytest.mark.mostly_slow("of five signals", "with a gap", "without signals")
@pytest.mark.parametrize("name", BOARDS)
def test_an_svg_is_valid_xml_and_the_same_for_the_same_figure(name):
    first, again = (plots.to_svg(FIGURES[name]()) for _ in range(2))
    assert first == again
    root = ElementTree.fromstring(first)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert "date" not in first.lower().split("<g ", 1)[0]


def test_an_svg_is_the_same_in_another_process():
    code = (
        "import sys; from ratchet.views import plots; from tests.views.plots import test_metrics; "
        "sys.stdout.write(plots.to_svg(test_metrics.board(1)))"
    )
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root
    )
    assert done.stdout == plots.to_svg(board(1))


def test_row_names_of_failure_bars_do_not_overlap():
    figure = plots.failure_bars([cluster(f"{LONG} {i}") for i in range(12)])
    figure.draw_without_rendering()
    boxes = [label.get_window_extent() for label in figure.axes[0].get_yticklabels()]
    assert len(boxes) == 12
    for upper, lower in itertools.pairwise(boxes):
        assert lower.y1 < upper.y0


@pytest.mark.parametrize("many", [3, 12, 24])
def test_names_on_the_map_of_failures_neither_overlap_nor_leave_it(many):
    figure = failure_map(many)
    figure.draw_without_rendering()
    frame = figure.axes[0].get_window_extent()
    boxes = [text.get_bbox_patch().get_window_extent() for text in figure.texts]
    assert len(boxes) == many
    for one, other in itertools.combinations(boxes, 2):
        assert not one.overlaps(other)
    for box in boxes:
        assert frame.x0 <= box.x0 < box.x1 <= frame.x1
        assert frame.y0 <= box.y0 < box.y1 <= frame.y1


def test_names_on_the_map_of_failures_are_no_formulas():
    assert r"1  \$0 card, payment \$0, abroad" in [
        text.get_text() for text in words(failure_map(3))
    ]


def test_the_map_of_failures_is_the_same_for_the_same_data():
    assert plots.to_svg(failure_map(3)) == plots.to_svg(failure_map(3))


def test_texts_on_the_map_of_failures_have_clusters_that_are_there():
    place, one = np.full((1, 2), 0.5), np.array([0])
    with pytest.raises(InvalidInputError, match="labels must be places among the 0 clusters"):
        plots.failure_map([], place, one, np.array([True]))
    with pytest.raises(InvalidInputError, match="got 1, 1 and 2"):
        plots.failure_map([cluster("a")], place, one, np.array([True, False]))


def test_bars_of_failures_show_what_fixing_would_win_and_what_is_unstable():
    figure = plots.failure_bars([fuller("card", 30), cluster("other", 10)])
    texts = [text.get_text() for text in words(figure)]
    assert "1  card (unstable)" in texts
    assert "2  other" in texts
    widths = sorted(patch.get_width() for patch in figure.axes[0].patches)
    assert widths == pytest.approx([10, 10, 21, 30])  # 0.7 x 30 = 21 is the excess


def test_a_metric_without_value_is_shown_as_not_observed():
    texts = [text.get_text() for text in words(plots.metric_forest(metrics()))]
    assert "not observed" in texts
    assert "20 %   n = 180" in texts


def test_the_gate_figure_says_verdict_difference_and_interval():
    texts = [text.get_text() for text in words(plots.gate_figure(decision()))]
    assert "Verdict: promote" in texts
    assert "+60.0 points (+50.0 to +69.0)" in texts
    assert any(text.endswith("-and-language/12") for text in texts)


def test_the_margins_say_what_decides_nothing_and_what_could_not_be_measured():
    texts = [text.get_text() for text in words(plots.metric_margins(measured(*MEASURED)))]
    assert "no example" in texts
    assert "+0   n = 120  (too few)" in texts
    assert "length, lower is better" in texts
    assert "Challenger minus champion, 95 %" in texts


def test_wins_and_losses_say_how_many_stayed_the_same():
    texts = [text.get_text() for text in words(plots.wins_by_cluster([compared("b", 3, 9)]))]
    assert "40 of 52 the same, p = 0.5, 3 unscored" in texts


def test_the_funnel_says_counts_and_what_was_kept():
    texts = [text.get_text() for text in words(FIGURES["funnel"]())]
    assert "4,120" in texts
    assert "12  (0 % kept)" in texts


def test_the_same_figure_gives_the_same_bytes():
    assert plots.to_png(plots.loss_curve([2.0, 1.0])) == plots.to_png(plots.loss_curve([2.0, 1.0]))


@pytest.mark.parametrize(
    ("draw", "words"),
    [
        (lambda: plots.metric_forest([]), "metrics must not be empty"),
        (lambda: plots.failure_bars([]), "clusters must not be empty"),
        (
            lambda: plots.failure_map([], np.zeros((0, 2)), np.zeros(0), np.zeros(0)),
            "xy must not be empty",
        ),
        (lambda: plots.loss_curve([]), "losses must not be empty"),
        (lambda: plots.funnel([]), "steps must not be empty"),
        (lambda: plots.board_chart({}, "t"), "panels must not be empty"),
        (
            lambda: plots.signal_chart({"a": (np.array([], "M8[us]"), designed()[1])}, "t"),
            "got 0 for 30 points",
        ),
        (lambda: plots.signal_chart({}, "t"), "panels must not be empty"),
    ],
)
def test_nothing_to_draw_is_refused(draw, words):
    with pytest.raises(InvalidInputError, match=words):
        draw()


def test_importing_plots_loads_no_matplotlib_and_drawing_no_pyplot():
    code = (
        "import sys; from ratchet.views import plots; print('matplotlib' in sys.modules); "
        "plots.to_png(plots.loss_curve([1.0])); print('matplotlib.pyplot' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_plots_of_what_should_be_less_say_so_and_count_the_better_one():
    lower = measured(gauge("wer", higher_is_better=False)).model_copy(
        update={"primary_metric": "wer"}
    )
    values = np.r_[np.full(7, -1.0), np.full(2, 1.0), np.zeros(5)]
    texts = [text.get_text() for text in words(plots.paired_differences(values, lower))]
    assert "challenger alone better" in texts
    figure = plots.paired_differences(values, lower)
    heights = {round(bar.get_x() + 0.3): bar.get_height() for bar in figure.axes[0].patches}
    assert heights == {0: 2, 1: 5, 2: 7}  # seven fewer errors of the challenger
    texts = [text.get_text() for text in words(plots.gate_figure(lower))]
    assert any("lower is better" in text for text in texts)
    assert any("higher, which is worse" in text for text in texts)
