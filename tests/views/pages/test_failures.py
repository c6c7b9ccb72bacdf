"""The page about failure clusters: what it says, and that nothing in it can escape."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from importlib.resources import files

import numpy as np
import pytest

from ratchet.errors import InvalidInputError
from ratchet.views.pages.failures import COLOURS, MapPoints, Searched, failures_page
from tests.views.pages.page_data import (
    EARLIER,
    HOSTILE,
    LONG,
    NOW,
    REASON,
    SEARCHED,
    cluster,
    clusters,
    example,
    hostile_clusters,
    points,
)

VOID = {"meta", "link", "img", "br", "input"}
DRAWN = {"path", "rect", "circle"}


class Reader(HTMLParser):
    """Reads a page into its tags, its words and its data; complains about what does not close."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.scripts: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("script", "style"):
            self.scripts.append(data)
        else:
            self.words.append(data)

    @property
    def said(self) -> str:
        return " ".join(" ".join(self.words).split())

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def page(found=None, searched=SEARCHED, **options) -> Reader:
    options = {"now": NOW, "points": points(), "earlier": EARLIER} | options
    return Reader(failures_page(clusters() if found is None else found, searched, **options))


def test_the_headline_says_how_much_goes_wrong_and_of_what():
    said = page().said
    # 72.8 + 26.0 + 7.0 = 105.8
    assert "3 kinds of message fail more than the rest; mending them would spare about 106" in said
    assert "of 130 failures" in said
    assert "top up, verify fails 60 % of the time, all others 8.0 %" in said.replace("8 %", "8.0 %")
    for fact in ("support-router/3", "2 March 2026, 08:05 to 9 March 2026, 08:05 UTC", "1,200"):
        assert fact in said
    assert "Unknown outcome 45" in said


def test_one_cluster_is_said_in_the_singular():
    said = page(clusters()[:1], points=None).said
    assert "One kind of message fails more than the rest; mending it would spare about 73" in said


def test_the_table_holds_all_that_is_asked_of_a_cluster():
    reader = page()
    rows = [row for row in reader.named("tr") if "data-cluster" in row]
    assert [row["data-name"] for row in rows] == ["top up, verify", "card, lost", "abroad, fee"]
    assert rows[0]["data-excess"] == "72.8"
    assert rows[2]["data-users"] == "", "what is not known is no number"
    heads = [cell["data-key"] for cell in reader.named("th") if "data-key" in cell]
    assert heads == [
        "name", "excess", "failed", "rate", "lift", "share", "users", "trend", "seen", "stability",
    ]  # fmt: skip
    for cell in ("84 of 140", "60 % (51 to 68 %)", "×5.5", "65 %", "growing", "2026-03-03", "61"):
        assert cell in reader.said.replace("\u00a0", " ")
    assert [cell for cell in reader.named("th") if cell.get("aria-sort")] == [
        {"scope": "col", "data-key": "excess", "class": "figure", "aria-sort": "descending"}
    ]


def test_unstable_and_safety_clusters_say_so_in_words():
    said = page().said
    assert "Unstable: half the messages do not give the same cluster again (overlap 0.41)" in said
    assert "About safety: 2 of its failed interactions were flagged or reported as unsafe" in said
    assert "not measured" in said
    assert "do not give the same cluster" not in page(clusters()[2:], points=None).said


def test_a_failed_answer_stands_beside_a_good_one_with_its_source():
    said = page().said
    assert "asked about top up, verify Failed answer answered wrongly" in said
    assert "Why it counts as failed: Thumbs down." in said
    assert "put right From: the user’s own correction." in said
    assert "well rated From: a well-rated answer to a similar message: a similar question" in said
    assert "None is known yet: no correction, and no well-rated answer" in said
    assert said.count("The user wrote borderline") == len(clusters())


def test_breakdowns_by_version_and_segment_are_tables():
    reader = page()
    assert "By model version" in reader.said
    assert "support-router/2 24 of 50" in reader.said
    assert "By segment" in reader.said
    assert all(cell.get("scope") in ("col", "row") for cell in reader.named("th"))


def test_what_was_found_earlier_says_what_became_of_it():
    said = page().said
    assert "passcode, reset : fails no more than the rest" in said
    assert "verify : is part of another cluster now ( top up, verify )" in said
    assert "refund, late : still fails more, but too seldom to be found again" in said


@pytest.mark.parametrize("with_points", [True, False])
def test_without_clusters_the_page_says_why(with_points):
    nowhere = points(0, 20) if with_points else None
    reader = page((), points=nowhere, earlier=(), reason=REASON)
    assert "No failure cluster was found" in reader.said
    assert "Why there is none No group of texts fails more than chance allows." in reader.said
    assert reader.named("table") == []
    assert "Nothing failed" in page((), Searched("r/1", 10, 0), points=None, reason=REASON).said
    assert "No reason was recorded." in page((), points=None).said


def test_a_record_of_an_older_release_can_be_shown():
    old = cluster(
        interactions=None, rest_rate=None, share=None, excess=None, p_value=None, users=None,
        stability=None, stable=None, first_seen=None, versions=(), segments=(), beside=(),
        borderline=(),
    )  # fmt: skip
    said = page([old], points=None).said
    assert "One kind of message fails more than the rest" in said
    assert "84 interactions failed" in said


def test_there_is_nothing_to_fetch():
    for reader in (page(), page((), points=None, reason=REASON)):
        for tag, attributes in reader.tags:
            assert tag not in ("img", "iframe", "object", "embed", "base", "form")
            assert "src" not in attributes
            assert "style" not in attributes, "the page's own policy forbids it"
            assert not [name for name in attributes if name.startswith("on")]
            where = attributes.get("href") or "#"
            assert where.startswith("#") or where == "data:,"
        style = reader.scripts[0]
        assert "url(" not in style
        assert "@import" not in style


def test_the_policy_lets_nothing_run_but_the_pages_own_script():
    (policy,) = [a["content"] for a in page().named("meta") if "http-equiv" in a]
    assert policy is not None
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy
    assert page(hostile_clusters(), points=points(14, 3)).named("meta")[1]["content"] == policy


def test_hostile_text_stays_text_wherever_it_stands():
    plain = page(tuple(cluster(f"harmless {i}") for i in range(len(HOSTILE))), points=points(14, 3))
    found = hostile_clusters()
    reader = page(found, points=points(14, 3, texts=list(HOSTILE)))
    allowed = {tag for tag, _ in plain.tags} | {"details", "summary"}
    assert {tag for tag, _ in reader.tags} <= allowed
    assert len(reader.named("script")) == len(plain.named("script")) == 2
    for text in HOSTILE[:9]:
        assert reader.said.count(" ".join(text.split())) >= 8
    assert "1337" not in reader.said


def test_control_characters_are_seen_and_half_pairs_can_be_written():
    text = failures_page(hostile_clusters(), SEARCHED, now=NOW, points=points(14, 3))
    assert text.encode("utf-8")
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f]", text)
    assert "bell␇ escape␛[31m backspace␈ delete␡" in text


def test_the_maps_data_can_neither_end_its_block_nor_a_line():
    text = failures_page(
        clusters(), SEARCHED, now=NOW, points=points(3, 10, texts=[*HOSTILE, LONG])
    )
    block = re.search(r'<script type="application/json" id="points">(.*?)</script>', text, re.S)
    assert block is not None
    assert not set(block[1]) & set("<>&\u2028\u2029")
    data = json.loads(block[1])
    assert data["text"][0] == HOSTILE[0]
    assert len(data["text"][14]) == 1_000
    assert data["characters"][14] == 10_000
    assert set(data) == {"x", "y", "cluster", "failures", "seen", "text", "characters"}


def test_long_texts_are_clipped_and_the_whole_is_a_click_away():
    text = failures_page(
        [cluster(beside=(example("short", LONG),))], SEARCHED, now=NOW, points=None
    )
    assert text.count("All 10,000 characters</summary>") == 1
    assert LONG.strip() in text
    huge = failures_page(
        [cluster(beside=(example("short", "x" * 100_000),))], SEARCHED, now=NOW, points=None
    )
    assert "The first 20,000 of 100,000 characters; the store has the rest." in huge
    assert len(huge) < len(text) + 20_000


def test_points_are_drawn_filled_where_they_failed_and_as_rings_where_not():
    placed = points()
    reader = page(points=placed)
    groups = [group for group in reader.named("g") if "data-cluster" in group]
    assert [group["data-cluster"] for group in groups] == ["-1", "0", "1", "2"]
    assert [group["class"] for group in groups] == ["rest", "c0", "c1", "c2"]
    drawn = {"dot": 0, "ring": 0}
    for path in reader.named("path"):
        if path.get("class") in drawn:
            drawn[str(path["class"])] += str(path["d"]).count("M")
    failed = int((placed.failures > 0).sum())
    assert drawn == {"dot": failed, "ring": len(placed.texts) - failed}
    assert "72 of 4,000 distinct messages are shown, those in clusters first" in reader.said


def test_colours_come_in_turn_and_numbers_tell_clusters_apart():
    many = tuple(cluster(f"cluster {i}") for i in range(COLOURS + 2))
    numbers = [span for span in page(many, points=None).named("span") if "number" in str(span)]
    classes = {str(span["class"]) for span in numbers}
    assert classes == {f"number c{i}" for i in range(COLOURS)}


@pytest.mark.parametrize("count", [1, 2])
def test_few_points_are_a_map_too(count):
    few = MapPoints(
        xy=np.full((count, 2), 0.5),
        labels=np.full(count, -1),
        failures=np.ones(count, dtype=np.int64),
        seen=np.ones(count, dtype=np.int64),
        texts=["one"] * count,
    )
    assert "M500 500h.01" in str(page((), points=few, reason=REASON).named("path"))
    none = MapPoints(np.zeros((0, 2)), *[np.zeros(0, dtype=np.int64)] * 3, [])
    assert "Map of the messages" not in page((), points=none, reason=REASON).said


def test_points_that_do_not_fit_the_clusters_are_refused():
    with pytest.raises(InvalidInputError, match="labels must be places among the 2 clusters"):
        page(clusters()[:2])
    placed = points()
    with pytest.raises(InvalidInputError, match="equally many places, labels, counts and texts"):
        page(points=replace(placed, texts=placed.texts[1:]))


# Contrast by WCAG 2.2, from the style sheet's own colours -----------------------------------------


def palettes() -> list[dict[str, str]]:
    style = (files("ratchet.views.pages") / "templates" / "failures.css").read_text("utf-8")
    found = [
        dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", part)) for part in style.split("@media")
    ]
    return [palette for palette in found if "page" in palette]


def contrast(one: str, other: str) -> float:
    def luminance(color: str) -> float:
        parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("palette", palettes(), ids=["light", "dark"])
def test_text_and_marks_are_told_from_what_is_behind_them(palette):
    for ink, behind in [
        ("ink", "page"), ("ink", "card"), ("ink", "wash"), ("soft", "page"), ("soft", "card"),
        ("soft", "wash"), ("link", "card"), ("link", "page"), ("link", "wash"), ("bad", "wash"),
        ("good", "wash"), ("warn-ink", "warn-wash"), ("safe-ink", "safe-wash"),
        *[("on-colour", f"c{i}") for i in range(COLOURS)],
    ]:  # fmt: skip
        assert contrast(palette[ink], palette[behind]) >= 4.5, (ink, behind)
    for mark in ("rest-dot", "focus", "bad", *[f"c{i}" for i in range(COLOURS)]):
        assert contrast(palette[mark], palette["card"]) >= 3.0, mark
