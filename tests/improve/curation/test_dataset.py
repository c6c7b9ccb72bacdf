import json
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratchet.errors import InsufficientDataError, InvalidInputError, LeakError
from ratchet.improve.curation.config import (
    ClusterRequest,
    CurationConfig,
    Demonstration,
    read_demonstrations,
    read_judged,
)
from ratchet.improve.curation.consent import permission_of, refused_rows
from ratchet.improve.curation.dataset import (
    ROWS_FILE,
    SAMPLE_FILE,
    build_labelled,
    build_pairs,
    build_rows,
    read_any_rows,
    without_leaks,
    write_training_set,
)
from ratchet.improve.curation.pool import Context, within_mean
from ratchet.improve.curation.preferences import select_labelled, select_pairs
from ratchet.improve.curation.rows import LabelledRow, PreferenceRow, TrainingRow, for_trainer
from ratchet.improve.curation.selection import select
from ratchet.improve.curation.split import split_rows
from ratchet.outcomes.quality import QualityWeights, quality
from ratchet.records import Interaction, Message
from ratchet.store.permissions import Permission
from tests.improve.curation.outcomes import outcomes_of

NOW = datetime(2026, 11, 24, tzinfo=UTC)
ANY_SIZE = CurationConfig(minimum_examples=1, minimum_lower_bound=0.0)
UP = QualityWeights()


def user(text):
    return Message(role="user", content=text)


def row(number, text="hello", target="a", **more):
    values = {"user_id": f"u{number}", "moment": number, "source": "rated"} | more
    return TrainingRow(f"i{number:03d}", (user(text),), target, **values)


def chosen(size, config=ANY_SIZE, protected=(), context=None, **columns):
    columns = {"thumbs": np.ones(size)} | columns
    outcomes = outcomes_of(size, **columns)
    scores = quality(outcomes, QualityWeights())
    return select(outcomes, scores, protected, config, context=context or Context())


def written(home, rows, selection=None, protected=(), config=ANY_SIZE):
    return write_training_set(
        rows, selection or chosen(1), protected, home=home, cycle_id="c", now=NOW, config=config
    )


# Files --------------------------------------------------------------------------------------------

SETS = {
    "sft": [row(n, f"question {n}", f"answer {n}") for n in range(4)],
    "kto": [
        LabelledRow(f"i{n}", (user(f"question {n}"),), "a", n % 2 == 0, "thumbs", moment=n)
        for n in range(4)
    ],
    "dpo": [
        PreferenceRow(f"i{n}", f"i{n}", (user(f"question {n}"),), "a", "b", "correction", moment=n)
        for n in range(4)
    ],
}
COLUMNS = {
    "sft": {"prompt", "completion"},
    "kto": {"prompt", "completion", "label"},
    "dpo": {"prompt", "chosen", "rejected"},
}


@pytest.mark.parametrize("kind", ["sft", "kto", "dpo"])
def test_a_set_of_each_kind_comes_back_from_disk_with_the_columns_that_its_trainer_takes(
    tmp_path, kind
):
    made = written(tmp_path, SETS[kind])
    assert made.kind == kind
    found = read_any_rows(tmp_path / made.path)
    assert [replace(item, user_id="", moment=0) for item in SETS[kind]] == found
    assert {name for item in for_trainer(found) for name in item} == COLUMNS[kind]


@pytest.mark.parametrize("kind", ["sft", "kto", "dpo"])
def test_a_set_is_a_hugging_face_dataset(tmp_path, kind, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    from datasets import load_dataset

    config = ANY_SIZE.model_copy(update={"validation_share": 0.25, "validation_from": 2})
    made = written(tmp_path, SETS[kind], config=config)
    found = load_dataset(str(tmp_path / made.path), cache_dir=str(tmp_path / "cache"))
    assert {name: len(part) for name, part in found.items()} == {"train": 3, "validation": 1}
    assert COLUMNS[kind] <= set(found["train"].column_names)
    assert found["train"][0]["prompt"] == [{"role": "user", "content": "question 0"}]


def test_conversations_can_be_given_as_messages():
    (only,) = for_trainer([row(0, "hi", "there")], as_messages=True)
    assert only == {
        "messages": [
            {"role": "user", "content": "hi"}, {"role": "assistant", "content": "there"},
        ]
    }  # fmt: skip


def test_rows_of_two_kinds_are_no_set(tmp_path):
    with pytest.raises(InvalidInputError, match="one kind, got 2 kinds"):
        written(tmp_path, [SETS["sft"][0], SETS["kto"][0]])
    with pytest.raises(InvalidInputError, match="got 0 kinds"):
        written(tmp_path, [])


def test_a_set_that_is_gone_is_one_clear_error(tmp_path):
    with pytest.raises(InvalidInputError, match="curate a new one"):
        read_any_rows(tmp_path)


@settings(deadline=None, max_examples=15)
@given(st.permutations(range(12)))
def test_the_order_of_rows_does_not_change_the_digest(tmp_path_factory, order):
    rows = [row(n, f"question {n}", f"answer {n % 3}") for n in range(12)]
    config = ANY_SIZE.model_copy(update={"validation_share": 0.2, "validation_from": 2})
    first = written(tmp_path_factory.mktemp("a"), rows, config=config)
    again = written(tmp_path_factory.mktemp("b"), [rows[n] for n in order], config=config)
    assert again == first


def test_the_order_of_interactions_in_the_store_does_not_change_the_digest(tmp_path):
    from ratchet.outcomes.join import join_feedback
    from ratchet.records import Thumbs
    from ratchet.store import EventStore, Window

    digests = set()
    for name, order in (("one", range(30)), ("two", reversed(range(30)))):
        store = EventStore.open(f"sqlite:///{tmp_path / name}.db")
        for n in order:
            store.add_interactions(
                [
                    Interaction(
                        id=f"i{n}", session_id="s", user_id=f"u{n % 7}", created_at=NOW,
                        model_version="m/1", messages=(user(f"question {n * n}"),), response="a",
                    )
                ]
            )  # fmt: skip
            store.add_feedback(
                [Thumbs(id=f"f{n}", interaction_id=f"i{n}", created_at=NOW, value="up")]
            )
        window = Window(NOW, NOW.replace(year=2027))
        outcomes = join_feedback(store.interactions(window), store.feedback(window))
        config = ANY_SIZE.model_copy(update={"maximum_examples": 9})
        found = select(outcomes, quality(outcomes, UP), (), config)
        stored = store.stored_interactions([item.interaction_id for item in found.rows])
        rows = build_rows(found, stored, config, 0)
        digests.add(written(tmp_path / name, rows, found, config=config).digest)
        store.close()
    assert len(digests) == 1


def test_a_folder_appears_whole_and_is_left_as_it_is(tmp_path):
    made = written(tmp_path, SETS["sft"])
    path = tmp_path / made.path / ROWS_FILE
    before = path.stat().st_mtime_ns
    assert written(tmp_path, SETS["sft"]) == made
    assert path.stat().st_mtime_ns == before
    assert [item.name for item in (tmp_path / "datasets").iterdir()] == [made.digest[:16]]


def test_the_card_says_what_was_left_out_and_where_it_comes_from(tmp_path):
    config = ANY_SIZE.model_copy(update={"license": "cc-by-4.0", "origin": "our support desk"})
    selection = chosen(
        4, config, protected=["my card was stolen"],
        prompts=["my card was stolen!", "other", " ", "my number is +44 7911 123456"],
    )  # fmt: skip
    rows = [row(1, "other"), row(3, "my number is +44 7911 123456")]
    made = written(tmp_path, rows, selection, config=config)
    text = (tmp_path / made.path / "README.md").read_text()
    for said in (
        "license: cc-by-4.0", "our support desk", made.digest, "| not in an evaluation set | 2 |",
        "| prompt is blank | 1 |", "| the same | 1 |", "| PHONE_NUMBER | 1 |",
        "Names were not looked for", "minimum_quality: 0.75",
    ):  # fmt: skip
        assert said in text
    assert made.redactions == (("PHONE_NUMBER", 1),)
    assert made.set_aside == (("prompt is blank", 1),)
    assert made.leaks == (("the same", 1),)


# Personal data ------------------------------------------------------------------------------------


def test_personal_data_never_reaches_the_disk(tmp_path):
    system = Message(role="system", content="Call our desk on +44 7911 999999.")
    told = Message(role="assistant", content="Is it john.doe@gmail.com?")
    rows = [
        replace(
            row(0, target="I wrote to john.doe@gmail.com"),
            messages=(system, user("my card 4095-2609-9393-4932"), told, user("yes")),
        )
    ]
    made = written(tmp_path, rows)
    (found,) = read_any_rows(tmp_path / made.path)
    assert [message.content for message in found.messages] == [
        "Call our desk on +44 7911 999999.", "my card <CREDIT_CARD>", "Is it <EMAIL_ADDRESS>?",
        "yes",
    ]  # fmt: skip
    assert found.target == "I wrote to <EMAIL_ADDRESS>"
    for path in (tmp_path / made.path).iterdir():
        assert b"john.doe" not in path.read_bytes()
        assert b"4095" not in path.read_bytes()
    assert "<CREDIT_CARD>" in (tmp_path / made.path / SAMPLE_FILE).read_text()


# Leaks --------------------------------------------------------------------------------------------

GOLDEN = ["My card was charged twice in Lisbon.", "Where is my parcel?"]


def test_a_leak_in_an_earlier_turn_is_left_out_and_writing_one_is_an_error(tmp_path):
    early = replace(row(0), messages=(user("where is my PARCEL"), user("and what now")))
    rows = [early, row(1, "something else")]
    with pytest.raises(LeakError, match="got 1, for example 'and what now' \\(the same\\)"):
        written(tmp_path, rows, protected=GOLDEN)
    assert not (tmp_path / "datasets").exists()
    assert without_leaks(rows, GOLDEN, ANY_SIZE) == rows[1:]


CARDS = ["4095-2609-9393-4932", "4012-8888-8888-1881", "5555-5555-5555-4444"]


def paid(number, target="refunds"):
    """Return a row that differs from others in the number of its card alone."""
    return row(number, f"block {CARDS[number % 3]}", target)


def selection_of(rows):
    """Return the selection that rows were built from."""
    found = chosen(len(rows))
    named = zip(found.rows, rows, strict=True)
    return replace(
        found,
        rows=tuple(replace(one, interaction_id=row.interaction_id) for one, row in named),
    )


@pytest.mark.parametrize("tested", ["block <CREDIT_CARD>", f"block {CARDS[1]}"])
def test_a_prompt_that_is_tested_on_but_for_personal_data_is_left_out_and_counted(tmp_path, tested):
    rows = [paid(0), row(1, "where is my parcel"), row(2, "I cannot log in")]
    made = written(tmp_path, rows, selection_of(rows), protected=[tested])
    assert [found.interaction_id for found in read_any_rows(tmp_path / made.path)] == [
        "i001", "i002",
    ]  # fmt: skip
    assert made.funnel[-1] == ("different without personal data", 2)


def test_of_prompts_that_differ_in_personal_data_alone_one_stays_with_the_most_frequent_answer(
    tmp_path,
):
    rows = [paid(0, "billing"), paid(1), paid(2), row(3, "where is my parcel")]
    made = written(tmp_path, rows, selection_of(rows))
    stay = {one.interaction_id: one.target for one in read_any_rows(tmp_path / made.path)}
    assert stay == {"i001": "refunds", "i003": "a"}
    assert made.funnel[-1] == ("different without personal data", 2)
    rows = [*rows[:2], rows[3]]  # two answers, as frequent
    made = written(tmp_path, rows, selection_of(rows))
    assert [one.interaction_id for one in read_any_rows(tmp_path / made.path)] == ["i003"]


def test_answers_that_differ_are_kept_where_answers_are_judged(tmp_path):
    cards = [(user(f"block {card}"),) for card in CARDS]
    liked = [
        LabelledRow("i000", cards[0], "a", True, "thumbs"),
        LabelledRow("i001", cards[1], "b", False, "thumbs"),
        LabelledRow("i002", cards[2], "a", True, "thumbs"),
    ]
    made = written(tmp_path, liked, selection_of(liked))
    found = read_any_rows(tmp_path / made.path)
    assert [one.interaction_id for one in found] == ["i000", "i001"]


def test_where_nothing_differs_from_what_is_tested_the_error_says_so(tmp_path):
    with pytest.raises(InsufficientDataError, match="1 are not 'different without personal data'"):
        written(tmp_path, [paid(0)], selection_of([paid(0)]), protected=["block <CREDIT_CARD>"])


def planted_forms(text):
    yield text
    yield text.upper()
    yield text.lower().rstrip(".?")
    yield "  ".join(text.split()) + " !!"
    yield text.replace(" ", "")
    yield "-".join(text)
    yield f"Hello, {text} Thanks"


@pytest.mark.parametrize("pick", [select, select_labelled, select_pairs])
def test_golden_examples_planted_in_the_traffic_never_reach_a_set(tmp_path, pick):
    forms = [form for text in GOLDEN for form in planted_forms(text)]
    # a question of 14 letters in a longer message is what anybody may say: 20 is the limit
    forms = [form for form in forms if "Hello, Where" not in form]
    prompts = [*forms, *[f"harmless question number {n * n}" for n in range(20)]]
    size = len(prompts)
    outcomes = outcomes_of(
        size, prompts=prompts, thumbs=np.ones(size), responses=["b"] * size,
        corrections=["a"] * size,
    )  # fmt: skip
    config = CurationConfig(
        minimum_examples=1, duplicates={"similarity": 1.0}, poisoning={"enabled": False}
    )
    found = pick(outcomes, quality(outcomes, UP), GOLDEN, config)
    assert {item.position for item in found.rows} == set(range(len(forms), size))
    interactions = {
        item.interaction_id: Interaction(
            id=item.interaction_id, session_id="s", user_id="u", created_at=NOW,
            model_version="m", messages=(user(item.prompt),), response="b",
        )
        for item in found.rows
    }  # fmt: skip
    build = {"sft": lambda *a: build_rows(*a, config, 0), "kto": build_labelled, "dpo": build_pairs}
    made = written(tmp_path, build[found.kind](found, interactions), found, GOLDEN, config)
    text = b"".join(path.read_bytes() for path in (tmp_path / made.path).iterdir())
    assert b"charged" not in text.lower()
    assert b"parcel" not in text.lower()


# Split --------------------------------------------------------------------------------------------

people = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 1000)), min_size=1, max_size=60)


@given(people, st.sampled_from([0.0, 0.1, 0.3, 0.5]))
def test_no_user_is_on_both_sides_and_validation_is_by_the_newest(visits, share):
    rows = [replace(row(n), user_id=f"u{who}", moment=when) for n, (who, when) in enumerate(visits)]
    train, validation = split_rows(rows, share=share, smallest=1)
    assert sorted(r.interaction_id for r in (*train, *validation)) == [
        r.interaction_id for r in rows
    ]
    mine, theirs = {r.user_id for r in train}, {r.user_id for r in validation}
    assert not mine & theirs
    assert len(validation) <= share * len(rows)
    first = {u: min(r.moment for r in rows if r.user_id == u) for u in mine | theirs}
    assert all(first[new] >= first[old] for new in theirs for old in mine)


def test_a_small_set_is_not_split_and_experts_are_always_trained_on():
    rows = [row(n) for n in range(20)]
    assert split_rows(rows, share=0.5, smallest=21) == (rows, [])
    shown = [replace(r, source="demonstration") for r in rows]
    assert split_rows(shown, share=0.5, smallest=1) == (shown, [])


# What else is selected ----------------------------------------------------------------------------


def test_a_demonstration_settles_a_prompt_and_comes_first(tmp_path):
    shown = Demonstration(id="d", messages=(user("where is it?"),), target="delivery")
    config = ANY_SIZE.model_copy(update={"maximum_examples": 1})
    found = chosen(
        3, config, context=Context(demonstrations=(shown,)),
        prompts=["Where is it", "where is it!", "other"], responses=["a", "a", "b"],
    )  # fmt: skip
    (only,) = found.rows
    assert (only.target, only.source) == ("delivery", "demonstration")
    assert build_rows(found, {}, config, 0)[0].messages == shown.messages
    assert found.funnel[0] == ("interactions", 4)


def test_demonstrations_are_read_from_json_lines(tmp_path):
    path = tmp_path / "shown.jsonl"
    line = {"id": "d", "messages": [{"role": "user", "content": "q"}], "target": "t"}
    path.write_text(json.dumps(line) + "\n\n")
    assert read_demonstrations(path)[0].prompt == "q"
    path.write_text(json.dumps(line) + "\n{}\n")
    with pytest.raises(InvalidInputError, match=r"got line 2: '\{\}'"):
        read_demonstrations(path)
    with pytest.raises(InvalidInputError, match="check the path"):
        read_demonstrations(tmp_path / "none")


def test_examples_that_a_failure_cluster_asks_for_come_first():
    request = ClusterRequest(
        cluster_id="k", wanted=2, interaction_ids=("i000001", "i000003", "i000005")
    )
    config = ANY_SIZE.model_copy(update={"maximum_examples": 4})
    corrections = [None, "x", None, "x", None, "x", *[None] * 14]
    found = chosen(20, config, context=Context(requests=(request,)), corrections=corrections)
    taken = [item for item in found.rows if item.cluster == "k"]
    assert [item.interaction_id for item in taken[-2:]] == ["i000003", "i000005"]
    assert len(found.rows) == 4


def test_strata_are_taken_in_turn_or_in_proportion_to_traffic():
    # web gives feedback on a tenth, mail on all: weights make up for it
    segments = ["web"] * 200 + ["mail"] * 20
    thumbs = np.where(np.arange(220) % 10 == 0, 1.0, np.nan)
    thumbs[200:] = 1.0
    config = ANY_SIZE.model_copy(update={"maximum_examples": 20, "balance": "equal"})
    counts = Counter(
        item.segment for item in chosen(220, config, segments=segments, thumbs=thumbs).rows
    )
    assert counts == {"web": 10, "mail": 10}
    config = config.model_copy(update={"balance": "traffic"})
    counts = Counter(
        item.segment for item in chosen(220, config, segments=segments, thumbs=thumbs).rows
    )
    assert counts["web"] > 15  # 200 to 20 in traffic, 5 to 1 by the capped and shrunken weights


def test_a_user_gives_at_most_the_cap():
    config = ANY_SIZE.model_copy(update={"maximum_examples": 100})
    users = ["busy"] * 60 + [f"u{n}" for n in range(60)]
    found = chosen(120, config, user_ids=users)
    assert Counter(item.user_id for item in found.rows)["busy"] == 10
    free = config.model_copy(
        update={"poisoning": config.poisoning.model_copy(update={"enabled": False})}
    )
    assert Counter(item.user_id for item in chosen(120, free, user_ids=users).rows)["busy"] > 10


def test_long_rated_answers_do_not_make_answers_longer():
    responses = ["short answer " * 20 + str(n) for n in range(80)]
    responses += ["long answer " * 200 + str(n) for n in range(20)]
    thumbs = np.array([1.0] * 20 + [0.0] * 60 + [1.0] * 20)  # length is popular
    found = chosen(100, responses=responses, thumbs=thumbs)
    mean = np.mean([len(item.target) for item in found.rows])
    assert mean <= 1.25 * np.mean([len(text) for text in responses])
    assert len(found.rows) > 20
    anything = ANY_SIZE.model_copy(update={"length_ratio": None})
    everything = chosen(100, anything, responses=responses, thumbs=thumbs).rows
    assert len(everything) > len(found.rows)
    assert np.mean([len(item.target) for item in everything]) > mean


def test_the_longest_go_until_the_mean_is_reached():
    lengths = np.array([10.0, 1000.0, 20.0, 300.0])
    kept = within_mean(lengths, 15.0, free=np.zeros(4, dtype=bool))
    assert kept.tolist() == [True, False, True, False]
    assert within_mean(lengths, 15.0, free=lengths <= 300).tolist() == [True, False, True, True]


@pytest.mark.parametrize(
    ("prompt", "reason"),
    [
        (" \n", "prompt is blank"),
        ("a\x00b", "prompt holds a NUL or an unpaired surrogate"),
        ("x" * 1_000_000, "prompt is longer than 20,000 characters"),
    ],
)
def test_a_bad_row_is_set_aside_and_counted_and_the_others_go_on(prompt, reason):
    found = chosen(3, prompts=["fine", prompt, "also good"])
    assert [item.prompt for item in found.rows] == ["fine", "also good"]
    assert found.set_aside == ((reason, 1),)


def test_a_lone_thumb_is_not_enough_where_most_rated_answers_are_bad():
    # (0.5 + 2) / (1 + 20) = 0.12 of them are good: below 1 in 3
    thumbs = np.array([1.0] * 2 + [0.0] * 18)
    config = CurationConfig(minimum_examples=1)
    with pytest.raises(InsufficientDataError, match="corrected or well rated: 0"):
        chosen(20, config, thumbs=thumbs)
    # five users with the same question liked the same answer
    prompts = ["same"] * 5 + [f"another {n * n}" for n in range(15)]
    thumbs = np.array([1.0] * 5 + [0.0] * 15)
    assert [item.prompt for item in chosen(20, config, thumbs=thumbs, prompts=prompts).rows] == [
        "same"
    ]
    # one user who asks five times is one sign
    users = ["one"] * 5 + [f"u{n}" for n in range(15)]
    with pytest.raises(InsufficientDataError):
        chosen(20, config, thumbs=thumbs, prompts=prompts, user_ids=users)


# Consent ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("consent", "retain", "silent", "asked"),
    [
        (None, None, False, True),
        ("yes", None, False, False),
        ("no", None, True, True),
        ("maybe", None, True, True),
        ("yes", "2026-11-25T00:00:00Z", False, False),
        ("yes", "2026-11-24T00:00:00Z", True, True),
        ("yes", "2026-11-25T00:00:00", True, True),
        ("yes", "soon", True, True),
    ],
)
def test_consent_and_retention_are_honoured(consent, retain, silent, asked):
    sent = {"training_consent": consent, "retain_until": retain}
    said, kept = permission_of({key: value for key, value in sent.items() if value is not None})
    rows, now = (np.array([said]), np.array([kept])), int(NOW.timestamp() * 1_000_000)
    assert refused_rows(*rows, "unless refused", now).tolist() == [silent]
    assert refused_rows(*rows, "only if given", now).tolist() == [asked]


def test_what_is_refused_is_not_selected():
    found = chosen(3, context=Context(refused={"i000001"}))
    assert [item.position for item in found.rows] == [0, 2]


def test_permissions_are_read_from_the_metadata(store):
    from ratchet.store import Window

    for n, metadata in enumerate(
        ({}, {"training_consent": "no"}, {"retain_until": "soon", "x": "y"})
    ):
        store.add_interactions(
            [
                Interaction(
                    id=f"i{n}", session_id="s", user_id="u", created_at=NOW, model_version="m",
                    messages=(user("q"),), response="a", metadata=metadata,
                )
            ]
        )  # fmt: skip
    found = store.permissions(Window(NOW, NOW.replace(year=2027)))
    assert sorted(found, key=lambda item: item.interaction_id) == [
        Permission("i1", "no", None), Permission("i2", None, "soon"),
    ]  # fmt: skip


def test_what_a_judge_prefers_is_read_and_a_bad_line_is_named(tmp_path):
    path = tmp_path / "judged.jsonl"
    line = {"first_id": "a", "second_id": "b", "given": "first", "swapped": "first"}
    path.write_text(json.dumps(line) + "\n\n", "utf-8")
    (pair,) = read_judged(path)
    assert (pair.better, pair.worse) == ("a", "b")
    path.write_text(json.dumps(line) + "\n" + json.dumps(line | {"given": "a"}), "utf-8")
    with pytest.raises(InvalidInputError, match=r"a preference is an object .* got line 2"):
        read_judged(path)
