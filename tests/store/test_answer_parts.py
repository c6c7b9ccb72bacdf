"""What answers carry themselves, read with the signals on both databases."""

from datetime import timedelta

import pytest

from ratchet.errors import InvalidInputError
from ratchet.evaluation.answer_facts import measure_answers
from ratchet.records import Definition, Interaction, Message
from ratchet.records.prices import Price, Prices
from ratchet.store import Window, read_exposures
from ratchet.store.prices import load_prices
from tests.calls import call
from tests.conftest import STORE_CLOCK

TOOLS = Definition.of("tools", [{"type": "function", "function": {"name": "find"}}])
FORM = Definition.of("response_format", {"type": "json_object"})
WINDOW = Window(STORE_CLOCK, STORE_CLOCK + timedelta(hours=1))
FACTS = (
    "tokens_in", "tokens_out", "cost", "tool_calls", "call_validity", "unparsable_call",
    "format_validity",
)  # fmt: skip


def answer(place, **more):
    values = {
        "id": f"i{place}",
        "session_id": "s",
        "user_id": "u",
        "created_at": STORE_CLOCK + timedelta(minutes=place),
        "model_version": "m/1",
        "messages": (Message(role="user", content="?"),),
        "response": "!",
        "latency_seconds": 1.0,
    }
    return Interaction.model_validate(values | more)


def used(asked, answered, **more):
    return {"prompt_tokens": str(asked), "completion_tokens": str(answered), **more}


@pytest.fixture
def answered(open_store):
    store = open_store()
    store.prices = Prices(models={"m": Price(input=1.0, output=2.0)})
    store.add_definitions([TOOLS, FORM])
    store.add_interactions(
        [
            answer(0, metadata=used(1_000_000, 500_000, experiment="e", arm="a")),
            answer(1, metadata=used(10, 5, cost="0.25"), model_version="n/1"),
            answer(2, metadata={"prompt_tokens": "many", "completion_tokens": "5"}),
            answer(3, tools=TOOLS.id, response="", tool_calls=[call("find"), call("lose")]),
            answer(4, tools=TOOLS.id, response='<tool_call>{"name": </tool_call>'),
            answer(5, response_format=FORM.id, response='{"a": 1}'),
            answer(6, response_format=FORM.id, response="no"),
            answer(7, tools=TOOLS.id, response="", error="it broke", metadata=used(3, 0)),
            answer(8, tools="0" * 64, response="", tool_calls=[call("find")]),
        ]
    )
    return store


def rows(table):
    return [{name: row[name] for name in FACTS if row[name] is not None} for row in table]


def test_usage_calls_and_forms_are_read_with_the_signals(answered):
    table = answered.signals(WINDOW, lag=timedelta(0), measure=measure_answers)
    fine = {"tool_calls": 0.0, "call_validity": 1.0, "unparsable_call": 0.0}
    assert rows(table.to_pylist()) == [
        {"tokens_in": 1e6, "tokens_out": 5e5, "cost": 2.0},
        {"tokens_in": 10.0, "tokens_out": 5.0, "cost": 0.25},
        {"tokens_out": 5.0},
        fine | {"tool_calls": 2.0, "call_validity": 0.0},
        fine | {"call_validity": 0.0, "unparsable_call": 1.0},
        {"format_validity": 1.0},
        {"format_validity": 0.0},
        # of an answer that failed nobody had the calls, and somebody paid
        {"tokens_in": 3.0, "tokens_out": 0.0, "cost": 3e-6},
        {"tool_calls": 1.0, "unparsable_call": 0.0},  # its tools are not stored
    ]


def test_what_is_not_asked_for_is_not_read(answered):
    assert not set(FACTS) & set(answered.signals(WINDOW, lag=timedelta(0)).column_names)


def test_an_experiments_answers_have_their_cost(answered):
    found = read_exposures(
        answered, WINDOW, experiment="e", lag=timedelta(0), measure=measure_answers
    ).to_pylist()
    assert rows(found) == [{"tokens_in": 1e6, "tokens_out": 5e5, "cost": 2.0}]


def test_prices_are_read_from_yaml(tmp_path):
    file = tmp_path / "prices.yaml"
    file.write_text("models:\n  m: {input: 0.5, output: 2}\n")
    assert load_prices(file).models == {"m": Price(input=0.5, output=2.0)}
    assert load_prices(None).models == {}


@pytest.mark.parametrize(
    "content",
    ["models: {m: {input: -1, output: 2}}", "m: {input: 1, output: 2}", "models: {m: {input: 1}}"],
)
def test_a_file_of_prices_that_breaks_a_rule_is_refused_with_an_example(tmp_path, content):
    file = tmp_path / "prices.yaml"
    file.write_text(content)
    with pytest.raises(InvalidInputError, match=r"prices\.yaml: .* got .*; write `models:`"):
        load_prices(file)
