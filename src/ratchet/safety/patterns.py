"""Patterns that cannot hang, and checks of what a pattern found.

Python's regular expressions try again and again: `(a+)+b` takes time exponential in the text. A
pattern is therefore admitted only where the work at one place of the text has an upper bound, so
that the work on a text grows with its length and no faster. `work_of` computes the bound.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Mapping
from typing import Any, Literal

from ratchet.errors import InvalidInputError

MOST_WORK = 5_000
MOST_REPEATS = 2_000

_parser: Any = importlib.import_module(
    "re._parser"
)  # the standard library's own parse of a pattern
_UNBOUNDED = int(_parser.MAXREPEAT)


def compile_pattern(pattern: str, *, ignore_case: bool = False) -> re.Pattern[str]:
    """Compile a pattern whose work at each place of a text is bounded.

    Raises:
        InvalidInputError: It does not compile, matches nothing at all, or its work has no bound.
    """
    try:
        compiled = re.compile(pattern, re.I if ignore_case else 0)
        tree = _parser.parse(pattern, compiled.flags)
    except (re.error, OverflowError, RecursionError) as error:
        raise InvalidInputError(
            f"a pattern must be a regular expression, got {pattern[:80]!r}: {error}"
        ) from error
    if tree.getwidth()[0] == 0:
        raise InvalidInputError(
            f"a pattern must match at least one character, got {pattern[:80]!r}, which matches none"
        )
    _, work = work_of(tree)
    if work > MOST_WORK:
        raise InvalidInputError(
            f"a pattern may take {MOST_WORK:,} steps at a place of the text, got {pattern[:80]!r}, "
            "which may take more; where one repeat follows another make it possessive, e.g. "
            r"\d{1,9}+"
        )
    return compiled


def work_of(tree: Any) -> tuple[float, float]:
    """Return how many ways a pattern can match at one place, and a bound of the steps to try them.

    Steps of a sequence: those of each part, times the ways of all parts before it. A possessive
    repeat and an atomic group are left with one way.

    Args:
        tree: A pattern as `re` parses it.

    Raises:
        InvalidInputError: A repeat has no upper bound.
    """
    ways, work = 1.0, 0.0
    for operator, value in tree:
        part_ways, part_work = _work_of_part(str(operator), value)
        work += ways * part_work
        ways = min(ways * part_ways, 1e12)
    return ways, work


def _work_of_part(operator: str, value: Any) -> tuple[float, float]:
    if operator in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"):
        least, most, inner = value
        ways, work = _repeated(int(least), int(most), *work_of(inner))
        return (1.0, work) if operator == "POSSESSIVE_REPEAT" else (ways, work)
    if operator == "SUBPATTERN":
        return work_of(value[-1])
    if operator == "ATOMIC_GROUP":
        return 1.0, work_of(value)[1]
    if operator in ("ASSERT", "ASSERT_NOT"):
        return 1.0, work_of(value[1])[1]
    branches = []
    if operator == "BRANCH":
        branches = [work_of(branch) for branch in value[1]]
    elif operator == "GROUPREF_EXISTS":
        branches = [work_of(branch) for branch in value[1:] if branch is not None]
    if branches:
        return sum(ways for ways, _ in branches), 1.0 + sum(work for _, work in branches)
    return 1.0, 1.0  # a character, a class, a place


def _repeated(least: int, most: int, ways: float, work: float) -> tuple[float, float]:
    if most >= _UNBOUNDED or most > MOST_REPEATS:
        raise InvalidInputError(
            "each repeat must have an upper bound, at most "
            f"{MOST_REPEATS:,}, got {'none' if most >= _UNBOUNDED else most}; "
            "write {1,64} in place of +, and {0,64} in place of *"
        )
    ends = steps = 0.0
    reached = 1.0  # ways to have matched the part so many times
    for count in range(most + 1):
        ends += reached if count >= least else 0.0
        steps += reached * work if count < most else 0.0
        reached = min(reached * ways, 1e12)
    return max(ends, 1.0), max(steps, 1.0)


# What a pattern found --------------------------------------------------------------------------

Check = Literal["payment_card", "iban", "person_email", "person_phone", "secret"]

_ROLE_NAMES = (
    "abuse admin billing bookings careers complaints contact customercare customerservice dpo "
    "email enquiries feedback hello help helpdesk hr info inquiries jobs legal mail marketing me "
    "name news newsletter noreply office orders press privacy recruiting returns sales security "
    "service services someone support team user username webmaster you your youremail yourname"
)
_ROLES = frozenset(_ROLE_NAMES.split())
_PLACEHOLDER = re.compile(
    r"example|sample|placeholder|dummy|j(?:ohn|ane)[._]?(?:doe|smith)|x{4}|\*{3}|123456|abcdef|your",
    re.I,
)
_RESERVED = re.compile(r"(?:^|\.)(?:example(?:\.\w{2,3}){0,2}|domain\.com|test|invalid|localhost)$")
_IBANS = (
    "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BI27 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DJ27 "
    "DK18 DO28 EE20 EG29 ES24 FI18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HR21 HU28 IE22 IL23 "
    "IQ23 IS26 IT27 JO30 KW30 KZ20 LB28 LC32 LI21 LT20 LU20 LV21 LY25 MC27 MD24 ME22 MK19 MN20 "
    "MR27 MT31 MU30 NI28 NL18 NO15 OM23 PK24 PL28 PS29 PT25 QA29 RO24 RS22 RU33 SA24 SC31 SD18 "
    "SE24 SI19 SK24 SM27 SO23 ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20 YE30"
)
_IBAN_LENGTHS: Mapping[str, int] = {item[:2]: int(item[2:]) for item in _IBANS.split()}
# Digits that a card network gives out, and how long its numbers are.
_CARD = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})|(?:5[1-5]\d\d|222[1-9]|22[3-9]\d|2[3-6]\d\d|27[01]\d|2720)\d{12}"
    r"|3[47]\d{13}|(?:6011|65\d\d|64[4-9]\d)\d{12}|3(?:0[0-5]|[68]\d)\d{11}|35(?:2[89]|[3-8]\d)\d{12}"
)


def luhn(digits: str) -> bool:
    """Whether the last digit checks the others as on payment cards (ISO/IEC 7812-1).

    Example:
        >>> luhn("79927398713"), luhn("79927398710")
        (True, False)
    """
    total = 0
    for position, digit in enumerate(reversed(digits)):
        value = int(digit) * (1 + position % 2)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def is_payment_card(match: str) -> bool:
    """Whether a run of digit groups holds a card number: network, length and check digit."""
    groups = re.findall(r"\d+", match)
    for start in range(len(groups)):
        for end in range(start + 1, len(groups) + 1):
            digits = "".join(groups[start:end])
            if _CARD.fullmatch(digits) and luhn(digits):
                return True
    return False


def is_iban(match: str) -> bool:
    """Whether a text begins with an IBAN: country, length and check digits (ISO 13616).

    Example:
        >>> is_iban("GB82 WEST 1234 5698 7654 32"), is_iban("GB83 WEST 1234 5698 7654 32")
        (True, False)
    """
    compact = re.sub(r"[^A-Za-z0-9]", "", match).upper()
    number = compact[: _IBAN_LENGTHS.get(compact[:2], 0)]
    if len(number) != _IBAN_LENGTHS.get(compact[:2]):
        return False
    return int("".join(str(int(letter, 36)) for letter in number[4:] + number[:4])) % 97 == 1


def is_person_email(match: str) -> bool:
    """Whether an address may be a person's: no office's, and no example's."""
    name, _, domain = match.casefold().rpartition("@")
    role = re.sub(r"[^a-z]", "", name)
    return role not in _ROLES and not _RESERVED.search(domain) and not _PLACEHOLDER.search(match)


def is_person_phone(match: str) -> bool:
    """Whether a number may be a person's: of a plausible length, not toll-free, not fictional."""
    digits = re.sub(r"\D", "", match)
    if match.startswith("+") and not digits.startswith("1"):
        return 8 <= len(digits) <= 15 and len(set(digits)) > 3
    local = digits[-10:]
    toll_free = (local[0] == "8" and local[1] == local[2]) or local[:3] in ("800", "900")
    fictional = local[3:6] == "555" or local[0] in "01" or local[3] in "01"
    return len(digits) in (10, 11) and not toll_free and not fictional and len(set(local)) > 3


def is_secret(match: str) -> bool:
    """Whether a token may be a real one: letters and digits mixed, and no placeholder."""
    body = match.rpartition("_")[2] if match.count("_") > 1 else match
    mixed = any(c.isdigit() for c in body) and any(c.isalpha() for c in body)
    return mixed and not _PLACEHOLDER.search(match) and len(set(body)) >= 8


CHECKS: Mapping[Check, Callable[[str], bool]] = {
    "payment_card": is_payment_card,
    "iban": is_iban,
    "person_email": is_person_email,
    "person_phone": is_person_phone,
    "secret": is_secret,
}
