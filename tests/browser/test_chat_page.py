"""The chat page and feedback.js in a real Chromium; the store holds what was done, once."""

from __future__ import annotations

import time

import pytest

from tests.browser.hostile import HOSTILE


@pytest.fixture
def page(chromium, gateway):
    context = chromium.new_context(viewport={"width": 1100, "height": 800})
    opened = context.new_page()
    opened.errors = []
    opened.on("pageerror", lambda error: opened.errors.append(str(error)))
    opened.on("dialog", lambda dialog: (opened.errors.append("a dialog"), dialog.dismiss()))
    opened.goto(gateway.url)
    yield opened
    assert opened.errors == []
    context.close()


def ask(page, text):
    answers = page.locator(".assistant .ratchet-bar").count()
    page.get_by_label("Message").fill(text)
    page.get_by_role("button", name="Send", exact=True).last.click()
    page.locator(".assistant .ratchet-bar").nth(answers).wait_for()


def until(condition, seconds=10.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


def taken(page):
    until(lambda: page.evaluate("ratchet.pending()") == 0)


def kinds(gateway):
    return [(row["kind"], row["number"], row["text"]) for row in gateway.feedback()]


def test_what_a_user_does_is_in_the_store_in_order_and_once(page, gateway, shot):
    shot(page, "1-empty")
    ask(page, "Where is my card?")
    shot(page, "2-answer")
    bar = page.locator(".ratchet-bar").first
    bar.get_by_role("button", name="Bad answer").click()
    bar.get_by_label("Comment", exact=True).fill("It did not look <b>here</b>")
    shot(page, "3-comment")
    bar.get_by_role("button", name="Send comment").click()
    page.get_by_role("button", name="Copy").click()
    page.get_by_role("button", name="Regenerate").click()
    page.locator(".assistant .ratchet-bar").nth(1).wait_for()
    shot(page, "4-regenerated")
    taken(page)
    page.goto("about:blank")
    until(lambda: len(gateway.feedback()) == 5)
    first, second = gateway.interactions()
    events = gateway.feedback()
    assert [(e["kind"], e["number"], e["text"]) for e in events[:4]] == [
        ("thumbs", 0.0, None),
        ("comment", None, "It did not look <b>here</b>"),
        ("copy", 1.0, None),
        ("regenerate", 1.0, None),
    ]
    assert {e["interaction_id"] for e in events[:4]} == {first.id}
    assert (events[4]["kind"], events[4]["interaction_id"]) == ("session_end", second.id)
    assert 0 < events[4]["number"] < 60
    assert first.session_id == second.session_id
    assert (first.user_id, first.prompt) == (second.user_id, second.prompt)
    # coming back sends again what the beacon sent, and that changes nothing
    page.goto(gateway.url)
    taken(page)
    page.wait_for_timeout(200)
    assert len(gateway.feedback()) == 5
    assert gateway.store.counts()["set_aside"] == 0


def test_a_follow_up_says_that_no_other_answer_was_wanted(page, gateway):
    ask(page, "first")
    ask(page, "second")
    taken(page)
    first, _second = gateway.interactions()
    (event,) = gateway.feedback()
    assert (event["kind"], event["number"], event["interaction_id"]) == (
        "regenerate",
        0.0,
        first.id,
    )


def test_a_selection_that_is_copied_counts_once(page, gateway):
    ask(page, "copy this")
    for _ in range(2):
        page.locator(".assistant .text").first.click(click_count=3)
        page.keyboard.press("Control+C")
    taken(page)
    assert kinds(gateway) == [("copy", 1.0, None)]


def test_feedback_given_offline_is_sent_later_in_order(page, gateway):
    ask(page, "hello")
    page.context.set_offline(True)
    page.get_by_role("button", name="Bad answer").click()
    page.get_by_role("button", name="Good answer").click()
    page.wait_for_timeout(300)
    assert page.evaluate("ratchet.pending()") == 2
    assert kinds(gateway) == []
    page.context.set_offline(False)
    taken(page)
    assert kinds(gateway) == [("thumbs", 0.0, None), ("thumbs", 1.0, None)]


def test_with_do_not_track_only_what_is_pressed_is_sent(chromium, gateway):
    context = chromium.new_context()
    context.add_init_script("Object.defineProperty(navigator, 'doNotTrack', {value: '1'})")
    page = context.new_page()
    page.goto(gateway.url)
    ask(page, "hello")
    page.get_by_role("button", name="Copy").click()
    page.get_by_role("button", name="Good answer").click()
    ask(page, "again")
    taken(page)
    page.goto("about:blank")
    time.sleep(0.3)
    context.close()
    assert kinds(gateway) == [("thumbs", 1.0, None)]


def test_a_page_of_another_origin_uses_the_script_where_it_is_allowed(chromium, serve, mock):
    shop = "http://localhost:8099"
    gateway = serve(backend=mock.url, origins=(shop,))
    answer = gateway.ask()
    html = (
        f"<script src='{gateway.url}/feedback.js'></script>"
        f"<p data-ratchet-id='{answer['id']}' "
        f"data-ratchet-token='{answer['ratchet']['token']}'>hello</p>"
    )
    context = chromium.new_context()
    page = context.new_page()
    page.route(f"{shop}/", lambda route: route.fulfill(body=html, content_type="text/html"))
    page.goto(f"{shop}/")
    page.get_by_role("button", name="Good answer").click()
    taken(page)
    assert kinds(gateway)[0] == ("thumbs", 1.0, None)
    context.close()


def test_a_backend_that_fails_is_told_on_the_page_and_the_chat_goes_on(page, mock, shot):
    mock.behaviour = lambda body: 500
    page.get_by_label("Message").fill("hello")
    page.keyboard.press("Enter")
    page.locator(".failed").wait_for()
    assert "no backend answers" in page.locator(".failed .text").inner_text()
    shot(page, "5-failed")
    mock.behaviour = lambda body: None
    ask(page, "hello again")
    assert page.locator(".assistant:not(.failed) .text").inner_text() == "hello again"


def test_hostile_strings_are_shown_and_stored_as_they_are(page, gateway):
    """All of them in one conversation: each is asked, answered (echoed), shown and commented on."""
    chosen = HOSTILE[:: max(1, len(HOSTILE) // 40)]
    for text in chosen:
        page.get_by_label("Message").evaluate("(e, t) => { e.value = t }", text)
        before = page.locator(".assistant .ratchet-bar").count()
        page.locator("#ask").evaluate("f => f.requestSubmit()")
        if not text.strip():
            continue
        page.locator(".assistant .ratchet-bar").nth(before).wait_for()
    shown = page.locator(".text").evaluate_all("all => all.map(e => e.textContent)")
    # a text area turns line breaks into \n, as browsers do, and a page shows NUL as U+FFFD
    sent = [interaction.prompt for interaction in gateway.interactions()]
    expected = [text.replace("\r\n", "\n").replace("\r", "\n") for text in chosen if text.strip()]
    assert [text.replace("\x00", "\ufffd") for text in expected] == sent
    assert [text.replace("\x00", "\ufffd") for text in shown[0::2]] == sent
    assert [text.replace("\x00", "\ufffd") for text in shown[1::2]] == sent
