"""How the user's next turn reads, in four languages."""

from __future__ import annotations

import pytest

from ratchet.collect.next_turn import LANGUAGES, language_of, read_next_turn, similarity, version_of
from ratchet.records.events import REACTIONS

QUESTIONS = {
    "en": "Where is my credit card?",
    "de": "Wo ist meine Kreditkarte?",
    "fr": "Où est ma carte de crédit ?",
    "es": "¿Dónde está mi tarjeta de crédito?",
}
WRITTEN = [
    ("en", "complained", "That is wrong."),
    ("en", "complained", "It still doesn’t work"),
    ("en", "corrected", "No, I meant the debit card"),
    ("en", "corrected", "No, play it on the bedroom speaker instead."),
    ("en", "rephrased", "Where is my new credit card?"),
    ("en", "moved on", "How do I change the address of my account?"),
    ("en", "thanked", "Thank you so much!"),
    ("de", "complained", "Das stimmt nicht."),
    ("de", "corrected", "Nein, ich meinte die Bankkarte"),
    ("de", "rephrased", "Wo ist denn meine Kreditkarte?"),
    ("de", "moved on", "Wie kann ich die Adresse von meinem Konto ändern?"),
    ("de", "thanked", "Vielen Dank, das war's"),
    ("fr", "complained", "C'est faux."),
    ("fr", "corrected", "Non, je voulais la carte de débit"),
    ("fr", "rephrased", "Où est donc ma carte de crédit ?"),
    ("fr", "moved on", "Comment je peux changer une adresse dans mon compte ?"),
    ("fr", "thanked", "Merci beaucoup"),
    ("es", "complained", "Eso es incorrecto."),
    ("es", "corrected", "No, quise decir la tarjeta de débito"),
    ("es", "rephrased", "¿Dónde está mi nueva tarjeta de crédito?"),
    ("es", "moved on", "Cómo puedo cambiar la dirección de mi cuenta"),
    ("es", "thanked", "Muchas gracias"),
]


@pytest.mark.parametrize(("language", "reaction", "words"), WRITTEN)
def test_a_turn_reads_as_its_words_say(language: str, reaction: str, words: str) -> None:
    reading = read_next_turn(QUESTIONS[language], words)
    assert reading is not None
    assert (reading.language, reading.reaction) == (language, reaction)
    assert REACTIONS[reading.place - 1] == reaction
    assert reading.version == version_of(language)


def test_every_language_has_each_reaction_among_these_sentences() -> None:
    assert {(language, reaction) for language, reaction, _ in WRITTEN} == {
        (language, reaction) for language in LANGUAGES for reaction in REACTIONS
    }


@pytest.mark.parametrize("words", ["", "  ", "12345", "カードはどこですか"])
def test_what_has_no_words_of_a_known_language_is_not_read(words: str) -> None:
    assert read_next_turn("カードは?", words) is None


def test_a_long_turn_is_read_in_time_that_follows_its_beginning() -> None:
    assert read_next_turn(QUESTIONS["en"], "not a " * 500_000) is not None


def test_similarity_is_one_for_the_same_words_in_any_order_and_zero_for_none_shared() -> None:
    assert similarity("my card", "card my!") == 1.0
    assert similarity("my card", "your bill") == 0.0
    assert similarity("", "") == 0.0
    assert similarity("a b c", "a b d") == pytest.approx(2 / 3)


def test_a_language_is_told_by_its_common_words() -> None:
    assert [language_of(question) for question in QUESTIONS.values()] == list(QUESTIONS)
