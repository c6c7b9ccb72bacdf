"""Answers that call tools become rows with their tools; a call that is none is never learnt."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratchet.errors import InvalidInputError
from ratchet.improve.curation import calls
from ratchet.improve.curation.config import CurationConfig, Demonstration
from ratchet.improve.curation.curating import Curated
from ratchet.improve.curation.dataset import (
    Requests,
    build,
    fitting,
    prepare,
    read_any_rows,
)
from ratchet.improve.curation.redacting import redact_rows
from ratchet.improve.curation.rows import (
    LabelledRow,
    PreferenceRow,
    TrainingRow,
    answer_of_trainer,
    for_trainer,
    of_trainer,
)
from ratchet.improve.curation.selection import Selected, Selection
from ratchet.improve.curation.traffic import Numbers, demonstration_rows
from ratchet.improve.curation.traits import correction_traits, interaction_traits
from ratchet.records import Definition, Example, Interaction, Message, Regenerate, ToolCall
from ratchet.records.tool_calls import read_calls, written
from ratchet.store import EventStore
from ratchet.store.cycles import freeze_examples
from tests.calls import call, turn
from tests.improve.curation.curated_home import (
    START,
    answers,
    corrections,
    curated,
    prompt,
    said,
    store_of,
    thumbs,
)
from tests.parameters import examples

REST = CurationConfig(minimum_examples=1, minimum_lower_bound=0.0)


def tool(name: str, **properties: Any) -> dict[str, Any]:
    parameters = {"type": "object", "properties": properties, "required": sorted(properties)}
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


TOOLS = [tool("light", room={"type": "string"}, level={"type": "integer"}), tool("stop")]
LIGHT = Definition.of("tools", TOOLS)
OTHERS = Definition.of("tools", [tool("light", room={"type": "string"}), tool("play")])


def light(number: int, level: Any = 1) -> tuple[ToolCall, ...]:
    return (ToolCall.model_validate(call("light", room=f"room {number}", level=level)),)


def block(name: str, **arguments: Any) -> str:
    body = json.dumps({"name": name, "arguments": arguments}, ensure_ascii=False)
    return f"<tool_call>\n{body}\n</tool_call>"


def home(folder: Path, turns: list[Interaction], feedback: list[Any], kind: Any = "sft") -> Curated:
    store = store_of(folder, turns, feedback)
    store.add_definitions([LIGHT, OTHERS])
    made = curated(store, folder, kind, REST)
    store.close()
    return made


BROKEN = ToolCall.model_validate(
    {"id": "c1", "type": "function", "function": {"name": "light", "arguments": "{room"}}
)
"""A call whose arguments are no JSON."""


def called(number: int) -> tuple[ToolCall, ...]:
    """Of ten answers three call wrongly: no JSON, an unknown tool, wrong arguments."""
    wrong = {
        0: (BROKEN,),
        1: (ToolCall.model_validate(call("fly")),),
        2: light(number, level="bright"),
    }
    return wrong.get(number % 10, light(number))


def tools_of(number: int) -> str:
    return "f" * 64 if number % 10 == 3 else LIGHT.id


WRONG = {calls.UNREADABLE: 4, calls.UNKNOWN: 4, calls.UNFITTING: 4, calls.GONE: 4}


def test_well_rated_calls_are_learnt_with_their_tools_and_wrong_ones_are_counted(
    tmp_path: Path,
) -> None:
    turns = answers(40, response="", tool_calls=called, tools=tools_of)
    made = home(tmp_path, turns, thumbs(turns))
    assert dict(made.selection.set_aside) == WRONG
    rows = made.required().rows
    assert len(rows) == 24
    assert {json.dumps(row.tools) for row in rows} == {json.dumps(TOOLS)}
    by_id = {row.interaction_id: row for row in rows}
    assert by_id["i4"].target == block("light", room="room 4", level=1)
    made.required().write(tmp_path / "set")
    back = read_any_rows(tmp_path / "set")
    assert [row.canonical() for row in back] == [row.canonical() for row in made.required().train]
    card = (tmp_path / "set" / "README.md").read_text("utf-8")
    assert "| with tools | 24 |" in card
    assert "| that call one | 24 |" in card


def test_of_answers_that_users_did_not_like_wrong_calls_stay(tmp_path: Path) -> None:
    turns = answers(40, response="", tool_calls=called, tools=LIGHT.id)
    up, down = turns[5:], turns[:5]
    made = home(tmp_path, turns, [*thumbs(up), *thumbs(down, "down")], "kto")
    assert dict(made.selection.set_aside) == {
        calls.UNREADABLE: 3, calls.UNKNOWN: 3, calls.UNFITTING: 3
    }  # fmt: skip
    disliked = [row for row in made.required().rows if not row.desirable]
    assert len(disliked) == 5
    assert {read_calls(row.answer).unparsable for row in disliked} == {0, 1}


def test_a_correction_that_calls_becomes_a_target_and_the_better_answer_of_a_pair(
    tmp_path: Path,
) -> None:
    turns = answers(40, response="", tool_calls=light, tools=LIGHT.id)
    right = block("light", room="hall", level=3)
    as_turn = json.dumps({"role": "assistant", "tool_calls": [call("stop")]})
    given = [
        *corrections(turns[:10], f"Sure.\n{right}"),
        *corrections(turns[10:20], as_turn),
        *corrections(turns[20:30], block("light", room=1, level=3)),
        *corrections(turns[30:], "I cannot do that."),
    ]
    store = store_of(tmp_path, turns, given)
    store.add_definitions([LIGHT])
    made, pairs = (curated(store, tmp_path, kind, REST) for kind in ("sft", "dpo"))
    store.close()
    for found in (made, pairs):
        assert dict(found.selection.set_aside) == {calls.UNFITTING: 10}
    targets = {row.interaction_id: row.target for row in made.required().rows}
    assert targets["i3"] == f"Sure.\n{right}"
    assert targets["i13"] == block("stop")
    assert targets["i33"] == "I cannot do that."
    pair = next(row for row in pairs.required().rows if row.interaction_id == "i13")
    assert (pair.chosen, pair.rejected) == (block("stop"), block("light", room="room 13", level=1))
    assert pair.tools == tuple(TOOLS)


def test_what_a_model_calls_and_says_after_the_result_are_answers_to_different_things(
    tmp_path: Path,
) -> None:
    def talk(number: int) -> tuple[Message, ...]:
        # so long that a call and a short result change little of it
        words = " ".join(prompt(number // 2 * 20 + part) for part in range(20))
        if number % 2 == 0:
            return (said(words),)
        calling = turn("assistant", tool_calls=[call("light", room=f"room {number}", level=1)])
        result = turn("tool", f"done {number}", tool_call_id="c1", name="light")
        return (said(words), calling, result)

    turns = answers(
        40, messages=talk, tools=LIGHT.id, session_id=lambda n: f"s{n // 2}",
        response=lambda n: f"answer {n}" if n % 2 else "",
        tool_calls=lambda n: () if n % 2 else light(n),
    )  # fmt: skip
    made = home(tmp_path, turns, thumbs(turns))
    rows = made.required().rows
    assert len(rows) == 40  # neither a conflict nor near duplicates
    after = next(row for row in rows if row.interaction_id == "i5")
    assert [one.role for one in after.messages] == ["user", "assistant", "tool"]
    assert after.messages[1].tool_calls == light(5)
    assert after.messages[2].tool_call_id == "c1"


def test_the_right_call_and_the_wrong_one_to_one_message_are_no_near_duplicates(
    tmp_path: Path,
) -> None:
    turns = answers(
        40, messages=lambda n: (said(prompt(n // 2)),), response="", tools=LIGHT.id,
        tool_calls=lambda n: light(n // 2, level=1 + n % 2),
    )  # fmt: skip
    made = home(tmp_path, turns, [*thumbs(turns[::2]), *thumbs(turns[1::2], "down")], "kto")
    rows = made.required().rows
    assert [row.desirable for row in rows] == [True, False] * 20


def test_what_the_gate_asks_is_left_out_at_every_step_of_an_agent(tmp_path: Path) -> None:
    """Leaks are looked for in users' words: what a tool gave is none."""

    def talk(number: int) -> tuple[Message, ...]:
        asked = (said(prompt(number // 2)),)
        if number % 2 == 0:
            return asked
        calling = turn("assistant", tool_calls=[call("light", room=f"room {number}", level=1)])
        given = prompt(3) if number == 11 else f"done {number}"
        return (*asked, calling, turn("tool", given, tool_call_id="c1", name="light"))

    turns = answers(
        40, messages=talk, tools=LIGHT.id, session_id=lambda n: f"s{n // 2}",
        response=lambda n: f"answer {n}" if n % 2 else "",
        tool_calls=lambda n: () if n % 2 else light(n),
    )  # fmt: skip
    store = store_of(tmp_path, turns, thumbs(turns))
    store.add_definitions([LIGHT])
    question = Example(id="e", messages=(said(prompt(3).upper()),), target=block("stop"))
    freeze_examples(store, "held-out", [question], START)
    made = curated(store, tmp_path, "sft", REST)
    store.close()
    assert dict(made.selection.leaks) == {"the same": 2}
    kept = {row.interaction_id for row in made.required().rows}
    assert kept == {f"i{number}" for number in range(40)} - {"i6", "i7"}


def test_a_regeneration_is_a_pair_only_where_both_could_call_the_same_tools(
    tmp_path: Path,
) -> None:
    turns = answers(
        40, messages=lambda n: (said(prompt(n // 2)),), session_id=lambda n: f"s{n // 2}",
        user_id=lambda n: f"u{n // 2}", response="", tool_calls=light,
        tools=lambda n: OTHERS.id if n % 4 == 1 else LIGHT.id,
    )  # fmt: skip
    again = [
        Regenerate(id=f"r-{one.id}", interaction_id=one.id, created_at=one.created_at)
        for one in turns[::2]
    ]
    made = home(tmp_path, turns, again, "dpo")
    rows = made.required().rows
    assert {(row.interaction_id, row.chosen_id) for row in rows} == {
        (f"i{n}", f"i{n + 1}") for n in range(2, 40, 4)
    }


def test_answers_that_call_are_compared_by_tool_and_arguments() -> None:
    texts = [
        block("light", room="hall", level=10),
        '<tool_call>{"arguments": {"level": 10, "room": "hall"}, "name": "light"}</tool_call>',
        block("light", room="hall", level=1.0),
        block("light", room="Hall", level=10),
        block("light", room="hall", level=1),
    ]
    found = interaction_traits(["x"] * 5, texts, [""] * 5)
    for name in ("answer", "both"):
        one, same, *others = found[name].tolist()
        if name == "answer":
            assert one == same
        assert one not in others
    assert found["answer"][2] == found["answer"][4]  # 1.0 is 1


def test_an_answer_that_no_record_can_hold_stops_nothing() -> None:
    """Whoever corrects an answer writes what they like."""
    deep = '{"name": "light", "arguments": {"room": ' + "[" * 300 + "]" * 300 + "}}"
    texts = [f"<tool_call>{deep}</tool_call>", "<tool_call>\x00", "<tool_call>" + "a" * 100_001]
    assert len(set(interaction_traits(["x"] * 3, texts, [""] * 3)["answer"].tolist())) == 3
    assert len(set(correction_traits(texts)["correction"].tolist())) == 3
    assert {calls.fault(text, tuple(TOOLS)) for text in texts} == {calls.UNREADABLE}


def test_the_same_question_with_other_tools_is_another_one() -> None:
    found = interaction_traits(["x"] * 3, ["a"] * 3, [""] * 3, [None, LIGHT.id, OTHERS.id])
    for name in ("prompt", "exact", "same", "both", "turn", "tools"):
        assert len(set(found[name].tolist())) == 3
    without = interaction_traits(["x"], ["a"], [""])
    assert without["prompt"][0] == found["prompt"][0]
    assert without["tools"].tolist() == [0]


def test_a_demonstration_may_call_tools_that_it_brings() -> None:
    given = {"role": "assistant", "content": None, "tool_calls": [call("stop")]}
    item = Demonstration(id="a", messages=(said("stop"),), target=given, tools=TOOLS)
    assert item.target == block("stop")
    columns = demonstration_rows([item], Numbers(), 0)
    assert columns["tools"][0] != 0


# Redaction ----------------------------------------------------------------------------------------

MAIL = (tool("send", to={"type": "string"}), tool("dial", number={"type": "integer"}))


def test_redaction_of_an_answer_that_calls_leaves_a_call() -> None:
    row = TrainingRow(
        "i", (said("mail ana@example.org"),), block("send", to="ana@example.org"), "rated",
        tools=MAIL,
    )  # fmt: skip
    (clean,), _ = redact_rows([row], REST)
    assert read_calls(clean.target).calls[0].arguments == {"to": "<EMAIL_ADDRESS>"}
    assert clean.tools == MAIL


def test_a_call_that_does_not_fit_once_personal_data_is_out_is_left_out() -> None:
    number = 4915112345678
    rows = [
        TrainingRow("i", (said("dial"),), block("dial", number=number), "rated", tools=MAIL),
        TrainingRow("j", (said("dial"),), block("dial", number=7), "rated", tools=MAIL),
        TrainingRow("k", (said("hi"),), "hello", "rated"),
    ]
    (clean, *_), _ = redact_rows(rows, REST)
    assert str(number) not in clean.target
    kept = fitting(rows, REST)
    assert [row.interaction_id for row in kept] == ["j", "k"]
    with pytest.raises(InvalidInputError, match="one that its request's tools take"):
        prepare(rows, Selection(rows=(), funnel=()), (), REST)


# Request, store, row, trainer's columns and back --------------------------------------------------

NAMES = st.sampled_from(["light", "stop", "wetter_abfragen", "会議"])
WORDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=12)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
ARGUMENTS = st.dictionaries(WORDS, VALUES, max_size=3)


@st.composite
def conversations(draw: Any) -> tuple[tuple[Message, ...], Message]:
    """Turns of users, calls in parallel with their results, answers; and the last answer."""
    turns: list[Message] = []
    if draw(st.booleans()):
        turns.append(turn("system", draw(WORDS)))
    for number in range(draw(st.integers(1, 3))):
        turns.append(turn("user", draw(WORDS), **({"name": "Ana"} if draw(st.booleans()) else {})))
        made = [
            ToolCall.model_validate(
                {
                    "id": f"c{number}-{place}",
                    "type": "function",
                    "function": {"name": name, "arguments": json.dumps(arguments)},
                }
            )
            for place, (name, arguments) in enumerate(
                draw(st.lists(st.tuples(NAMES, ARGUMENTS), max_size=3))
            )
        ]
        if made:
            turns.append(Message(role="assistant", content=draw(WORDS) or None, tool_calls=made))
            turns += [turn("tool", draw(WORDS), tool_call_id=one.id) for one in made]
            if draw(st.booleans()):
                turns.append(turn("assistant", draw(WORDS)))
    last = draw(st.lists(st.tuples(NAMES, ARGUMENTS), max_size=3))
    answer = Message(
        role="assistant",
        content=draw(WORDS) if not last else None,
        tool_calls=[ToolCall.model_validate(call(name, **{})) for name, _ in last],
    )
    answer = answer.model_copy(
        update={
            "tool_calls": tuple(
                one.model_copy(
                    update={
                        "function": one.function.model_copy(
                            update={"arguments": json.dumps(arguments)}
                        )
                    }
                )
                for one, (_, arguments) in zip(answer.tool_calls, last, strict=True)
            )
        }
    )
    return tuple(turns), answer


def plain(message: Message) -> Any:
    """Return what a turn says: arguments as values, without ids of calls in answers."""
    called = [(one.id, one.name, one.arguments) for one in message.tool_calls]
    return (message.role, message.text, message.name, message.tool_call_id, called)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Any:
    opened = EventStore.open(f"sqlite:///{tmp_path_factory.mktemp('calls') / 'store.db'}")
    yield opened
    opened.close()


@settings(max_examples=examples(60), deadline=None)
@given(found=conversations(), kind=st.sampled_from(["sft", "kto", "dpo"]))
def test_a_request_comes_back_equal_out_of_store_row_and_trainers_columns(
    store: EventStore, tmp_path_factory: pytest.TempPathFactory, found: Any, kind: Any
) -> None:
    messages, answer = found
    defined = Definition.of("tools", [tool(name) for name in ("light", "stop", "会議")])
    key = f"i{len(json.dumps([one.canonical() for one in (*messages, answer)]))}-{hash(found)}"
    sent = Interaction(
        id=key, session_id="s", user_id="u", created_at=START, model_version="m/1",
        messages=messages, response=answer.text, tool_calls=answer.tool_calls, tools=defined.id,
    )  # fmt: skip
    store.add_definitions([defined])
    store.add_interactions([sent])
    stored = store.stored_interactions([key])
    bodies = {name: one.body for name, one in store.definitions([defined.id]).items()}
    target = written(stored[key].answer)
    chosen = Selected(key, "", target, "rated", 0, desirable=True, rejected="no", chosen_id=key)
    selection = Selection(rows=(chosen,), funnel=(), kind=kind)
    requests = Requests(stored, calls.tools_by_digest(bodies))
    (row,) = build(selection, requests, REST, 0)
    again = pa.Table.from_pylist([row.canonical()]).to_pylist()[0]
    (columns,) = for_trainer([row])
    assert json.loads(columns["tools"]) == defined.body
    assert again["tools"] == columns["tools"]
    assert [plain(of_trainer(one)) for one in columns["prompt"]] == [*map(plain, messages)]
    learnt = answer_of_trainer(columns["chosen" if kind == "dpo" else "completion"])
    assert learnt == calls.settled(target)
    if "</tool_call>" not in json.dumps([one.canonical() for one in answer.tool_calls]):
        back = read_calls(learnt).calls
        wanted = [(one.name, one.arguments) for one in answer.tool_calls]
        assert [(one.name, one.arguments) for one in back] == wanted


ROWS = [
    TrainingRow("i", (said("hi"),), block("stop"), "rated", tools=tuple(TOOLS)),
    LabelledRow("i", (said("hi"),), block("stop"), True, "thumbs", tools=tuple(TOOLS)),
    PreferenceRow("i", "i", (said("hi"),), block("stop"), "no", "correction", tools=tuple(TOOLS)),
]


@pytest.mark.parametrize("row", ROWS)
def test_columns_of_a_set_in_which_some_rows_have_tools(row: Any) -> None:
    bare = type(row)(**{name: getattr(row, name) for name in row.__slots__} | {"tools": None})
    one, other = for_trainer([row, bare])
    assert json.loads(one["tools"]) == TOOLS
    assert other["tools"] is None
    assert set(one) == set(other)
    assert "tools" not in for_trainer([bare])[0]
