"""Collect: what was recorded since the last cycle becomes the next one."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated

from prefect import State, flow
from pydantic import BaseModel, ConfigDict, Field, model_validator

from ratchet.analyze.failures.traffic_sample import SampleRules
from ratchet.doors.configured import Source
from ratchet.flows._derived import derive_new
from ratchet.flows._recorded import recorded_cycle
from ratchet.flows._runtime import workspace
from ratchet.flows._sources import bring_in
from ratchet.flows._waiting import or_waiting
from ratchet.golden.rules import GoldenRules
from ratchet.store.cycles import sole_loop
from ratchet.store.leases import PASS, hold


class CollectOptions(BaseModel):
    """What a cycle is about: answers and feedback of users that no cycle had.

    Attributes:
        sources: What is imported first, from where the last time ended.
        examples: What both models answer at the gate: JSON Lines or CSV as for `ratchet gate
            --examples`.
        golden: Without a file, how the set grows that the gate asks; `sample` before it has any.
        sample: How examples are drawn from traffic.
        max_new_tokens: The longest answer at the gate; left out, as long as those that users get.
        seed: Of everything that is drawn.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    sources: tuple[Source, ...] = ()
    examples: Path | None = None
    golden: GoldenRules | None = GoldenRules()
    sample: SampleRules = SampleRules()
    max_new_tokens: Annotated[int, Field(ge=1, le=8_192)] | None = None
    seed: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="before")
    @classmethod
    def _is_about_recorded_traffic(cls, given: object) -> object:
        """Take `source: recorded` of before, when users could be simulated here."""
        if not isinstance(given, Mapping) or "source" not in given:
            return given
        if given["source"] not in ("recorded", None):
            raise ValueError(
                f"source must be recorded, got {str(given['source'])[:40]!r}: a cycle is about "
                "recorded traffic; `ratchet demo` has simulated users talk to a gateway first"
            )
        return {name: value for name, value in given.items() if name != "source"}


DEFAULTS = CollectOptions()


@flow(name="collect", flow_run_name="collect into a cycle", validate_parameters=True)
def collect(options: CollectOptions = DEFAULTS) -> str | State[str]:
    """Open the cycle of what was recorded since the last one, or go on; return the cycle's id."""
    with sole_loop(workspace().store):
        return or_waiting(partial(_collect, options))


def _collect(options: CollectOptions) -> str:
    bring_in(options.sources)
    with hold(workspace().store, PASS, wait=None):
        derive_new(most=None)
    longest, seed, golden = options.max_new_tokens, options.seed, options.golden
    return recorded_cycle(options.examples, golden, options.sample, longest, seed)
