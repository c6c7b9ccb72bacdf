"""The win rate part of deploy: a judge of pairs, corrected by people who see no names."""

from __future__ import annotations

from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE
from pydantic import BaseModel, ConfigDict, Field

from ratchet.deploy.gate.policy import GatePolicy
from ratchet.errors import InsufficientDataError
from ratchet.evaluation.answer_scores import check_metrics
from ratchet.flows._evaluate import Answers
from ratchet.flows._runtime import logger, now, publish_text, workspace
from ratchet.judges.judged_win_rate import JudgedWinRate, judge_win_rate, pair_judge, to_compare
from ratchet.judges.label_sheet import SheetRead, read_sheet, write_sheet
from ratchet.judges.prompts import Item
from ratchet.judges.rubrics import JudgeSpec, load_judges
from ratchet.judges.validation import Bar
from ratchet.judges.win_rate import is_same, pairs_of, users_of
from ratchet.records import WIN_RATE, derive_id
from ratchet.store.cycles import example_set


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


@task(name="win-rate", cache_policy=NO_CACHE)
def judge_pairs(
    spec: JudgeSpec, options: WinRateOptions, golden: str, answers: tuple[Answers, Answers]
) -> JudgedWinRate:
    """Compare both models' answers by judge and people.

    Raises:
        InsufficientDataError: People have not labelled enough pairs yet; the sheet's path is told.
    """
    work = workspace()
    examples = example_set(work.store, golden).examples
    first, second = (found.by_example(examples) for found in answers)
    pairs = pairs_of(examples, first, second)
    sheet = _labelled(pairs, options)
    judged = judge_win_rate(
        work.store,
        spec,
        pairs,
        sheet,
        users=users_of(examples),
        cache=work.settings.cache,
        now=now,
        bar=options.bar,
    )
    logger.info("%s", judged.text())
    publish_text("win-rate", f"```\n{judged.text()}\n```", "The challenger's win rate")
    return judged


def _labelled(pairs: list[Item], options: WinRateOptions) -> SheetRead:
    """Read the sheet of exactly these answers; write it where there is none yet."""
    content = derive_id("pairs", *(f"{pair.id} {pair.answer} {pair.other}" for pair in pairs))
    path: Path = workspace().settings.home / "labels" / f"pairs-{content[:12]}.csv"
    chosen = to_compare(pairs, options.labels)
    count = sum(not is_same(pair) for pair in chosen)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_sheet(path, pairs, [pair.id for pair in chosen])
        text = f"{count} pairs of answers wait for people in `{path}`: a, b or tie in `winner`."
        publish_text("pairs-to-label", text, "Pairs for people to compare")
    sheet = read_sheet(path, pairs)
    for line, reason in sheet.set_aside:
        logger.warning("%s, line %d set aside: %s", path.name, line, reason)
    wanted = min(options.minimum_labels, count)
    if sheet.compared < wanted:
        raise InsufficientDataError(
            f"win_rate needs {wanted} pairs that people compared, got {sheet.compared}; write "
            f"a, b or tie into the column winner of {path}, then run deploy again"
        )
    return sheet
