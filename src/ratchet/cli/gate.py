"""`ratchet gate`: champion against challenger, on recorded scores or on examples; for CI too."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ratchet.cli.gate_judge import Judging, hand_out, judged
from ratchet.cli.gate_models import (
    Decoding,
    answer_file,
    policy_for,
)
from ratchet.cli.gate_options import (
    Candidate,
    DryRun,
    ExamplesFile,
    HigherIsBetter,
    Labels,
    LowerIsBetter,
    Options,
    PolicyFile,
    Samples,
    ScoresFile,
    Seed,
    Temperature,
    ToLabel,
)
from ratchet.cli.saying import say, say_json, say_text
from ratchet.cli.shared import AsJson, current_settings, existing_store, show_progress
from ratchet.errors import InvalidInputError

if TYPE_CHECKING:
    from ratchet.deploy.gate import GateResult
    from ratchet.deploy.gate.policy import GatePolicy

EXIT_CODES = {"promote": 0, "hold": 10, "reject": 11, "inconclusive": 12}


def gate(
    scores: ScoresFile = None,
    champion: Annotated[
        str,
        typer.Option(
            help="Folder of a model or LoRA adapter, registered version (name/3), smollm2, or "
            "http://host:port#model."
        ),
    ] = "",
    challenger: Annotated[
        str, typer.Option(help="The same for the model that would replace it.")
    ] = "",
    examples: ExamplesFile = None,
    policy: PolicyFile = None,
    as_json: AsJson = False,
    higher_is_better: HigherIsBetter = None,
    lower_is_better: LowerIsBetter = None,
    samples: Samples = None,
    temperature: Temperature = None,
    seed: Seed = None,
    earlier: Annotated[
        str, typer.Option(help="Sample sizes of earlier evaluations, e.g. 1000,2000.")
    ] = "",
    usable_judge: Annotated[
        list[str] | None,
        typer.Option(help="Trust this judge too, besides those found usable in the home's store."),
    ] = None,
    approved_by: Annotated[
        str, typer.Option(help="Who approved, where the policy asks for a person.")
    ] = "",
    save_scores: Annotated[
        Path | None, typer.Option(help="Write scores and answers here, as --scores reads them.")
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer.")] = 256,
    one_line: Annotated[
        bool, typer.Option("--one-line", help="Answers end at the first line break.")
    ] = False,
    api_key_variable: Annotated[
        str, typer.Option(help="Environment variable that holds the endpoints' key.")
    ] = "",
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Ask the models again, also where answers are recorded.")
    ] = False,
    judges: Annotated[
        Path | None,
        typer.Option(help="YAML with a judge of pairs, for a policy that names win_rate."),
    ] = None,
    to_label: ToLabel = None,
    labels: Labels = None,
    candidate: Candidate = False,
    dry_run: DryRun = False,
    options: Options = None,
) -> None:
    """Decide on recorded scores, or on two models' answers: promote, hold, reject, inconclusive.

    With --candidate it is the stage of the loop: it acts on what it decides.

    Exit codes: 0 promote, 10 hold (also a promotion that waits for approval), 11 reject, 12
    inconclusive, 2 bad input, which includes a metric without a known direction.
    """
    if candidate or dry_run or options is not None:
        _of_loop(candidate, dry_run, options, bool(scores or champion or challenger or examples))
        return
    asked = _load(policy)
    looks, named = _looks(earlier), frozenset(usable_judge or ())
    decoding = Decoding(max_new_tokens, one_line, api_key_variable, fresh)
    judging = Judging(judges, labels, to_label)
    _one_of(scores, champion, challenger, examples)
    stated = Stated(
        tuple(higher_is_better or ()), tuple(lower_is_better or ()), samples, temperature, seed
    )
    if scores is not None:
        result = _on_scores(scores, asked, stated, looks, named)
    elif examples is not None:
        pair = (champion, challenger)
        result = _on_examples(
            pair, examples, policy, stated, looks, named, decoding, judging, save_scores
        )
    _say(result, as_json=as_json, approved_by=approved_by)


@dataclass(frozen=True, slots=True)
class Stated:
    """What the options add to the policy.

    Attributes:
        higher: Metrics of which more is better.
        lower: Metrics of which less is better.
        samples: As `GatePolicy`, like the other two.
    """

    higher: tuple[str, ...]
    lower: tuple[str, ...]
    samples: int | None
    temperature: float | None
    seed: int | None

    def within(self, policy: GatePolicy) -> GatePolicy:
        """Return a policy with what is stated; print what is surprising in it."""
        from ratchet.deploy.gate.directions import surprising_directions, with_directions
        from ratchet.deploy.gate.sampling import with_sampling

        directed = with_sampling(
            with_directions(policy, higher=self.higher, lower=self.lower),
            samples=self.samples,
            temperature=self.temperature,
            seed=self.seed,
        )
        for line in surprising_directions(directed):
            say(f"note: {line}", err=True)
        return directed


def _of_loop(candidate: bool, dry_run: bool, options: Path | None, is_other: bool) -> None:
    from ratchet.cli.stages import gate_candidate

    if not candidate or is_other:
        got = "scores or models" if is_other else "neither a candidate nor anything else"
        raise InvalidInputError(
            "--dry-run and --options are for --candidate, which takes neither scores nor models, "
            f"got {got}; without --candidate nothing is changed"
        )
    gate_candidate(dry_run=dry_run, options=options)


def _load(policy: Path | None) -> GatePolicy | None:
    from ratchet.deploy.gate.policy import load_policy

    return load_policy(policy) if policy is not None else None


def _one_of(scores: Path | None, champion: str, challenger: str, examples: Path | None) -> None:
    models = {
        "--champion": bool(champion),
        "--challenger": bool(challenger),
        "--examples": examples is not None,
    }
    if scores is not None:
        got = "both" if any(models.values()) else None
    elif any(models.values()):
        got = " and ".join(f"no {name}" for name, given in models.items() if not given) or None
    else:
        got = "neither"
    if got is not None:
        raise InvalidInputError(
            f"give --scores, or all of --champion, --challenger and --examples; got {got}"
        )


def _on_scores(
    path: Path,
    asked: GatePolicy | None,
    stated: Stated,
    looks: list[int],
    judges: frozenset[str],
) -> GateResult:
    from ratchet.deploy.gate import run_gate
    from ratchet.deploy.gate.policy import default_policy
    from ratchet.deploy.gate.scores import read_scores

    scores = read_scores(path)
    if (stated.samples, stated.temperature, stated.seed) != (None, None, None):
        raise InvalidInputError(
            "--samples, --temperature and --seed are for models that answer --examples, got "
            "--scores; leave them out"
        )
    policy = stated.within(
        asked or default_policy(list(scores.metrics), has_clusters=bool(scores.cluster_names))
    )
    return run_gate(scores, policy, earlier=looks, usable_judges=_judges(policy, judges))


def _on_examples(
    names: tuple[str, str],
    path: Path,
    asked: Path | None,
    stated: Stated,
    looks: list[int],
    judges: frozenset[str],
    decoding: Decoding,
    judging: Judging,
    save: Path | None,
) -> GateResult:
    from ratchet.deploy.gate import run_gate
    from ratchet.deploy.gate.head_to_head import (
        GateExamples,
        answer_pairs,
        check_examples,
        score_answers,
        write_scores,
    )
    from ratchet.evaluation.answer_scores import check_metrics
    from ratchet.evaluation.example_files import read_examples
    from ratchet.records import WIN_RATE

    examples = read_examples(path)
    policy = policy_for(examples, asked, stated.samples)
    settings = current_settings()
    has_judge = judging.to_label or judging.judges or settings.judges
    check_metrics(policy.metrics, judged=[WIN_RATE] if has_judge else [])
    policy = stated.within(policy)
    asked_of = GateExamples(tuple(examples))
    check_examples(policy, asked_of)
    if WIN_RATE not in policy.metrics and (judging.labels or judging.judges):
        raise InvalidInputError(
            f"--labels and --judges are for {WIN_RATE}, got a policy that does not name it; add "
            "it as primary, guardrail or secondary metric"
        )
    show_progress()
    first, second = (answer_file(name, examples, policy, settings, decoding) for name in names)
    answers = (first, second)
    if judging.to_label is not None:
        hand_out(judging.to_label, answer_pairs(examples, answers))
        raise typer.Exit(0)
    by_judge = None
    if WIN_RATE in policy.metrics:
        by_judge = judged(settings, judging, examples, answer_pairs(examples, answers))
        say_text(by_judge.text(), err=True)
    scores = score_answers(asked_of, policy, answers, by_judge)
    if save is not None:
        write_scores(save, examples, answers, scores)
    return run_gate(
        scores,
        policy,
        earlier=looks,
        usable_judges=_judges(policy, judges),
        same_digest=first.model_digest == second.model_digest,
    )


def _say(result: GateResult, *, as_json: bool, approved_by: str) -> None:
    from ratchet.deploy.gate.report import gate_json, gate_text

    waits = result.verdict == "promote" and result.approval is not None and not approved_by
    if as_json:
        report = gate_json(result) | {"approved_by": approved_by or None}
        say_json(report, indent=2, allow_nan=False)
    else:
        say_text(gate_text(result))
    raise typer.Exit(EXIT_CODES["hold" if waits else result.verdict])


def _looks(earlier: str) -> list[int]:
    try:
        looks = [int(part) for part in earlier.split(",") if part.strip()]
    except ValueError:
        looks = [0]
    if any(look < 1 for look in looks):
        raise InvalidInputError(
            f"--earlier must be numbers of examples, e.g. 1000,2000, got {earlier!r}"
        )
    return looks


def _judges(policy: GatePolicy, named: frozenset[str]) -> frozenset[str]:
    """Judges that are usable: those named, and those that the home's store holds to be."""
    if not policy.judges:
        return named
    from ratchet.judges.usable import usable_judges

    store = existing_store()
    return named if store is None else named | usable_judges(store)
