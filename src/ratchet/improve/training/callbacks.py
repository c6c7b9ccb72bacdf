"""What happens between the steps of a training run: measuring, keeping, stopping, telling.

The decisions follow from the run's history alone, which checkpoints carry, so that a run that was
interrupted decides as one that was not.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from ratchet.errors import ModelError

logger = logging.getLogger(__name__)

Report: TypeAlias = Callable[[int, Mapping[str, float]], None]
VALIDATION = "eval_loss"


_FINITE = ("loss", "grad_norm", VALIDATION)


class DivergedError(ModelError):
    """A loss or a gradient is not finite: what follows would be an adapter of no numbers."""


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """When the state of a run is written down.

    Attributes:
        seconds: At the first step that ends so long after the last one.
        steps: After every so many steps too, or None.
    """

    seconds: float = 60.0
    steps: int | None = None


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """What a run does, and when.

    Attributes:
        measure_at: Steps after which the validation loss is measured.
        patience: Measurements without a better one after which it stops, or None.
        pause_at: Step after which it stops for now, to be gone on with, or None.
        checkpoints: When its state is written down.
        best: Folder that the best adapter so far is kept in, where `patience` is set.
    """

    measure_at: frozenset[int]
    patience: int | None
    pause_at: int | None
    checkpoints: Checkpoints
    best: Path


def validation_losses(history: Sequence[Mapping[str, Any]]) -> list[tuple[int, float]]:
    """Return the measured validation losses of a run's history as (step, loss)."""
    return [
        (int(entry["step"]), float(entry[VALIDATION])) for entry in history if VALIDATION in entry
    ]


def best_step(measured: Sequence[tuple[int, float]]) -> int | None:
    """Return the step of the lowest loss, the earliest of equals; None without a measurement."""
    return min(measured, key=lambda found: (found[1], found[0]))[0] if measured else None


def out_of_patience(measured: Sequence[tuple[int, float]], patience: int | None) -> bool:
    """Tell whether the last `patience` measurements were all no better than the best before."""
    if patience is None or not measured:
        return False
    best = best_step(measured)
    return sum(1 for step, _ in measured if best is not None and step > best) >= patience


def measured_steps(steps: int, steps_an_epoch: int, evaluations: int) -> frozenset[int]:
    """Return the steps of a run after which to measure; the last is always one."""
    every = max(1, steps_an_epoch // evaluations)
    return frozenset({*range(every, steps + 1, every), steps})


def build_callbacks(
    plan: TrainingPlan, report: Report | None, write_adapter: Callable[[Path], None]
) -> list[Any]:
    """Build the callbacks of a run, in the order in which they act.

    Args:
        plan: What happens when.
        report: Called with each step's numbers, or None.
        write_adapter: Writes the adapter as it is into a folder; every process calls it.
    """
    return [_guard(), _schedule(plan), _keeper(plan, write_adapter), _teller(report)]


def _guard() -> Any:
    """Build the callback that ends a run at the first number that is not finite.

    It acts when a step's numbers are logged, before anything of that step is kept.
    """
    from transformers import TrainerCallback

    class Guard(TrainerCallback):  # type: ignore[misc]
        """Ends a run that diverged."""

        def on_log(
            self, _args: Any, state: Any, _control: Any, logs: Any = None, **_kwargs: Any
        ) -> None:
            """Refuse a loss or a gradient that is not finite."""
            for name in _FINITE:
                value = (logs or {}).get(name)
                if value is not None and not math.isfinite(value):
                    raise DivergedError(
                        f"training must keep loss and gradient finite, got {name} {value} at step "
                        f"{state.global_step} of {state.max_steps}, so no adapter is kept; lower "
                        "learning_rate, or check the base model's weights"
                    )

    return Guard()


def _schedule(plan: TrainingPlan) -> Any:
    """Build the callback that asks for measurements and checkpoints, and that pauses."""
    from transformers import TrainerCallback

    class Schedule(TrainerCallback):  # type: ignore[misc]
        """Asks for measurements and checkpoints."""

        def on_train_begin(self, *_args: Any, **_kwargs: Any) -> None:
            """Start the clock."""
            self.saved = time.monotonic()

        def on_step_end(self, _args: Any, state: Any, control: Any, **_kwargs: Any) -> None:
            """Decide what follows the step."""
            step, every = state.global_step, plan.checkpoints.steps
            paused = step == plan.pause_at
            last = step >= state.max_steps
            control.should_evaluate = step in plan.measure_at or (paused and bool(plan.measure_at))
            late = time.monotonic() - self.saved >= plan.checkpoints.seconds
            # no checkpoint after the last step: the adapter follows at once
            control.should_save = paused or (
                not last and (late or bool(every and step % every == 0))
            )
            control.should_training_stop |= paused

        def on_save(self, *_args: Any, **_kwargs: Any) -> None:
            """Start the clock anew."""
            self.saved = time.monotonic()

    return Schedule()


def _keeper(plan: TrainingPlan, write_adapter: Callable[[Path], None]) -> Any:
    """Build the callback that keeps the best adapter and stops a run that gets no better."""
    from transformers import TrainerCallback

    class Keeper(TrainerCallback):  # type: ignore[misc]
        """Keeps the best adapter; stops."""

        def on_evaluate(self, _args: Any, state: Any, control: Any, **_kwargs: Any) -> None:
            """Keep the adapter where it is the best so far; stop after enough without one."""
            measured = validation_losses(state.log_history)
            logger.info("validation loss %.4f after step %d", measured[-1][1], state.global_step)
            if plan.patience is None:
                return
            if best_step(measured) == state.global_step:
                write_adapter(plan.best)
            if out_of_patience(measured, plan.patience):
                logger.info("stopped: no lower validation loss in %d measurements", plan.patience)
                control.should_training_stop = True

    return Keeper()


def _teller(report: Report | None) -> Any:
    """Build the callback that logs about ten lines a run and reports every step."""
    from transformers import TrainerCallback

    class Teller(TrainerCallback):  # type: ignore[misc]
        """Logs steps, loss and time left."""

        def on_train_begin(self, _args: Any, state: Any, *_more: Any, **_kwargs: Any) -> None:
            """Start the clock."""
            self.started, self.first = time.monotonic(), state.global_step

        def on_log(
            self, _args: Any, state: Any, _control: Any, logs: Any = None, **_kwargs: Any
        ) -> None:
            """Report the numbers, and log every tenth of the run."""
            step, steps = state.global_step, state.max_steps
            if not logs or not state.is_local_process_zero:
                return  # each machine's first process logs
            if report is not None and state.is_world_process_zero:
                report(step, numbers(logs))
            if "loss" not in logs or step % max(1, steps // 10):
                return
            taken = time.monotonic() - self.started
            left = taken / max(1, step - self.first) * (steps - step)
            loss = float(logs["loss"])
            logger.info("training step %d of %d, loss %.3f, %.0f s left", step, steps, loss, left)

    return Teller()


def numbers(entry: Mapping[str, Any], leave_out: Collection[str] = ("step",)) -> dict[str, float]:
    """Return the finite and named numbers of an entry of a run's history."""
    return {
        name: float(value)
        for name, value in entry.items()
        if name not in leave_out and isinstance(value, int | float)
    }
