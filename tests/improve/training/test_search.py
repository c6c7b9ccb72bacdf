"""A few configurations against each other under a budget, on a real trainer and a tiny model."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from ratchet.errors import InsufficientDataError, InvalidInputError
from ratchet.improve.training import search as searching
from ratchet.improve.training.config import FinetuneConfig
from ratchet.improve.training.finetune import finetune
from ratchet.improve.training.search import SearchConfig, SearchResult, combinations, search
from ratchet.records import digest
from tests.improve.training.cases import made_up

CONFIG = FinetuneConfig(rank=4, alpha=8, epochs=3.0, warmup_steps=0, validation_share=0.25)
RATES = (1e-6, 3e-2)  # one learns nothing in so few steps, one does
GRID = SearchConfig(grid={"learning_rate": RATES}, stages=2)
ROWS = made_up("sft", 24)


def key(config: FinetuneConfig) -> str:
    return digest(config.model_dump(mode="json"))


def searched(base: Path, home: Path, options: SearchConfig = GRID, **more: object) -> SearchResult:
    return search(ROWS, CONFIG, options, base=base, start_from=None, home=home, key=key, **more)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def found(tiny_model, tmp_path_factory):
    home = tmp_path_factory.mktemp("search")
    return home, searched(tiny_model, home)


def test_what_learns_is_found_and_what_does_not_is_dropped_at_a_third(found):
    _, result = found
    assert result.best.learning_rate == max(RATES)
    slow, fast = result.trials
    assert (slow.status, fast.status) == ("dropped", "measured")
    assert [share for share, _ in slow.losses] == [pytest.approx(1 / 3)]
    assert [share for share, _ in fast.losses] == [pytest.approx(1 / 3), 1.0]
    assert fast.losses[0][1] < slow.losses[0][1]


def test_the_winner_is_not_trained_again(found, tiny_model, caplog):
    home, result = found
    caplog.set_level("INFO")
    trained = finetune(
        ROWS, result.best, base=tiny_model, start_from=None, key=key(result.best), home=home
    )
    assert trained.validation[-1][1] == pytest.approx(result.trials[1].losses[-1][1])
    assert "training step" not in caplog.text
    alone = finetune(ROWS, result.best, base=tiny_model, start_from=None, key="b" * 64, home=home)
    assert alone.losses == pytest.approx(trained.losses, abs=1e-6)


@pytest.mark.slow
def test_a_search_that_was_interrupted_trains_nothing_twice(tiny_model, tmp_path, monkeypatch):
    calls = []
    train = searching.train

    def counted(job, work):
        calls.append(job.config.learning_rate)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return train(job, work)

    monkeypatch.setattr(searching, "train", counted)
    with pytest.raises(KeyboardInterrupt):
        searched(tiny_model, tmp_path)
    result = searched(tiny_model, tmp_path)
    assert calls == [RATES[0], RATES[1], RATES[1], RATES[1]]
    assert result.best.learning_rate == max(RATES)


@pytest.mark.slow
def test_a_trial_that_fails_says_why_and_the_others_go_on(tiny_model, tmp_path):
    # a name that no layer of the model has
    options = SearchConfig(grid={"targets": (None, ["nowhere"])}, stages=1)
    result = searched(tiny_model, tmp_path, options)
    good, bad = result.trials
    assert (good.status, bad.status) == ("measured", "failed")
    assert "nowhere" in bad.reason
    assert result.best.targets is None


@pytest.mark.slow
def test_no_stage_begins_that_would_end_after_the_budget(tiny_model, tmp_path):
    clock = itertools.count(0, 100)  # each look at the clock is 100 s later
    options = GRID.model_copy(update={"budget_seconds": 150.0})
    result = searched(tiny_model, tmp_path, options, clock=lambda: float(next(clock)))
    assert all(len(trial.losses) <= 1 for trial in result.trials)
    assert "were spent" in " ".join(trial.reason for trial in result.trials)


def test_a_search_without_a_measured_trial_is_one_error(tiny_model, tmp_path):
    options = SearchConfig(grid={"targets": (["nowhere"],)}, stages=1)
    with pytest.raises(InsufficientDataError, match=r"none of 1 .*nowhere"):
        searched(tiny_model, tmp_path, options)


@pytest.mark.parametrize(
    "grid", [{}, {"speed": (1,)}, {"rank": ()}, {"method": ("dpo",)}, {"patience": (1,)}]
)
def test_only_settings_that_can_be_compared_are_tried(grid):
    with pytest.raises(InvalidInputError, match="a search tries values of settings"):
        combinations(SearchConfig(grid=grid))


def test_more_combinations_than_trials_are_drawn_by_the_seed():
    grid = {"rank": (4, 8, 16), "learning_rate": (1e-4, 1e-3)}
    drawn = combinations(SearchConfig(grid=grid, trials=4))
    assert len(drawn) == 4
    assert drawn == combinations(SearchConfig(grid=grid, trials=4))
    assert any(
        drawn != combinations(SearchConfig(grid=grid, trials=4, seed=seed)) for seed in (1, 2, 3)
    )
    assert len(combinations(SearchConfig(grid=grid, trials=99))) == 6


def test_a_search_without_validation_or_with_a_bad_value_is_refused(tiny_model, tmp_path):
    bare = CONFIG.model_copy(update={"validation_share": 0.0})
    with pytest.raises(InvalidInputError, match="got no validation"):
        search(ROWS, bare, GRID, base=tiny_model, start_from=None, home=tmp_path, key=key)
    bad = SearchConfig(grid={"rank": (-1,)})
    with pytest.raises(InvalidInputError, match="a trial must be a valid configuration"):
        searched(tiny_model, tmp_path, bad)
