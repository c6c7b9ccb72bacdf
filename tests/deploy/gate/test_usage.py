"""Tokens and cost of answers at the gate: recorded, priced, and held to by guardrails."""

import pytest

from ratchet.deploy.gate.head_to_head import answer_recorded, pair_scores
from ratchet.deploy.gate.policy import GatePolicy, Guardrail, Primary
from ratchet.models import Completion, OpenAICompatibleModel
from ratchet.records import Example, Message
from ratchet.records.asking import Usage
from ratchet.records.prices import Price, Prices
from ratchet.store import EventStore
from tests.servers.judge_endpoint import Answer, JudgeEndpoint

EXAMPLES = tuple(
    Example(
        id=f"e{number}", messages=(Message(role="user", content=f"question {number}"),),
        target="right",
    )
    for number in range(3)
)  # fmt: skip


class Counting:
    """Answers with so many tokens."""

    digest = "counting"

    def __init__(self, tokens):
        self.tokens, self.asked = tokens, 0

    def generate(self, conversations, *, max_new_tokens, temperature=0.0, seed=None, **_):
        self.asked += len(conversations)
        usage = Usage(prompt_tokens=10, completion_tokens=self.tokens)
        return [Completion("right", 0.5, usage=usage) for _ in conversations]


@pytest.fixture
def store():
    opened = EventStore.open("sqlite://", prices=Prices(models={"m": Price(input=1, output=10)}))
    yield opened
    opened.close()


def answered(model, store, name):
    return answer_recorded(
        EXAMPLES, lambda: model, store, draws=(None,), name=name, model_digest=name,
        decoding="greedy-9", max_new_tokens=9,
    )  # fmt: skip


def test_tokens_are_recorded_with_answers_and_scored_by_price(store):
    models = {"m/1": Counting(100), "m/2": Counting(300), "n/1": Counting(7)}
    for _ in range(2):  # asked for, then read from the record
        pair = tuple(answered(models[name], store, name) for name in ("m/1", "m/2"))
        scores = pair_scores(("tokens_in", "tokens_out", "cost"), EXAMPLES, pair, None)
        assert scores["tokens_in"][0].tolist() == [10.0] * 3
        assert scores["tokens_out"][1].tolist() == [300.0] * 3
        assert scores["cost"][0].tolist() == pytest.approx([1010e-6] * 3)
        assert scores["cost"][1].tolist() == pytest.approx([3010e-6] * 3)
    assert models["m/1"].asked == 3
    unpriced = (answered(models["n/1"], store, "n/1"),) * 2
    (cost, _) = pair_scores(("cost",), EXAMPLES, unpriced, None)["cost"]
    assert str(cost.tolist()) == "[nan, nan, nan]", "there is no price of it"


def test_answers_of_before_have_no_tokens(store):
    store.add_answers("m/1", "greedy-9", {}, {})
    known = answered(Counting(5), None, "m/1")
    assert [one.completion_tokens for one in known.used(EXAMPLES)] == [5, 5, 5]
    assert store.answer_usage("m/1", "greedy-9", ["q"]) == {}


def test_fewer_tokens_and_less_cost_are_better_unless_a_policy_says_otherwise():
    policy = GatePolicy(
        primary=Primary(metric="exact_match"),
        guardrails=(
            Guardrail(metric="tokens_out", margin=0.1, relative=True),
            Guardrail(metric="cost", margin=0.1, relative=True),
        ),
    )
    assert [rule.higher_is_better for rule in policy.guardrails] == [False, False]
    assert policy.undirected == ()


def test_a_servers_count_of_tokens_comes_with_the_answer():
    with JudgeEndpoint(lambda seen: Answer(text="right", usage=(12, 3))) as server:
        model = OpenAICompatibleModel(server.url, "big")
        (made,) = model.generate([EXAMPLES[0].messages], max_new_tokens=9)
    assert (made.usage.prompt_tokens, made.usage.completion_tokens) == (12, 3)
