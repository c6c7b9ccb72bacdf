"""What people are told of, and what to do about it: one catalogue for messages, pages and docs.

    RUNBOOKS["board"].do

A kind of alert without a runbook does not exist: `tests/notify/test_runbooks.py` holds the
catalogue to the kinds of `ratchet.records.AlertEvent`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, get_args

from ratchet.records import AlertKind

APPROVAL, LABELS, WEEKLY, TRIAL = "approval", "labels", "weekly", "trial"


@dataclass(frozen=True, slots=True)
class Runbook:
    """What to do about a kind of alert or reminder.

    Attributes:
        title: What it is, in a few words.
        means: What it says about the model, and what it does not.
        look: What to look at first, in this order.
        do: What to do, the most likely first.
        commands: Commands with what each is for.
    """

    title: str
    means: str
    look: tuple[str, ...]
    do: tuple[str, ...]
    commands: tuple[tuple[str, str], ...]


RUNBOOKS: Final[Mapping[str, Runbook]] = {
    "board": Runbook(
        title="A version does worse than it used to",
        means=(
            "The share of bad answers by one signal rose above what the version before it had at "
            "the same hours, by more than chance. All signals and segments of a version share one "
            "budget of false alarms, which the alert states. It says that something changed, not "
            "why; “since” is an estimate, often right to within an hour."
        ),
        look=(
            "Did a release, a new prompt or a change of the application come shortly before "
            "“since”? The timeline shows releases beside alerts.",
            "Is it one segment or everywhere, and one failure cluster or all messages? The alert "
            "names both where they are known.",
            "Which signal: users (thumbs down, regenerated, not copied) speak of the answers; "
            "latency, errors, tokens and cost speak of the service; calls and forms speak of the "
            "model's tools.",
        ),
        do=(
            "It began with a release: roll back first, read afterwards. A rollback takes seconds "
            "and can be undone by releasing again.",
            "It began without one: read the failed answers of the named cluster, then start a "
            "cycle on them.",
            "It is about the service: look at load, timeouts and the server's log; roll back only "
            "if a release is the cause.",
            "It is known and somebody works on it: look after the alert, so that it is not "
            "repeated; or mute it for some hours with the reason.",
        ),
        commands=(
            ("ratchet timeline --hours 48", "releases, first bad feedback and alerts in order"),
            ("ratchet chart thumbs_down_rate --by hour", "the signal over time, with its limits"),
            ("ratchet rollback --by ada --note 'worse since the release'", "the previous version"),
            ("ratchet alerts --acknowledge 3f9c2a1b --by ada", "you look after it"),
        ),
    ),
    "threshold": Runbook(
        title="A metric of the last hour is above its fixed threshold",
        means=(
            "The lower 95 % bound of a metric of the last hour is above a threshold that holds for "
            "every version, whatever was normal before. One check raises a false alarm in about "
            "5 % of cases where the true rate lies exactly at the threshold, and more rarely below."
        ),
        look=(
            "Does the board of the same version alarm as well? Then follow its runbook: it knows "
            "what was normal and since when it is not.",
            "How many observations are there? A quiet hour with few answers is read with care.",
            "Is it about safety? Then it comes before everything else.",
        ),
        do=(
            "Do what the alert names: each threshold has its own advice for a warning and for a "
            "critical alert.",
            "Safety: take the version away from users; have a person read every flagged answer.",
            "A threshold that is crossed every day says that the model never was good enough: "
            "start a cycle on its failures.",
        ),
        commands=(
            ("ratchet status", "champion, last decision and all open alerts"),
            ("ratchet review", "answers that were flagged, for a person to decide"),
            ("ratchet rollback --by ada --note 'unsafe answers'", "the previous version"),
        ),
    ),
    "pipeline": Runbook(
        title="Feedback stopped coming, or lines of the gateway's log are missing",
        means=(
            "Fewer answers than usual have any rating or any signal, or lines of the gateway's log "
            "are missing or damaged. What is not recorded cannot be watched: while nobody says "
            "anything no other alert can open, so silence is no good news."
        ),
        look=(
            "Was the application released, or its page changed? `feedback.js` may be missing.",
            "Does the gateway answer `POST /v1/feedback`, and are its keys and tokens valid?",
            "Are rows set aside? Feedback that breaks a rule is kept there with its reason.",
            "Lines of the log: did its disk fill up or fail, or did somebody edit a segment?",
        ),
        do=(
            "Have the application send feedback again; the alert ends by itself once it comes.",
            "An application that stopped on purpose: resolve the alert with that reason.",
        ),
        commands=(
            ("ratchet set-aside", "rows that could not be used, and why"),
            ("ratchet doctor", "what is wrong with this installation"),
            ("ratchet alerts --resolve 3f9c2a1b --by ada --note 'on purpose'", "it is over"),
        ),
    ),
    "cluster": Runbook(
        title="A group of messages fails more than the rest",
        means=(
            "An analysis found messages about one thing that fail more often than others, beyond "
            "what chance does in 2 % of analyses; or a known group grew. It may have been there "
            "for long and be found only now."
        ),
        look=(
            "Read its typical failures beside what a good answer looks like.",
            "Is it safety? Then its answers wait for review; nothing is trained on them before.",
            "Whom does it touch: how many users, which segments, which versions?",
        ),
        do=(
            "Nothing needs to be switched off: the cluster has a regression set that the gate asks "
            "from now on, and the next training set is asked for answers to it.",
            "Give right answers where users gave none: correct some of its answers in review.",
            "It began with a release and is large: roll back.",
        ),
        commands=(
            ("ratchet review", "what waits for a person, safety first"),
            ("ratchet curate --dry-run", "what the next training set would hold"),
            ("ratchet train --dry-run", "what a training would start from"),
        ),
    ),
    "rollout": Runbook(
        title="A rollout was aborted",
        means=(
            "A challenger did harm to the users who had it, or its share of users was not the "
            "share that was asked for. Everybody has the champion again; that version is not "
            "rolled out a second time by itself."
        ),
        look=(
            "Which signal shows the harm, and from how many users?",
            "Where the share of users is wrong: are users or their answers missing from one arm?",
            "What did the gate not see that users saw? The decision's page shows both.",
        ),
        do=(
            "Read the answers that users marked, mend the cause, and register a new version.",
            "A broken assignment: find out why users are missing before the next rollout.",
            "Resolve the alert once the cause is known.",
        ),
        commands=(
            ("ratchet rollout status", "each look and the bounds of the last one"),
            ("ratchet timeline --hours 48", "what happened in front of users"),
        ),
    ),
    "routing": Runbook(
        title="A version was not sent to users: it does not answer, or something is lacking",
        means=(
            "A promotion, a rollout or one of its stages was to send users to a version that did "
            "not answer when it was asked; or a decided rollout lacks the users or the feedback "
            "that it needs. Nobody was sent there: users have what they had."
        ),
        look=(
            "Does the server answer, and has it loaded the adapter under this name?",
            "What does the alert say is lacking: users, or feedback on their answers?",
            "Does the server see the folder of adapters under the path that is configured?",
        ),
        do=(
            "Mend what the alert names. The step is tried again by itself and the alert ends.",
            "The version is not wanted any more: stop the rollout, or move on to another one.",
        ),
        commands=(
            ("ratchet doctor", "whether backend, MLflow and store answer"),
            ("ratchet status", "what is not routed, and why"),
            ("ratchet rollout look", "try the rollout's next step now"),
        ),
    ),
    APPROVAL: Runbook(
        title="A promotion waits for a person",
        means=(
            "The gate found a challenger better, and the policy asks for a person before users get "
            "it. Without an answer in time it is rejected and the champion stays."
        ),
        look=(
            "The difference with its interval, and every guardrail.",
            "Examples that the challenger loses: is any of them one that must not be lost?",
            "What it was trained on, where the gain is surprising.",
        ),
        do=(
            "Approve or reject with a reason; both are kept.",
            "Not enough to decide on: reject, and have the gate ask more examples.",
        ),
        commands=(
            ("ratchet approve 3f9a --approve --by ada --reason 'read 20 answers'", "approve it"),
            ("ratchet approve 3f9a --reject --by ada --reason 'loses refunds'", "reject it"),
        ),
    ),
    LABELS: Runbook(
        title="Items wait to be labelled",
        means=(
            "Answers or pairs of answers have waited for people longer than stated. What waits is "
            "not trained on, and a judge or a gate that needs these labels waits too."
        ),
        look=(
            "Safety first: flagged answers stand at the front of the queue.",
            "Does a gate wait for pairs? `ratchet status` says so.",
        ),
        do=(
            "Label some: the pages show one item after another, by keyboard.",
            "More comes in than people can do: let the policy choose fewer a day.",
        ),
        commands=(
            ("ratchet review", "what waits, safety first"),
            ("ratchet review progress --by ada", "how far you are"),
            ("ratchet review export items.jsonl --queue safety", "label elsewhere"),
        ),
    ),
}  # fmt: skip
"""A runbook for each kind of alert and reminder."""

ALERT_KINDS: Final[tuple[str, ...]] = get_args(AlertKind)
KINDS: Final[tuple[str, ...]] = (*RUNBOOKS, WEEKLY)
"""What a route may be told of."""
