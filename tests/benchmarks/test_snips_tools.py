"""How a SNIPS row becomes a call, and what the benchmark of calls counts as exact."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ratchet.evaluation.call_metrics import call_validity
from ratchet.evaluation.example_files import read_examples
from ratchet.records.tool_calls import written
from ratchet.simulation.tool_users import as_text
from ratchet.simulation.tool_world import Call
from tests.benchmarks.snips_tools import (
    TOOLS,
    Command,
    Point,
    call_of,
    commands,
    table,
    write_examples,
)


def row(intent: str, text: str, **slots: str) -> dict[str, Any]:
    return {
        "text": text,
        "intent": intent,
        "slots": [{"slot": name, "value": value} for name, value in slots.items()],
    }


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (
            row("RateBook", "rate Dune zero of 6 stars", object_name="Dune", rating_value="zero",
                best_rating="6", rating_unit="stars"),
            Call("rate_book", {"book": "Dune", "rating": 0, "unit": "stars"}),
        ),
        (
            row("RateBook", "give this novel a 4", object_select="this", object_type="novel",
                rating_value="4"),
            Call("rate_book", {"book": "this novel", "rating": 4}),
        ),
        (
            row("AddToPlaylist", "add Emma to my Focus", artist="Emma", playlist_owner="my",
                playlist="Focus"),
            Call("add_to_playlist", {"item": "Emma", "playlist": "Focus"}),
        ),
        (
            row("SearchCreativeWork", "find the TV show The Trial", object_type="TV show",
                object_name="The Trial"),
            Call("find_work", {"title": "The Trial", "kind": "TV show"}),
        ),
    ],
)  # fmt: skip
def test_values_stand_as_in_the_command_and_numbers_are_numbers(given, wanted) -> None:
    found = call_of(given)
    assert found == wanted
    assert call_validity([as_text([found])], [TOOLS]).values.tolist() == [1.0]


@pytest.mark.parametrize(
    "given",
    [
        row("PlayMusic", "play Emma", artist="Emma"),
        row("RateBook", "rate Dune many stars", object_name="Dune", rating_value="many"),
        row("RateBook", "rate Dune 4 thumbs", object_name="Dune", rating_value="4",
            rating_unit="thumbs"),
        row("AddToPlaylist", "add a song by Emma to Focus", music_item="song", artist="Emma",
            playlist="Focus"),
        row("AddToPlaylist", "add this track to Focus", music_item="track", playlist="Focus"),
        row("AddToPlaylist", "add Emma to the rhythm", artist="Emma", playlist="rhythm"),
        row("AddToPlaylist", "add Emma to the rhythm", artist="Emma", playlist="the rhythm"),
        row("SearchCreativeWork", "find The Trial", object_name="The Trial"),
        row("SearchCreativeWork", "find the book Trial", object_name="trial", object_type="book"),
    ],
)  # fmt: skip
def test_a_row_that_makes_no_one_call_is_left_out(given) -> None:
    assert call_of(given) is None


def test_commands_are_as_many_of_each_tool_and_each_text_comes_once(tmp_path) -> None:
    rows = [row("AddToPlaylist", f"add Emma to F{n}", artist="Emma", playlist=f"F{n}")
            for n in (1, 2, 3, 1)]  # fmt: skip
    rows += [row("SearchCreativeWork", f"find the book W{n}", object_name=f"W{n}",
                 object_type="book") for n in range(9)]  # fmt: skip
    rows += [row("RateBook", f"rate B{n} 3", object_name=f"B{n}", rating_value="3")
             for n in range(5)]  # fmt: skip
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    found = commands(path, 20, seed=0)
    assert sorted(one.call.name for one in found) == sorted(
        ["add_to_playlist", "find_work", "rate_book"] * 3
    )
    assert len({one.text for one in found}) == 9
    assert found == commands(path, 20, seed=0)


def test_the_report_counts_exact_calls_by_tool(tmp_path) -> None:
    held_out = [
        Command("rate Dune 4", Call("rate_book", {"book": "Dune", "rating": 4})),
        Command("rate Emma 2", Call("rate_book", {"book": "Emma", "rating": 2})),
        Command("find the book Solaris", Call("find_work", {"title": "Solaris", "kind": "book"})),
    ]
    write_examples(held_out, tmp_path / "examples.jsonl")
    examples = read_examples(tmp_path / "examples.jsonl")
    assert [example.target for example in examples] == [as_text([one.call]) for one in held_out]
    right = as_text([held_out[0].call])
    wrong = as_text([Call("rate_book", {"book": "Emma", "rating": "2"})])
    before = Point(examples, ["I am an assistant.", None, "Sunny."])
    after = Point(examples, [right, wrong, "<tool_call>\n{"])
    assert (before.exact(), after.exact("rate_book"), after.exact()) == ((0, 3), (1, 2), (1, 3))
    assert "| `rate_book` | 0.0% (0.0% to 65.8%) | 50.0% (9.5% to 90.5%) |" in table(before, after)
    assert after.metrics()["answers with an unreadable call"] == pytest.approx(1 / 3)
    assert written(examples[0].messages[-1]) == "rate Dune 4"
