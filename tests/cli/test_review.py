"""`ratchet review`: a person's round on the queue by commands alone."""

from __future__ import annotations

import json
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ratchet.records import Interaction, Message, ReviewItem
from ratchet.store import EventStore
from tests.cli.in_process import run_in_process

NOW = datetime(2026, 3, 2, 10, tzinfo=UTC)


def filled(home: Path) -> None:
    home.mkdir()
    with closing(EventStore.open(f"sqlite:///{home / 'store.db'}")) as store:
        for number in range(3):
            about = Interaction(
                id=f"i-{number}", session_id="s", user_id="u", created_at=NOW,
                response="In 2 days.",
                model_version="hidden/1",
                messages=(Message(role="user", content=f"When, {number}?"),),
            )  # fmt: skip
            store.add_interactions([about])
            store.append(
                ReviewItem(
                    id=f"item-{number}", created_at=NOW, interaction_id=about.id,
                    dimension="helpfulness", priority="normal", raised_by="sample", why="-",
                    queue="sample", people=2,
                )
            )  # fmt: skip


def test_two_people_label_disagree_and_a_third_decides(tmp_path: Path) -> None:
    filled(tmp_path / "home")

    def ratchet(*words: str) -> str:
        done = run_in_process(
            "review", *words, folder=tmp_path, environment={"RATCHET_HOME": str(tmp_path / "home")}
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def read(*words: str) -> Any:
        return json.loads(ratchet(*words, "--json"))

    shown = read("next", "--by", "ana")
    assert (shown["item"], shown["answers"][0]["text"]) == ("item-0", "In 2 days.")
    assert "hidden/1" not in ratchet("next", "--by", "ana")
    ratchet("label", "item-0", "2", "--by", "ana")
    ratchet("undo", "--by", "ana")
    ratchet("label", "item-0", "4", "--by", "ana", "--note", "as asked")
    ratchet("skip", "item-1", "in Finnish", "--by", "ana")
    assert read("next", "--by", "ana")["item"] == "item-2"
    ratchet("export", "items.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "items.jsonl").read_text().splitlines()]
    assert len(rows) == 3
    text = "\n".join(json.dumps(row | {"label": "2"}) for row in rows)
    (tmp_path / "filled.jsonl").write_text(text)
    assert read("import", "filled.jsonl", "--by", "bob")["new"] == 3
    assert read("next", "--adjudicate", "--by", "cy")["given"] == ["2", "4"]
    ratchet("label", "item-0", "4", "--adjudicate", "--by", "cy")
    (queue,) = read("progress", "--by", "ana")["queues"]
    assert (queue["waiting"], queue["disputed"], queue["settled"]) == (2, 0, 1)
    assert read("agreement", "helpfulness")["pairs"][0]["items"] == 1
    ratchet("export", "decided.jsonl", "--state", "decided")
    (decided,) = map(json.loads, (tmp_path / "decided.jsonl").read_text().splitlines())
    assert [one["label"] for one in decided["decisions"]] == ["4", "2", "4"]
    assert read("fill") == {"new": {"pairs": 0}, "left_out": 0}
