"""The win rate part of deploy: a judge of pairs, corrected by people who see no names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from prefect import task
from prefect.cache_policies import NO_CACHE
from pydantic import BaseModel, ConfigDict, Field

from ratchet.deploy.gate.head_to_head import Pair, answer_pairs
from ratchet.deploy.gate.policy import GatePolicy
from ratchet.errors import WaitingError
from ratchet.evaluation.answer_scores import check_metrics
from ratchet.files.text import cell, fenced
from ratchet.flows._runtime import logger, now, publish_text, workspace
from ratchet.judges.judged_win_rate import JudgedWinRate, judge_win_rate, pair_judge
from ratchet.judges.label_sheet import SheetRead
from ratchet.judges.pair_labels import sheet_of
from ratchet.judges.prompts import Item
from ratchet.judges.rubrics import JudgeSpec, load_judges
from ratchet.judges.usable import judges_without_labels
from ratchet.judges.validation import Bar
from ratchet.judges.win_rate import users_of
from ratchet.records import WIN_RATE
from ratchet.store.cycles import example_set, latest_cycle


class WinRateOptions(BaseModel):
    """How a win rate comes about, where the policy names `win_rate`.

    Attributes:
        judge: Name of the judge of pairs, where the settings' file has several.
        labels: Pairs that people compare; a sheet is written for them.
        minimum_labels: So many must be filled in before the gate decides.
        bar: What the judge must reach, held against those labels.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    judge: str | None = None
    labels: int = Field(default=100, ge=30)
    minimum_labels: int = Field(default=60, ge=30)
    bar: Bar = Bar()


def checked_judge(policy: GatePolicy, options: WinRateOptions) -> JudgeSpec | None:
    """Return the judge of pairs that the policy needs, before anything is answered.

    Raises:
        InvalidInputError: The policy names a metric that is not known, or no judge is there.
    """
    path = workspace().settings.judges
    needed = WIN_RATE in policy.metrics
    check_metrics(policy.metrics, judged=[WIN_RATE] if path else [])
    return pair_judge(load_judges(path), options.judge) if needed and path else None


def judge_pairs(
    spec: JudgeSpec, options: WinRateOptions, golden: str, answers: Pair
) -> JudgedWinRate:
    """Compare both models' answers by judge and people.

    Raises:
        WaitingError: People have not labelled enough pairs yet; it says where they do.
    """
    work = workspace()
    examples = example_set(work.store, golden).examples
    pairs = answer_pairs(examples, answers)
    sheet = sheet_of(
        work.store,
        pairs,
        options.labels,
        wanted=options.minimum_labels,
        cycle_id=latest_cycle(work.store).id,
        example_set_id=golden,
        now=now(),
        folder=work.settings.home.joinpath("labels"),
    )
    if sheet.is_new:
        wait = f"{sheet.differing} pairs of answers wait for people"
        text = cell(f"{wait}: {sheet.way}.")
        publish_text("pairs-to-label", text, "Pairs for people to compare")
    read = sheet.read(pairs, minimum=options.minimum_labels)
    judged = ask_judge(spec, options, pairs, read, users_of(examples))
    sheet.await_more(judged.record, read, pairs, now())
    return judged


@task(name="win-rate", cache_policy=NO_CACHE)
def ask_judge(
    spec: JudgeSpec,
    options: WinRateOptions,
    pairs: Sequence[Item],
    read: SheetRead,
    users: Mapping[str, str] | None,
) -> JudgedWinRate:
    """Ask the judge about every pair, and correct it by what people said."""
    work = workspace()
    judged = judge_win_rate(
        work.store,
        spec,
        pairs,
        read,
        users=users,
        cache=work.settings.cache,
        now=now,
        bar=options.bar,
    )
    for line in judged.text().splitlines():
        logger.info("%s", line)
    publish_text("win-rate", fenced(judged.text()), "The challenger's win rate")
    return judged


def await_judges(policy: GatePolicy, pairwise: JudgeSpec | None) -> None:
    """Wait where a judge that the policy names has too few labels to be found usable or not.

    Args:
        policy: The gate's rules.
        pairwise: The judge of pairs, whose labels are awaited by `judge_pairs`.

    Raises:
        WaitingError: The first such judge.
    """
    named = [name for name in policy.judges if pairwise is None or name != pairwise.name]
    for record in judges_without_labels(workspace().store, named):
        raise WaitingError(
            f"the policy asks for judge {record.judge}, got {record.decision}: "
            f"{record.reasons[0]}; label answers with `ratchet review`, then the next run of the "
            "loop goes on by itself",
            missing=record.more_labels,
            judge=record.judge,
        )
