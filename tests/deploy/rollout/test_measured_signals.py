"""Tokens, cost and calls as guardrails of a rollout, with users as the unit."""

import itertools
from datetime import timedelta

import numpy as np
import pytest

from ratchet.deploy.rollout.canary import start_rollout, take_look
from ratchet.deploy.rollout.exposure_counts import Period, read_tally
from ratchet.deploy.routing import current_routing
from ratchet.errors import InsufficientDataError
from ratchet.records import Definition, Interaction, Message, RolloutPlan
from ratchet.records.prices import Price, Prices
from tests.calls import call
from tests.deploy.rollout.served import NEW, NEW_VARIANT, OLD, PLAN, released

HOUR = timedelta(hours=1)
TOOLS = Definition.of("tools", [{"type": "function", "function": {"name": "find"}}])
SIGNALS = [
    {"name": "failed", "margin": 0.05, "primary": True},
    {"name": "many_tokens", "margin": 0.05},
    {"name": "costly", "margin": 0.05},
    {"name": "unfit_calls", "margin": 0.05},
]
NUMBERS = itertools.count()


def answers(store, start, *, number, tokens, unfit=0.0, hours=1.5, routing=None, seed=0):
    """Serve answers to 400 users; `tokens` and `unfit` by arm."""
    rng = np.random.default_rng([seed, number])
    made = []
    for place in range(number):
        user = f"user-{int(rng.integers(400))}"
        chosen = routing.choose(user) if routing else None
        arm = chosen.label if chosen else "champion"
        used = tokens[arm] + int(rng.integers(100))
        name = "lose" if rng.random() < (unfit if arm == "challenger" else 0.0) else "find"
        metadata = {"prompt_tokens": "100", "completion_tokens": str(used)}
        if routing:
            metadata |= {"experiment": routing.experiment, "arm": arm}
        made.append(
            Interaction.model_validate(
                {
                    "id": f"n{next(NUMBERS)}", "session_id": "s", "user_id": user,
                    "created_at": start + timedelta(hours=hours * place / number),
                    "model_version": chosen.version if chosen else OLD, "latency_seconds": 0.5,
                    "messages": [Message(role="user", content="?")], "response": "",
                    "tools": TOOLS.id, "tool_calls": [call(name)], "metadata": metadata,
                }
            )
        )  # fmt: skip
    store.add_interactions(made)


@pytest.fixture
def begun(store, now):
    store.prices = Prices(models={"support-router": Price(input=1.0, output=2.0)})
    store.add_definitions([TOOLS])
    released(store, now)
    answers(store, now - 20 * HOUR, number=400, tokens={"champion": 100})
    plan = RolloutPlan.model_validate(PLAN.canonical() | {"signals": SIGNALS})
    return start_rollout(store, NEW_VARIANT, plan, now=now)


def test_limits_are_what_is_usual_of_the_champion(begun):
    assert [one.name for one in begun.signals] == [one["name"] for one in SIGNALS]
    assert 190 <= begun.limits["many_tokens"] <= 199  # of 100 to 199 tokens, the 95th percentile
    paid = (100 + 2 * begun.limits["many_tokens"]) / 1e6
    assert begun.limits["costly"] == pytest.approx(paid)


def test_a_release_that_talks_more_is_stopped_for_tokens_and_cost(store, now, begun):
    routing = current_routing(store)
    answers(
        store, now, number=1_500, tokens={"champion": 100, "challenger": 400}, routing=routing
    )  # fmt: skip
    look = take_look(store, begun, now + 2 * HOUR)
    says = {one.signal: one.says for one in look.readouts}
    assert look.decision == "abort"
    assert (says["many_tokens"], says["costly"], says["failed"]) == ("harm", "harm", "passes")
    assert any("more tokens than usual" in reason for reason in look.reasons)


def test_a_release_whose_calls_fit_no_tool_is_stopped(store, now, begun):
    routing = current_routing(store)
    tokens = {"champion": 100, "challenger": 100}
    answers(store, now, number=1_500, tokens=tokens, unfit=0.5, routing=routing)
    look = take_look(store, begun, now + 2 * HOUR)
    says = {one.signal: one.says for one in look.readouts}
    assert (look.decision, says["unfit_calls"]) == ("abort", "harm")
    assert says["many_tokens"] != "harm"


def test_an_equal_release_is_not_stopped_and_its_users_are_the_unit(store, now, begun):
    routing = current_routing(store)
    answers(store, now, number=1_500, tokens={"champion": 100, "challenger": 100}, routing=routing)
    look = take_look(store, begun, now + 2 * HOUR)
    assert look.decision in ("wait", "advance")
    tokens = next(one for one in look.readouts if one.signal == "many_tokens")
    assert tokens.variant[1] > tokens.variant[2] > 0, "answers are more than users"


def test_without_a_price_cost_is_not_watched_and_said_so(store, now):
    store.add_definitions([TOOLS])
    released(store, now)
    answers(store, now - 20 * HOUR, number=400, tokens={"champion": 100})
    plan = RolloutPlan.model_validate(PLAN.canonical() | {"signals": SIGNALS})
    rollout = start_rollout(store, NEW_VARIANT, plan, now=now)
    assert [name for name, _ in rollout.unwatched] == ["costly"]
    assert "costly" not in rollout.limits


def test_a_primary_signal_whose_usual_number_is_not_known_needs_a_limit(store, now):
    store.add_definitions([TOOLS])
    released(store, now)
    store.add_interactions(
        [
            Interaction.model_validate(
                {
                    "id": f"o{number}", "session_id": "s", "user_id": f"u{number}",
                    "created_at": now - HOUR, "model_version": "other/1", "latency_seconds": 0.5,
                    "messages": [Message(role="user", content="?")], "response": "yes",
                    "metadata": {"prompt_tokens": "9", "completion_tokens": "9"},
                }
            )
            for number in range(200)
        ]
    )  # fmt: skip
    signals = [{"name": "many_tokens", "margin": 0.05, "primary": True}]
    plan = RolloutPlan.model_validate(PLAN.canonical() | {"signals": signals})
    with pytest.raises(InsufficientDataError, match=r"usual number of tokens .* name a limit"):
        start_rollout(store, NEW_VARIANT, plan, now=now)
    limited = plan.model_copy(update={"limits": {"many_tokens": 50.0}})
    assert start_rollout(store, NEW_VARIANT, limited, now=now).limits == {"many_tokens": 50.0}


def test_a_plan_may_name_its_own_limit(store, now):
    store.add_definitions([TOOLS])
    released(store, now)
    answers(store, now - 20 * HOUR, number=400, tokens={"champion": 100})
    plan = RolloutPlan.model_validate(
        PLAN.canonical() | {"signals": SIGNALS[:2], "limits": {"many_tokens": 150}}
    )
    assert start_rollout(store, NEW_VARIANT, plan, now=now).limits == {"many_tokens": 150.0}


def test_what_is_not_watched_is_not_read(store, now):
    answers(store, now, number=10, tokens={"champion": 100})
    found = read_tally(
        store, [Period(now, now + HOUR)], experiment="e", arms=("champion", "challenger"),
        versions=(OLD, NEW), lag=timedelta(0), signals=("failed",), limits={"many_tokens": 1.0},
    )  # fmt: skip
    assert found.of("many_tokens")[1].sum() == 0
