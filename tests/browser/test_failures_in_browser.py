"""The page about failure clusters in a real Chromium, from a file, without a network."""

import pytest

from ratchet.views.pages.failures import failures_page
from tests.views.pages.page_data import (
    EARLIER,
    HOSTILE,
    LONG,
    NOW,
    REASON,
    SEARCHED,
    cluster,
    clusters,
    hostile_clusters,
    points,
)


def made(found=None, **options) -> str:
    options = {"now": NOW, "points": points(), "earlier": EARLIER} | options
    return failures_page(clusters() if found is None else found, SEARCHED, **options)


def names(page) -> list[str]:
    return page.locator("#table tbody th bdi").all_inner_texts()


def shown(page) -> list[str]:
    return page.locator(".cluster:visible h2 bdi").all_inner_texts()


BOXES = """() => Array.from(document.querySelectorAll('#labels button'), b => {
    const r = b.getBoundingClientRect(); return [r.left, r.top, r.right, r.bottom];
})"""


def test_the_page_sorts_by_any_column(visit):
    page = visit(made())
    head = page.locator("#table thead")
    assert names(page) == ["top up, verify", "card, lost", "abroad, fee"]
    head.get_by_role("button", name="Failure rate").click()
    assert names(page) == ["card, lost", "top up, verify", "abroad, fee"]
    assert head.locator("[aria-sort]").get_attribute("data-key") == "rate"
    head.get_by_role("button", name="Failure rate").click()
    assert names(page) == ["abroad, fee", "top up, verify", "card, lost"]
    head.get_by_role("button", name="Cluster").click()
    assert names(page) == ["abroad, fee", "card, lost", "top up, verify"]
    head.get_by_role("button", name="Users").click()
    assert names(page) == ["top up, verify", "card, lost", "abroad, fee"], "unknown ones come last"
    head.get_by_role("button", name="Users").click()
    assert names(page) == ["card, lost", "top up, verify", "abroad, fee"], "in both directions"
    head.get_by_role("button", name="Spares").click()
    assert head.locator("[aria-sort]").get_attribute("aria-sort") == "descending"


def test_the_first_cluster_is_open_and_a_name_in_the_table_opens_another(visit):
    page = visit(made())
    assert shown(page) == ["top up, verify"]
    page.get_by_role("link", name="card, lost").last.click()
    assert shown(page) == ["card, lost"]
    assert page.get_by_text("asked about card, lost").is_visible()
    assert page.evaluate("document.activeElement.textContent").split() == ["2", "card,", "lost"]
    assert page.url.endswith("#cluster-2")


def test_a_name_on_the_map_selects_its_cluster(visit):
    page = visit(made())
    button = page.get_by_role("button", name="Cluster 3: abroad, fee")
    button.click()
    assert shown(page) == ["abroad, fee"]
    assert button.get_attribute("aria-pressed") == "true"
    assert page.locator("#map g.on").get_attribute("data-cluster") == "2"
    assert "abroad, fee: 45 % fail" in page.locator("#picked").inner_text().replace("\xa0", " ")
    page.locator("#picked").get_by_role("link", name="Read its examples").click()
    assert page.get_by_text("asked about abroad, fee").is_visible()


def test_pointing_shows_a_text_and_a_click_selects_its_cluster(visit):
    placed = points()
    page = visit(made(points=placed))
    at = int((placed.labels == 1).nonzero()[0][0])
    box = page.locator("#map").bounding_box()
    x, y = page.evaluate(
        "i => { const p = JSON.parse(document.querySelector('#points').textContent);"
        " return [p.x[i] / 1000, p.y[i] / 1000]; }",
        at,
    )
    page.evaluate("document.querySelector('#labels').hidden = true")
    page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])
    assert page.locator("#tip").inner_text().startswith("message ")
    assert "card, lost" in page.locator("#tip").inner_text()
    page.mouse.down()
    page.mouse.up()
    assert shown(page) == ["card, lost"]
    assert "message " in page.locator("#picked blockquote").inner_text()


def test_the_map_works_from_the_keyboard(visit):
    page = visit(made())
    page.locator("#map").focus()
    page.keyboard.press("ArrowRight")
    first = page.locator("#picked").inner_text()
    assert "message 0" in first
    page.keyboard.press("ArrowRight")
    assert page.locator("#picked").inner_text() != first
    assert page.locator("#tip").is_visible()
    page.keyboard.press("Enter")
    page.keyboard.press("Escape")
    assert not page.locator("#tip").is_visible()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')").startswith(
        "Cluster 1"
    )
    page.keyboard.press("Enter")
    assert shown(page) == ["top up, verify"]


def test_a_row_and_the_heads_work_from_the_keyboard(visit):
    page = visit(made())
    page.get_by_role("button", name="Cluster", exact=True).focus()
    page.keyboard.press("Enter")
    assert names(page)[0] == "abroad, fee"
    page.locator("#table tbody a").first.focus()
    page.keyboard.press("Enter")
    assert shown(page) == ["abroad, fee"]


def test_a_link_to_a_cluster_opens_it(visit):
    page = visit(made(), fragment="#cluster-3")
    assert shown(page) == ["abroad, fee"]
    assert page.locator("#labels button[aria-pressed=true]").count() == 1
    assert shown(visit(made(), fragment="#cluster-99")) == ["top up, verify"]


@pytest.mark.mostly_slow("3-390", "24-1280")
@pytest.mark.parametrize("width", [1280, 760, 390])
@pytest.mark.parametrize("many", [3, 12, 24])
def test_names_on_the_map_do_not_cover_each_other(visit, many, width):
    found = [cluster(f"something {i}, long enough, to matter") for i in range(many)]
    page = visit(made(found, points=points(many)), viewport={"width": width, "height": 900})
    boxes = page.evaluate(BOXES)
    assert len(boxes) == many
    for i, one in enumerate(boxes):
        for other in boxes[:i]:
            apart = one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1]
            assert apart or other[3] <= one[1], (one, other)
    sizes = page.evaluate(
        "() => Array.from(document.querySelectorAll('#labels button'),"
        " b => parseFloat(getComputedStyle(b).fontSize))"
    )
    assert min(sizes) >= 12


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_needs_no_sideways_scrolling_of_the_page(visit, scheme):
    page = visit(
        made(hostile_clusters(), points=points(14, 3, texts=list(HOSTILE))),
        viewport={"width": 360, "height": 740},
        color_scheme=scheme,
    )
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert colour == {"light": "rgb(244, 246, 248)", "dark": "rgb(17, 22, 27)"}[scheme]


def test_no_script_of_hostile_text_runs_and_no_request_leaves(visit):
    """What is requested and what fails is checked by `visit` when the test ends."""
    page = visit(made(hostile_clusters(), points=points(14, 3, texts=[*HOSTILE, LONG])))
    for place in range(len(HOSTILE)):
        page.locator("#labels button").nth(place).evaluate("button => button.click()")
        assert page.locator(".cluster:visible").count() == 1
    page.locator("#map").focus()
    for _ in range(60):
        page.keyboard.press("ArrowDown")
        page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    for details in page.locator(".cluster:visible details").all():
        details.locator("summary").click()
    assert page.evaluate("window.hacked") is None
    assert page.locator("img, iframe, base, form").count() == 0
    assert page.locator("body").is_visible()
    assert page.get_by_text(HOSTILE[0], exact=True).count() > 0


def test_the_policy_refuses_a_script_that_got_in_nevertheless(visit, chromium):
    text = made().replace("</main>", "<script>window.hacked = 9</script></main>")
    context = chromium.new_context(offline=True)
    page = context.new_page()
    page.set_content(text)
    assert page.evaluate("window.hacked") is None
    context.close()


def test_the_full_text_of_a_long_one_is_a_click_away(visit):
    page = visit(made(hostile_clusters()[:1], points=points(1)))
    details = page.locator(".cluster:visible details").first
    assert not details.locator(".said").is_visible()
    details.locator("summary").click()
    assert len(details.locator(".said").inner_text().strip()) == len(LONG.strip())


def test_without_scripts_the_table_and_all_examples_can_be_read(visit):
    page = visit(made(), java_script_enabled=False)
    assert page.locator(".cluster:visible").count() == 3
    assert page.locator("#table tbody tr").count() == 3
    assert "need scripts" in page.locator("noscript").inner_text()


def test_a_page_without_clusters_says_why(visit):
    page = visit(made((), points=points(0, 9), earlier=(), reason=REASON))
    assert page.get_by_text("No group of texts fails more than chance allows.").is_visible()
    page.locator("#map").focus()
    page.keyboard.press("ArrowRight")
    assert "in no cluster" in page.locator("#picked").inner_text()
    assert page.locator("#table").count() == 0
    assert visit(made((), points=None, earlier=())).get_by_text("Why there is none").is_visible()


def test_printing_shows_every_cluster(visit):
    page = visit(made())
    page.emulate_media(media="print")
    assert page.locator(".cluster:visible").count() == 3


def test_everything_that_can_be_used_has_a_name(visit):
    """Chromium's own accessibility tree: no button, link, table or region without a name."""
    page = visit(made())
    session = page.context.new_cdp_session(page)
    session.send("Accessibility.enable")
    nodes = session.send("Accessibility.getFullAXTree")["nodes"]
    used = {"button", "link", "region", "group", "heading", "columnheader", "rowheader", "article"}
    found = [
        (node["role"]["value"], node.get("name", {}).get("value", ""))
        for node in nodes
        if not node.get("ignored") and node.get("role", {}).get("value") in used
    ]
    assert len(found) > 40
    assert [role for role, name in found if not name.strip()] == []
