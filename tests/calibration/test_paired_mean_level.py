"""How often the test of a mean errs, by simulation, where skewness hurts. `-s` prints the table."""

import numpy as np
import pytest

from ratchet.stats.comparisons.means import paired_mean_test

pytestmark = pytest.mark.slow

SAMPLES, LEVEL = 20_000, 0.05
# Largest share of errors that the docstring of `paired_mean_test` states, by number of units.
SHAPES = {
    "normal": {30: 0.05, 100: 0.05, 300: 0.05},
    "exponential": {30: 0.05, 100: 0.05, 300: 0.05},
    "gamma, shape 4": {30: 0.05, 100: 0.05, 300: 0.05},
    "lognormal": {30: 0.073, 100: 0.058, 300: 0.053},
    "four in five equal": {30: 0.132, 100: 0.097, 300: 0.065},
}


def draw(shape, rng, size):
    """Differences of mean 0 whose rare large values are losses."""
    if shape == "normal":
        return rng.normal(size=size)
    if shape == "exponential":
        return 1.0 - rng.exponential(size=size)
    if shape == "gamma, shape 4":
        return 4.0 - rng.gamma(4.0, size=size)
    if shape == "lognormal":
        return np.exp(0.5) - np.exp(rng.normal(size=size))
    return np.where(rng.random(size) < 0.2, 1.0 - rng.exponential(size=size), 0.0)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_level_is_what_the_docstring_states(shape):
    for units, stated in SHAPES[shape].items():
        rng = np.random.default_rng(units)
        wrong = harmless = 0
        for _ in range(SAMPLES):
            values = draw(shape, rng, units)
            if not np.ptp(values):
                continue
            result = paired_mean_test(values)
            wrong += result.p_above <= LEVEL
            harmless += result.p_below <= LEVEL
        shares = wrong / SAMPLES, harmless / SAMPLES
        print(f"| {shape} | {units} | {shares[0]:.2%} | {shares[1]:.2%} |")
        tolerance = 3.0 * np.sqrt(stated * (1.0 - stated) / SAMPLES)
        assert shares[0] <= stated + tolerance
        assert shares[1] <= LEVEL + 3.0 * np.sqrt(LEVEL * (1.0 - LEVEL) / SAMPLES)
