"""The drill-down into failure clusters: a map, a table by what fixing would win, examples.

page = failures_page(clusters, Searched("router/3", 3412, 911, window), now=now, points=points)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ratchet.errors import InvalidInputError
from ratchet.files.text import counted
from ratchet.records import Breakdown, EarlierCluster, FailureCluster, FailureExample
from ratchet.views.pages.rendering import render, visible
from ratchet.views.words import TRENDS, became

COLOURS = 8
"""Clusters share this many colours in turn; numbers and names tell them apart."""
SHORT_TEXT = 600
"""Characters of a text that stand open; the whole is one click away."""
LONGEST_TEXT = 20_000
LONGEST_POINT = 1_000
_SIDE = 1_000
_MARGIN = 25


@dataclass(frozen=True, slots=True)
class Searched:
    """What was searched for failure clusters.

    Attributes:
        model_version: Whose answers they are.
        interactions: Those of which it can be told whether they failed.
        failed: How many of them failed.
        window: From when to when; None where that is not known.
        untold: Interactions of which nobody can tell.
        left_out: Interactions of which it can be told and that were not looked at, at random.
    """

    model_version: str
    interactions: int
    failed: int
    window: tuple[datetime, datetime] | None = None
    untold: int = 0
    left_out: int = 0


@dataclass(frozen=True, slots=True)
class MapPoints:
    """Distinct texts on a map; `ratchet.analyze.failures.projection.project` places them.

    Attributes:
        xy: Places in the unit square, shape (m, 2).
        labels: Place of the text's cluster among the clusters, -1 for none, shape (m,).
        failures: How often it failed, shape (m,).
        seen: How often it was said, shape (m,).
        texts: What it says, one a point.
        of: Distinct texts there are, where the map is a sample of them.
    """

    xy: NDArray[np.float64]
    labels: NDArray[np.int64]
    failures: NDArray[np.int64]
    seen: NDArray[np.int64]
    texts: Sequence[str]
    of: int | None = None


def failures_page(
    clusters: Sequence[FailureCluster],
    searched: Searched,
    *,
    now: datetime,
    points: MapPoints | None = None,
    earlier: Sequence[EarlierCluster] = (),
    reason: str | None = None,
) -> str:
    """Return one HTML file about failure clusters that needs nothing else, online or off.

    It reads well without scripts too, but for the map's names, sorting and selecting.

    Args:
        clusters: What fixing them would win, most first; the map's labels are their places.
        searched: What was searched.
        now: When the page is made.
        points: The map; none where there is no vector of anything.
        earlier: Clusters of earlier runs that were not found.
        reason: Why there are no clusters.

    Raises:
        InvalidInputError: Points are not equally many, or are of a cluster that is not there.
    """
    if points is not None:
        _check(points, len(clusters))
    shown = points if points is not None and len(points.texts) else None
    return render(
        "failures",
        headline=_headline(clusters, searched),
        searched=searched,
        overall=_percent(searched.failed, searched.interactions),
        window=_window(searched.window),
        now=f"{_day(now)}, {now:%H:%M} UTC",
        clusters=[_cluster(index, cluster) for index, cluster in enumerate(clusters)],
        earlier=[_earlier(item, clusters) for item in earlier],
        reason=_sentence(reason or "no reason was recorded"),
        groups=_drawn(shown, len(clusters)) if shown else [],
        points=_for_script(shown) if shown else None,
        map_note=_map_note(shown) if shown else "",
        longest=LONGEST_TEXT,
    )


def _check(points: MapPoints, clusters: int) -> None:
    count = len(points.texts)
    arrays = (points.xy[:, 0], points.labels, points.failures, points.seen)
    if any(len(array) != count for array in arrays):
        raise InvalidInputError(
            "points must have equally many places, labels, counts and texts, got "
            f"{counted(count, 'text')} and {[len(array) for array in arrays]}; "
            "pass one of each a text"
        )
    if count and int(points.labels.max()) >= clusters:
        raise InvalidInputError(
            f"labels must be places among the {clusters} clusters, got {points.labels.max()}; "
            "pass the clusters in the order of the labels"
        )


# In words -----------------------------------------------------------------------------------------


def _headline(clusters: Sequence[FailureCluster], searched: Searched) -> str:
    if not clusters:
        return "No failure cluster was found"
    many = len(clusters)
    won = sum(cluster.excess or 0.0 for cluster in clusters)
    kinds = "One kind of message fails" if many == 1 else f"{many} kinds of message fail"
    if not won:
        return f"{kinds} more than the rest"
    them = "it" if many == 1 else "them"
    return (
        f"{kinds} more than the rest; mending {them} would spare about {won:,.0f} of "
        f"{counted(searched.failed, 'failure')}"
    )


def _window(window: tuple[datetime, datetime] | None) -> str | None:
    if window is None:
        return None
    start, end = window
    if start.date() == end.date():
        return f"{_day(start)}, {start:%H:%M} to {end:%H:%M} UTC"
    return f"{_day(start)}, {start:%H:%M} to {_day(end)}, {end:%H:%M} UTC"


def _day(moment: datetime) -> str:
    return f"{moment.day} {moment:%B %Y}"


def _percent(part: float, whole: float) -> str:
    return share_in_words(part / whole) if whole else "–"


def share_in_words(share: float | None, digits: int = 0) -> str:
    """Write a share as a percentage; a small one keeps a digit, so that it does not read as 0."""
    if share is None:
        return "–"
    if 0.0 < share < 0.02 and not digits:
        digits = 1
    return f"{100 * share:.{digits}f}\u00a0%"


def _sentence(text: str) -> str:
    text = text.strip()
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith(('.', '!', '?')) else '.'}"


def _cluster(index: int, cluster: FailureCluster) -> dict[str, Any]:
    lower, upper = cluster.interval
    return {
        "place": index,
        "number": index + 1,
        "colour": index % COLOURS,
        "id": cluster.id,
        "name": cluster.name,
        "failed": cluster.size,
        "interactions": cluster.interactions,
        "rate": share_in_words(cluster.failure_rate),
        "interval": f"{100 * lower:.0f} to {share_in_words(upper, 0)}",
        "rest": None if cluster.rest_rate is None else share_in_words(cluster.rest_rate),
        "bar": {
            "rate": _bar(cluster.failure_rate),
            "lower": _bar(lower),
            "width": round(max(_bar(upper) - _bar(lower), 1.0), 1),
            "rest": None if cluster.rest_rate is None else _bar(cluster.rest_rate),
        },
        "failure_rate": cluster.failure_rate,
        "lift": cluster.lift,
        "excess": cluster.excess,
        "share": cluster.share,
        "share_text": share_in_words(cluster.share),
        "trend": TRENDS[cluster.trend],
        "first_seen": cluster.first_seen,
        "first_day": None if cluster.first_seen is None else _day(cluster.first_seen),
        "users": cluster.users,
        "stability": cluster.stability,
        "steadiness": _steadiness(cluster),
        "unstable": cluster.stable is False and cluster.stability is not None,
        "safety": cluster.safety,
        "chance": _chance(cluster.p_value),
        "breakdowns": [
            (title, [_breakdown(item) for item in items])
            for title, items in (
                ("Model version", cluster.versions),
                ("Segment", cluster.segments),
            )
            if items
        ],
        "examples": [_long(text) for text in cluster.examples],
        "borderline": [_long(text) for text in cluster.borderline],
        "beside": [_beside(example) for example in cluster.beside],
    }


def _bar(share: float) -> float:
    return round(100 * min(max(share, 0.0), 1.0), 1)


def _steadiness(cluster: FailureCluster) -> str:
    if cluster.stability is None:
        return "not measured"
    return "stable" if cluster.stable else "unstable"


def _chance(p_value: float | None) -> str | None:
    if p_value is None:
        return None
    return "p < 0.001" if p_value < 0.001 else f"p = {p_value:.3f}"


def _breakdown(item: Breakdown) -> dict[str, Any]:
    share = item.failed / item.interactions
    return {
        "name": item.name or "not given",
        "failed": item.failed,
        "interactions": item.interactions,
        "rate": share_in_words(share),
        "bar": _bar(share),
    }


def _beside(example: FailureExample) -> dict[str, Any]:
    return {
        "id": example.interaction_id,
        "prompt": _long(example.prompt),
        "answer": _long(example.answer),
        "why": _sentence(example.why),
        "better": None if example.better is None else _long(example.better),
        "source": example.source,
        "better_prompt": None if example.better_prompt is None else _long(example.better_prompt),
        "borderline": example.borderline,
    }


def _long(text: str) -> dict[str, Any]:
    """Return a text with what stands open of it and what is a click away."""
    whole = text[:LONGEST_TEXT]
    return {
        "open": text if len(text) <= SHORT_TEXT else f"{text[: SHORT_TEXT - 1]}…",
        "whole": whole if len(text) > SHORT_TEXT else None,
        "characters": len(text),
        "cut": len(text) > LONGEST_TEXT,
        "empty": not text.strip(),
    }


def _earlier(item: EarlierCluster, clusters: Sequence[FailureCluster]) -> dict[str, Any]:
    other = next((cluster.name for cluster in clusters if cluster.id == item.other), None)
    return {
        "name": item.name,
        "now": became(item.trend),
        "other": other,
        "first_day": _day(item.first_seen),
    }


# The map ------------------------------------------------------------------------------------------


def _map_note(points: MapPoints) -> str:
    count = len(points.texts)
    if points.of is not None and points.of > count:
        first = ", those in clusters first" if (points.labels >= 0).any() else ""
        return f"{count:,} of {points.of:,} distinct messages are shown{first}"
    return f"All {count:,} distinct messages are shown" if count != 1 else "One message is shown"


def _places(points: MapPoints) -> NDArray[np.int64]:
    """Return the places on a square that they fill; directions mean nothing, so each axis may."""
    low, reach = points.xy.min(axis=0), np.ptp(points.xy, axis=0)
    inside = np.where(reach > 0.0, (points.xy - low) / np.where(reach > 0.0, reach, 1.0), 0.5)
    placed: NDArray[np.int64] = np.rint(inside * (_SIDE - 2 * _MARGIN) + _MARGIN).astype(np.int64)
    return placed


def _drawn(points: MapPoints, clusters: int) -> list[dict[str, Any]]:
    """Return what to draw, the texts in no cluster first: a path of rings and one of dots."""
    places = _places(points)
    groups = []
    for index in range(-1, clusters):
        inside = points.labels == index
        if inside.any():
            groups.append(
                {
                    "place": index,
                    "colour": "rest" if index < 0 else f"c{index % COLOURS}",
                    "rings": _path(places[inside & (points.failures == 0)]),
                    "dots": _path(places[inside & (points.failures > 0)]),
                }
            )
    return groups


def _path(places: NDArray[np.int64]) -> str:
    """Return a path of strokes without length, which round ends make dots of."""
    return "".join(f"M{x} {y}h.01" for x, y in places)


def _for_script(points: MapPoints) -> dict[str, Any]:
    places = _places(points)
    return {
        "x": places[:, 0].tolist(),
        "y": places[:, 1].tolist(),
        "cluster": points.labels.tolist(),
        "failures": points.failures.tolist(),
        "seen": points.seen.tolist(),
        "text": [_clipped(text) for text in points.texts],
        "characters": [len(text) for text in points.texts],
    }


def _clipped(text: str) -> str:
    return visible(text if len(text) <= LONGEST_POINT else f"{text[: LONGEST_POINT - 1]}…")
