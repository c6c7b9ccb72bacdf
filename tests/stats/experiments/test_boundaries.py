import numpy as np
import pytest
from scipy import integrate, stats

from ratchet.errors import InvalidInputError
from ratchet.stats.experiments.boundaries import (
    normal_log_mixture,
    normal_mixture_bound,
    normal_mixture_rho,
)

# The tolerance of confseq's own unit tests, test/uniform_boundaries_unittest.cpp
TOLERANCE = 1e-5
AT = {"alpha": 0.05, "v_opt": 100.0}


def test_every_published_boundary_is_reproduced(published_numbers):
    numbers = published_numbers["confseq"]
    two, one = numbers["two_sided_normal_mixture"], numbers["one_sided_normal_mixture"]
    at = {"alpha": two["alpha"], "v_opt": two["v_opt"]}
    v = two["v"]
    ours_and_published = [
        (normal_mixture_rho(two["v_opt"], alpha=two["alpha"]), two["rho"]),
        (normal_log_mixture(10.0, v, v_opt=two["v_opt"]), two["log_mixture_s10"]),
        (normal_mixture_bound(v, **at), two["bound"]),
        (normal_log_mixture(10.0, v, v_opt=v, one_sided=True), one["log_mixture_s10"]),
        (normal_mixture_bound(v, **at, one_sided=True), one["bound"]),
    ]
    for ours, published in ours_and_published:
        assert float(ours) == pytest.approx(published, abs=TOLERANCE)


@pytest.mark.parametrize(
    ("ours", "published"),
    [
        # confseq, test/uniform_boundaries_unittest.cpp; its values are from an R implementation
        (normal_mixture_rho(100.0), 12.60056),
        (normal_mixture_bound(100.0, **AT), 30.35209),
        (normal_mixture_bound(100.0, **AT, one_sided=True), 27.66071),
    ],
)
def test_the_key_figures_of_confseq_are_reproduced(ours, published):
    assert float(ours) == pytest.approx(published, abs=TOLERANCE)


@pytest.mark.parametrize("one_sided", [False, True])
def test_the_normal_mixture_is_the_integral_of_its_supermartingales(one_sided):
    s, v = 7.0, 40.0
    rho = normal_mixture_rho(60.0, one_sided=one_sided)

    def weighted(tilt):
        return stats.norm.pdf(tilt, scale=rho**-0.5) * np.exp(tilt * s - tilt**2 * v / 2.0)

    lowest, weight = (0.0, 2.0) if one_sided else (-5.0, 1.0)
    mixture = weight * integrate.quad(weighted, lowest, 5.0)[0]
    ours = normal_log_mixture(s, v, v_opt=60.0, one_sided=one_sided)
    assert float(ours) == pytest.approx(np.log(mixture), abs=1e-9)


BOUNDS = {
    "normal": lambda v, alpha: normal_mixture_bound(v, alpha=alpha, v_opt=50.0),
    "normal, one-sided": lambda v, alpha: normal_mixture_bound(
        v, alpha=alpha, v_opt=50.0, one_sided=True
    ),
}


@pytest.mark.parametrize("bound", BOUNDS.values(), ids=BOUNDS)
def test_a_boundary_rises_with_time_and_falls_with_alpha(bound):
    times = np.array([10.0, 50.0, 100.0, 1_000.0, 1e6])
    strict, loose = bound(times, 0.01), bound(times, 0.1)
    assert (np.diff(strict) > 0.0).all()
    assert (strict > loose).all()


@pytest.mark.parametrize("bound", BOUNDS.values(), ids=BOUNDS)
def test_a_boundary_of_many_times_is_that_of_each_time(bound):
    times = np.array([3.0, 40.0, 500.0])
    each = [float(bound(time, 0.05)) for time in times]
    assert bound(times, 0.05) == pytest.approx(each, rel=1e-12)


def test_a_mixture_boundary_is_lowest_near_the_time_it_is_tuned_for():
    tuned = [float(normal_mixture_bound(100.0, alpha=0.05, v_opt=v)) for v in (10, 100, 1_000)]
    assert min(tuned) == tuned[1]


def test_mixtures_stay_finite_where_the_likelihood_underflows():
    s, v = np.array([20_000.0, -20_000.0]), 1e5
    for one_sided in (False, True):
        values = normal_log_mixture(s, v, v_opt=1e5, one_sided=one_sided)
        assert np.isfinite(values).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: normal_mixture_bound(1.0, alpha=5, v_opt=1.0),
            r"alpha must be in \(0, 1\), got 5",
        ),
        (
            lambda: normal_mixture_bound(1.0, alpha=0.5, v_opt=1.0, one_sided=True),
            r"alpha must be in \(0, 0.5\), got 0.5; pass 0.05",
        ),
        (lambda: normal_mixture_rho(0.0), "v_opt must be above 0, got 0"),
        (lambda: normal_mixture_bound(0.0, **AT), "v must be finite and above 0, got 0"),
        (lambda: normal_log_mixture(np.nan, 1.0, v_opt=1.0), "s must be finite, got 1"),
    ],
)
def test_bad_input_is_one_clear_error(call, message):
    with pytest.raises(InvalidInputError, match=message):
        call()
