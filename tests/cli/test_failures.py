"""`ratchet failures`: clusters of a file for people and machines, whatever the file holds."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from ratchet.analyze.failures.files import read_failures
from ratchet.cli import app
from ratchet.errors import InvalidInputError

TOPICS = {
    "card": ("my card was stolen", "card lost on the train", "somebody took my card"),
    "pin": ("how do I change my pin", "new pin please", "pin forgotten today"),
    "loan": ("what is a loan for a house", "loan rates for a car", "loan to buy a boat"),
}


def rows(count: int = 600) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    made = []
    for number in range(count):
        topic = sorted(TOPICS)[number % 3]
        text = f"{TOPICS[topic][rng.integers(3)]} {number % 50}"
        failed = bool(rng.random() < (0.6 if topic == "card" else 0.05))
        made.append({"text": text, "failed": failed, "user": f"u{number % 200}"})
    return made


def written(path: Path, content: list[dict[str, Any]]) -> Path:
    if path.suffix == ".csv":
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(content[0]))
            writer.writeheader()
            writer.writerows(content)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in content), "utf-8")
    return path


def told(*arguments: str) -> dict[str, Any]:
    done = CliRunner().invoke(app, ["failures", *arguments, "--json", "--embedding", "words"])
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("name", ["failures.jsonl", "failures.csv"])
def test_clusters_are_found_and_their_rows_named(tmp_path: Path, name: str) -> None:
    content = rows()
    found = told(str(written(tmp_path / name, content)))
    assert found["rows"] == len(content) == len(found["labels"])
    assert found["clusters"]
    for place, cluster in enumerate(found["clusters"]):
        assert "card" in cluster["name"]
        assert all(content[row]["failed"] for row in cluster["members"])
        assert all("card" in content[row]["text"] for row in cluster["rows"])
        assert [row for row, label in enumerate(found["labels"]) if label == place] == cluster[
            "members"
        ]
        assert cluster["failure_rate"] == len(cluster["members"]) / len(cluster["rows"])
        assert cluster["interval"][0] <= cluster["failure_rate"] <= cluster["interval"][1]


def test_both_formats_say_the_same(tmp_path: Path) -> None:
    one = told(str(written(tmp_path / "a.jsonl", rows())))
    assert one == told(str(written(tmp_path / "a.csv", rows())))


def test_bad_rows_are_set_aside_and_the_good_ones_keep_their_places(tmp_path: Path) -> None:
    file = written(tmp_path / "a.jsonl", rows())
    good = file.read_bytes()
    bad = [
        b"not json",
        b'{"text": "x"}',
        b'{"text": 5, "failed": true}',
        b'{"text": "x", "failed": "perhaps"}',
        b'{"text": "\xff", "failed": true}',
        b"[1]",
        b'{"text": "\\ud800", "failed": true}',
    ]
    file.write_bytes(b"\n".join(bad) + b"\n" + good)
    found = told(str(file))
    assert found["set_aside"]["count"] == len(bad)
    assert [item["row"] for item in found["set_aside"]["rows"]] == list(range(len(bad)))
    assert found["labels"][: len(bad)] == [-1] * len(bad)
    assert found["clusters"]
    shown = CliRunner().invoke(app, ["failures", str(file), "--embedding", "words"])
    assert "7 rows set aside" in shown.stdout
    assert "set aside, line 4: failed must be true or false, got 'perhaps'" in shown.output


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.csv", b"text,label\na,b\n", "columns text and failed"),
        ("a.csv", b"", "got none"),
        ("a.jsonl", b"\n \n", "got none"),
        ("a.jsonl", b"\x89PNG\r\n\x1a\n\x00\x00", "which is a picture"),
        (
            "a.jsonl",
            b'{"text": "a"}\n',
            "none can be used; line 1: a row must hold failed, got text",
        ),
    ],
)
def test_a_file_that_cannot_be_used_is_one_error(
    tmp_path: Path, name: str, content: bytes, says: str
) -> None:
    file = tmp_path / name
    file.write_bytes(content)
    with pytest.raises(InvalidInputError, match=says):
        read_failures(file)


def test_a_file_that_is_not_there_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="must be a readable file"):
        read_failures(tmp_path / "none.jsonl")


@pytest.mark.parametrize(
    ("texts", "says"),
    [
        (["", "  ", "\n"], "hold a word to compare"),
        (["😀", "🎉🎉", "👍🏽"], "hold a word to compare"),
        (["my parcel is late"], "have the same text"),
        (["x" * 1_000_000 + " parcel", "y" * 1_000_000], "no failure clusters"),
        (
            ["Wo ist mein Paket", "où est mon colis", "荷物はどこですか", "где посылка"],
            "no failure",
        ),
    ],
)
def test_garbage_is_told_with_a_reason(tmp_path: Path, texts: list[str], says: str) -> None:
    content = [
        {"text": texts[number % len(texts)], "failed": number // len(texts) % 2 == 0}
        for number in range(24 * len(texts))
    ]
    file = written(tmp_path / "a.jsonl", content)
    done = CliRunner().invoke(app, ["failures", str(file), "--embedding", "words"])
    assert done.exit_code == 0, done.output
    assert says in done.stdout


def test_flags_are_read_in_every_common_spelling(tmp_path: Path) -> None:
    spellings = ["true", "1", "YES", "False", "0", "no"]
    file = tmp_path / "a.csv"
    file.write_text("failed,text\n" + "".join(f"{word},a b\n" for word in spellings))
    assert read_failures(file).failed == (True, True, True, False, False, False)


def test_people_read_a_short_list(tmp_path: Path) -> None:
    file = written(tmp_path / "a.csv", rows())
    done = CliRunner().invoke(app, ["failures", str(file), "--embedding", "words"])
    assert "of 600 rows failed" in done.stdout
    assert "1. " in done.stdout
    assert "fixing it would spare about" in done.stdout
