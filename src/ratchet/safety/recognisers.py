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
_CODE = re.compile(r"[A-Za-z][-_/#]?$")
_IBAN = re.compile(r"(?<![\w])[A-Za-z]{2}\d{2}")
_GROUPED = re.compile(r"(?a:\w+(?:[ -]\w+)*)")
# the IBAN registry of SWIFT
_BY_LENGTH = {
    15: "NO", 16: "BE", 18: "DK FI FK FO GL NL SD", 19: "MK SI", 20: "AT BA EE KZ LT LU MN XK",
    21: "CH HR LI LV", 22: "BG BH CR DE GB GE IE ME RS VA", 23: "AE GI IL IQ OM SO TL",
    24: "AD CZ ES MD PK RO SA SE SK TN VG", 25: "LY PT ST", 26: "IS TR",
    27: "BI DJ FR GR IT MC MR SM", 28: "AL AZ BY CY DO GT HN HU LB NI PL SV", 29: "BR EG PS QA UA",
    30: "JO KW MU YE", 31: "MT SC", 32: "LC", 33: "RU",
}  # fmt: skip
_IBAN_LENGTHS = {
    country: length for length, countries in _BY_LENGTH.items() for country in countries.split()
}
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


class NotOfALongerCode:
    """A recogniser of telephone numbers, without those that are the end of a code: INV-2024-..."""

    def __init__(self, recogniser: Any) -> None:
        self._recogniser = recogniser

    def analyze(self, text: str, entities: list[str], artifacts: Any = None) -> list[Any]:
        """Return what is found, without what follows a letter and a hyphen (`EL-164085`)."""
        found = self._recogniser.analyze(text, entities, artifacts) or []
        return [
            item for item in found if not _CODE.search(text[max(0, item.start - 3) : item.start])
        ]


class Passages:
    """What a function finds, as Presidio's recognisers give it."""

    def __init__(self, kind: str, find: Callable[[str], Sequence[tuple[int, int]]]) -> None:
        self._kind, self._find = kind, find

    def analyze(self, text: str, *_: Any) -> list[Any]:
        """Return the passages."""
        from presidio_analyzer import RecognizerResult

        return [RecognizerResult(self._kind, start, end, 1.0) for start, end in self._find(text)]


def ibans(text: str) -> list[tuple[int, int]]:
    """Return where IBANs stand, in capitals or not: a country's length, the check of ISO 13616."""
    spans = []
    for found in _IBAN.finditer(text):
        length = _IBAN_LENGTHS.get(found[0][:2].upper(), 0)
        places = [
            at
            for at in range(found.start(), min(len(text), found.start() + 2 * length))
            if text[at].isascii() and text[at].isalnum()
        ][:length]
        if not length or len(places) < length:
            continue
        end = places[-1] + 1
        written = text[found.start() : end]
        account = "".join(text[at] for at in places).upper()
        is_whole = end == len(text) or not (text[end].isalnum() or text[end] == "_")
        as_number = "".join(str(int(c, 36)) for c in account[4:] + account[:4])
        if is_whole and _GROUPED.fullmatch(written) and int(as_number) % 97 == 1:
            spans.append((found.start(), end))
    return spans


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
            # words with hyphens may begin like one of these, and hold no digit
            return not pattern_text.startswith("sk-") or any(map(str.isdigit, pattern_text))

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
