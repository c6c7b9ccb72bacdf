"""Pictures of failure clusters: what fixing each would win, and where they lie on a map."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ratchet.errors import InvalidInputError
from ratchet.records import FailureCluster
from ratchet.views.plots.style import (
    BLUE,
    INK,
    MUTED,
    RED,
    add_title,
    name_rows,
    need_some,
    new_panels,
    shortened,
    wrapped,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text

# Those of the page, so that a cluster has one colour in both; 4.5:1 and more on white.
_COLOURS = (
    "#0b66ac", "#bd4a00", "#00755a", "#b02f7b", "#756200", "#6546c3", "#00727f", "#8a4b2c",
)  # fmt: skip
_REST, _REST_FAILED = "#c6ced6", "#7f8a96"
_GAP = 3.0
_RADII = range(0, 300, 25)
_TURNS = 16
_LEADER_FROM = 14.0
"""Pixels between a name and its cluster from where on a line joins them."""

Box = tuple[float, float, float, float]
FloatArray = NDArray[np.float64]


def failure_bars(clusters: Sequence[FailureCluster]) -> Figure:
    """Draw size and failure rate of each cluster, the rate with its interval.

    Where it is known, the dark part of a bar is what fixing the cluster would win: the failures
    beyond those at the rate of the rest.
    """
    need_some(clusters, "clusters")
    height = 1.7 + 0.52 * len(clusters)
    figure, (sizes, rates) = new_panels(9.5, height, 1, 2, sharey=True, width_ratios=[1.0, 1.2])
    rows = np.arange(len(clusters))
    failed = np.array([cluster.size for cluster in clusters])
    won = np.array([_excess(cluster) for cluster in clusters])
    sizes.barh(rows, failed, color=BLUE, height=0.6, alpha=0.3)
    sizes.barh(rows, won, color=BLUE, height=0.6)
    for row, size in zip(rows, failed, strict=True):
        sizes.annotate(
            f"{size}", (size, row), (4, 0), textcoords="offset points", va="center", color=INK
        )
    sizes.set_xlim(0, failed.max() * 1.15)
    known = any(cluster.excess is not None for cluster in clusters)
    sizes.set_xlabel("failed; dark: spared by fixing it" if known else "failed interactions")
    for row, cluster in zip(rows, clusters, strict=True):
        _rate(rates, int(row), cluster)
    rates.set_xlim(0, 103)
    rates.spines["left"].set_visible(False)
    rates.set_xticks(range(0, 101, 25))
    rates.set_xlabel("failure rate (%), 95 % interval; × the overall rate")
    name_rows(sizes, [_named(index, cluster) for index, cluster in enumerate(clusters)])
    for axes in (sizes, rates):
        axes.grid(axis="x", color="#E4E8EC")
        axes.tick_params(axis="y", length=0)
    add_title(sizes, "Where it fails")
    return figure


def _excess(cluster: FailureCluster) -> float:
    if cluster.excess is None:
        return float(cluster.size)
    return min(max(cluster.excess, 0.0), float(cluster.size))


def _rate(axes: Axes, row: int, cluster: FailureCluster) -> None:
    lower, upper = cluster.interval
    axes.plot([100 * lower, 100 * upper], [row, row], color=RED, lw=2.4, solid_capstyle="butt")
    axes.plot(100 * cluster.failure_rate, row, "o", color=RED, ms=7)
    if cluster.rest_rate is not None:
        axes.plot(100 * cluster.rest_rate, row, "|", color=MUTED, ms=12, mew=1.6)
    axes.annotate(
        f"×{cluster.lift:.1f}",
        (1.03, row),
        xycoords=("axes fraction", "data"),
        va="center",
        color=MUTED,
    )


def _named(index: int, cluster: FailureCluster) -> str:
    unsure = cluster.stable is False and cluster.stability is not None
    name = f"{index + 1}  {wrapped(cluster.name, 30)}{' (unstable)' if unsure else ''}"
    return _plain(name)


def _plain(text: str) -> str:
    """Keep matplotlib from reading what stands between two dollars as a formula."""
    return text.replace("$", r"\$")


# The map ------------------------------------------------------------------------------------------


def failure_map(
    clusters: Sequence[FailureCluster],
    xy: NDArray[np.float64],
    labels: NDArray[np.int64],
    failed: NDArray[np.bool_],
) -> Figure:
    """Draw texts on a map: coloured by cluster, filled where they failed, clusters named.

    `ratchet.analyze.failures.projection.project` places the texts. Names are put where they hide
    few texts of clusters and never each other; where there is no room for a name, its number stands
    alone.

    Args:
        clusters: The labels are places among them; numbers on the map are these places from 1.
        xy: Shape (m, 2).
        labels: -1 for none, shape (m,).
        failed: Whether the text failed at least once, shape (m,).

    Raises:
        InvalidInputError: There is no text, lengths differ, or a label is of no cluster.
    """
    need_some(xy.tolist(), "xy")
    _check(clusters, xy, labels, failed)
    figure, (axes,) = new_panels(10.5, 7.6)
    axes.set_xticks([])
    axes.set_yticks([])
    for side in axes.spines.values():
        side.set(visible=True, color="#D8DEE5")
    axes.margins(0.04)
    _scatter(axes, xy[(labels < 0) & ~failed], c=_REST, s=7)
    _scatter(axes, xy[(labels < 0) & failed], c=_REST_FAILED, s=14)
    for index in range(len(clusters)):
        inside, colour = labels == index, _COLOURS[index % len(_COLOURS)]
        _scatter(axes, xy[inside & ~failed], fc="white", ec=colour, s=22, lw=1.2, zorder=3)
        _scatter(axes, xy[inside & failed], c=colour, s=28, zorder=4)
    axes.invert_yaxis()  # as on the page
    axes.set_xlabel(
        "messages near each other are alike; directions and long distances mean nothing"
    )
    says = (
        "filled: failed at least once; ring: did not; grey: in no cluster, darker where it failed"
    )
    many = len(clusters)
    title = f"Where it fails: {many} cluster{'' if many == 1 else 's'}" if many else "No cluster"
    add_title(axes, title, says)
    _name_clusters(figure, axes, clusters, xy, labels)
    return figure


def _check(
    clusters: Sequence[FailureCluster],
    xy: FloatArray,
    labels: NDArray[np.int64],
    failed: NDArray[np.bool_],
) -> None:
    if not len(xy) == len(labels) == len(failed):
        raise InvalidInputError(
            f"xy, labels and failed must be equally long, got {len(xy)}, {len(labels)} and "
            f"{len(failed)}; pass one of each a text"
        )
    if int(labels.max()) >= len(clusters):
        raise InvalidInputError(
            f"labels must be places among the {len(clusters)} clusters, got {labels.max()}; "
            "pass the clusters in the order of the labels"
        )


def _scatter(axes: Axes, places: FloatArray, **options: Any) -> None:
    if len(places):
        axes.scatter(places[:, 0], places[:, 1], **({"linewidths": 0.0} | _long(options)))


def _long(options: dict[str, Any]) -> dict[str, Any]:
    names = {"fc": "facecolors", "ec": "edgecolors", "lw": "linewidths"}
    return {names.get(name, name): value for name, value in options.items()}


def _name_clusters(
    figure: Figure,
    axes: Axes,
    clusters: Sequence[FailureCluster],
    xy: FloatArray,
    labels: NDArray[np.int64],
) -> None:
    """Put names into a layout that no longer moves, the largest win first."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    pixels = axes.transData.transform(xy)
    frame = axes.get_window_extent().extents
    taken: list[Box] = []
    for index, cluster in enumerate(clusters):
        own = np.flatnonzero(labels == index)
        if not own.size:
            continue
        anchor = pixels[own[_densest(pixels[own])]]
        weights = np.where(labels < 0, 0.15, np.where(labels == index, 0.7, 1.0))
        full = _plain(f"{index + 1}  {shortened(cluster.name, 40)}")
        for text in (full, f"{index + 1}"):
            label = _label(figure, text, _COLOURS[index % len(_COLOURS)])
            box = _box(figure, label)
            spot = _spot(box, anchor, frame, taken, pixels, weights)
            if spot is not None:
                _place(figure, label, box, spot, anchor)
                taken.append(spot)
                break
            label.remove()


def _densest(places: FloatArray, most: int = 600) -> int:
    """Return the place with most others around it."""
    few = places[:most]
    distances = ((few[:, None, :] - places[None, :, :]) ** 2).sum(axis=2)
    return int(np.maximum(0.0, 1.0 - distances / 60.0**2).sum(axis=1).argmax())


def _label(figure: Figure, text: str, colour: str) -> Text:
    style = {"boxstyle": "round,pad=0.28,rounding_size=0.9", "fc": "white", "ec": colour}
    return figure.text(
        0.0, 0.0, text, size=9, color=INK, weight="bold", zorder=6, bbox=style | {"lw": 1.2}
    )


def _box(figure: Figure, label: Text) -> Box:
    """Return the extent of a label with its frame, in pixels."""
    renderer: Any = figure.canvas
    label.update_bbox_position_size(renderer.get_renderer())
    patch = label.get_bbox_patch()
    if patch is None:  # not with a bbox
        return 0.0, 0.0, 0.0, 0.0
    x0, y0, x1, y1 = patch.get_window_extent().extents
    return float(x0), float(y0), float(x1), float(y1)


def _spot(
    box: Box,
    anchor: FloatArray,
    frame: Box,
    taken: Sequence[Box],
    pixels: FloatArray,
    weights: FloatArray,
) -> Box | None:
    """Return the box at the best free place around an anchor; None where there is none."""
    width, height = box[2] - box[0], box[3] - box[1]
    best, least = None, math.inf
    for radius, x, y in _around(anchor, width, height):
        spot = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
        if not _within(spot, frame) or any(_overlap(spot, other) for other in taken):
            continue
        inside = (pixels > np.array(spot[:2]) - 4.0) & (pixels < np.array(spot[2:]) + 4.0)
        cost = float(weights[inside.all(axis=1)].sum()) + radius / 8.0
        if cost < least:
            best, least = spot, cost
    return best


def _around(
    anchor: FloatArray, width: float, height: float
) -> Iterator[tuple[float, float, float]]:
    for radius in _RADII:
        for turn in range(_TURNS if radius else 1):
            angle = 2 * math.pi * turn / _TURNS
            aside = radius + (max(width - height, 0.0) / 2 if radius else 0.0)
            x, y = math.cos(angle) * aside, math.sin(angle) * radius
            yield float(radius), float(anchor[0]) + x, float(anchor[1]) + y


def _within(spot: Box, frame: Box) -> bool:
    begins = spot[0] >= frame[0] + _GAP and spot[1] >= frame[1] + _GAP
    return begins and spot[2] <= frame[2] - _GAP and spot[3] <= frame[3] - _GAP


def _overlap(one: Box, other: Box) -> bool:
    aside = one[2] + _GAP <= other[0] or other[2] + _GAP <= one[0]
    return not (aside or one[3] + _GAP <= other[1] or other[3] + _GAP <= one[1])


def _place(figure: Figure, label: Text, box: Box, spot: Box, anchor: FloatArray) -> None:
    """Move a label, whose own origin is (0, 0), and join it to its cluster where that is away."""
    from matplotlib.lines import Line2D

    # as a share of the figure, so that it stays there at any resolution
    to_share = figure.transFigure.inverted()
    label.set_position(tuple(to_share.transform((spot[0] - box[0], spot[1] - box[1]))))
    near = np.clip(anchor, spot[:2], spot[2:])
    if np.hypot(*(near - anchor)) > _LEADER_FROM:
        x, y = to_share.transform([near, anchor]).T
        figure.add_artist(Line2D(x, y, color=MUTED, lw=0.9, zorder=5))
