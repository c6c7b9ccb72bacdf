"""Terms of texts in scripts with and without spaces; clusters are those that were planted."""

import unicodedata

import numpy as np
import pytest

from ratchet.analyze.failures.clusters import find_failure_clusters
from ratchet.analyze.failures.tokens import normalized, parts_of, telling, term_analyzer

ROWS, TOPICS = 600, 5


@pytest.fixture(scope="module")
def terms():
    return term_analyzer()


def test_words_and_pairs_are_terms_and_stop_words_are_none(terms):
    assert terms("Please reset my PASSWORD, 2fa x") == [
        "reset", "password", "reset password"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("रिफंड चाहिए", ["रिफंड", "चाहिए"]),  # vowel signs and a nasal mark
        ("cafe\u0301 ferme\u0301", ["caf\u00e9", "ferm\u00e9"]),  # accents of their own
        ("كَلِمَة سِرّ", ["كَلِمَة", "سِرّ"]),  # Arabic points
        ("பணம் திரும்ப", ["பணம்", "திரும்ப"]),  # Tamil
        ("환불 해주세요", ["환불", "해주세요"]),  # Korean puts spaces
    ],
)
def test_a_word_keeps_its_combining_marks(terms, text, words):
    wanted = [unicodedata.normalize("NFKC", word) for word in words]
    assert terms(text) == [*wanted, " ".join(wanted)]


def test_japanese_gives_runs_of_katakana_and_pairs_of_other_characters(terms):
    assert terms("カードが返金") == ["カード", "が返", "返金"]
    assert terms("ｶｰﾄﾞ") == ["カード"]  # half width
    assert terms("注文42番") == ["注文"]
    assert terms("iPhoneを返金") == ["iphone", "を返", "返金"]


def test_thai_gives_triples_of_characters_with_their_marks(terms):
    assert terms("เงินคืน") == ["เงิน", "งินคื", "นคืน"]
    assert normalized("คำ") == "คำ"  # not taken apart, as NFKC does


def test_particles_say_little_and_pieces_that_overlap_share_parts():
    assert telling("返金") > telling("お願") > telling("ます")
    assert telling("退款") > telling("我的")
    assert parts_of("返金") & parts_of("の返") == {"返"}
    assert parts_of("reset password") == {"reset", "password"}


MESSAGES = {
    "Japanese": [
        "商品{}が壊れていました", "ログインできません{}", "請求書{}を再発行してください",
        "アプリが起動しない{}", "配送はいつになりますか{}",
    ],
    "Chinese": [
        "收到的商品{}是坏的", "无法登录我的账户{}", "请重新开具发票{}", "应用打不开{}",
        "什么时候发货{}",
    ],
    "traditional Chinese": [
        "收到的商品{}壞了", "無法登入帳號{}", "請重新開立發票{}", "程式打不開{}", "什麼時候出貨{}",
    ],
    "Thai": [
        "สินค้าที่ได้รับชำรุด{}", "เข้าสู่ระบบไม่ได้{}", "ขอใบแจ้งหนี้ใหม่{}", "แอปเปิดไม่ติด{}", "จะจัดส่งเมื่อไหร่{}",
    ],
    "Hindi": [
        "सामान {} टूटा हुआ मिला", "लॉगिन {} नहीं हो रहा", "नया बिल {} भेजें", "ऐप {} नहीं खुलता",
        "डिलीवरी {} कब होगी",
    ],
    "Burmese": [
        "ရရှိသောပစ္စည်းပျက်စီးနေသည်{}", "အကောင့်ဝင်မရပါ{}", "ငွေတောင်းခံလွှာပြန်ထုတ်ပေးပါ{}",
        "အက်ပ်ဖွင့်မရပါ{}", "ဘယ်တော့ပို့မလဲ{}",
    ],
}  # fmt: skip


@pytest.mark.parametrize("language", MESSAGES)
@pytest.mark.parametrize("topic", [0, 3])
def test_words_find_the_topic_that_fails_in_any_script(language, topic):
    texts = [MESSAGES[language][row % TOPICS].format(row) for row in range(ROWS)]
    fails = np.where(np.arange(ROWS) % TOPICS == topic, 0.6, 0.05)
    failed = np.random.default_rng(topic).random(ROWS) < fails
    found = find_failure_clusters(texts, failed, rng=np.random.default_rng(0))
    (cluster,) = found.clusters
    planted = np.flatnonzero(np.arange(ROWS) % TOPICS == topic)
    assert len(np.intersect1d(cluster.rows, planted)) >= 0.95 * planted.size
    assert len(cluster.rows) <= 1.05 * planted.size
    messages = {texts[row] for row in planted}
    assert cluster.name not in messages
    for piece in cluster.name.split(", "):
        assert any(piece in normalized(message) for message in messages)
        assert len(piece) < min(map(len, messages))


@pytest.mark.parametrize("language", ["Japanese", "Chinese", "Thai", "Burmese"])
def test_a_message_that_is_repeated_without_a_space_in_it_is_not_the_name(language):
    texts = [MESSAGES[language][row % TOPICS].format("") for row in range(ROWS)]
    failed = np.arange(ROWS) % TOPICS == 0
    found = find_failure_clusters(texts, failed, rng=np.random.default_rng(0))
    assert [cluster.name for cluster in found.clusters if cluster.name in texts] == []
