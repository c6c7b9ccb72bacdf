import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from ratchet.records import (
    Alert,
    AlertEvent,
    Analysis,
    Approval,
    Candidate,
    ClusterComparison,
    Cycle,
    Decision,
    EarlierCluster,
    FailureCluster,
    FailureExample,
    Figure,
    JudgeValidation,
    Measured,
    Metric,
    ReferenceScore,
    Release,
    TrainingSet,
)
from ratchet.views.text.cycle import (
    CycleReport,
    alerts_markdown,
    analysis_markdown,
    bar,
    failures_markdown,
    judges_markdown,
    render_markdown,
    render_text,
)
from ratchet.views.text.gate import approval_markdown, decision_markdown

NOW = datetime(2026, 11, 24, 9, tzinfo=UTC)
HOSTILE = (
    "a | b",
    "a \\| b \\\\| c",
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "`` ``` code\n```\n# heading",
    "line\r\nbreak\u2028and\x0bmore",
    "[link](javascript:alert(1)) ![picture](http://example.org/x.png)",
    "&lt;b&gt; &#124; &amp;",
    "| --- | --- |\n| x | y |",
    "\x1b[31mred\x1b[0m \x07",
    "*bold* _em_ ~~gone~~ <!-- hidden",
)
PLAIN = {"text", "text_special"}
VERDICTS = ("promote", "hold", "reject", "inconclusive")


def metric(name, value, lower=None, upper=None, observations=640, **more):
    return Metric(
        name=name, value=value, lower=lower, upper=upper, observations=observations, **more
    )


def cluster(number, name, example="where is my parcel"):
    return FailureCluster(
        id=f"c{number}", name=name, size=61 - number, failure_rate=0.83, lift=1.2,
        interval=(0.73, 0.9), examples=(example,),
    )  # fmt: skip


def alert(signal="thumbs_down_rate"):
    return Alert(
        id=signal, created_at=NOW, signal=signal, severity="critical", value=0.842, lower=0.796,
        model_version="support-router/1", threshold=0.25, observations=221,
        message=f"{signal} of support-router/1 is 84.2 % (at least 79.6 % allowing for chance; "
        "221 observations), above the critical threshold of 25 %",
        action="roll back to the previous version if the rise began with the current release; "
        "otherwise start an improvement cycle on the top cluster today",
    )  # fmt: skip


def analysis(**changes):
    return Analysis(
        id="a", cycle_id="c", created_at=NOW, model_version="support-router/1",
        metrics=(
            metric("thumbs_down_rate", 0.842, 0.785, 0.886, 221),
            metric("copy_rate", 0.101, 0.08, 0.127),
            metric("safety_violation_rate", None, observations=0, reason="no safety check"),
            metric("latency_seconds_p50", 3.2, 3.1, 3.3, unit="seconds"),
            metric("implicit_quality", 0.412, 0.39, 0.43, unit="score"),
        ),
        alerts=(alert(),),
        clusters=(cluster(0, "parcel, tracking, courier"), cluster(1, "password, reset")),
    ).model_copy(update=changes)  # fmt: skip


def decision(verdict="promote", **changes):
    return Decision(
        id="d", cycle_id="c", created_at=NOW, champion="support-router/1",
        challenger="support-router/2", verdict=verdict,
        reasons=(
            "neither better nor shown to be no worse by 5% (right where the champion is wrong on "
            "231, the reverse on 4; exact McNemar p = 1.3e-60); evaluate on more examples",
        ),
        primary_metric="exact_match", champion_value=0.05, challenger_value=0.807,
        difference=0.757, interval=(0.7, 0.8), p_value=1.3e-60, examples=300,
        example_set_id="held-out-x", policy={},
        evidence={"unscored": 0.0, "constant_answer_rate": 0.125},
    ).model_copy(update=changes)  # fmt: skip


def report(**changes):
    release = Release(
        id="r", created_at=NOW, action="promote", champion="support-router/2",
        previous="support-router/1", decision_id="d",
    )  # fmt: skip
    complete = CycleReport(
        cycle=Cycle(
            id="c", number=1, created_at=NOW, champion="support-router/1", options_digest="o",
            seed=0, window_start=NOW - timedelta(days=1), window_end=NOW, example_set_id="e",
        ),
        counts={
            "interactions": 640, "set_aside": 3, "thumbs": 221, "stars": 30, "comment": 31,
            "correction": 289, "copy": 640, "regenerate": 640, "task_completed": 512,
            "session_end": 350,
        },
        set_aside={
            "a text must not be empty, got no visible character; fill it in": 2,
            "a text must have one label, got 'refunds' after 'billing' in row 12; correct one": 1,
        },
        analysis=analysis(),
        training_set=TrainingSet(
            id="t", cycle_id="c", created_at=NOW, digest="x", path="datasets/x", size=320,
            funnel=(("interactions", 640), ("one per prompt", 369), ("balanced", 320)),
        ),
        candidate=Candidate(
            id="k", cycle_id="c", created_at=NOW, model_name="support-router", version="2",
            adapter_digest="x", path="adapters/x", training_set_id="t", run_id="r",
            losses=tuple(3.2 * 0.96**step for step in range(80)), training_seconds=312.0,
        ),
        decision=decision(), release=release, started=NOW, ended=NOW + timedelta(seconds=601),
    )  # fmt: skip
    return replace(complete, **changes)


def tables(markdown):
    """Return every table as rows of cells, as a Markdown parser with GitHub's tables reads it."""
    found, rows = [], None
    for token in MarkdownIt("commonmark").enable("table").parse(markdown):
        if token.type == "table_open":
            rows = []
            found.append(rows)
        elif token.type == "tr_open":
            rows.append([])
        elif token.type in ("td_open", "th_open"):
            rows[-1].append(None)
        elif token.type == "inline" and rows and rows[-1] and rows[-1][-1] is None:
            rows[-1][-1] = token
    return found


def words_of(token):
    return "".join(child.content for child in token.children)


def kinds(markdown):
    tokens = MarkdownIt("commonmark").enable("table").parse(markdown)
    inline = [child for token in tokens for child in token.children or ()]
    return {token.type for token in (*tokens, *inline)}


@pytest.mark.parametrize("verdict", VERDICTS)
def test_every_verdict_renders_as_text_and_as_markdown(verdict):
    made = report(decision=decision(verdict), release=None)
    assert verdict.upper() in render_text(made)
    assert "champion is now" not in render_text(made)
    assert "ratchet rollback" not in render_text(made)
    assert f"# Cycle 1: {verdict}" in render_markdown(made)
    assert decision_markdown(made.decision).startswith(f"# {verdict.capitalize()}: ")


def test_a_reference_stands_beside_both_models_where_it_is_of_the_same_metric():
    reference = ReferenceScore(
        id="f", created_at=NOW, example_set_id="e", name="likeliest of 8 names",
        says="the untrained model where it may say nothing but the queues' names",
        metric="exact_match", value=0.231,
    )  # fmt: skip
    made = report(references=(reference,))
    lines = render_text(made).splitlines()
    (line,) = [line for line in lines if "likeliest of 8 names" in line]
    assert line.split()[:1] == ["reference"]
    assert "23.1%" in line
    assert "reference: the untrained model" in render_text(made)
    other = made.decision.model_copy(update={"primary_metric": "call_exact_match"})
    assert "likeliest" not in render_text(replace(made, decision=other))


@pytest.mark.parametrize(
    ("source", "advised"),
    [("recorded", "ratchet collect --dry-run"), ("simulated", "ratchet demo")],
)
def test_what_to_do_next_fits_those_whom_the_cycle_was_about(source, advised):
    made = report()
    text = render_text(replace(made, cycle=made.cycle.model_copy(update={"source": source})))
    assert advised in text
    assert ("ratchet demo" in text) == (source == "simulated")


def test_the_text_says_what_a_reader_needs_to_know():
    text = render_text(report())
    for fact in (
        "640 interactions",
        "289 corrections",
        "84.2%",
        "78.5% to 88.6%",
        "n = 221",
        "critical: thumbs down rate of support-router/1",
        "roll back to the previous version",
        "parcel, tracking, courier",
        "61 failed",
        "320 training examples",
        "80 steps in 5.2 minutes",
        "5.0%",
        "80.7%",
        "+75.7% (95 % interval +70.0% to +80.0%)",
        "champion is now support-router/2, previous support-router/1",
        "ratchet rollback",
    ):
        assert fact in text


def test_no_text_is_cut_off_to_fit():
    words = " ".join(render_text(report()).split())
    assert "otherwise start an improvement cycle on the top cluster today" in words
    assert "exact McNemar p = 1.3e-60); evaluate on more examples" in words
    assert "got 'refunds' after 'billing' in row 12; correct one" in words


long_text = st.text(min_size=1, max_size=400)


@settings(deadline=None)
@given(name=long_text, reason=long_text, version=st.text(min_size=1, max_size=200))
def test_no_line_is_wider_than_a_terminal_or_steers_it(name, reason, version):
    text = render_text(
        report(
            analysis=analysis(clusters=(cluster(0, name),), model_version=version),
            decision=decision(reasons=(reason, "x" * 300), champion=version, challenger=version),
            set_aside={reason: 12_345_678},
        )
    )
    assert max(len(line) for line in text.splitlines()) <= 110
    assert all(character.isprintable() for character in text.replace("\n", ""))


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_cannot_break_out_of_its_cell(text):
    markdown = analysis_markdown(analysis(clusters=(cluster(0, text, text), cluster(1, "fine"))))
    _, failures = tables(markdown)
    assert [len(row) for row in failures] == [5, 5, 5]
    shown = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    name, *_, example = failures[1]
    assert words_of(name) == words_of(example) == shown
    assert words_of(failures[2][0]) == "fine"
    assert {child.type for cell in (name, example) for child in cell.children} <= PLAIN
    assert kinds(markdown).isdisjoint({"html_block", "fence", "code_block"})


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_cannot_break_out_of_the_code_block(text):
    markdown = render_markdown(
        report(
            analysis=analysis(clusters=(cluster(0, text, text),)),
            decision=decision(reasons=(text,)),
            set_aside={text: 1},
        )
    )
    tokens = MarkdownIt("commonmark").enable("table").parse(markdown)
    (fence,) = [token for token in tokens if token.type == "fence"]
    assert "DEPLOY" in fence.content
    assert "NEXT" in fence.content
    assert "html_block" not in kinds(markdown)


def test_an_undefined_metric_shows_its_reason_and_no_number():
    rows = tables(analysis_markdown(analysis()))[0]
    (row,) = [row for row in rows if words_of(row[0]) == "safety violation rate"]
    assert [words_of(cell) for cell in row] == [
        "safety violation rate", "– (no safety check)", "", "0"
    ]  # fmt: skip
    assert "safety" not in render_text(report())


def test_an_analysis_without_alerts_and_failures_says_so():
    markdown = analysis_markdown(analysis(alerts=(), clusters=()))
    assert markdown.count("None.") == 2
    assert "what failed" not in render_text(report(analysis=analysis(alerts=(), clusters=())))


def fuller(text, **changes):
    return cluster(0, text).model_copy(
        update={
            "interactions": 74, "excess": 55.2, "share": 0.25, "stability": 0.41, "stable": False,
            "trend": "growing", "first_seen": NOW, "users": 50, "safety": 2,
            "beside": (
                FailureExample(
                    interaction_id="i", prompt=text, answer=text, why=text, better=text,
                    source="correction",
                ),
            ),
        }
        | changes
    )  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_cannot_break_out_of_the_table_of_failures(text):
    gone = EarlierCluster(id="g", name=text, trend="gone", first_seen=NOW)
    markdown = failures_markdown(
        [fuller(text), cluster(1, "fine")], model_version=text, earlier=[gone]
    )
    (rows,) = tables(markdown)
    assert [len(row) for row in rows] == [11, 11, 11]
    assert words_of(rows[2][1]) == "fine"
    assert kinds(markdown).isdisjoint({"html_block", "fence", "code_block"})
    assert markdown.count("\n1. ") == markdown.count("\n2. ") == 1


def test_the_table_of_failures_says_what_mending_would_win():
    gone = EarlierCluster(id="g", name="passcode", trend="gone", first_seen=NOW)
    markdown = failures_markdown(
        [fuller("parcel"), cluster(1, "password")], model_version="r/1", earlier=[gone]
    )
    (rows,) = tables(markdown)
    assert [words_of(cell) for cell in rows[1]] == [
        "1", "parcel safety: 2 flagged", "55", "61 of 74", "83% (73% to 90%)", "×1.2", "25%",
        "growing", "2026-11-24", "50", "unstable (0.41)",
    ]  # fmt: skip
    assert [words_of(cell) for cell in rows[2]] == [
        "2", "password", "–", "60", "83% (73% to 90%)", "×1.2", "–", "new", "–", "–", "not measured"
    ]  # fmt: skip
    assert "failed (parcel): “parcel”  \n   right: “parcel”" in markdown
    assert "2. “where is my parcel”" in markdown
    assert "- “passcode” fails no more than the rest" in markdown


def test_without_failure_clusters_the_reason_is_given():
    reason = "4 rows failed, 10 are needed"
    assert f"None: {reason}." in failures_markdown([], model_version="r/1", reason=reason)
    assert failures_markdown([]) == "# Failure clusters\n\nNone.\n"
    markdown = analysis_markdown(analysis(alerts=(), clusters=(), no_clusters=reason))
    assert markdown.endswith(f"None: {reason}.")


def test_a_candidate_without_losses_renders():
    candidate = report().candidate.model_copy(update={"losses": ()})
    assert "loss " not in render_text(report(candidate=candidate))


def test_the_evidence_of_a_decision_is_in_its_table():
    (rows,) = tables(decision_markdown(decision()))
    shown = {words_of(row[0]): words_of(row[1]) for row in rows[1:]}
    assert shown["champion support-router/1"] == "5.0%"
    assert shown["exact McNemar p"] == "1.3e-60"
    assert shown["examples"] == "300"
    assert shown["unscored"] == "0"
    assert shown["constant answer rate"] == "12.5%"


def step(alert_id="a", change="opened", minutes=0, **changes):
    """A step in the life of an alert."""
    at = NOW + timedelta(minutes=minutes)
    return AlertEvent(
        id=f"{alert_id}{minutes}", alert_id=alert_id, created_at=at, change=change, kind="board",
        severity="critical", model_version="support-router/2", signal="thumbs_down", value=0.31,
        lower=0.27, upper=0.35, expected=0.12, observations=481, certainty="quite sure",
        message=f"message of {alert_id}", action="roll back",
    ).model_copy(update=changes)  # fmt: skip


def cells(events):
    (rows,) = tables(alerts_markdown(events))
    return [[words_of(cell) for cell in row] for row in rows]


def test_alerts_say_what_to_do_and_how_sure_under_their_headings():
    assert cells([step()]) == [
        ["", "", "what", "what to do", "how sure"],
        ["critical", "opened", "message of a", "roll back", "quite sure"],
    ]


def test_an_alert_stands_as_its_latest_step_says_and_the_newest_alert_comes_first():
    events = [
        step("a"),
        step("b", minutes=1, severity="warning"),
        step("a", "updated", 2, message="it got worse"),
        step("b", "resolved", 3, severity="warning"),
    ]
    assert [row[:4] for row in cells(events)[1:]] == [
        ["warning", "resolved", "message of b", ""],
        ["critical", "updated", "it got worse", "roll back"],
    ]


def test_no_alerts_are_said_to_be_none():
    assert alerts_markdown([]) == "# Alerts\n\nNone."


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_cannot_break_out_of_a_row_of_alerts(text):
    markdown = alerts_markdown([step(message=text, action=text, certainty=text), step("b")])
    (rows,) = tables(markdown)
    assert [len(row) for row in rows] == [5, 5, 5]
    shown = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    assert [words_of(cell) for cell in rows[2][2:]] == [shown] * 3
    assert {child.type for row in rows for cell in row for child in cell.children} <= PLAIN
    assert kinds(markdown).isdisjoint({"html_block", "fence", "code_block"})


@given(st.floats(-1.0, 2.0), st.integers(1, 80))
def test_a_bar_has_its_width_whatever_the_share(share, width):
    assert len(bar(share, width)) == width


@given(st.floats(0.0, 1.0), st.integers(1, 80))
def test_a_bar_is_as_long_as_its_share_to_a_sixteenth_of_a_character(share, width):
    eighths = {block: count for count, block in enumerate(" ▏▎▍▌▋▊▉█")}
    drawn = sum(eighths[block] for block in bar(share, width))
    assert abs(drawn / 8 - share * width) <= 1 / 16 + 1e-9


def test_bars_at_known_shares():
    assert bar(0.0, 4) == "    "
    assert bar(0.5, 4) == "██  "
    assert bar(0.125, 4) == "▌   "
    assert bar(1.0, 4) == "████"


def test_the_loss_line_falls_with_the_loss():
    (line,) = [line for line in render_text(report()).splitlines() if "loss" in line]
    drawn = re.sub(r"[^▁▂▃▄▅▆▇█]", "", line)
    assert drawn[0] == "█"
    assert drawn[-1] == "▁"
    assert list(drawn) == sorted(drawn, reverse=True)


def judge_record(version="router-1", decision="usable", kappa=(0.8, 0.7, 0.9), why="kappa is high"):
    value, lower, upper = kappa
    figure = Figure(name="kappa", value=value, lower=lower, upper=upper, observations=60,
                    reason="one label" if value is None else None)  # fmt: skip
    return JudgeValidation(
        id=version, created_at=NOW, judge="router", judge_version=version, dimension="routing",
        decision=decision, reasons=(why, "and more"), labels_digest="d", items=60, unscored=0,
        figures=(figure,),
    )  # fmt: skip


def test_judges_are_a_table_of_decisions_with_their_reasons():
    page = judges_markdown(
        [
            judge_record(),
            judge_record("router-2", "not usable", (0.31, None, None), "kappa 0.31"),
            judge_record("router-3", "not enough labels", (None, None, None), "too few"),
            judge_record("router-4").model_copy(update={"figures": ()}),
        ]
    )
    (table,) = tables(page)
    assert [[words_of(cell) for cell in row] for row in table] == [
        ["judge", "dimension", "decision", "kappa", "why"],
        ["router-1", "routing", "usable", "0.80 (0.70 to 0.90)", "kappa is high; and more"],
        ["router-2", "routing", "not usable", "0.31", "kappa 0.31; and more"],
        ["router-3", "routing", "not enough labels", "-", "too few; and more"],
        ["router-4", "routing", "usable", "-", "kappa is high; and more"],
    ]
    assert page.endswith(
        "Scores count only where the decision is *usable*; others are kept and shown."
    )


@pytest.mark.parametrize("text", HOSTILE)
def test_names_and_reasons_of_judges_cannot_change_the_page(text):
    record = judge_record(text, why=text).model_copy(update={"dimension": text})
    page = judges_markdown([record])
    (table,) = tables(page)
    assert [len(row) for row in table] == [5, 5]
    for place in (0, 1, 4):
        assert {child.type for child in table[1][place].children} <= PLAIN
    assert kinds(page) == kinds(judges_markdown([judge_record()]))


def test_a_decision_says_which_clusters_moved():
    def compared(name, first, second, p_value, unscored=0):
        return ClusterComparison(
            cluster_id=name, name=name, example_set_id="s", examples=20, unscored=unscored,
            champion_right=first, challenger_right=second,
            only_champion_right=max(first - second, 0),
            only_challenger_right=max(second - first, 0), p_value=p_value,
        )  # fmt: skip

    made = decision().model_copy(
        update={
            "clusters": (
                compared("cards", 2, 15, 0.0002),
                compared("pins", 18, 9, 0.004),
                compared("a|b", 9, 10, 1.0, unscored=3),
            )
        }
    )
    rows = tables(decision_markdown(made))[1]
    assert [row[-1].content for row in rows[1:]] == [
        "mended (p = 0.0002)",
        "worse (p = 0.004)",
        "no more than chance (p = 1); 3 without an answer",
    ]


def gated(**changes):
    """A decision with everything that the gate measured."""
    made = Measured(
        role="primary", name="exact_match", metric="exact_match", champion=0.5, challenger=0.7,
        difference=0.2, interval=(0.1, 0.3), p_shown=0.001, examples=300,
    )  # fmt: skip
    stopped = Measured(
        role="guardrail", name="length on safety", metric="length", examples_of="safety",
        margin=0.1, relative=True, higher_is_better=False, problem="no example has both scores",
    )  # fmt: skip
    return decision().model_copy(
        update={"measured": (made, stopped), "level": 0.025, "evidence": {}} | changes
    )


def test_a_decision_shows_all_that_was_asked_and_at_which_level():
    text = decision_markdown(gated())
    rows = tables(text)[1]
    assert [words_of(cell) for cell in rows[1][:4]] == ["primary", "exact_match", "0.5", "0.7"]
    assert words_of(rows[1][4]) == "+0.2 [+0.1, +0.3], n = 300"
    assert words_of(rows[2][4]) == "no example has both scores"
    assert "one-sided level 0.025" in text
    assert "95 % interval" in text
    assert "90 % interval" in decision_markdown(gated(level=0.05))


def test_what_is_not_known_is_said_and_not_shown_as_a_number():
    nothing = dict.fromkeys(("champion_value", "challenger_value", "difference", "interval"))
    made = gated(verdict="inconclusive", needed=1_256, **nothing)
    text = decision_markdown(made)
    assert text.count("no score") >= 2
    assert "| difference | not known |" in text
    assert "about 1,256 examples would be enough to decide" in text
    assert "no score" in render_text(report(decision=made, release=None))


def test_a_metric_that_is_no_share_is_not_shown_in_percent():
    words = {"champion_value": 23.4, "challenger_value": 31.9, "difference": 8.5}
    text = decision_markdown(gated(interval=(6.1, 10.8), **words))
    assert "+8.5 (95 % interval +6.1 to +10.8)" in text
    assert "23.4 |" in text


def test_a_promotion_that_waits_says_for_whom_until_when_and_how():
    made = gated(approval="safety-critical: refusals", expires_at=NOW + timedelta(hours=72))
    assert "waits for a person until" in decision_markdown(made)
    assert "ratchet approve d" in render_text(report(decision=made, release=None))
    said = Approval(
        id="d", created_at=NOW, challenger="support-router/2", approved=False, by="ann|bob",
        reason="<b>no</b>", via="prefect",
    )  # fmt: skip
    text = approval_markdown(made, said)
    assert text.startswith("# Rejected: support-router/2")
    assert "html_inline" not in kinds(text)
