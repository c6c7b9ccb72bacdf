from pathlib import Path

import pytest
import yaml

import ratchet.deploy.gate.policy as module
from ratchet.deploy.gate.policy import (
    OPEN_ENDED,
    SHIPPED,
    GatePolicy,
    default_policy,
    is_shipped,
    load_policy,
    loop_policy,
    parse_policy,
    without_clusters,
)
from ratchet.errors import PolicyError
from ratchet.evaluation.paired import Draw

FULL = """
error_level: 0.025
primary: {metric: exact_match, margin: 0.01, hold_margin: 0.03}
guardrails:
  - {metric: safety, margin: 0.01, safety_critical: true}
  - {metric: length, margin: 0.1, relative: true, higher_is_better: false}
  - {metric: exact_match, margin: 0.1, per_cluster: true, minimum_examples: 50}
  - {metric: latency, higher_is_better: false, requires: no_harm}
secondary: [token_f1]
minimum_examples: 100
judges: [helpfulness]
looks: {maximum: 3, examples: 3000, spending: pocock}
approval: borderline
"""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "policy.yaml"
    path.write_text(text, "utf-8")
    return path


def test_a_policy_is_read_with_all_its_parts(tmp_path):
    policy = load_policy(written(tmp_path, FULL))
    assert policy.error_level == 0.025
    assert [rule.metric for rule in policy.guardrails] == [
        "safety", "length", "exact_match", "latency",
    ]  # fmt: skip
    assert policy.looks is not None
    assert policy.looks.spending == "pocock"
    assert not policy.direction("length")
    assert policy.direction("token_f1")
    assert GatePolicy.model_validate(policy.model_dump()) == policy


def test_the_example_of_the_documentation_is_a_policy():
    example = (module.__doc__ or "").split("\n\n")[1]
    policy = parse_policy(yaml.safe_load(example), "example")
    assert len(policy.guardrails) == 3


def test_every_rule_that_is_broken_is_named_at_once(tmp_path):
    text = """
error_level: 5
primary: {metric: "", margin: -1, hold: 2}
guardrails:
  - {metric: safety}
  - {metric: length, margin: .inf, relative: maybe}
looks: {maximum: 1, examples: 10}
judges: [one, one]
aproval: always
"""
    with pytest.raises(PolicyError) as caught:
        load_policy(written(tmp_path, text))
    said = str(caught.value)
    for words in (
        "policy.yaml",
        "error_level: Input should be less than 0.5, got 5",
        "primary.metric",
        "primary.margin",
        "primary.hold: Extra inputs",
        "guardrails.0: margin must be above 0 where it must be shown",
        "guardrails.1.margin",
        "guardrails.1.relative",
        "looks.maximum",
        "looks.examples",
        "judges: each name must be there once",
        "aproval: Extra inputs",
    ):
        assert words in said


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "must hold a mapping with primary, got nothing"),
        ("- a", "got a list"),
        ("primary: [", "must be YAML"),
        ("primary: {metric: a}\nprimary: {metric: b}", "'primary' twice"),
        ("a: &x [1]\nb: *x", "must not use aliases"),
        ("guardrails: []", "primary: Field required"),
        ("primary: {metric: a}\nsecondary: [a]", "a is the primary metric"),
        (
            "primary: {metric: a}\nguardrails: [{metric: b, margin: 1}, {metric: b, margin: 2}]",
            "one guardrail for b over all, got 2",
        ),
        (
            "primary: {metric: a}\nguardrails: [{metric: a, margin: 1, higher_is_better: false}]",
            "a must have one direction, got both",
        ),
        (
            "primary: {metric: a}\nminimum_examples: 500\nlooks: {maximum: 2, examples: 400}",
            "at least minimum_examples",
        ),
    ],
)
def test_a_file_that_is_no_policy_says_why(tmp_path, text, words):
    with pytest.raises(PolicyError, match=words):
        load_policy(written(tmp_path, text))


def test_a_file_that_is_not_there_or_too_large_or_not_utf8_is_refused(tmp_path):
    with pytest.raises(PolicyError, match="got no nowhere"):
        load_policy(tmp_path / "nowhere.yaml")
    with pytest.raises(PolicyError, match="at most 100,000 characters"):
        load_policy(written(tmp_path, "# " + "x" * 100_001))
    path = tmp_path / "policy.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(PolicyError, match="UTF-8"):
        load_policy(path)


def test_who_states_no_policy_asks_for_the_first_metric_to_be_better_at_5_percent():
    plain = default_policy(["quality", "length"], has_clusters=False)
    assert plain.primary.metric == "quality"
    assert plain.primary.higher_is_better
    assert (plain.primary.margin, plain.error_level, plain.guardrails) == (0.0, 0.05, ())
    assert plain.secondary == ("length",)
    (rule,) = default_policy(["quality"], has_clusters=True).guardrails
    assert (rule.metric, rule.per_cluster, rule.requires) == ("quality", True, "no_harm")


def test_a_metric_of_which_less_is_better_has_its_direction_by_its_name():
    text = {
        "primary": {"metric": "exact_match"},
        "guardrails": [
            {"metric": "length", "margin": 0.1},
            {"metric": "refusal_rate", "margin": 0.1, "higher_is_better": True},
            {"metric": "token_f1", "margin": 0.1},
        ],
        "secondary": ["latency_seconds"],
    }
    policy = parse_policy(text, "policy")
    assert [rule.higher_is_better for rule in policy.guardrails] == [False, True, True]
    assert policy.direction("latency_seconds") is False
    assert policy.metrics == (
        "exact_match",
        "length",
        "refusal_rate",
        "token_f1",
        "latency_seconds",
    )


def test_the_loops_own_policy_is_stricter_than_that_of_recorded_scores():
    policy = loop_policy()
    assert (policy.error_level, policy.minimum_examples) == (0.025, 100)
    assert (policy.max_unscored_share, policy.beat_constant_answer) == (0.0, True)
    assert [rule.per_cluster for rule in policy.guardrails] == [True]
    assert parse_policy(policy.model_dump(mode="json"), "policy") == policy


def test_directions_are_those_of_the_lists_where_a_rule_states_none():
    text = {
        "primary": {"metric": "m1"},
        "guardrails": [{"metric": "m1", "margin": 0.1}, {"metric": "m2", "margin": 0.1}],
        "secondary": ["m3", "wer", "m4"],
        "lower_is_better": ["m1", "m3"],
    }
    policy = parse_policy(text, "policy")
    assert not policy.primary.higher_is_better
    assert [rule.higher_is_better for rule in policy.guardrails] == [False, True]
    assert [policy.direction(metric) for metric in ("m3", "wer", "m4")] == [False, False, True]
    assert policy.undirected == ("m2", "m4")
    assert parse_policy(policy.model_dump(mode="json"), "policy") == policy


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"higher_is_better": ["a"], "lower_is_better": ["a"]}, "a must have one direction"),
        ({"lower_is_better": ["b"]}, "of metrics that the policy names, got b"),
        (
            {"higher_is_better": ["b"], "secondary": ["b", "c"], "lower_is_better": ["c", "c"]},
            "c again",
        ),
        (
            {"primary": {"metric": "a", "higher_is_better": True}, "lower_is_better": ["a"]},
            "a must have one direction, got another in its rule",
        ),
    ],
)
def test_lists_of_directions_that_contradict_are_refused(more, words):
    with pytest.raises(PolicyError, match=words):
        parse_policy({"primary": {"metric": "a"}} | more, "policy")


def test_a_policy_that_lists_no_directions_is_stored_as_before():
    # the digest of a policy is part of a decision's id
    stored = loop_policy().model_dump(mode="json")
    assert not {"higher_is_better", "lower_is_better"} & stored.keys()
    assert list(stored["primary"]) == ["metric", "higher_is_better", "margin", "hold_margin"]


def test_each_example_is_answered_as_often_as_the_largest_k_or_as_stated():
    def draws(**more):
        return parse_policy({"primary": {"metric": "pass@1"}} | more, "policy").draws

    assert draws() == (None,)
    assert draws(samples=1) == (None,)
    assert draws(secondary=["pass@3"]) == tuple(Draw(0.8, 0, number) for number in range(3))
    assert draws(samples=2, temperature=0.3, seed=7) == (Draw(0.3, 7, 0), Draw(0.3, 7, 1))
    assert draws(temperature=1.0) == (Draw(1.0, 0, 0),)
    stored = loop_policy().model_dump(mode="json")
    assert not {"samples", "temperature", "seed"} & stored.keys()


# Numbers and flags --------------------------------------------------------------------------------

FLAGS = {
    "primary.margin": "{metric: right, margin: true}",
    "primary.hold_margin": "{metric: right, hold_margin: yes}",
    "samples": "{metric: right}\nsamples: true",
    "seed": "{metric: right}\nsamples: 2\nseed: false",
    "approval_hours": "{metric: right}\napproval_hours: on",
    "max_unscored_share": "{metric: right}\nmax_unscored_share: false",
    "looks.maximum": "{metric: right}\nlooks: {maximum: true, examples: 500}",
    "guardrails.0.minimum_examples": (
        "{metric: right}\nguardrails: [{metric: wer, margin: 0.1, minimum_examples: true}]"
    ),
}


@pytest.mark.parametrize("where", FLAGS)
def test_true_and_false_are_no_numbers(tmp_path, where):
    with pytest.raises(PolicyError, match=rf"{where}: must be a number, got (true|false)"):
        load_policy(written(tmp_path, f"primary: {FLAGS[where]}\n"))


@pytest.mark.parametrize("value", ["1", "0", "'true'", "1.0"])
@pytest.mark.parametrize("name", ["higher_is_better", "relative", "safety_critical"])
def test_numbers_and_texts_are_neither_true_nor_false(tmp_path, name, value):
    rule = f"{{metric: right, margin: 0.1, {name}: {value}}}"
    with pytest.raises(PolicyError, match=rf"guardrails.0.{name}: .*valid boolean"):
        load_policy(written(tmp_path, f"primary: {{metric: f1}}\nguardrails: [{rule}]\n"))


@pytest.mark.parametrize("margin", ["1.0e+308", "1.0e+101", ".inf", ".nan"])
def test_a_margin_that_nothing_can_be_held_against_is_refused(tmp_path, margin):
    with pytest.raises(PolicyError, match=r"primary\.margin"):
        load_policy(written(tmp_path, f"primary: {{metric: right, margin: {margin}}}\n"))


# Shipped ------------------------------------------------------------------------------------------


def test_every_policy_that_ships_is_read_by_its_name_and_states_a_reason_for_each_rule():
    assert list(SHIPPED) == ["open-ended"]
    for name, path in SHIPPED.items():
        policy = load_policy(Path(name))
        assert policy == load_policy(path)
        assert policy.undirected == ()
        lines = path.read_text("utf-8").splitlines()
        assert sum(line.lstrip().startswith("#") for line in lines) > len(policy.guardrails)


def test_the_open_ended_policy_asks_who_is_preferred_and_guards_what_a_win_rate_hides():
    policy = load_policy(OPEN_ENDED)
    assert policy.primary.metric == "win_rate"
    assert {rule.metric for rule in policy.guardrails} == {"empty_rate", "refusal_rate", "length"}
    assert not any(policy.direction(rule.metric) for rule in policy.guardrails)
    kept = without_clusters(policy).guardrails
    assert [rule.per_cluster for rule in kept] == [False] * 3


def test_a_file_of_the_name_of_a_shipped_policy_goes_before_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("open-ended").write_text("primary: {metric: f1}\n", "utf-8")
    assert not is_shipped(OPEN_ENDED)
    assert load_policy(OPEN_ENDED).primary.metric == "f1"
