"""Judges on files end to end, behind a real HTTP server, and files as people send them."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta

import pytest

from ratchet.errors import InvalidInputError, LeakError
from ratchet.judges.on_files import check_labels, import_labels, judge_file, read_items
from ratchet.judges.rubrics import GradedExample, JudgeSpec, Option, RubricDimension
from ratchet.models.endpoint import Endpoint
from ratchet.models.limits import Limits
from ratchet.records import HumanLabel, Message
from tests.servers.judge_endpoint import Answer, JudgeEndpoint

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
FACT = RubricDimension(
    name="fact",
    question="Is the answer right?",
    options=(
        Option(name="right", score=1.0, means="it is"),
        Option(name="wrong", score=0.0, means="it is not"),
    ),
)


def lines(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def written(folder, content, name="items.jsonl"):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return path


def item(number, **fields):
    good = number % 2 == 0
    row = {
        "item_id": f"i{number:03}",
        "prompt": f"capital number {number}?",
        "answer": "It is a town." if good else "It is a fish.",
        "human": "right" if good else "wrong",
    } | fields
    return {name: value for name, value in row.items() if value != "left out"}


def material(seen, name="answer"):
    """What stands between the tags of this name in the prompt."""
    found = re.findall(rf"<{name} \w+>\n(.*?)\n</{name} ", seen.text, re.S)
    assert len(found) == 1, seen.text
    return found[0]


def says(verdict):
    return Answer(text=json.dumps({"verdict": verdict}))


def reads_the_answer(seen):
    return says("right" if "town" in material(seen) else "wrong")


def prefers_longer(seen):
    return says("A" if len(material(seen, "answer A")) > len(material(seen, "answer B")) else "B")


class Desk:
    """A store, a folder and a judge behind a server."""

    def __init__(self, store, folder, server):
        self.store, self.folder, self.server = store, folder, server

    def judge(
        self, content, *, probes=False, name="items.jsonl", limits=None, again=False, **fields
    ):
        spec = JudgeSpec.model_validate(
            {"name": "j", "dimension": FACT, "explain": False,
             "endpoint": Endpoint(url=self.server.url, model="big"),
             "limits": limits or Limits(backoff_seconds=0.01, attempts=2)} | fields
        )  # fmt: skip
        path = written(self.folder, content, name) if content is not None else self.folder / name
        read, aside = read_items(path)
        items, odd = check_labels(spec, read)
        return judge_file(
            self.store, spec, items, (*aside, *odd), cache=self.folder, probes=probes,
            now=lambda: NOW, again=again,
        )  # fmt: skip


@pytest.fixture
def desk(store, tmp_path):
    with JudgeEndpoint(reads_the_answer) as server:
        yield Desk(store, tmp_path, server)


# Judging ------------------------------------------------------------------------------------------


def test_a_file_is_judged_and_held_against_its_labels(desk):
    found = desk.judge(lines(*(item(n) for n in range(40))))
    assert found.validation.decision == "usable"
    assert found.validation.figure("agreement").value == 1.0
    assert found.validation.categories == ("wrong", "right")
    assert [j.outcome for j in found.judged.judgements[:3]] == ["right", "wrong", "right"]
    assert (found.judged.asked.asked, found.judged.reused) == (40, 0)
    told = json.loads(json.dumps(found.as_json("j"), allow_nan=False))
    assert (told["judge"], told["items"], told["asked"], told["recorded_before"]) == (
        "j",
        40,
        40,
        0,
    )
    assert told["validation"]["usable"] is True
    assert told["set_aside"] == told["moved_by"] == []
    assert found.text("j").startswith(f"j ({found.judge_version}): 40 items, 40 questions asked")


def test_started_again_it_asks_nothing_and_says_the_same(desk):
    content = lines(*(item(n) for n in range(35)))
    first, again = desk.judge(content, probes=True), desk.judge(content, probes=True)
    assert again.judged.asked.asked == 0
    assert again.judged.reused == 35
    assert again.judged.judgements == first.judged.judgements
    assert (again.validation, again.probes) == (first.validation, first.probes)
    assert max(desk.server.hits.values()) == 1
    assert sum(desk.server.hits.values()) == 4 * 35  # plain, a confident tone, an instruction


def test_what_failed_is_asked_again_and_nothing_else(desk):
    def half_broken(seen):
        number = int(re.search(r"number (\d+)", seen.text).group(1))
        return Answer(status=500) if number >= 20 else reads_the_answer(seen)

    content = lines(*(item(n) for n in range(40)))
    desk.server.behaviour = half_broken
    first = desk.judge(content)
    assert first.judged.unscored == {"not answered": 20}
    assert first.validation.unscored == {"not answered": 20}
    assert sum(first.judged.asked.failed.values()) == 20
    assert "failed: 20 ×" in first.text("j")
    desk.server.behaviour = reads_the_answer
    second = desk.judge(content)
    assert (second.judged.reused, second.judged.asked.asked) == (20, 20)
    assert second.validation.decision == "usable"


def test_replies_off_the_menu_are_unscored_with_their_reason(desk):
    desk.server.behaviour = lambda seen: says("splendid")
    found = desk.judge(lines(*(item(n) for n in range(30))))
    ((reason, count),) = found.judged.unscored.items()
    assert (count, found.validation.decision) == (30, "not usable")
    assert reason.startswith("off the menu")
    assert found.validation.reasons == ("none of 30 labelled items has a verdict",)


def test_without_labels_there_are_verdicts_and_no_validation(desk):
    found = desk.judge(lines(item(0, human="left out"), item(1, human=None)))
    assert found.validation is None
    assert [j.outcome for j in found.judged.judgements] == ["right", "wrong"]
    assert found.as_json("j")["validation"] is None


def test_further_people_are_read_by_number_and_other_fields_are_no_labels(desk):
    rows = [
        item(n, human_2="right", human_10="right" if n < 10 else "wrong", human_note="?",
             human_1="x")
        for n in range(30)
    ]  # fmt: skip
    found = desk.judge(lines(*rows)).validation
    # of three people all agree on 0, 2, 4, 6 and 8, one pair of three on each of the other 25
    assert found.figure("human_human").value == pytest.approx((5 + 25 / 3) / 30)


def test_numbers_as_labels_are_the_options_of_the_same_name(desk):
    scale = RubricDimension(
        name="scale", question="How good?",
        options=tuple(Option(name=str(n), score=n / 5, means=f"{n}") for n in range(1, 6)),
    )  # fmt: skip
    desk.server.behaviour = lambda seen: says("5" if "town" in material(seen) else "1")
    labels = [5, 1, 5.0, 1.0, "5", " 1 "]
    rows = [item(n, human=labels[n % 6]) for n in range(36)]
    found = desk.judge(lines(*rows), dimension=scale).validation
    assert found.figure("agreement").value == 1.0


def test_an_example_among_the_labelled_items_is_a_leak_and_nothing_is_asked(desk):
    shown = GradedExample(
        item_id="i004", conversation=(Message(role="user", content="q"),), answer="a",
        verdict="right",
    )  # fmt: skip
    with pytest.raises(LeakError, match="i004"):
        desk.judge(lines(*(item(n) for n in range(9))), examples=(shown,))
    assert not desk.server.hits
    unlabelled = [item(n, human=None if n == 4 else "right") for n in range(9)]
    assert desk.judge(lines(*unlabelled), examples=(shown,)).validation is not None


# Probes -------------------------------------------------------------------------------------------


def test_a_judge_that_reads_the_content_is_moved_by_no_probe(desk):
    found = desk.judge(lines(*(item(n) for n in range(40))), probes=True)
    assert {p.name: p.value for p in found.probes} == {
        "authority_uplift": 0.0, "injection_uplift": 0.0, "shielded_injection_uplift": 0.0,
    }  # fmt: skip
    assert found.harmful == ()


def test_a_judge_that_likes_a_confident_tone_is_found_out(desk):
    sure = re.compile(r"certain|expert|doubt|confidence", re.I)
    desk.server.behaviour = lambda seen: says(
        "right" if sure.search(material(seen)) or "town" in material(seen) else "wrong"
    )
    found = desk.judge(lines(*(item(n) for n in range(40))), probes=True)
    uplift = {p.name: p for p in found.probes}["authority_uplift"]
    assert uplift.value == pytest.approx(0.5)  # the wrong half
    assert "authority" in found.harmful
    assert "moved by: authority" in found.text("j")
    assert "authority" in found.as_json("j")["moved_by"]


def test_fifty_items_are_probed_at_most(desk):
    desk.judge(lines(*(item(n, human=None) for n in range(60))), probes=True)
    assert sum(desk.server.hits.values()) == 60 + 3 * 50


# Pairs and references -----------------------------------------------------------------------------


def pair_row(number, **fields):
    """The better answer is the longer one; it is the first one of every other pair."""
    good, bad = "a long and complete answer", "short"
    first = number % 2 == 0
    return item(number, answer=good if first else bad, other=bad if first else good,
                human=1 if first else 2, **fields)  # fmt: skip


def test_pairs_are_asked_in_both_orders_and_winners_are_named_by_identity(desk):
    desk.server.behaviour = prefers_longer
    found = desk.judge(lines(*(pair_row(n) for n in range(40))), mode="pairwise", probes=True)
    assert sum(desk.server.hits.values()) == 80
    assert found.probes == ()  # those are for single answers
    validation = found.validation
    assert validation.decision == "usable"
    for name in ("accuracy_first_order", "accuracy_second_order", "consistency"):
        assert validation.figure(name).value == 1.0, name
    assert validation.figure("position_effect").value == 0.0
    assert validation.figure("length_controlled_win_rate") is not None  # lengths are known
    assert validation.categories == ("1", "2")


def test_a_judge_that_always_takes_the_answer_shown_first_is_refused_with_figures(desk):
    desk.server.behaviour = lambda seen: says("A")
    found = desk.judge(lines(*(pair_row(n) for n in range(40))), mode="pairwise").validation
    assert found.decision == "not usable"
    assert found.figure("position_effect").value == 0.5
    assert found.figure("consistency").value == 0.0
    assert found.figure("accuracy_first_order").value == 0.5


def test_one_order_alone_is_not_held_to_consistency(desk):
    desk.server.behaviour = prefers_longer
    found = desk.judge(lines(*(pair_row(n) for n in range(40))), mode="pairwise", both_orders=False)
    assert sum(desk.server.hits.values()) == 40
    assert found.validation.decision == "usable"
    assert found.validation.figure("consistency") is None


def test_a_pair_with_one_order_unanswered_is_unscored_and_its_first_verdict_stays_the_first(desk):
    def fails(seen):
        short_first = len(material(seen, "answer A")) < len(material(seen, "answer B"))
        number = int(re.search(r"number (\d+)", seen.text).group(1))
        return Answer(status=500) if short_first and number < 10 else prefers_longer(seen)

    desk.server.behaviour = fails
    found = desk.judge(lines(*(pair_row(n) for n in range(40))), mode="pairwise").validation
    assert found.unscored == {"not answered": 10}
    assert found.figure("accuracy_first_order").value == 1.0
    assert found.figure("accuracy_second_order").value == 1.0


def test_a_judge_of_single_answers_is_not_shown_the_second_answer_of_a_pair(desk):
    found = desk.judge(lines(*(item(n, other="It is a town, it is.") for n in range(30))))
    assert all("It is a town, it is." not in seen.text for seen in desk.server.seen)
    assert found.validation.figure("agreement").value == 1.0
    assert found.validation.figure("length_controlled_win_rate") is None


def test_a_judge_with_a_reference_is_shown_it_and_refuses_an_item_without(desk):
    desk.server.behaviour = lambda seen: says(
        "right" if material(seen) == material(seen, "reference") else "wrong"
    )
    rows = [item(n, reference="It is a town.") for n in range(30)]
    assert desk.judge(lines(*rows), mode="reference").validation.decision == "usable"
    with pytest.raises(InvalidInputError, match="needs a reference, got none for item 'i031'"):
        desk.judge(lines(*rows, item(31)), mode="reference")


# Item files ---------------------------------------------------------------------------------------


def test_conversations_and_line_numbers_as_ids_are_read(tmp_path):
    turns = [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}]
    rows = [{"messages": turns, "answer": "a"}, item(7), {"prompt": "q", "answer": ""},
            item(8, item_id=None), item(9, item_id=5.0)]  # fmt: skip
    found, aside = read_items(written(tmp_path, lines(*rows)))
    assert aside == []
    assert [one.item.id for one in found] == ["1", "i007", "3", "4", "5"]
    assert [turn.role for turn in found[0].item.conversation] == ["system", "user"]
    assert (found[0].labels, found[1].labels) == ((), ("wrong",))


BAD_ROWS = {
    "a row must be JSON, got 'nonsense'": b"{nonsense",
    "must be a JSON object, got '[1, 2]'": b"[1, 2]",
    "must be UTF-8, got the byte 0xFF": b'{"prompt": "\xff\xfe", "answer": "a"}',
    "must hold answer, got prompt": b'{"prompt": "q"}',
    "answer must be text, got int": b'{"prompt": "q", "answer": 5}',
    "must hold prompt or messages, got answer": b'{"answer": "a"}',
    "prompt or messages must hold a turn, got none": b'{"messages": [], "answer": "a"}',
    "0.role": b'{"messages": [{"role": "robot", "content": "q"}], "answer": "a"}',
    "other must be text, got list": b'{"prompt": "q", "answer": "a", "other": ["b"]}',
    "reference must be text": b'{"prompt": "q", "answer": "a", "reference": 3}',
    "human must be text or a number, got dict": b'{"prompt": "q", "answer": "a", "human": {}}',
    "item_id must be text or a number": b'{"prompt": "q", "answer": "a", "item_id": [1]}',
    "item 'i000' is there twice": lines(item(0)).encode(),
    "NUL": b'{"prompt": "q", "answer": "a\\u0000b"}',
    "other: Input should be a valid string": b'{"prompt": "q", "answer": "a", "other": "\\ud800"}',
    "answer: String should have at most 100000 characters": b'{"prompt": "q", "answer": "'
    + b"x" * 1_000_000
    + b'"}',
    "must be JSON, got Exceeds the limit": b'{"prompt": "q", "answer": "a", "x": '
    + b"9" * 5_000
    + b"}",
    "must be flat JSON": b"[" * 200_000,
}


@pytest.mark.parametrize("reason", BAD_ROWS)
def test_a_bad_row_is_set_aside_with_its_line_and_reason_and_the_others_go_on(desk, reason):
    content = lines(item(0)).encode() + b"\n" + BAD_ROWS[reason] + b"\n" + lines(item(1)).encode()
    found = desk.judge(content)
    (one,) = found.set_aside
    assert one.place == 3
    why = one.reason
    assert reason in why
    assert len(why) < 400
    assert [j.item_id for j in found.judged.judgements] == ["i000", "i001"]
    assert f"set aside, line 3: {why}" in found.text("j")
    assert found.as_json("j")["set_aside"] == [{"line": 3, "reason": why}]


@pytest.mark.parametrize("ends", ["bom", "crlf", "no last line break"])
def test_a_byte_order_mark_and_line_ends_of_windows_change_nothing(tmp_path, ends):
    plain = lines(item(0), item(1)).encode()
    content = {
        "bom": b"\xef\xbb\xbf" + plain,
        "crlf": plain.replace(b"\n", b"\r\n"),
        "no last line break": plain.rstrip(),
    }[ends]
    found, aside = read_items(written(tmp_path, content))
    assert aside == []
    assert found == read_items(written(tmp_path, plain, "plain.jsonl"))[0]


GARBAGE = {
    "empty": (b"", "the file is empty"),
    "blank": (b"\n  \n\r\n", "the file is empty"),
    "binary": (bytes(range(256)) * 40, "which is binary content"),
    "a picture": (b"\x89PNG\r\n\x1a\n" + b"\x00" * 100, "which is a picture"),
    "a table": (b"item_id,human,judge\n1,a,b\n", "; line 1: a row must be JSON"),
}


@pytest.mark.parametrize("what", GARBAGE)
def test_a_file_without_a_usable_row_is_refused_by_its_name(desk, tmp_path, what):
    content, said = GARBAGE[what]
    with pytest.raises(InvalidInputError, match=r"rows\.jsonl") as error:
        desk.judge(content, name="rows.jsonl")
    assert said in str(error.value)
    assert not desk.server.hits
    path = written(tmp_path, content, "labels.jsonl")
    with pytest.raises(InvalidInputError, match=r"labels\.jsonl") as error:
        import_labels(desk.store, path, now=NOW)
    assert said in str(error.value)
    assert desk.store.records(HumanLabel) == ()


def test_items_in_utf_16_are_read_like_the_same_items_in_utf_8(tmp_path):
    path = written(tmp_path, lines(item(0), item(1)).encode("utf-16"))
    assert read_items(path) == read_items(written(tmp_path, lines(item(0), item(1)), "b.jsonl"))


@pytest.mark.parametrize("kind", ["missing", "a folder"])
def test_what_is_no_file_is_refused_by_its_name(desk, tmp_path, kind):
    path = tmp_path / "rows.jsonl"
    if kind == "a folder":
        path.mkdir()
    for read in (
        lambda: desk.judge(None, name="rows.jsonl"),
        lambda: import_labels(desk.store, path, now=NOW),
    ):
        with pytest.raises(
            InvalidInputError, match=r"^input must be a readable file, got .*rows\.jsonl"
        ):
            read()


# Labels -------------------------------------------------------------------------------------------


def label_row(item_id="i1", said="right", reviewer="ann", **fields):
    return {"item_id": item_id, "dimension": "fact", "label": said, "reviewer": reviewer} | fields


def imported(store, folder, *rows, at=NOW):
    done = import_labels(store, written(folder, lines(*rows), "labels.jsonl"), now=at)
    return done.new, done.repeated, done.set_aside


def labels_of(store):
    return [(x.item_id, x.label, x.reviewer) for x in store.records(HumanLabel)]


def test_labels_are_stored_once_however_often_the_file_comes(open_store, tmp_path):
    store = open_store()
    rows = [label_row(), label_row("i2", "wrong"), label_row("i1", "wrong", "bob", note="hm")]
    assert imported(store, tmp_path, *rows) == (3, 0, ())
    stored = store.records(HumanLabel)
    assert imported(store, tmp_path, *rows, at=NOW + timedelta(days=1)) == (0, 3, ())
    assert store.records(HumanLabel) == stored
    assert imported(store, tmp_path, *rows, label_row("i3")) == (1, 3, ())
    assert stored[2].note == "hm"
    assert stored[0].created_at == NOW


def test_a_changed_mind_is_a_new_label_and_with_its_time_it_can_be_changed_back(store, tmp_path):
    day = [f"2026-03-0{n}T09:00:00Z" for n in (3, 4, 5)]
    changes = [label_row(said=said, created_at=at)
               for said, at in zip(("right", "wrong", "right"), day, strict=True)]  # fmt: skip
    assert imported(store, tmp_path, *changes) == (3, 0, ())
    assert imported(store, tmp_path, *changes) == (0, 3, ())
    assert [label for _, label, _ in labels_of(store)] == ["right", "wrong", "right"]


def test_numbers_are_labels_and_ids_as_in_label_files(store, tmp_path):
    rows = [label_row(5, 4), label_row("5", 4.0), label_row(5.0, " 4 "), label_row(6, True)]
    assert imported(store, tmp_path, *rows) == (2, 2, ())
    assert labels_of(store) == [("5", "4", "ann"), ("6", "true", "ann")]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"label": None}, "label: "),
        ({"label": ["right"]}, "label must be text or a number, got list"),
        ({"item_id": ""}, "item_id: "),
        ({"reviewer": 7}, "reviewer: "),
        ({"dimension": "x" * 201}, "dimension: "),
        ({"created_at": "2026-03-02T09:00:00"}, "time zone"),
        ({"created_at": "yesterday"}, "created_at: "),
        ({"lable": "right"}, "lable: "),
        ({"note": "a\x00b"}, "NUL"),
        ({"label": "\ud800"}, "unpaired surrogate"),
    ],
)
def test_a_bad_label_is_set_aside_with_its_reason_and_the_others_go_on(
    store, tmp_path, fields, reason
):
    new, repeated, aside = imported(store, tmp_path, label_row("a"), label_row() | fields,
                                    label_row("b"))  # fmt: skip
    assert (new, repeated) == (2, 0)
    (one,) = aside
    assert one.place == 2
    assert reason in one.reason
    assert [item_id for item_id, _, _ in labels_of(store)] == ["a", "b"]


def test_an_id_of_another_label_is_set_aside_and_changes_nothing(store, tmp_path):
    assert imported(store, tmp_path, label_row(id="L1")) == (1, 0, ())
    new, repeated, aside = imported(store, tmp_path, label_row(id="L1"),
                                    label_row(id="L1", said="wrong"))  # fmt: skip
    assert (new, repeated) == (0, 1)
    (one,) = aside
    assert (one.place, one.reason) == (2, "another label has the id 'L1'; give it its own")
    assert labels_of(store) == [("i1", "right", "ann")]


# Labels and options -------------------------------------------------------------------------------


@pytest.mark.mostly_slow("model_a", "1-2-")
@pytest.mark.parametrize(
    ("first", "second", "tie"),
    [
        ("1", "2", "tie"),
        ("A", "B", "Tie"),
        ("model_a", "model_b", "tie (bothbad)"),
        ("answer A", "Answer b", "draw"),
        ("first", "second", "both bad"),
        ("Response 1", "Response 2", "neither"),
        (1, 2.0, "equal"),
    ],
)
def test_winners_of_pairs_are_understood_however_people_name_them(desk, first, second, tie):
    rows = [pair_row(n) for n in range(40)]
    desk.server.behaviour = prefers_longer
    wanted = desk.judge(lines(*rows), mode="pairwise")
    names = {"1": first, "2": second, "tie": tie}
    renamed = [row | {"human": names[str(row["human"])]} for row in rows[:39]]
    found = desk.judge(lines(*renamed, rows[39] | {"human": tie}), mode="pairwise")
    assert found.set_aside == ()
    assert found.judged.judgements == wanted.judged.judgements
    plain = [*rows[:39], rows[39] | {"human": "tie"}]
    assert found.validation == desk.judge(lines(*plain), mode="pairwise").validation


def test_a_label_of_a_pair_that_names_nobody_is_set_aside(desk):
    rows = [pair_row(n) for n in range(36)]
    odd = ["C", "unsure", "right"]
    rows += [pair_row(36 + place) | {"human": label} for place, label in enumerate(odd)]
    desk.server.behaviour = prefers_longer
    found = desk.judge(lines(*rows), mode="pairwise")
    assert [row.place for row in found.set_aside] == [37, 38, 39]
    assert "human must be an option of judge 'j': A, B, tie, got 'C'" in found.set_aside[0].reason
    assert sum(desk.server.hits.values()) == 2 * 36  # both orders
    assert found.validation.items == 36


def test_a_further_persons_odd_label_costs_that_label_alone(desk):
    rows = [item(n) | {"human_2": item(n)["human"]} for n in range(40)]
    rows[3]["human_2"] = "don't know"
    found = desk.judge(lines(*rows))
    (aside,) = found.set_aside
    assert aside.place == 4
    assert aside.reason.startswith("human_2 must be an option of judge 'j': wrong, right, got")
    assert found.validation.items == 40


def test_items_without_labels_are_judged_as_before(desk):
    found = desk.judge(lines(*(item(n, human="left out") for n in range(5))))
    assert len(found.judged.judgements) == 5
    assert found.validation is None


def test_of_a_pair_the_order_without_a_verdict_alone_is_asked_again(desk):
    rows = [pair_row(n) for n in range(4)]

    def no_word_on_one_order(seen):
        longer_first = len(material(seen, "answer A")) > len(material(seen, "answer B"))
        return Answer(text="hm") if longer_first else prefers_longer(seen)

    desk.server.behaviour = no_word_on_one_order
    assert desk.judge(lines(*rows), mode="pairwise").judged.unscored
    desk.server.behaviour = prefers_longer
    found = desk.judge(lines(*rows), mode="pairwise", again=True).judged
    assert (found.asked.asked, found.reused, found.unscored) == (4, 4, {})
    assert all(judgement.consistent for judgement in found.judgements)


def test_what_fails_when_asked_again_keeps_the_reason_of_before(desk):
    desk.server.behaviour = lambda _seen: Answer(text="hm")
    content = lines(*(item(n) for n in range(3)))
    desk.judge(content)
    desk.server.behaviour = lambda _seen: Answer(status=500)
    found = desk.judge(content, again=True).judged
    assert found.unscored == {"no verdict in the reply": 3}
    assert sum(found.asked.failed.values()) == 3
    desk.server.behaviour = reads_the_answer
    assert desk.judge(content, again=True).judged.unscored == {}
