"""How the user's next turn reads: complained, corrected, rephrased, moved on or thanked.

    reading = read_next_turn("Which queue is it?", "No, I meant the refund")
    reading.reaction                       # 'corrected'

Rules for English, German, French and Spanish; a turn in another language is not read. They look for
what people say in so many words, and for a question that is asked again in much the same words. How
often they are right is measured (docs/derived.md); what they say counts only in a language in which
people's labels show it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Final

from ratchet.records.events import REACTIONS

NAME: Final = "next-turn-rules"
_VERSION = 1
ALIKE = 0.6
"""So much of its words a turn shares with the question before that it asks the same again."""
_LONGEST = 2_000
_WORD = re.compile(r"[^\W\d_]+|\d+")

_COMMON: Mapping[str, str] = {
    "en": "the a an is are was i you it to of and in for on that this what how my me not no can do "
    "with have please be at there your would will",
    "de": "der die das ein eine ist sind war ich du sie es zu von und in für auf dass was wie mein "
    "mir mich nicht nein kann kannst mit habe haben bitte den dem im am wir noch auch",
    "fr": "le la les un une est sont je tu vous il elle de des du et en dans pour sur que ce cette "
    "quoi comment mon ma me ne pas non peux peut avec ai avez au aux qui mais bien",
    "es": "el la los las un una es son yo tú usted ella de del y en para por que qué este esta "
    "cómo como mi me no puedo puede con tengo hay al se lo pero más muy quiero",
}
_COMPLAINED: Mapping[str, str] = {
    "en": r"(that|this|it|you|your answer|the answer)('s| is| was| are|'re)? (still |just |totally "
    r"|completely )?(wrong|incorrect|useless|terrible|bad|awful|not (right|correct|true|helpful|"
    r"working|what i (asked|wanted|meant|said|need)))|(doesn'?t|does not|didn'?t|did not) (work|"
    r"help|answer|make sense)|not helpful|you('re| are) not (listening|helping|understanding)|"
    r"you (don'?t|do not|didn'?t) (understand|listen|get it)|i (already|just) (told|said|asked)|"
    r"are you (kidding|serious|stupid)|what the (hell|heck)|wtf|ridiculous|nonsense|"
    r"(this|that) is (not )?acceptable|waste of time|frustrat\w+|disappoint\w+|stupid bot|"
    r"speak to a (human|person|manager)",
    "de": r"(das|es|die antwort) (ist|war) (immer noch |leider |völlig |total )?(falsch|nicht "
    r"(richtig|korrekt|hilfreich)|unsinn|quatsch|nutzlos)|stimmt nicht|hilft (mir )?nicht|"
    r"funktioniert (immer noch )?nicht|geht (immer noch )?nicht|du verstehst (mich )?nicht|"
    r"sie verstehen (mich )?nicht|so ein (unsinn|quatsch|mist)|lächerlich|frustrierend|"
    r"enttäusch\w+|das habe ich (schon|bereits|doch) gesagt|zeitverschwendung|unbrauchbar",
    "fr": r"(c'?est|c'était|la réponse est|ta réponse est|votre réponse est) (toujours |encore "
    r"|complètement )?(faux|fausse|incorrect\w*|nul\w*|inutile|pas (correct|juste|bon|ça|vrai|ce "
    r"que))|(ne|n'|ça) ?(marche|fonctionne|aide) (toujours )?pas|tu ne comprends (rien|pas)|"
    r"vous ne comprenez (rien|pas)|n'importe quoi|ridicule|frustrant|décevant|"
    r"je (l'|te l'|vous l')ai déjà dit|perte de temps",
    "es": r"(eso|esto|la respuesta|tu respuesta|su respuesta) (sigue |todavía |aún )?"
    r"(es|está|estaba|era) (siendo |completamente )?(mal|incorrect\w+|equivocad\w+|fals\w+|"
    r"inútil)|"
    r"no (funciona|sirve|ayuda|es (correcto|cierto|lo que))|no (me )?(entiendes|entiende)|"
    r"qué tontería|ridículo|frustrante|decepcionante|ya (te|le|se) lo dije|"
    r"pérdida de tiempo",
}
_CORRECTED: Mapping[str, str] = {
    "en": r"^(no|nope|sorry|actually|wait)[,. ]+.*\b(i (meant|mean|said|wanted|want|need|asked)|"
    r"instead|rather|not (that|this|the)|should be|make (it|that)|change|play|try)\b|"
    r"\bi (meant|said|was asking|asked) |\bnot .{1,40}, (but|i)\b|\binstead\b|^actually\b|"
    r"\b(it|that|you) should (be|have|say)\b|\bthe (correct|right) (answer|one) is\b",
    "de": r"^(nein|nee|nö|sorry|moment|eigentlich)[,. ]+.*\b(ich (meinte|meine|wollte|will|sagte|"
    r"brauche)|sondern|stattdessen|lieber|nicht (das|die|der))\b|\bich (meinte|sagte|fragte) |"
    r"\bnicht .{1,40}, sondern\b|\bstattdessen\b|\bsollte .{1,40} (sein|heißen)\b|"
    r"\bdie richtige antwort (ist|lautet)\b",
    "fr": r"^(non|désolée?|pardon|attends|attendez|en fait)[,. ]+.*\b(je (voulais|veux|parlais|"
    r"disais|cherche)|plutôt|à la place|pas (ça|celui|celle|le|la))\b|\bje voulais dire\b|"
    r"\bje parlais d|\bpas .{1,40}, mais\b|\bà la place\b|\bla bonne réponse est\b|"
    r"\bça devrait être\b",
    "es": r"^(no|perdón|perdona|disculpa|espera|en realidad)[,. ]+.*\b(quise|quería|quiero|dije|me "
    r"refería|necesito|sino|en vez|mejor|no (eso|ese|esa|el|la))\b|\bquise decir\b|"
    r"\bme refería a\b|\bno .{1,40}, sino\b|\ben (vez|lugar) de\b|\bla respuesta correcta es\b|"
    r"\bdebería (ser|decir)\b",
}
_THANKED: Mapping[str, str] = {
    "en": r"\b(thanks?|thank you|thx|ty|cheers|perfect|great|awesome|excellent|wonderful|"
    r"that('s| is) (all|it|great|perfect|helpful)|that works|much appreciated|you'?ve been)\b",
    "de": r"\b(danke\w*|vielen dank|dankeschön|perfekt|super|klasse|prima|wunderbar|"
    r"das (war'?s|ist alles|passt)|sehr hilfreich)\b",
    "fr": r"\b(merci\w*|parfait|super|génial|excellent|c'est tout|ça marche|très utile)\b",
    "es": r"\b(gracias|perfecto|genial|excelente|estupendo|eso es todo|muy útil|vale, gracias)\b",
}
_SIGNS = (("complained", _COMPLAINED), ("corrected", _CORRECTED), ("thanked", _THANKED))
LANGUAGES: Final = tuple(_COMMON)


@dataclass(frozen=True, slots=True)
class Reading:
    """How a turn reads.

    Attributes:
        reaction: One of `REACTIONS`.
        language: Of the turn, by its common words and the signs found in it.
    """

    reaction: str
    language: str

    @property
    def place(self) -> int:
        """Its place in `REACTIONS`, from 1."""
        return REACTIONS.index(self.reaction) + 1

    @property
    def version(self) -> str:
        """The version of the rules and the language, by which it is validated."""
        return version_of(self.language)


def version_of(language: str) -> str:
    """Return the version under which readings of a language are kept."""
    return f"{NAME}-{_VERSION}/{language}"


def read_next_turn(question: str, words: str) -> Reading | None:
    """Return how a turn reads; None where it holds no words, or in a language without rules.

    Args:
        question: What the user wrote before the answer.
        words: What the user wrote next.
    """
    text = words[:_LONGEST].replace("\u2019", "'").lower().strip()
    language = language_of(text) or language_of(question[:_LONGEST].lower())
    if not text or language is None:
        return None
    for reaction, signs in _SIGNS:
        if _signs(signs[language]).search(text):
            return Reading(reaction, language)
    if similarity(question, text) >= ALIKE:
        return Reading("rephrased", language)
    return Reading("moved on", language)


def language_of(text: str) -> str | None:
    """Return the language whose common words and signs a text holds most of; None for none.

    Example:
        >>> language_of("nein, ich meinte die rechnung"), language_of("42")
        ('de', None)
    """
    words = _WORD.findall(text[:_LONGEST].lower())
    counts = {name: sum(word in known for word in words) for name, known in _known().items()}
    for name in counts:
        counts[name] += 2 * sum(bool(_signs(signs[name]).search(text)) for _, signs in _SIGNS)
    best = max(counts, key=lambda name: counts[name])
    return best if counts[best] else None


def similarity(first: str, second: str) -> float:
    """Return the Dice coefficient of two texts' words, in [0, 1]: 1 for the same words.

    Example:
        >>> similarity("Where is my card?", "where is my new card")
        0.8888888888888888
    """
    one, other = (Counter(_WORD.findall(text[:_LONGEST].lower())) for text in (first, second))
    total = one.total() + other.total()
    return 2.0 * (one & other).total() / total if total else 0.0


@cache
def _known() -> dict[str, frozenset[str]]:
    return {name: frozenset(words.split()) for name, words in _COMMON.items()}


@cache
def _signs(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)
