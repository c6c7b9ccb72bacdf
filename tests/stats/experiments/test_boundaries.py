import numpy as np
import pytest
from scipy import integrate, stats

from ratchet.errors import InvalidInputError
from ratchet.stats.experiments.boundaries import (
    beta_binomial_bound,
    beta_binomial_log_mixture,
    gamma_exponential_bound,
    gamma_exponential_log_mixture,
    gamma_poisson_bound,
    gamma_poisson_log_mixture,
    normal_log_mixture,
    normal_mixture_bound,
    normal_mixture_rho,
    poly_stitching_bound,
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
        (gamma_exponential_bound(v, **at, c=2.0), numbers["gamma_exponential_c2"]),
        (gamma_poisson_bound(v, **at, c=2.0), numbers["gamma_poisson_c2"]),
        (beta_binomial_bound(v, **at, g=0.2, h=0.8), numbers["beta_binomial_two_sided_g.2_h.8"]),
        (
            beta_binomial_bound(v, **at, g=0.2, h=0.8, one_sided=True),
            numbers["beta_binomial_one_sided"],
        ),
        (
            poly_stitching_bound(100.0, alpha=0.05, v_min=10.0, c=3.0),
            numbers["poly_stitching_v100_vmin10_c3"],
        ),
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
        (gamma_exponential_log_mixture(10.0, 100.0, v_opt=100.0, c=2.0), -0.2490165),
        (gamma_exponential_bound(100.0, **AT, c=2.0), 33.02017),
        (gamma_poisson_log_mixture(10.0, 100.0, v_opt=100.0, c=2.0), -0.06991219),
        (gamma_poisson_bound(100.0, **AT, c=2.0), 30.1949),
        (beta_binomial_log_mixture(10.0, 100.0, v_opt=100.0, g=0.2, h=0.8), -0.6941012),
        (beta_binomial_bound(100.0, **AT, g=0.2, h=0.8), 31.4308),
        (beta_binomial_bound(100.0, **AT, g=0.2, h=0.8, one_sided=True), 28.41238),
        (poly_stitching_bound(100.0, alpha=0.05, v_min=10.0, c=3.0), 64.48755),
        (poly_stitching_bound(100.0, alpha=0.05, v_min=10.0, c=-1.0), 28.99389),
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


def test_the_gamma_poisson_mixture_is_the_integral_of_its_supermartingales():
    s, v, c = 6.0, 30.0, 0.5
    r = normal_mixture_rho(50.0, one_sided=True) / c**2

    def weighted(tilt):  # gamma(r, 1/r) distributed exp(c tilt), cut to tilts of at least 0
        rate = np.exp(c * tilt)
        psi = (rate - c * tilt - 1.0) / c**2
        return stats.gamma.pdf(rate, r, scale=1.0 / r) * c * rate * np.exp(tilt * s - v * psi)

    mixture = integrate.quad(weighted, 0.0, 10.0)[0] / stats.gamma.sf(1.0, r, scale=1.0 / r)
    ours = gamma_poisson_log_mixture(s, v, v_opt=50.0, c=c)
    assert float(ours) == pytest.approx(np.log(mixture), abs=1e-9)


BOUNDS = {
    "normal": lambda v, alpha: normal_mixture_bound(v, alpha=alpha, v_opt=50.0),
    "normal, one-sided": lambda v, alpha: normal_mixture_bound(
        v, alpha=alpha, v_opt=50.0, one_sided=True
    ),
    "gamma-exponential": lambda v, alpha: gamma_exponential_bound(
        v, alpha=alpha, v_opt=50.0, c=1.0
    ),
    "gamma-Poisson": lambda v, alpha: gamma_poisson_bound(v, alpha=alpha, v_opt=50.0, c=1.0),
    "beta-binomial": lambda v, alpha: beta_binomial_bound(v, alpha=alpha, v_opt=50.0, g=0.3, h=0.7),
    "stitched": lambda v, alpha: poly_stitching_bound(v, alpha=alpha, v_min=5.0, c=1.0),
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


def test_the_beta_binomial_mixture_mirrors_when_its_sides_swap():
    one = beta_binomial_log_mixture([5.0, -3.0], 20.0, v_opt=30.0, g=0.3, h=0.7)
    other = beta_binomial_log_mixture([-5.0, 3.0], 20.0, v_opt=30.0, g=0.7, h=0.3)
    assert one == pytest.approx(other, abs=1e-10)


def test_where_no_walk_can_reach_the_threshold_the_boundary_is_the_highest_walk():
    assert float(beta_binomial_bound(0.42, alpha=0.001, v_opt=10.0, g=0.3, h=0.7)) == pytest.approx(
        0.42 / 0.3
    )


def test_mixtures_stay_finite_where_the_likelihood_underflows():
    s, v = np.array([20_000.0, -20_000.0]), 1e5
    for one_sided in (False, True):
        values = normal_log_mixture(s, v, v_opt=1e5, one_sided=one_sided)
        assert np.isfinite(values).all()
    assert np.isfinite(beta_binomial_log_mixture(s, v, v_opt=1e4, g=0.2, h=0.8)).all()


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
        (lambda: gamma_exponential_bound(1.0, **AT, c=-1.0), "c must be above 0, got -1"),
        (lambda: gamma_poisson_log_mixture(-99.0, 1.0, v_opt=1.0, c=1.0), "c s must be above"),
        (
            lambda: beta_binomial_log_mixture(9.0, 1.0, v_opt=1.0, g=0.5, h=0.5),
            r"s must be in \[-v / h, v / g\]",
        ),
        (
            lambda: poly_stitching_bound(1.0, alpha=0.05, v_min=1.0, eta=1.0),
            "s and eta must be above 1.*got s 1.4, eta 1.0",
        ),
    ],
)
def test_bad_input_is_one_clear_error(call, message):
    with pytest.raises(InvalidInputError, match=message):
        call()
