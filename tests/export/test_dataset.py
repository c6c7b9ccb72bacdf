"""Training sets for other tools: what TRL and OpenAI take, without what must not leave."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa

from ratchet.errors import InvalidInputError
from ratchet.export.dataset import REFUSED, UNKNOWN, find_set
from ratchet.export.grammar import Request
from ratchet.export.parts import Tally
from ratchet.export.run import Sources, export
from ratchet.improve.curation.config import CurationConfig
from ratchet.improve.curation.dataset import write_training_set
from ratchet.improve.curation.rows import LabelledRow, PreferenceRow, Row, TrainingRow
from ratchet.improve.curation.selection import select
from ratchet.outcomes.quality import QualityWeights, quality
from ratchet.records import Candidate, Message, TrainingSet
from ratchet.safety.redaction import RedactionConfig
from ratchet.store import EventStore
from ratchet.store.history import History
from ratchet.store.tables import INTERACTIONS
from tests.export.stores import NOW, turn, written
from tests.improve.curation.outcomes import outcomes_of

COUNT = 16
SPLIT = CurationConfig(
    minimum_examples=1, minimum_lower_bound=0.0, validation_share=0.25, validation_from=2,
    redaction=RedactionConfig(enabled=False),
)  # fmt: skip
SAID = (
    Message(role="system", content="Be brief."),
    Message(role="user", content="hello"),
    Message(role="assistant", content="yes?"),
)


def asked(number: int) -> tuple[Message, ...]:
    return (*SAID, Message(role="user", content=f"question {number}"))


def rows_of(kind: str) -> list[Row]:
    keys = [f"i{number:04}" for number in range(COUNT)]
    places = list(enumerate(keys))
    common = [{"user_id": f"u{n}", "moment": n} for n in range(COUNT)]
    if kind == "sft":
        return [TrainingRow(k, asked(n), f"answer {n}", "rated", **common[n]) for n, k in places]
    if kind == "kto":
        return [
            LabelledRow(k, asked(n), f"answer {n}", n % 2 == 0, "thumbs", **common[n])
            for n, k in places
        ]
    return [
        PreferenceRow(k, k, asked(n), f"good {n}", f"bad {n}", "correction", **common[n])
        for n, k in places
    ]


def keep(store: EventStore, home: Path, rows: list[Row]) -> TrainingSet:
    outcomes = outcomes_of(1, thumbs=np.ones(1))
    selection = select(outcomes, quality(outcomes, QualityWeights()), (), SPLIT)
    made = write_training_set(rows, selection, (), home=home, cycle_id="c", now=NOW, config=SPLIT)
    store.append(made)
    return made


@pytest.fixture
def store(tmp_path: Path) -> Iterator[EventStore]:
    store = EventStore.open(f"sqlite:///{tmp_path}/store.db")
    store.add_interactions([turn(number) for number in range(COUNT)])
    yield store
    store.close()


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


# What TRL takes -----------------------------------------------------------------------------------


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("kind", ["sft", "kto", "dpo"])
def test_trl_trains_on_the_file_as_it_is(
    store: EventStore, tmp_path: Path, tiny_model: Path, kind: str
) -> None:
    from datasets import load_dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import (
        DPOConfig,
        DPOTrainer,
        KTOConfig,
        KTOTrainer,
        SFTConfig,
        SFTTrainer,
    )

    keep(store, tmp_path, rows_of(kind))
    tally = written(store, tmp_path, "dataset", str(tmp_path / "x.jsonl"), "trl")
    assert (tally.rows["train"], len(tally.notes)) == (12, 1)
    made = {"sft": (SFTConfig, SFTTrainer), "kto": (KTOConfig, KTOTrainer),
            "dpo": (DPOConfig, DPOTrainer)}[kind]  # fmt: skip
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.chat_template = (
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    data = load_dataset(
        "json", data_files=str(tmp_path / "x.jsonl"), split="train", cache_dir=str(tmp_path / "c")
    )
    config = made[0](
        output_dir=str(tmp_path / "out"), max_steps=1, per_device_train_batch_size=2,
        report_to=[], save_strategy="no", use_cpu=True, bf16=False, max_length=64,
    )  # fmt: skip
    trainer = made[1](
        model=AutoModelForCausalLM.from_pretrained(tiny_model),
        args=config, train_dataset=data, processing_class=tokenizer,
    )  # fmt: skip
    assert trainer.train().training_loss > 0.0


# What OpenAI takes --------------------------------------------------------------------------------


def check_chat(row: dict[str, Any]) -> None:
    """The rules of OpenAI's guide to supervised fine-tuning, for chats without tools."""
    assert set(row) == {"messages"}
    for place, message in enumerate(row["messages"]):
        assert message["role"] in ("system", "user", "assistant")
        assert isinstance(message["content"], str)
        assert message["content"]
        assert set(message) <= {"role", "content", "weight"}
        assert "weight" not in message or message["role"] == "assistant"
        assert message.get("weight", 1) in (0, 1)
        assert message["role"] != "system" or place == 0
    assert row["messages"][-1]["role"] == "assistant"
    assert any(m["role"] == "assistant" and m.get("weight", 1) for m in row["messages"])


def check_preference(row: dict[str, Any]) -> None:
    """The rules of OpenAI's guide to direct preference optimisation."""
    assert set(row) == {"input", "preferred_output", "non_preferred_output"}
    assert set(row["input"]) == {"messages"}
    assert row["input"]["messages"][-1]["role"] == "user"
    for message in row["input"]["messages"]:
        assert set(message) == {"role", "content"}
    for name in ("preferred_output", "non_preferred_output"):
        (message,) = row[name]
        assert message["role"] == "assistant"
        assert message["content"]


def test_openai_takes_answers_to_learn_and_learns_the_last_one_alone(
    store: EventStore, tmp_path: Path
) -> None:
    keep(store, tmp_path, rows_of("sft"))
    tally = written(store, tmp_path, "dataset", str(tmp_path / "x.jsonl"), "openai")
    rows = lines(tmp_path / "x.jsonl")
    assert len(rows) == tally.rows["train"] == 12
    for row in rows:
        check_chat(row)
    weights = [message.get("weight") for message in rows[0]["messages"]]
    assert weights == [None, None, 0, None, None]
    assert rows[0]["messages"][-1] == {"role": "assistant", "content": "answer 0"}
    assert tally.notes == ["not in it: 4 rows of validation; --split validation does them"]
    few = written(
        store, tmp_path, "dataset", str(tmp_path / "v.jsonl"), "openai", split="validation"
    )
    assert "OpenAI takes 10 examples or more, these are 4" in few.notes


def test_axolotl_learns_the_answer_alone_and_takes_pairs_but_no_rated_answers(
    store: EventStore, tmp_path: Path
) -> None:
    """The keys are those of axolotl's `chat_template`, and of `chat_template.default` for DPO."""
    path = tmp_path / "x.jsonl"
    keep(store, tmp_path, rows_of("sft"))
    written(store, tmp_path, "dataset", str(path), "axolotl")
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    assert len(rows) == 12
    for row in rows:
        assert row.keys() == {"messages"}
        roles = [message["role"] for message in row["messages"]]
        assert roles == ["system", "user", "assistant", "user", "assistant"]
        assert [message["train"] for message in row["messages"]] == [False] * 4 + [True]
        asked = row["messages"][3]["content"].removeprefix("question ")
        assert row["messages"][4]["content"] == f"answer {asked}"
    keep(store, tmp_path, rows_of("dpo"))
    written(store, tmp_path, "dataset", str(path), "axolotl")
    for line in path.read_text("utf-8").splitlines():
        row = json.loads(line)
        assert row.keys() == {"messages", "chosen", "rejected"}
        assert row["messages"][-1]["role"] == "user"
        assert {row[name]["role"] for name in ("chosen", "rejected")} == {"assistant"}
        assert row["chosen"]["content"] != row["rejected"]["content"]
    keep(store, tmp_path, rows_of("kto"))
    with pytest.raises(InvalidInputError, match="axolotl takes answers to learn"):
        written(store, tmp_path, "dataset", str(tmp_path / "y.jsonl"), "axolotl")


def test_openai_takes_pairs_and_no_rated_answers(store: EventStore, tmp_path: Path) -> None:
    keep(store, tmp_path, rows_of("dpo"))
    written(store, tmp_path, "dataset", str(tmp_path / "x.jsonl"), "openai")
    for row in lines(tmp_path / "x.jsonl"):
        check_preference(row)
    assert lines(tmp_path / "x.jsonl")[3]["preferred_output"][0]["content"] == "good 3"
    keep(store, tmp_path, rows_of("kto"))
    with pytest.raises(InvalidInputError, match=r"got a set of answers .*\(kto\)"):
        written(store, tmp_path, "dataset", str(tmp_path / "y.jsonl"), "openai")
    assert not (tmp_path / "y.jsonl").exists()


# Other forms --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["sft", "kto", "dpo"])
def test_a_hugging_face_folder_has_both_splits_and_the_sets_card(
    store: EventStore, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    from datasets import load_dataset

    made = keep(store, tmp_path, rows_of(kind))
    written(store, tmp_path, "dataset", str(tmp_path / "hub"), "hf")
    found = load_dataset(str(tmp_path / "hub"), cache_dir=str(tmp_path / "cache"))
    assert {name: len(part) for name, part in found.items()} == {"train": 12, "validation": 4}
    assert found["train"][0]["prompt"][-1] == {"role": "user", "content": "question 0"}
    card = (tmp_path / "hub" / "README.md").read_text("utf-8")
    assert f"# Training set {made.digest[:16]}" in card
    assert "license:" in card
    assert "path: data/train-*.parquet" in card
    assert "path: train.parquet" not in card


def test_parquet_and_lines_hold_the_rows_as_they_were_curated(
    store: EventStore, tmp_path: Path
) -> None:
    made = keep(store, tmp_path, rows_of("dpo"))
    written(store, tmp_path, "dataset", str(tmp_path / "x.parquet"), "parquet")
    whole = pq.read_table(tmp_path / made.path / "train.parquet")
    assert pq.read_table(tmp_path / "x.parquet").equals(whole)
    written(store, tmp_path, "dataset", str(tmp_path / "x.jsonl"), "jsonl")
    assert lines(tmp_path / "x.jsonl") == whole.to_pylist()


# Which set ----------------------------------------------------------------------------------------


def test_a_set_is_named_by_the_start_of_its_digest_and_the_latest_is_the_default(
    store: EventStore, tmp_path: Path
) -> None:
    first, second = keep(store, tmp_path, rows_of("sft")), keep(store, tmp_path, rows_of("kto"))
    nowhere = History.open(tmp_path / "none")
    assert nowhere.cursor() is None

    def kind_of(name: str | None) -> str:
        return find_set(store, tmp_path, name, lambda _run: None).record.kind

    assert kind_of(None) == "kto"
    assert (kind_of(first.digest[:8]), kind_of(second.id)) == ("sft", "kto")
    with pytest.raises(InvalidInputError, match="got 'none such'; the latest are: "):
        kind_of("none such")
    with pytest.raises(InvalidInputError, match="must name one training set"):
        kind_of("")


def test_a_set_that_another_machine_made_is_fetched_and_verified(
    store: EventStore, tmp_path: Path
) -> None:
    elsewhere, home = tmp_path / "worker", tmp_path / "here"
    made = keep(store, elsewhere, rows_of("sft"))
    asked_for: list[str] = []

    def fetch(run: str) -> Path:
        asked_for.append(run)
        return elsewhere / made.path

    def run(name: str | None = None) -> Tally:
        request = Request("dataset", "trl", str(tmp_path / "x.jsonl"), training_set=name)
        sources = Sources(store, History.open(home / "history"), home, fetch)
        return export(request, sources, now=NOW, progress=lambda _: None)

    with pytest.raises(InvalidInputError, match="on this disk or in MLflow, got set"):
        run()  # nobody trained on it, so that MLflow has none
    store.append(
        Candidate(
            id="k", cycle_id="c", created_at=NOW, model_name="m", version="2", adapter_digest="a",
            path="p", training_set_id=made.id, run_id="run-7", losses=(1.0,), training_seconds=1.0,
        )
    )  # fmt: skip
    assert run().rows["train"] == 12
    assert asked_for == ["run-7"]
    other = keep(store, tmp_path / "other", [replace(rows_of("sft")[0], target="changed")])
    shutil.copy(tmp_path / "other" / other.path / "train.parquet", elsewhere / made.path)
    with pytest.raises(InvalidInputError, match="must have its digest, got other rows"):
        run(made.digest[:12])


# What must not leave ------------------------------------------------------------------------------


def test_who_refused_or_is_stored_no_more_is_in_no_file_whatever_the_format(
    store: EventStore, tmp_path: Path
) -> None:
    no, over = {"training_consent": "no"}, {"retain_until": "2026-06-01T00:00:00Z"}
    more: list[Row] = [
        TrainingRow(f"i0{number}", asked(number), f"secret {number}", "rated", user_id=f"v{number}")
        for number in range(100, 104)
    ]
    more.append(TrainingRow("expert-1", asked(9), "an expert's answer", "demonstration"))
    store.add_interactions(
        [
            turn(100, metadata=no, user_id="v100"),
            turn(101, metadata=over, user_id="v101"),
            turn(102, metadata={"training_consent": "yes"}, user_id="v102"),
        ]  # and 103 is stored nowhere
    )
    keep(store, tmp_path, [*rows_of("sft"), *more])
    for as_format, name in (("trl", "t.jsonl"), ("openai", "o.jsonl"), ("jsonl", "l.jsonl"),
                            ("parquet", "p.parquet"), ("hf", "hub")):  # fmt: skip
        tally = written(store, tmp_path, "dataset", str(tmp_path / name), as_format)
        assert tally.left_out == {REFUSED: 2, UNKNOWN: 1}, as_format
        path = tmp_path / name
        if as_format == "hf":
            assert REFUSED in (path / "README.md").read_text("utf-8")
            path = path / "data" / "train-00000.parquet"
        content = (
            str(pq.read_table(path).to_pylist()) if path.suffix == ".parquet" else path.read_text()
        )
        for number, is_there in ((100, False), (101, False), (102, True), (103, False)):
            assert (f"secret {number}" in content) == is_there
        assert "an expert's answer" in content


@pytest.mark.parametrize("pruned", [False, True])
def test_a_user_whose_latest_word_is_a_refusal_is_in_no_file_with_anything(
    store: EventStore, tmp_path: Path, pruned: bool
) -> None:
    keep(store, tmp_path, rows_of("sft"))  # of user u0: i0000, i0007 and i0014
    said = [("u0", "yes", 30), ("u0", "no", 40), ("u1", "no", 30), ("u1", "yes", 40)]
    store.add_interactions(
        [
            turn(at + place * 100, user_id=user, metadata={"training_consent": word})
            for place, (user, word, at) in enumerate(said)
        ]
    )
    if pruned:
        History.open(tmp_path / "history").advance(store)
        with store.atomic() as connection:
            connection.execute(sa.delete(INTERACTIONS))
    left = 0
    for split in ("train", "validation"):
        out = tmp_path / f"{split}.jsonl"
        tally = written(store, tmp_path, "dataset", str(out), "trl", split=split)
        left += tally.left_out[REFUSED]
        assert not any(f'answer {number}"' in out.read_text() for number in (0, 7, 14))
    assert left == 3


def test_consent_is_known_of_interactions_that_only_history_has(
    store: EventStore, tmp_path: Path
) -> None:
    keep(store, tmp_path, rows_of("dpo"))
    history = History.open(tmp_path / "history")
    history.advance(store)
    with store.atomic() as connection:
        connection.execute(sa.delete(INTERACTIONS))
    tally = written(store, tmp_path, "dataset", str(tmp_path / "x.jsonl"), "trl")
    assert (tally.rows["train"], tally.left_out) == (12, {})
    (tmp_path / "history").rename(tmp_path / "away")
    with pytest.raises(InvalidInputError, match=r"must hold a row, got none of train .* 12 left"):
        written(store, tmp_path, "dataset", str(tmp_path / "y.jsonl"), "trl")


def test_personal_data_is_taken_out_of_a_set_that_was_curated_with_it(
    store: EventStore, tmp_path: Path
) -> None:
    rows = rows_of("sft")
    rows[0] = TrainingRow("i0000", asked(0), "write to ann@example.com", "rated", moment=0)
    keep(store, tmp_path, rows)
    tally = written(store, tmp_path, "dataset", str(tmp_path / "x.jsonl"), "trl")
    assert tally.redacted == {"EMAIL_ADDRESS": 1}
    assert "write to <EMAIL_ADDRESS>" in (tmp_path / "x.jsonl").read_text()
    written(store, tmp_path, "dataset", str(tmp_path / "y.jsonl"), "trl", redact=False)
    assert "write to ann@example.com" in (tmp_path / "y.jsonl").read_text()
