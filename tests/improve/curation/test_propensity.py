import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet.errors import InvalidInputError
from ratchet.improve.curation.propensity import length_cuts, propensity_weights, strata_of


def test_the_weighted_mean_of_what_got_feedback_is_that_of_everything():
    # two strata with feedback in 10 % and 50 %, of quality 0.9 and 0.3; half of the traffic each
    rng = np.random.default_rng(0)
    strata = rng.integers(0, 2, 100_000)
    observed = rng.random(100_000) < np.where(strata == 0, 0.1, 0.5)
    good = rng.random(100_000) < np.where(strata == 0, 0.9, 0.3)
    weights = propensity_weights(strata, observed, largest=100.0)[observed]
    plain, mended = good[observed].mean(), np.average(good[observed], weights=weights)
    assert plain == pytest.approx(0.4, abs=0.02)  # (0.1 * 0.9 + 0.5 * 0.3) / 0.6
    assert mended == pytest.approx(0.6, abs=0.01)
    assert weights.mean() == pytest.approx(1.0, abs=0.01)


def test_a_known_chance_is_taken_as_it_is():
    observed = np.array([True, False, True, False])
    known = np.array([0.25, np.nan, 1.0, np.nan])
    weights = propensity_weights(np.zeros(4, int), observed, largest=9.0, known=known)
    assert weights[[0, 2]] == pytest.approx([0.5 / 0.25, 0.5])


def test_no_row_stands_for_more_than_the_cap():
    strata = np.repeat([0, 1], 1_000)
    observed = np.concatenate([np.ones(1_000, bool), np.zeros(999, bool), [True]])
    assert propensity_weights(strata, observed, largest=3.0).max() == 3.0


def test_an_impossible_chance_is_refused():
    with pytest.raises(InvalidInputError, match=r"in \(0, 1\], got 0.0"):
        propensity_weights(np.zeros(1, int), np.ones(1, bool), largest=5.0, known=np.zeros(1))


def test_strata_are_segments_with_thirds_of_lengths():
    segments, lengths = np.repeat([0, 1], 9), np.tile(np.arange(9), 2)
    cuts = length_cuts(*np.unique(lengths, return_counts=True))
    strata = strata_of(segments, [lengths], [cuts])
    assert len(set(strata.tolist())) == 6
    assert len(set(zip(segments.tolist(), strata.tolist(), strict=True))) == 6
    assert propensity_weights(np.zeros(0, int), np.zeros(0, bool), largest=5.0).size == 0


@given(st.lists(st.integers(0, 100_000), min_size=1, max_size=60))
def test_thirds_of_lengths_begin_where_numpys_quantiles_are(lengths):
    cuts = length_cuts(*np.unique(lengths, return_counts=True))
    assert cuts.tolist() == np.quantile(lengths, [1 / 3, 2 / 3]).tolist()
    # counted by their distinct lengths, the thirds hold what digitize gives
    assert np.digitize(lengths, cuts).max() <= 2


def test_strata_that_are_counted_elsewhere_weigh_as_if_every_row_were_there():
    rng = np.random.default_rng(1)
    strata, observed = rng.integers(0, 5, 900), rng.random(900) < 0.3
    every = propensity_weights(strata, observed, largest=9.0)
    sizes = np.bincount(strata, minlength=5)
    some = propensity_weights(strata[observed], observed[observed], largest=9.0, sizes=sizes)
    assert some.tolist() == every[observed].tolist()
