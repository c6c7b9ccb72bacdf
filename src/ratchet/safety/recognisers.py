"""Recognisers of personal data that Presidio has none of, or that it knows in one form only."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ratchet.safety.keys import PASSWORDS, PRIVATE_KEY, TOKENS, is_basic
from ratchet.safety.rules import DEFAULT_RULES, PatternRule

_AT = (
    r"(?:\s{0,3}[\[({<]\s{0,2}(?:at|@|ät|arroba|a)\s{0,2}[\])}>]\s{0,3}"
    r"|\s{1,3}at\s{1,3}|\s{1,3}@\s{0,3}|@\s{0,3})"
)
_DOT = (
    r"(?:\s{0,3}[\[({<]\s{0,2}(?:dot|\.|punkt|point|punto)\s{0,2}[\])}>]\s{0,3}"
    r"|\s{1,3}dot\s{1,3}|\.)"
)
_EMAIL = re.compile(
    rf"(?i)(?<![\w.+-])(?P<name>[a-z0-9_+-]{{1,64}}(?:{_DOT}[a-z0-9_+-]{{1,64}}){{0,4}}){_AT}"
    rf"(?P<domain>[a-z0-9-]{{1,63}}(?:{_DOT}[a-z0-9-]{{1,63}}){{1,5}})(?![\w-])"
)
_NO_NAMES = frozenset(["the", "a", "an", "this", "that", "my", "your", "our", "their", "each"])
# prefixes by network: ISO/IEC 7812 issuers as the networks publish them, with their lengths
_CARDS: Sequence[tuple[str, Sequence[int]]] = (
    (r"4", (13, 16, 19)),  # Visa
    (r"5[1-5]|222[1-9]|22[3-9]|2[3-6]|27[01]|2720", (16,)),  # Mastercard
    (r"3[47]", (15,)),  # American Express
    (r"30[0-5]|3095|36|3[89]", (14, 15, 16, 17, 18, 19)),  # Diners Club
    (r"6011|64[4-9]|65", (16, 17, 18, 19)),  # Discover
    (r"352[89]|35[3-8]", (16, 17, 18, 19)),  # JCB
    (r"62|81", (16, 17, 18, 19)),  # UnionPay
    (r"50|5[6-9]|6[0-9]", (12, 13, 14, 15, 16, 17, 18, 19)),  # Maestro, RuPay, Elo and others
    (r"220[0-4]", (16, 17, 18, 19)),  # Mir
    (r"9792", (16,)),  # Troy
    (r"1", (15,)),  # UATP
)
_CARD_STARTS = tuple((re.compile(start), lengths) for start, lengths in _CARDS)
_CARD = re.compile(r"(?<![\w.-])\d(?:[ .-]?\d){11,18}(?!\d|[.-]\d|\w)")
_GROUPS = re.compile(r"\d{3,7}(?:[ .-]\d{2,7}){1,4}|\d{12,19}")


class Several:
    """Recognisers of one kind as one."""

    def __init__(self, *recognisers: Any) -> None:
        self._recognisers = recognisers

    def analyze(self, text: str, entities: list[str], artifacts: Any = None) -> list[Any]:
        """Return what any of them finds."""
        return [
            result
            for recogniser in self._recognisers
            for result in recogniser.analyze(text, entities, artifacts) or []
        ]


class UpperCase:
    """A recogniser that is shown a text in capitals: IBANs are written in small letters too."""

    def __init__(self, recogniser: Any) -> None:
        self._recogniser = recogniser

    def analyze(self, text: str, entities: list[str], artifacts: Any = None) -> Any:
        """Return what it finds; each character keeps its place."""
        capitals = "".join(c.upper() if c.isascii() else c for c in text)
        return self._recogniser.analyze(capitals, entities, artifacts)


class Passages:
    """What a function finds, as Presidio's recognisers give it."""

    def __init__(self, kind: str, find: Callable[[str], Sequence[tuple[int, int]]]) -> None:
        self._kind, self._find = kind, find

    def analyze(self, text: str, *_: Any) -> list[Any]:
        """Return the passages."""
        from presidio_analyzer import RecognizerResult

        return [RecognizerResult(self._kind, start, end, 1.0) for start, end in self._find(text)]


def card_numbers(text: str) -> list[tuple[int, int]]:
    """Return where numbers of cards stand: an issuer's start and length, the check digit."""
    return [
        found.span()
        for found in _CARD.finditer(text)
        if _GROUPS.fullmatch(found[0]) and _is_card(re.sub(r"\D", "", found[0]))
    ]


def _is_card(digits: str) -> bool:
    known = any(start.match(digits) and len(digits) in many for start, many in _CARD_STARTS)
    doubled = [int(d) * (2 if place % 2 else 1) for place, d in enumerate(reversed(digits))]
    return known and sum(n - 9 if n > 9 else n for n in doubled) % 10 == 0


def disguised_emails(is_domain: Callable[[str], bool]) -> Callable[[str], list[tuple[int, int]]]:
    """Return what finds addresses such as "name at example dot com" and "name[at]example.com".

    "at" as a word means an address only before a dot in words: people shop at example.com.

    Args:
        is_domain: Tells whether a name ends as domains do.
    """

    def find(text: str) -> list[tuple[int, int]]:
        spans = []
        for found in _EMAIL.finditer(text):
            between = text[found.end("name") : found.start("domain")].strip().lower()
            name, domain = (_with_dots(found[part]) for part in ("name", "domain"))
            in_words = between == "at" and domain == found["domain"].lower()
            labels = {name, *domain.split(".")}
            if not in_words and labels.isdisjoint(_NO_NAMES) and is_domain(domain):
                spans.append(found.span())
        return spans

    return find


def _with_dots(disguised: str) -> str:
    return re.sub(f"(?i){_DOT}", ".", disguised).lower()


def offline_domains() -> Callable[[str], bool]:
    """Return what tells domain names by the endings that came with tldextract."""
    import tldextract

    endings = tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None)
    return lambda name: bool(endings(name).fqdn)


def secrets() -> Any:
    """Return what finds access tokens, private keys and passwords in addresses."""
    from presidio_analyzer import Pattern, PatternRecognizer

    class Secrets(PatternRecognizer):  # type: ignore[misc]
        """Access tokens and private keys."""

        def validate_result(self, pattern_text: str) -> bool | None:
            return any(character.isdigit() for character in pattern_text) or "KEY" in pattern_text

    class Basic(PatternRecognizer):  # type: ignore[misc]
        """A name and a password in base64."""

        def validate_result(self, pattern_text: str) -> bool | None:
            return is_basic(pattern_text)

    logging.getLogger("presidio-analyzer").setLevel(logging.ERROR)
    token = next(r for r in DEFAULT_RULES if r.name == "access_token")
    assert isinstance(token, PatternRule)

    def made(kind: type, patterns: Mapping[str, str]) -> Any:
        listed = [Pattern(name, pattern, 0.9) for name, pattern in patterns.items()]
        return kind("SECRET", patterns=listed, global_regex_flags=0)

    basic = {"basic": PASSWORDS["basic authentication"]}
    others = {name: said for name, said in PASSWORDS.items() if name != "basic authentication"}
    return Several(
        made(Secrets, {"token": token.pattern, "key": PRIVATE_KEY, **TOKENS}),
        made(Basic, basic),
        made(PatternRecognizer, others),
    )
