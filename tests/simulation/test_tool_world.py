"""The world of the simulated users of tools: what is right in it, and that its tools act."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ratchet.evaluation.call_metrics import call_validity
from ratchet.simulation.tool_users import as_text
from ratchet.simulation.tool_world import (
    GOALS,
    TOOLS,
    Call,
    Goal,
    ToolWorld,
    draw_goal,
    last_fact,
    said,
)

GOALS_OF_EACH_KIND = [
    draw_goal(np.random.default_rng(seed), [kind]) for kind in GOALS for seed in range(12)
]


def do(world: ToolWorld, call: Call) -> dict:
    return world.execute(call.name, json.dumps(dict(call.arguments)))


@pytest.mark.parametrize("goal", GOALS_OF_EACH_KIND, ids=lambda goal: goal.kind)
def test_making_the_calls_that_are_due_reaches_the_goal(goal: Goal) -> None:
    world, made = ToolWorld(seed=3), []
    while due := world.due(goal, goal.facts):
        assert not world.reached(goal, world.tells(goal))
        assert "error" not in do(world, *due)
        made += due
    assert world.reached(goal, world.tells(goal))
    assert len(made) == (2 if goal.kind == "seats" else 1)


@pytest.mark.parametrize("goal", GOALS_OF_EACH_KIND, ids=lambda goal: goal.kind)
def test_calls_that_are_due_fit_the_tools_that_the_request_sends(goal: Goal) -> None:
    world = ToolWorld(seed=3)
    while due := world.due(goal, goal.facts):
        assert call_validity([as_text(due)], [TOOLS]).values.tolist() == [1.0]
        do(world, *due)


@pytest.mark.parametrize("kind", GOALS)
def test_no_call_is_due_before_the_last_fact_was_told(kind: str) -> None:
    goal = draw_goal(np.random.default_rng(1), [kind])
    told = set(goal.facts) - {last_fact(goal)}
    assert ToolWorld(seed=1).due(goal, told) == ()
    assert f"{goal.facts[last_fact(goal)]}" not in said(goal, "begin", np.random.default_rng(1))


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("rate_book", '{"book": "Dune", "rating": "4"}'),
        ("rate_book", '{"book": "Dune", "rating": true}'),
        ("rate_book", '{"book": "Dune", "rating": 4.2}'),
        ("rate_book", '{"book": "Dune"}'),
        ("rate_book", '{"book": "Dune", "rating": 4, "stars": 4}'),
        ("rate_book", '["Dune", 4]'),
        ("rate_book", '{"book": "Dune", "rating": '),
        ("rate_films", '{"book": "Dune", "rating": 4}'),
        ("add_to_playlist", '{"item": "Harvest", "playlist": "sleep"}'),
        ("get_weather", '{"place": "Oslo", "day": "someday"}'),
        ("book_seats", '{"screening": "xx-1", "seats": 2}'),
    ],
)
def test_a_call_that_cannot_be_carried_out_gives_an_error_and_changes_nothing(
    name: str, arguments: str
) -> None:
    world = ToolWorld(seed=1)
    assert set(world.execute(name, arguments)) == {"error"}
    assert world == ToolWorld(seed=1)


def test_the_user_has_no_weather_until_the_sky_was_told() -> None:
    world, goal = ToolWorld(seed=1), Goal("weather", {"place": "Oslo", "day": "friday"})
    result = world.execute("get_weather", '{"place": "Oslo", "day": "friday"}')
    assert world.reached(goal, f"Expect {result['sky'].upper()}.")
    assert not world.reached(goal, "The weather was looked up.")


def test_a_rating_is_replaced_by_a_later_one() -> None:
    world, goal = ToolWorld(seed=1), Goal("rating", {"book": "Dune", "rating": 4.0})
    world.execute("rate_book", '{"book": "Dune", "rating": 3.5}')
    assert world.due(goal, goal.facts) == (Call("rate_book", {"book": "Dune", "rating": 4.0}),)
    world.execute("rate_book", '{"book": "Dune", "rating": 4}')
    assert world.due(goal, goal.facts) == ()


def test_equal_numbers_make_equal_calls_and_other_values_others() -> None:
    assert Call("rate_book", {"rating": 4}).key == Call("rate_book", {"rating": 4.0}).key
    assert Call("rate_book", {"rating": 4}).key != Call("rate_book", {"rating": "4"}).key
    assert Call("rate_book", {"rating": 4}).key != Call("book_seats", {"rating": 4}).key
