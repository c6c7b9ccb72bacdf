"""Dimensions, judges, and the YAML that they are read from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ratchet.errors import InvalidInputError
from ratchet.judges.rubrics import (
    DIMENSIONS,
    HARMLESSNESS,
    HELPFULNESS,
    JudgeSpec,
    RubricDimension,
    load_judges,
    parse_judges,
    read_as,
)

ENDPOINT = {"url": "http://127.0.0.1:8000", "model": "big-model"}
OPTIONS = [
    {"name": "right", "score": 1, "means": "the queue of the message"},
    {"name": "wrong", "score": 0, "means": "another queue, or none"},
]
ROUTING = {"name": "routing", "question": "Is the queue right?", "options": OPTIONS}
TURN = [{"role": "user", "content": "My card is lost."}]
EXAMPLE = {"item_id": "e-1", "conversation": TURN, "answer": "card_lost", "verdict": "right"}


def judge(**changes: Any) -> dict[str, Any]:
    return {"name": "router-judge", "local": "smollm2"} | changes


def load(tmp_path: Path, text: str) -> tuple[JudgeSpec, ...]:
    path = tmp_path / "judges.yaml"
    path.write_text(text, "utf-8")
    return load_judges(path)


def refusal(content: Any) -> str:
    with pytest.raises(InvalidInputError) as caught:
        parse_judges(content, "judges.yaml")
    return str(caught.value)


# What is read ------------------------------------------------------------------------------------


def test_a_judge_of_a_dimension_of_the_file_is_read(tmp_path):
    (found,) = load(
        tmp_path,
        """
        dimensions:
          - name: routing
            question: Does the answer name the queue that the message belongs to?
            options:
              - {name: right, score: 1, means: the queue of the message}
              - {name: wrong, score: 0, means: "another queue, or none"}
        judges:
          - name: router-judge
            dimension: routing
            endpoint: {url: "http://127.0.0.1:8000", model: big, api_key_variable: JUDGE_KEY}
        """,
    )
    assert (found.name, found.mode, found.menu) == (
        "router-judge",
        "pointwise",
        ("wrong", "right"),
    )
    assert (found.score("wrong"), found.score("right")) == (0.0, 1.0)
    assert found.endpoint is not None
    assert found.endpoint.api_key_variable == "JUDGE_KEY"


def test_the_example_of_the_module_is_a_file_of_judges(tmp_path):
    from ratchet.judges import rubrics

    text = (rubrics.__doc__ or "").split("YAML.\n", 1)[1].rsplit("A dimension is", 1)[0]
    (found,) = load(tmp_path, text)
    assert found.dimension.name == "routing"


def test_a_file_that_starts_with_a_byte_order_mark_is_read(tmp_path):
    text = "\ufeffjudges:\n- {name: j, local: smollm2}\n"
    assert [found.name for found in load(tmp_path, text)] == ["j"]


@pytest.mark.parametrize("name", ["helpfulness", "harmlessness", "factual_accuracy"])
def test_the_issue_s_three_dimensions_are_there_without_a_definition(name):
    (found,) = parse_judges({"judges": [judge(dimension=name)]}, "judges.yaml")
    assert found.dimension == DIMENSIONS[name]
    scores = [found.score(option) for option in found.menu]
    assert scores == sorted(scores)  # worst first
    assert (scores[0], scores[-1]) == (0.0, 1.0)


def test_a_dimension_may_stand_inside_the_judge():
    (found,) = parse_judges({"judges": [judge(dimension=ROUTING)]}, "judges.yaml")
    assert found.menu == ("wrong", "right")


def test_the_menu_of_a_pair_is_a_b_and_tie_worth_1_0_and_a_half():
    spec = JudgeSpec(name="j", local="smollm2", mode="pairwise", dimension=HELPFULNESS)
    assert spec.menu == ("A", "B", "tie")
    assert [spec.score(option) for option in spec.menu] == [1.0, 0.0, 0.5]


def test_the_violations_of_harmlessness_are_what_is_worse_than_doubtful():
    bar = HARMLESSNESS.violation_below
    assert bar is not None
    violations = [name for name in HARMLESSNESS.names if HARMLESSNESS.score(name) < bar]
    assert violations == ["unsafe"]


# What is refused, with its place -----------------------------------------------------------------


def test_every_error_of_a_file_is_named_at_once_with_its_place():
    said = refusal(
        {
            "dimensions": [ROUTING | {"question": "", "colour": "red"}],
            "judges": [
                judge(local=None),
                judge(name="other", dimension="taste", mode="duel"),
                judge(name="third", examples=[EXAMPLE]),
                "fourth",
            ],
        }
    )
    assert said.startswith("judges.yaml: ")
    for part in (
        "dimensions.0.question: ",
        "dimensions.0.colour: Extra inputs are not permitted",
        "judges.0: judge 'router-judge' needs one of endpoint and local, got neither",
        "judges.1.dimension: one of helpfulness, harmlessness, factual_accuracy, got 'taste'",
        "judges.1.mode: ",
        "got 'duel'",
        "judges.2: examples of judge 'third' must end in one of 1, 2, 3, 4, 5, got right",
        "judges.3: ",
    ):
        assert part in said


def test_an_unknown_dimension_is_the_only_error_of_a_judge_that_is_right_otherwise():
    said = refusal({"judges": [judge(dimension="taste", examples=[EXAMPLE])]})
    menu = "helpfulness, harmlessness, factual_accuracy"
    assert said == f"judges.yaml: judges.0.dimension: one of {menu}, got 'taste'"


def test_what_is_not_shown_of_many_errors_is_counted():
    said = refusal({"judges": [judge(name=f"j{n}", local=None) for n in range(50)]})
    assert said.count("needs one of endpoint and local") == 20
    assert said.endswith("; and 30 more")


def test_a_judge_with_both_endpoint_and_local_is_refused():
    assert "got both" in refusal({"judges": [judge(endpoint=ENDPOINT)]})


@pytest.mark.parametrize("what", ["dimensions", "judges"])
def test_a_name_that_is_there_twice_is_refused(what):
    content = {"dimensions": [ROUTING], "judges": [judge()]}
    content[what] = content[what] * 2
    name = content[what][0]["name"]
    assert f"{what}: '{name}' is there twice" in refusal(content)


def test_names_twice_are_told_in_one_order_in_every_process():
    names = ["d", "b", "c", "a"] * 2
    said = refusal({"judges": [judge(name=name) for name in names]})
    assert said == "judges.yaml: " + "; ".join(f"judges: '{n}' is there twice" for n in "abcd")


@pytest.mark.parametrize(
    "content", [None, [], "judges", 5, {"judge": []}, {1: 2}, {"judges": [judge()], "other": 1}]
)
def test_what_holds_other_things_than_dimensions_and_judges_is_refused(content):
    assert "judges.yaml must hold dimensions and judges, got " in refusal(content)


@pytest.mark.parametrize("content", [{}, {"judges": None}, {"judges": []}])
def test_a_file_without_a_judge_is_refused(content):
    assert refusal(content) == "judges.yaml: judges: at least one, got none"


@pytest.mark.parametrize("wrong", [5, "abc", {"name": "j"}, True])
@pytest.mark.parametrize("what", ["dimensions", "judges"])
def test_what_should_be_a_list_and_is_none_is_refused(what, wrong):
    assert f"{what}: must be a list, got " in refusal({"judges": [judge()]} | {what: wrong})


@pytest.mark.parametrize("name", [1, True, None, 2.5, ["a"], {"a": 1}])
def test_a_name_that_yaml_did_not_read_as_text_is_told_with_what_it_was_read_as(name):
    options = [{"name": name, "score": 0, "means": "x"}, *OPTIONS]
    said = refusal({"dimensions": [ROUTING | {"options": options}], "judges": [judge()]})
    told = {None: "nothing"}.get(name, repr(name)) if not isinstance(name, list | dict) else "a "
    assert f"dimensions.0.options.0.name: Input should be a valid string, got {told}" in said


def test_a_key_written_into_the_file_is_in_no_error():
    secret = "sk-very-secret-0123456789"
    for place in (
        {"api_key": secret},
        {"endpoint": secret},
        {"endpoint": ENDPOINT | {"api_key": secret}},
        {"endpoint": ENDPOINT | {"api_key_variable": secret}},
        {"endpoint": ENDPOINT | {"url": f"http://user:{secret}@host"}},
    ):
        said = refusal({"judges": [{"name": "j"} | place]})
        assert "judges.0" in said
        assert secret not in said


@pytest.mark.parametrize(
    "names",
    [
        ("Good", "good"),
        ("good", "good."),
        ("A", "answer A"),
        ("option A", "response A"),
        ("4", "4.0"),
        ("safe", "safe "),
        ("safe", "__"),  # decoration alone
    ],
)
def test_options_that_a_reply_cannot_tell_apart_are_refused(names):
    options = [{"name": name, "score": place, "means": "x"} for place, name in enumerate(names)]
    with pytest.raises(ValidationError, match="options must read differently, got "):
        RubricDimension(name="d", question="q", options=options)


@pytest.mark.parametrize(
    "name", ["", " a", "-1", "a,b", "a\nb", "x" * 41, "<b>", "[A]", '"A"', "a\x00", "a\ud800"]
)
def test_a_name_that_a_prompt_or_reply_could_garble_is_refused(name):
    options = [{"name": name, "score": 1, "means": "x"}, OPTIONS[1]]
    with pytest.raises(ValidationError):
        RubricDimension.model_validate(ROUTING | {"options": options})


@pytest.mark.parametrize("text", ["", "a\x00b", "a\ud800b"])
def test_a_question_that_no_server_can_be_sent_is_refused(text):
    for change in ({"question": text}, {"options": [OPTIONS[0], OPTIONS[1] | {"means": text}]}):
        with pytest.raises(ValidationError):
            RubricDimension.model_validate(ROUTING | change)


@pytest.mark.parametrize("score", [-0.1, 1.1, float("nan"), float("inf")])
def test_a_score_outside_0_to_1_is_refused(score):
    with pytest.raises(ValidationError):
        RubricDimension.model_validate(
            ROUTING | {"options": [OPTIONS[0] | {"score": score}, OPTIONS[1]]}
        )


def test_a_menu_of_one_option_is_refused():
    with pytest.raises(ValidationError):
        RubricDimension.model_validate(ROUTING | {"options": OPTIONS[:1]})


@pytest.mark.parametrize(("bar", "fits"), [(0.0, False), (0.5, True), (1.0, True)])
def test_a_bar_for_violations_that_no_option_is_below_is_refused(bar, fits):
    content = ROUTING | {"violation_below": bar}
    if fits:
        assert RubricDimension.model_validate(content).violation_below == bar
    else:
        with pytest.raises(ValidationError, match="options on both sides, got 0"):
            RubricDimension.model_validate(content)


def test_a_bar_that_every_option_is_below_is_refused():
    options = [OPTIONS[0] | {"score": 0.4}, OPTIONS[1]]
    with pytest.raises(
        ValidationError, match=r"options on both sides, got 0\.9 and scores from 0\.0 to 0\.4"
    ):
        RubricDimension.model_validate(ROUTING | {"options": options, "violation_below": 0.9})


@pytest.mark.parametrize(("mode", "needed"), [("pairwise", "other"), ("reference", "reference")])
def test_an_example_without_what_the_mode_compares_with_is_refused(mode, needed):
    verdict = "A" if mode == "pairwise" else "right"
    example = EXAMPLE | {"verdict": verdict}
    content = judge(dimension=ROUTING, mode=mode, examples=[example])
    assert f"must hold {needed} in mode {mode}, got none in e-1" in refusal({"judges": [content]})
    content["examples"] = [example | {needed: "something"}]
    (found,) = parse_judges({"judges": [content]}, "judges.yaml")
    assert len(found.examples) == 1


def test_a_guard_with_examples_is_refused():
    examples = [EXAMPLE | {"verdict": "safe"}]
    content = judge(dimension="harmlessness", mode="guard", examples=examples)
    assert "guard 'router-judge' takes no examples, got 1" in refusal({"judges": [content]})


def test_a_guard_on_a_dimension_without_violations_is_refused():
    said = refusal({"judges": [judge(mode="guard")]})
    assert "guard 'router-judge' needs a dimension with violation_below, got helpfulness" in said


def test_an_example_without_a_turn_is_refused():
    content = judge(dimension=ROUTING, examples=[EXAMPLE | {"conversation": []}])
    assert "judges.0.examples.0.conversation: " in refusal({"judges": [content]})


def test_an_empty_name_of_a_local_model_is_refused():
    assert "judges.0.local: " in refusal({"judges": [judge(local="")]})


def test_a_list_that_holds_itself_is_refused():
    endless: list[Any] = []
    endless.append(endless)
    assert "judges.0: " in refusal({"judges": endless})
    entry = judge(dimension=ROUTING)
    entry["examples"] = [entry]
    assert "judges.0.examples.0" in refusal({"judges": [entry]})


# How options are read ----------------------------------------------------------------------------


@given(
    st.sampled_from(["A", "tie", "5", "not safe", "très bien"]),
    st.sampled_from(
        ["{}", "**{}**", '"{}"', "`{}`.", " {}\n", "[[{}]]", "({})", "Answer {}", "__{}__"]
    ),
)
def test_decoration_does_not_change_how_a_name_reads(name, around):
    assert read_as(around.format(name)) == name.casefold()
