import itertools
import struct
import subprocess
import sys
from datetime import UTC, datetime

import numpy as np
import pytest

from ratchet import plots
from ratchet.errors import InvalidInputError
from ratchet.records import Decision, FailureCluster, Metric
from ratchet.stats.control_charts import p_chart

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


def chart(signals=True):
    counts = [4, 5, 6, 5, 30] if signals else [4, 5, 6, 5, 4]
    starts = np.datetime64("2026-11-01", "us") + np.arange(5) * np.timedelta64(1, "D")
    return plots.control_chart(p_chart(counts, [50] * 5), starts, "Thumbs-down rate of router/1")


FIGURES = {
    "metric_forest": lambda: plots.metric_forest(metrics()),
    "control_chart": chart,
    "control_chart without signals": lambda: chart(signals=False),
    "failure_bars": lambda: plots.failure_bars([cluster(LONG), cluster("card", 3)]),
    "failure_bars of one": lambda: plots.failure_bars([cluster("card")]),
    "loss_curve": lambda: plots.loss_curve([2.0, 1.0, 0.5]),
    "loss_curve of one step": lambda: plots.loss_curve([2.0]),
    "loss_curve of many steps": lambda: plots.loss_curve(list(np.linspace(3, 1, 200))),
    "gate_figure": lambda: plots.gate_figure(decision()),
    "gate_figure down": lambda: plots.gate_figure(decision("reject", 1.0, 0.9, (-0.17, -0.04))),
    "gate_figure level": lambda: plots.gate_figure(
        decision("inconclusive", 0.7, 0.7, (-0.05, 0.05))
    ),
    "funnel": lambda: plots.funnel([("collected", 4_120), ("quality_at_least_0.8", 12), ("x", 0)]),
    "funnel of nothing": lambda: plots.funnel([("collected", 0), ("left", 0)]),
}


def words(figure):
    from matplotlib.text import Text

    figure.draw_without_rendering()
    return [text for text in figure.findobj(Text) if text.get_visible() and text.get_text()]


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_renders_to_a_png_of_its_size(name):
    figure = FIGURES[name]()
    png = plots.to_png(figure)
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", png[16:24])
    assert (width, height) == tuple(int(150 * inches) for inches in figure.get_size_inches())


@pytest.mark.parametrize("name", FIGURES)
def test_no_text_of_any_figure_is_cut_off_at_its_edge(name):
    figure = FIGURES[name]()
    figure.draw_without_rendering()
    drawn = figure.get_tightbbox()  # in inches, of all that is drawn
    width, height = figure.get_size_inches()
    assert min(drawn.x0, drawn.y0) >= -0.01
    assert drawn.x1 <= width + 0.01
    assert drawn.y1 <= height + 0.01


@pytest.mark.parametrize("name", FIGURES)
def test_every_horizontal_axis_says_what_it_measures(name):
    assert all(axes.get_xlabel() for axes in FIGURES[name]().axes)


def test_row_names_of_failure_bars_do_not_overlap():
    figure = plots.failure_bars([cluster(f"{LONG} {i}") for i in range(12)])
    figure.draw_without_rendering()
    boxes = [label.get_window_extent() for label in figure.axes[0].get_yticklabels()]
    assert len(boxes) == 12
    for upper, lower in itertools.pairwise(boxes):
        assert lower.y1 < upper.y0


def test_a_metric_without_value_is_shown_as_not_observed():
    texts = [text.get_text() for text in words(plots.metric_forest(metrics()))]
    assert "not observed" in texts
    assert "20 %   n = 180" in texts


def test_the_gate_figure_says_verdict_difference_and_interval():
    texts = [text.get_text() for text in words(plots.gate_figure(decision()))]
    assert "Verdict: promote" in texts
    assert "+60.0 points (+50.0 to +69.0)" in texts
    assert any(text.endswith("-and-language/12") for text in texts)


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
        (lambda: plots.loss_curve([]), "losses must not be empty"),
        (lambda: plots.funnel([]), "steps must not be empty"),
        (
            lambda: plots.control_chart(p_chart([1, 2], [9, 9]), np.array([], "M8[us]"), "t"),
            "got 0 for 2 points",
        ),
    ],
)
def test_nothing_to_draw_is_refused(draw, words):
    with pytest.raises(InvalidInputError, match=words):
        draw()


def test_importing_plots_loads_no_matplotlib_and_drawing_no_pyplot():
    code = (
        "import sys; from ratchet import plots; print('matplotlib' in sys.modules); "
        "plots.to_png(plots.loss_curve([1.0])); print('matplotlib.pyplot' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
