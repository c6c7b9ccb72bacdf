"""By what examples are gated: labels and calls exactly, texts by a judge of pairs."""

from __future__ import annotations

from ratchet.deploy.gate.policy import OPEN_ENDED, load_policy, loop_policy, policy_for_loop
from ratchet.golden.kinds import metric_for
from ratchet.records import Example, Message

CALL = '<tool_call>\n{"name": "find", "arguments": {"order": %d}}\n</tool_call>'


def examples(targets: list[str]) -> list[Example]:
    question = (Message(role="user", content="What now?"),)
    return [Example(id=str(n), messages=question, target=t) for n, t in enumerate(targets)]


def test_labels_of_a_closed_set_are_compared_exactly() -> None:
    metric, why = metric_for(examples(["Billing", "Returns"] * 20))
    assert metric == "exact_match"
    assert "2 labels of a closed set" in why


def test_answers_that_hardly_repeat_are_compared_by_a_judge() -> None:
    assert metric_for(examples([f"Answer {number}" for number in range(40)]))[0] == "win_rate"


def test_long_answers_are_compared_by_a_judge_also_where_they_repeat() -> None:
    long = "Open the settings, choose billing, and confirm what you see there. " * 2
    assert metric_for(examples([long, "Please ask our desk."] * 20))[0] == "win_rate"


def test_calls_are_compared_exactly_and_mixed_answers_by_a_judge() -> None:
    calls = [CALL % number for number in range(40)]
    assert metric_for(examples(calls))[0] == "call_exact_match"
    assert metric_for(examples([*calls, "Which order do you mean?"]))[0] == "win_rate"


def test_the_loops_policy_follows_the_metric_of_the_version() -> None:
    asked = examples(["Billing"] * 20)
    assert policy_for_loop(None, asked) == loop_policy()
    assert policy_for_loop(None, asked, metric="win_rate") == load_policy(OPEN_ENDED)
    by_calls = policy_for_loop(None, asked, metric="call_exact_match")
    assert by_calls.metrics == ("call_exact_match",)
