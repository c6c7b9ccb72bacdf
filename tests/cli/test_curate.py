"""`ratchet curate`: what would be trained on, before anything is trained."""

from __future__ import annotations

import json
import shutil
from datetime import timedelta
from pathlib import Path

import pytest

from ratchet.improve.curation.dataset import read_any_rows, write_prepared
from ratchet.improve.curation.rows import TrainingRow
from ratchet.records import Correction, Definition, ToolCall, TrainingSet
from ratchet.settings import load_settings
from ratchet.store import EventStore
from ratchet.store.forget import forget
from ratchet.store.history import History
from tests.calls import call, looked_up
from tests.cli.in_process import run_in_process
from tests.improve.curation.curated_home import (
    END,
    SIZE,
    START,
    answers,
    corrections,
    curated,
    prompt,
    said,
    store_of,
    thumbs,
)

MAIL = "ann.miller@example.org"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


def ratchet(home, *words):
    return run_in_process(
        *words, folder=home.parent, environment={"RATCHET_HOME": str(home)}
    )  # fmt: skip


def filled(home, **changes) -> EventStore:
    """A home as the commands find it: forty answers, half of which users corrected."""
    made = answers(**changes)
    settings = load_settings({"RATCHET_HOME": str(home)}, home.parent)
    store = EventStore.open(settings.store_url, assistant=settings.model_name)
    store.add_interactions(made)
    store.add_feedback([*thumbs(made[::2]), *corrections(made[1::2])])
    return store


def dry(home, *words):
    ran = ratchet(home, "curate", "--dry-run", "--json", *words)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


def keep_set(store, home, method="sft", created_at=END):
    """Write a set and its record as the flow `improve` does."""
    prepared = curated(store, home, method).required()
    record = write_prepared(prepared, home=home, cycle_id="c", now=created_at)
    store.append(record)
    return record


def test_a_dry_run_shows_what_would_be_trained_on_and_writes_no_set(home):
    store = filled(home)
    shown = dry(home, "--sample", "4")
    assert (shown["method"], shown["train"], shown["validation"]) == ("sft", SIZE, 0)
    assert shown["sources"] == {"correction": 20, "rated": 20}
    assert [step["left"] for step in shown["funnel"]] == [SIZE] * 12
    assert len(shown["sample"]) == 4
    assert shown["last_set"] is None
    assert not (home / "datasets").exists()
    assert store.records(TrainingSet) == ()


def test_it_shows_the_very_set_that_is_written_then(home):
    store = filled(home)
    assert dry(home)["digest"] == keep_set(store, home).digest


@pytest.mark.parametrize(
    ("method", "sources", "labels"),
    [
        ("kto", {"thumbs": SIZE}, {"liked": 20, "disliked": 20}),
        ("dpo", {"correction": 20}, {}),
    ],
)
def test_kto_and_dpo_are_shown_too(home, method, sources, labels):
    filled(home)
    shown = dry(home, "--method", method)
    assert (shown["sources"], shown["labels"]) == (sources, labels)
    names = {"kto": {"completion", "label"}, "dpo": {"chosen", "rejected"}}[method]
    assert names <= set(shown["sample"][0])


def test_since_and_until_choose_half_open(home):
    filled(home)
    at = [(START + timedelta(hours=n)).isoformat().replace("+00:00", "Z") for n in (5, 25)]
    shown = dry(home, "--since", at[0], "--until", at[1], "--sample", "1000")
    assert [row["interaction_id"] for row in shown["sample"]] == [f"i{n}" for n in range(5, 25)]
    assert shown["funnel"][:2] == [
        {"step": "interactions", "left": 40, "left_out": 0, "switch": None},
        {
            "step": "of the time chosen", "left": 20, "left_out": 20,
            "switch": "curation.since and curation.until (--since, --until)",
        },
    ]  # fmt: skip


def test_the_sample_follows_the_seed(home):
    filled(home)
    first, again, other = (
        [row["interaction_id"] for row in dry(home, "--sample", "5", "--seed", seed)["sample"]]
        for seed in (1, 1, 2)
    )
    assert first == again != other


def test_too_little_is_shown_with_the_step_the_switch_and_exit_code_1(home):
    filled(home, metadata={"training_consent": "no"})
    ran = ratchet(home, "curate", "--dry-run")
    assert ran.returncode == 1
    assert "not refused by their user" in ran.stdout
    assert "what clients send as training_consent and retain_until" in ran.stdout
    assert "too little to train on: a training set needs at least 16 examples, got 0" in ran.stdout


def test_rows_added_and_removed_since_the_last_set_come_with_their_reasons(home):
    store = filled(home)
    keep_set(store, home)
    assert dry(home)["last_set"]["same"] is True
    new = answers(
        4,
        id=lambda n: f"new{n}",
        user_id=lambda n: f"v{n}",
        messages=lambda n: (said(f"new {prompt(n)}"),),
        created_at=lambda n: END + timedelta(hours=n),
    )
    store.add_interactions(new)
    changed_mind = [
        event.model_copy(update={"id": "d", "created_at": END - timedelta(days=2)})
        for event in thumbs(answers(1), "down")
    ]
    store.add_feedback([*thumbs(new), *changed_mind])
    last = dry(home)["last_set"]
    assert last["same"] is False
    assert last["removed"] == {"not corrected or well rated": 1}
    assert last["removed_interactions"] == ["i0"]
    assert last["added"] == {"of interactions since that set": 4}
    assert sorted(last["added_interactions"]) == ["new0", "new1", "new2", "new3"]


def test_a_last_set_that_went_with_a_forgotten_user_is_said_to_be_gone(home):
    store = filled(home)
    keep_set(store, home)
    forget(store, home, "u3", now=END, text_key=str, history=History.open(home / "history"))
    assert "deleted" in dry(home)["last_set"]["gone"]


def test_a_corrected_row_is_changed_and_a_late_one_added(home):
    store = filled(home)
    keep_set(store, home)
    old = answers(1, id="old", messages=(said("an old question"),), user_id="w")
    store.add_interactions(old)
    again = Correction(
        id="again", interaction_id="i1", value="better still", created_at=END - timedelta(days=1)
    )
    store.add_feedback([*thumbs(old), again])
    last = dry(home)["last_set"]
    assert last["changed"]["texts or label"] == 1
    assert last["added"] == {
        "of earlier interactions: new feedback, late rows or other settings": 1
    }
    assert last["removed"] == {}


def test_rows_outside_the_time_chosen_are_removed_for_that_reason(home):
    store = filled(home)
    keep_set(store, home)
    last = dry(home, "--since", "2026-06-01T10:00Z")["last_set"]
    assert last["removed"] == {"not of the time chosen": 10}


def test_the_last_set_of_another_method_is_no_yardstick(home):
    keep_set(filled(home), home, "dpo")
    assert dry(home)["last_set"] is None


def test_what_redaction_changed_is_shown_without_the_personal_data(home):
    filled(home, messages=lambda n: (said(f"{prompt(n)}: write to {MAIL}"),))
    shown = dry(home, "--sample", "1000")
    assert shown["redaction"]["rows"] == SIZE
    assert shown["redaction"]["passages"]["EMAIL_ADDRESS"] == SIZE
    assert "<EMAIL_ADDRESS>" in shown["redaction"]["sample"][0]
    text = ratchet(home, "curate", "--dry-run", "--sample", "5").stdout
    assert MAIL not in json.dumps(shown) + text
    assert "personal data taken out of 40 rows" in text


def test_options_of_the_flow_improve_are_taken_from_a_file(home):
    filled(home)
    path = home.parent / "improve.json"
    path.write_text(
        '{"finetune": {"method": "kto", "rank": 8}, "curation": {"maximum_examples": 30}, '
        '"training": {"samples": 2}}'
    )
    shown = dry(home, "--options", path)
    assert (shown["method"], shown["train"]) == ("kto", 30)
    assert dry(home, "--options", path, "--method", "dpo")["method"] == "dpo"


@pytest.mark.parametrize(
    ("words", "said_of_it"),
    [
        ((), "needs one of --dry-run and --out, got none"),
        (("--dry-run", "--out", "x"), "got both"),
        (("--dry-run", "--since", "yesterday"), "a time is a day"),
        (("--dry-run", "--since", "2026-07-01", "--until", "2026-06-01"), "must be before"),
        (("--out", "."), "must name a new folder"),
    ],
)
def test_bad_input_is_one_clear_error(home, words, said_of_it):
    filled(home)
    ran = ratchet(home, "curate", *words)
    assert ran.returncode == 2
    assert said_of_it in ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_home_without_a_store_is_an_error(home):
    assert ratchet(home, "curate", "--dry-run").returncode == 2


def test_a_set_is_written_to_a_new_folder_and_not_to_the_home(home):
    store = filled(home)
    ran = ratchet(home, "curate", "--out", "set")
    assert ran.returncode == 0, ran.stderr
    rows = read_any_rows(home.parent / "set")
    assert len(rows) == SIZE
    assert {type(row) for row in rows} == {TrainingRow}
    assert (home.parent / "set" / "README.md").exists()
    assert store.records(TrainingSet) == ()


def test_looking_deletes_no_neighbours_that_the_next_night_needs(home):
    filled(home)
    kept = home / "neighbours" / "a block of another set.npy"
    kept.parent.mkdir()
    kept.write_bytes(b"")
    dry(home)
    assert kept.exists()


def test_a_home_of_hostile_texts_does_not_steer_the_terminal(home):
    filled(home, messages=lambda n: (said(f"{prompt(n)}\x1b[31m\nnext\u202e"),))
    ran = ratchet(home, "curate", "--dry-run", "--sample", "40")
    assert all(c.isprintable() for c in ran.stdout.replace("\n", ""))


def test_a_run_that_was_stopped_goes_on_where_it_was(home, tmp_path):
    store = store_of(tmp_path, answers(), thumbs(answers()))
    whole = curated(store, tmp_path).required().digest
    shutil.rmtree(next((tmp_path / "history").glob("derived-*")))
    assert curated(store, tmp_path).required().digest == whole


def test_calls_are_shown_as_calls_with_what_could_be_called(home):
    tools = Definition.of("tools", [{"type": "function", "function": {"name": "find_customer"}}])
    store = filled(
        home, messages=lambda n: looked_up("Who?", f"Ana {prompt(n)}", name="Ana")[:-1],
        response="",
        tool_calls=lambda n: (ToolCall.model_validate(call("find_customer", name=f"Bo{n}")),),
        tools=tools.id,
    )  # fmt: skip
    store.add_definitions([tools])
    store.close()
    ran = ratchet(home, "curate", "--dry-run", "--sample", "1")
    assert ran.returncode == 0, ran.stderr
    assert "could call: find_customer()" in ran.stdout
    assert 'assistant: calls find_customer(name="Ana")' in ran.stdout
    assert "tool: result of find_customer: Ana " in ran.stdout
