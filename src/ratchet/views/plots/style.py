"""What all pictures share: colours, panels, titles, and how a figure is written.

Colours are Okabe and Ito's, which people with any colour vision tell apart.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ratchet.errors import InvalidInputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
INK, MUTED, FAINT = "#1F2933", "#6B7785", "#E4E8EC"
_DPI = 150
_STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
}


def to_png(figure: Figure) -> bytes:
    """Return the figure as the bytes of a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI, metadata={"Software": None})
    return buffer.getvalue()


def to_svg(figure: Figure) -> str:
    """Return the figure as the text of an SVG file, the same for the same figure."""
    from matplotlib import rc_context

    buffer = io.BytesIO()
    with rc_context({"svg.hashsalt": "ratchet"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue().decode("utf-8")


def new_panels(
    width: float, height: float, rows: int = 1, columns: int = 1, **options: Any
) -> tuple[Figure, list[Axes]]:
    """Return a figure in the shared style that draws without a display, and its axes."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    with rc_context(_STYLE):
        layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1)
        figure = Figure(figsize=(width, height), layout=layout, facecolor="white")
        FigureCanvasAgg(figure)
        axes = figure.subplots(rows, columns, squeeze=False, **options)
    return figure, list(axes.ravel())


def add_title(
    axes: Axes, title: str, subtitle: str = "", color: str = INK, *, lift: float = 0.0
) -> None:
    """Write a title and, below it, a subtitle above the axes."""
    axes.annotate(
        title,
        (0, 1),
        (0, lift + (26 if subtitle else 10)),
        xycoords="axes fraction",
        textcoords="offset points",
        size=14,
        weight="bold",
        color=color,
    )
    if subtitle:
        axes.annotate(
            subtitle,
            (0, 1),
            (0, lift + 10),
            xycoords="axes fraction",
            textcoords="offset points",
            color=MUTED,
        )


def name_rows(axes: Axes, names: Sequence[str]) -> None:
    """Name the rows of a horizontal chart, first on top."""
    axes.set_yticks(range(len(names)), labels=list(names))
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def beside(axes: Axes, row: int, text: str, color: str) -> None:
    """Write a text to the right of a row."""
    coordinates = ("axes fraction", "data")
    axes.annotate(text, (1.02, row), xycoords=coordinates, va="center", color=color, size=9)


def shortened(name: str, width: int = 34) -> str:
    """Cut the middle, because a name's end holds its version."""
    half = width // 2
    return name if len(name) <= width else f"{name[:half]}…{name[1 - half :]}"


def wrapped(name: str, width: int) -> str:
    """Break a name into at most two lines."""
    return "\n".join(textwrap.wrap(name, width, max_lines=2, placeholder=" …")) or name


def need_some(items: Sequence[Any], name: str) -> None:
    """Refuse to draw nothing.

    Raises:
        InvalidInputError: There are no items.
    """
    if len(items) == 0:
        raise InvalidInputError(f"{name} must not be empty, got none; there is nothing to draw")
