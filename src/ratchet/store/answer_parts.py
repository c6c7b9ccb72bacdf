"""What an answer carries itself: its calls and their tools, its form, its tokens, its cost.

Usage is read from the metadata. Calls and forms have to be held against what the request came with,
which is no work for a store: it hands over what is needed, row by row, to a function that measures
it, such as `ratchet.evaluation.answer_facts.measure_answers`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import sqlalchemy as sa

from ratchet.records.asking import Usage, said_number
from ratchet.records.prices import Prices
from ratchet.store.rows import chunks
from ratchet.store.tables import DEFINITIONS, INTERACTIONS

if TYPE_CHECKING:
    import pyarrow as pa

FloatArray = np.ndarray[Any, np.dtype[np.float64]]
Measure = Callable[
    [Sequence[str | None], Sequence[str | None], Sequence[Any], Sequence[Any]],
    Mapping[str, FloatArray],
]
"""From calls (JSON), words where they matter, tools and response format to columns, nan where
nothing is known; each has an entry an answer."""
_USAGE = ("prompt_tokens", "completion_tokens", "cached_tokens", "cost")
_PARTS = ("tool_calls", "said", "tools", "response_format")
_BEFORE = "part "
"""Before the names of columns that are read on the way: keys of metadata may be called alike."""


def part_columns() -> dict[str, sa.ColumnElement[Any]]:
    """Return what is read of an interaction, by names that no other column has."""
    columns = INTERACTIONS.c
    found: dict[str, sa.ColumnElement[Any]] = {
        name: columns.metadata[name].as_string() for name in _USAGE
    }
    # the words of an answer are long, and matter only where they are to have a form, or hold calls
    matters = sa.or_(
        columns.response_format.is_not(None),
        sa.and_(columns.tools.is_not(None), columns.response.contains("<tool_call>")),
    )
    found |= {
        "tool_calls": sa.cast(columns.tool_calls, sa.Text),
        "said": sa.case((matters, columns.response)),
        "tools": columns.tools,
        "response_format": columns.response_format,
    }
    return {_BEFORE + name: column for name, column in found.items()}


def part_fields() -> list[tuple[str, pa.DataType]]:
    """Return the names and types of `part_columns`."""
    import pyarrow as pa

    return [(_BEFORE + name, pa.string()) for name in (*_USAGE, *_PARTS)]


def with_measures(
    connection: sa.Connection, answers: pa.Table, measure: Measure, prices: Prices
) -> pa.Table:
    """Return answers with what was measured of them in place of the parts that it rests on.

    Columns: tokens_in, tokens_out and cost, and those that `measure` returns.

    Args:
        connection: An open connection.
        answers: With the columns of `part_columns`, model_version and shown.
        measure: What measures calls and forms.
        prices: What tokens cost where nobody says what an answer cost.
    """
    import pyarrow as pa

    given = {name: answers[_BEFORE + name].to_pylist() for name in (*_USAGE, *_PARTS)}
    made = _usage(given, answers["model_version"].to_pylist(), prices)
    kept = [given["tools"], given["response_format"]]
    # JSON's null is the text "null" once it is cast
    calls = [None if text == "null" else text for text in given["tool_calls"]]
    bodies = _bodies(connection, {key for part in kept for key in part if key is not None})
    tools, forms = ([bodies.get(key) if key else None for key in part] for part in kept)
    failed = answers["shown"].to_numpy() == 0  # nobody had its calls
    measured = measure(calls, given["said"], tools, forms)
    made |= {name: np.where(failed, np.nan, values) for name, values in measured.items()}
    rest = answers.drop_columns([_BEFORE + name for name in given])
    for name, values in made.items():
        rest = rest.append_column(name, pa.array(values, pa.float64(), mask=np.isnan(values)))
    return rest


def _usage(
    given: Mapping[str, Sequence[str | None]], versions: Sequence[str], prices: Prices
) -> dict[str, FloatArray]:
    """Return tokens and cost, nan where they are not known."""
    tokens_in, tokens_out, cost = (np.full(len(versions), np.nan) for _ in range(3))
    for row, texts in enumerate(zip(*(given[name] for name in _USAGE), strict=True)):
        if not any(texts):
            continue
        numbers: dict[str, Any] = {
            name: said_number(text, is_amount=name == "cost")
            for name, text in zip(_USAGE, texts, strict=True)
        }
        paid = prices.cost(versions[row], Usage.model_construct(None, **numbers))
        for values, number in (
            (tokens_in, numbers["prompt_tokens"]),
            (tokens_out, numbers["completion_tokens"]),
            (cost, paid),
        ):
            values[row] = np.nan if number is None else number
    return {"tokens_in": tokens_in, "tokens_out": tokens_out, "cost": cost}


def _bodies(connection: sa.Connection, ids: set[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for chunk in chunks(sorted(ids)):
        query = sa.select(DEFINITIONS.c.id, DEFINITIONS.c.body).where(DEFINITIONS.c.id.in_(chunk))
        found |= {row.id: row.body for row in connection.execute(query)}
    return found
