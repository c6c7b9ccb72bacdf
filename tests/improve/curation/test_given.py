"""Data sets in TRL's formats, as files, folders of `datasets`, and in the Hub's cache."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import datasets
import pytest

from ratchet.errors import InvalidInputError
from ratchet.improve.curation.config import CurationConfig
from ratchet.improve.curation.dataset import read_any_rows
from ratchet.improve.curation.given import answer_of, hold_out, prepared_of, read_given
from ratchet.improve.curation.rows import LabelledRow, PreferenceRow, TrainingRow
from ratchet.records import Message
from ratchet.safety.redaction import RedactionConfig
from tests.models.hub_cache import write_to_cache

ROOT = Path(__file__).parents[3]
SKY, BLUE, GREEN = "What color is the sky?", "It is blue.", "It is green."
ASKED = [{"role": "user", "content": SKY}]
PLAIN = CurationConfig(redaction=RedactionConfig(enabled=False))


def said(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


# The examples of TRL's page "Dataset formats and types", in all that SFT, KTO and DPO take.
FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    "language modeling, conversational": ("sft", {"messages": ASKED + said(BLUE)}),
    "prompt-completion, standard": ("sft", {"prompt": SKY, "completion": BLUE}),
    "prompt-completion, conversational": ("sft", {"prompt": ASKED, "completion": said(BLUE)}),
    "preference, standard": ("dpo", {"prompt": SKY, "chosen": BLUE, "rejected": GREEN}),
    "preference, conversational": (
        "dpo", {"prompt": ASKED, "chosen": said(BLUE), "rejected": said(GREEN)},
    ),
    "preference, implicit prompt": (
        "dpo", {"chosen": ASKED + said(BLUE), "rejected": ASKED + said(GREEN)},
    ),
    "unpaired, standard": ("kto", {"prompt": SKY, "completion": BLUE, "label": True}),
    "unpaired, conversational": (
        "kto", {"prompt": ASKED, "completion": said(BLUE), "label": True},
    ),
    "ShareGPT": (
        "sft",
        {"conversations": [{"from": "user", "value": SKY}, {"from": "assistant", "value": BLUE}]},
    ),
}  # fmt: skip


def lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("stored", ["jsonl", "parquet", "folder"])
def test_every_format_of_trl_is_the_same_row_however_it_is_stored(
    tmp_path: Path, name: str, stored: str
) -> None:
    kind, row = FORMATS[name]
    path = tmp_path / f"rows.{stored}"
    if stored == "jsonl":
        lines(path, [row])
    elif stored == "parquet":
        datasets.Dataset.from_list([row]).to_parquet(path)
    else:
        datasets.Dataset.from_list([row]).save_to_disk(path)
    given = read_given(str(path), tmp_path)
    (made,) = given.rows["train"]
    assert (given.kind, given.set_aside) == (kind, [])
    assert made.messages == (Message(role="user", content=SKY),)
    assert answer_of(made) == BLUE
    if isinstance(made, PreferenceRow):
        assert made.rejected == GREEN
    if isinstance(made, LabelledRow):
        assert made.desirable


def test_a_preference_of_texts_that_begin_alike_is_cut_as_trl_cuts_it(tmp_path: Path) -> None:
    row = {"chosen": "The sky is blue.", "rejected": "The sky is green."}
    (made,) = read_given(str(lines(tmp_path / "r.jsonl", [row])), tmp_path).rows["train"]
    assert isinstance(made, PreferenceRow)
    assert (made.messages[0].text, made.chosen) == ("The sky is", " blue.")


def test_rows_with_tools_keep_calls_and_results(tmp_path: Path) -> None:
    """TRL has arguments as objects, OpenAI's API as text."""
    tool = {
        "type": "function",
        "function": {
            "name": "weather",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        },
    }
    call = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Rome"}}}
    calling = {"role": "assistant", "tool_calls": [call]}
    result = {"role": "tool", "name": "weather", "content": "22 degrees"}
    rows = [
        {"messages": [*ASKED, calling], "tools": [tool]},
        {"messages": [*ASKED, calling, result, *said("22 degrees.")], "tools": json.dumps([tool])},
    ]
    given = read_given(str(lines(tmp_path / "r.jsonl", rows)), tmp_path)
    first, second = given.rows["train"]
    assert first.tools == second.tools == (tool,)
    assert "<tool_call>" in (answer_of(first) or "")
    assert '"city": "Rome"' in (answer_of(first) or "")
    assert [turn.role for turn in second.messages] == ["user", "assistant", "tool"]
    ready = prepared_of(given, [], PLAIN)
    assert len(ready.train) == 2


def test_rows_that_cannot_be_used_are_set_aside_with_place_and_reason(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"prompt": SKY, "completion": BLUE},
        {"prompt": SKY, "completion": BLUE},
        {"prompt": SKY, "completion": "  "},
        {"prompt": "", "completion": BLUE},
        {"prompt": SKY, "completion": ASKED},
        {"prompt": SKY, "completion": [{"role": "king", "content": BLUE}]},
        {"prompt": SKY, "completion": 7},
    ]
    path = lines(tmp_path / "rows.jsonl", rows)
    with path.open("a", encoding="utf-8") as file:
        file.write("{no json\n")
    given = read_given(str(path), tmp_path)
    assert (given.read, len(given.rows["train"])) == (8, 1)
    assert [row.position for row in given.set_aside] == [f"line {n}" for n in range(2, 9)]
    expected = [
        "the same row is there before", "must end with a turn of the assistant, got nothing",
        "no turn of a user", "got one of user", "a turn: role", "text or a list, got '7'", "JSON",
    ]  # fmt: skip
    for row, words in zip(given.set_aside, expected, strict=True):
        assert words in row.reason


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([{"text": "Once upon a time"}], "text alone has nothing that is asked"),
        ([{"prompt": SKY}], "must have the columns messages; prompt and completion"),
        ([{"prompt": SKY, "chosen": BLUE, "rejected": BLUE}], "got the same answer twice"),
        ([{"prompt": SKY, "completion": BLUE, "label": "maybe"}], "label must be true or false"),
    ],
)
def test_a_data_set_of_which_no_row_can_be_used_is_one_error(
    tmp_path: Path, rows: list[dict[str, Any]], words: str
) -> None:
    with pytest.raises(InvalidInputError, match="must have a row to train on") as error:
        read_given(str(lines(tmp_path / "rows.jsonl", rows)), tmp_path)
    assert words in str(error.value)


def questions(count: int, start: int = 0) -> list[dict[str, Any]]:
    return [
        {"prompt": f"Where is parcel {n} of box {n * n}?", "completion": f"shelf {n}"}
        for n in range(start, start + count)
    ]


def test_the_split_test_is_asked_at_the_gate_and_nothing_of_it_is_trained_on(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "set"
    parts = {"train": questions(30), "validation": questions(4, 30), "test": questions(6, 28)}
    parts["test"] += questions(5, 40)
    datasets.DatasetDict(
        {name: datasets.Dataset.from_list(rows) for name, rows in parts.items()}
    ).save_to_disk(folder)
    given = read_given(str(folder), tmp_path)
    assert len(given.set_aside) == 6  # of test: 28 to 33 are in train or in validation
    asked = hold_out(given, 0.2, 200)
    assert {one.target for one in asked} == {f"shelf {n}" for n in range(40, 45)}
    ready = prepared_of(given, [one.prompt for one in asked], PLAIN)
    assert {answer_of(row) for row in ready.rows} == {f"shelf {n}" for n in range(34)}
    assert ready.selection.funnel == (
        ("rows of the data set", 45), ("usable", 39), ("to train on, not held out", 34),
    )  # fmt: skip


def test_without_another_split_a_share_of_prompts_is_held_out_always_the_same(
    tmp_path: Path,
) -> None:
    twice = [row | {"completion": row["completion"] + " or so"} for row in questions(10)]
    path = lines(tmp_path / "rows.jsonl", questions(50) + twice)
    given = read_given(str(path), tmp_path)
    asked = hold_out(given, 0.2, 200)
    assert len(asked) == 25  # half, where a fifth is fewer than the 100 that a gate asks for
    assert {one.prompt for one in asked}.isdisjoint(
        row.messages[-1].text for row in given.rows["train"]
    )
    backwards = lines(tmp_path / "back.jsonl", (questions(50) + twice)[::-1])
    again = hold_out(read_given(str(backwards), tmp_path), 0.2, 200)
    assert {one.prompt for one in again} == {one.prompt for one in asked}
    ready = prepared_of(given, [one.prompt for one in asked], PLAIN)
    ready.write(tmp_path / "set")
    assert {type(row) for row in read_any_rows(tmp_path / "set")} == {TrainingRow}
    card = (tmp_path / "set" / "README.md").read_text("utf-8")
    assert "Source: rows.jsonl" in card


IN_CACHE = """
import json, sys
from pathlib import Path
from ratchet.improve.curation.given import read_given
given = read_given("team/parcels", Path(sys.argv[1]))
counts = {name: len(rows) for name, rows in given.rows.items()}
print(json.dumps([given.origin, given.license, counts]))
"""


def test_a_data_set_of_the_hub_is_read_from_its_cache_at_one_revision(tmp_path: Path) -> None:
    folder = tmp_path / "repository"
    for name, rows in (("train", questions(8)), ("test", questions(3, 8))):
        (folder / "data").mkdir(parents=True, exist_ok=True)
        datasets.Dataset.from_list(rows).to_parquet(folder / "data" / f"{name}-00000.parquet")
    (folder / "README.md").write_text("---\nlicense: cc-by-4.0\n---\n# Parcels\n", "utf-8")
    commit = write_to_cache(tmp_path / "hf", "dataset", "team/parcels", folder)
    path = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {
        "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1", "PYTHONPATH": path,
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", IN_CACHE, str(tmp_path / "cache")],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    expected = [f"team/parcels at revision {commit}", "cc-by-4.0", {"train": 8, "test": 3}]
    assert json.loads(done.stdout.splitlines()[-1]) == expected
