"""False alarms of boards that go back over late rows: half of all rows come once a day.

The claim is that of docs/decisions/0017: going back keeps the run length. It is tested where it is
tight, on independent trials with a known rate, without a board's tempers and caution.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from ratchet.stats.charts.change_detection import (
    Alternatives,
    alarm_limit,
    begin,
    log_evidence,
    log_likelihood_ratios,
    update,
)

pytestmark = pytest.mark.slow
BOARDS, DAYS, BATCHES_A_DAY, TRIALS, RATE = 400, 40, 48, 20, 0.1
RUN_LENGTH = 10 * BATCHES_A_DAY  # one false alarm in ten days
STATED = Alternatives(np.array([[0.25], [0.5], [1.0]]), np.full(3, 1 / 3), np.ones(3))
LIMIT = alarm_limit(RUN_LENGTH, release_risk=0.0)


def ratios_of(events, trials):
    return log_likelihood_ratios(events[..., None], trials[..., None], np.array([RATE]), STATED)


def first_alarms(in_time, late):
    """Return when each board alarms, in batches, `inf` where it does not; shape (boards,).

    Args:
        in_time: Bad events of the rows that come in time, shape (boards, batches), of 10 trials.
        late: Of those that come at the end of their day, same shape.
    """
    alarmed = np.full(len(in_time), np.inf)
    complete = begin(STATED, LIMIT, (len(in_time),))  # the state before today, nothing lacking
    half = np.full(len(in_time), TRIALS // 2)
    for day in range(DAYS):
        state = complete
        for batch in range(day * BATCHES_A_DAY, (day + 1) * BATCHES_A_DAY):
            state = update(state, ratios_of(in_time[:, batch], half))
            over = log_evidence(state, STATED) >= LIMIT.log_threshold
            alarmed[over & np.isinf(alarmed)] = batch + 1
        for batch in range(day * BATCHES_A_DAY, (day + 1) * BATCHES_A_DAY):
            both = in_time[:, batch] + late[:, batch]
            complete = update(complete, ratios_of(both, 2 * half))
        over = log_evidence(complete, STATED) >= LIMIT.log_threshold
        alarmed[over & np.isinf(alarmed)] = (day + 1) * BATCHES_A_DAY
    return alarmed


def test_boards_that_go_back_over_late_rows_alarm_no_more_often_than_stated():
    rng = np.random.default_rng(17)
    shape = (BOARDS, DAYS * BATCHES_A_DAY)
    in_time, late = rng.binomial(TRIALS // 2, RATE, (2, *shape))
    alarmed = first_alarms(in_time, late)
    # with runs cut at the end, the mean is a lower bound of the run length's mean; the bound is
    # met if the mean of the cut runs and the number of alarms agree with RUN_LENGTH or longer
    batches = np.minimum(alarmed, shape[1]).sum()
    alarms = int(np.isfinite(alarmed).sum())
    assert alarms <= stats.poisson.ppf(0.999, batches / RUN_LENGTH)
    assert alarms > 0  # else the test could not fail


def test_a_change_whose_rows_are_half_late_is_still_found_within_a_day():
    rng = np.random.default_rng(18)
    shape = (BOARDS, DAYS * BATCHES_A_DAY)
    in_time, late = rng.binomial(TRIALS // 2, 2 * RATE, (2, *shape))
    assert np.quantile(first_alarms(in_time, late), 0.95) <= BATCHES_A_DAY
