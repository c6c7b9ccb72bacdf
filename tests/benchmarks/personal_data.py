"""How much personal data redaction finds, by kind, and how often it takes something else for it.

    python -m tests.benchmarks.personal_data [--each 200] [--data ../shared/data]

Nothing of this was used to write the rules. Numbers are made by the plans of those who give them
out: regulators' area codes and mobile ranges, issuers' prefixes with the check digit of ISO/IEC
7812, national lengths of IBANs with that of ISO 13616, the documented forms of providers' keys.
Each stands in a sentence. False alarms are counted on numbers that are none of this (orders, times,
digests, versions, prices), and on real messages where the folder of public data is there.
"""

from __future__ import annotations

import argparse
import base64
import csv
import gzip
import json
import os
import platform
import random
import re
import string
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

from ratchet.safety.redaction import RedactionConfig, Redactor
from tests.benchmarks.provenance import commit

SENTENCES = (
    "please reach me: {} thanks", "{}", "My details are {}, could you check?",
    "it was {} yesterday",
    "I wrote {} into the form\nand nothing happened", "(see {})", "ok -> {}.",
)  # fmt: skip
NAMES = (
    "anna.lind", "b_okafor", "carlos99", "dmitri-s", "e.m.forster", "farah", "haruto.ito", "ines",
    "ngozi", "o.brien",
)  # fmt: skip
DOMAINS = (
    "gmail.com", "web.de", "orange.fr", "bt.co.uk", "uni-graz.ac.at", "mail.ru", "firma.io",
    "bigpond.net.au",
)  # fmt: skip
IBANS = {
    "DE": 22, "FR": 27, "GB": 22, "NL": 18, "ES": 24, "IT": 27, "AT": 20, "CH": 21, "PL": 28,
    "SE": 24, "NO": 15, "BE": 16, "PT": 25, "IE": 22, "DK": 18,
}  # fmt: skip
_UK = re.compile(r"(?<!\d)0[127]\d{9}(?!\d)")
LETTERED = {"GB": 4, "NL": 4, "IE": 4, "IT": 1}
CARDS = {
    "Visa": ("4", 16), "Mastercard 5": ("52", 16), "Mastercard 2": ("2345", 16),
    "American Express": ("37", 15), "Discover": ("6011", 16), "JCB": ("3545", 16),
    "Diners": ("36", 14), "UnionPay 16": ("6225", 16), "UnionPay 19": ("6217", 19),
    "Maestro 12": ("5018", 12), "Maestro 16": ("6759", 16), "Maestro 19": ("6304", 19),
}  # fmt: skip


def digits(rng: random.Random, many: int) -> str:
    return "".join(rng.choices(string.digits, k=many))


def letters(rng: random.Random, many: int, also: str = "") -> str:
    return "".join(rng.choices(string.ascii_letters + string.digits + also, k=many))


def card(rng: random.Random, start: str, length: int) -> str:
    body = start + digits(rng, length - len(start) - 1)
    total = 0
    for place, digit in enumerate(reversed(body)):
        value = int(digit) * (1 if place % 2 else 2)
        total += value - 9 if value > 9 else value
    number = body + str(-total % 10)
    mark = rng.choice(["", " ", "-"])
    return mark.join(number[at : at + 4] for at in range(0, len(number), 4))


def iban(rng: random.Random) -> str:
    country = rng.choice(list(IBANS))
    lettered = "".join(rng.choices(string.ascii_uppercase, k=LETTERED.get(country, 0)))
    body = lettered + digits(rng, IBANS[country] - 4 - len(lettered))
    as_number = "".join(str(int(c, 36)) for c in f"{body}{country}00")
    full = f"{country}{98 - int(as_number) % 97:02d}{body}"
    return (
        full if rng.random() < 0.5 else " ".join(full[at : at + 4] for at in range(0, len(full), 4))
    )


def phone(rng: random.Random, region: str) -> str:
    """Return a number as people of a country write it at home, by its regulator's plan."""
    made = {
        "US": lambda: rng.choice(["({}) {}-{}", "{}-{}-{}", "{}.{}.{}", "{} {} {}"]).format(
            rng.choice(["212", "415", "312", "206", "617", "702", "305", "512"]),
            f"{rng.randint(2, 9)}{rng.randint(2, 9)}{rng.randint(0, 9)}",
            digits(rng, 4),
        ),
        "GB": lambda: rng.choice(
            [
                f"07{rng.choice('45789')}{digits(rng, 2)} {digits(rng, 6)}",
                f"020 {rng.choice('78')}{digits(rng, 3)} {digits(rng, 4)}",
                f"0161 {rng.choice('2348')}{digits(rng, 2)} {digits(rng, 4)}",
            ]
        ),
        "DE": lambda: rng.choice(
            [
                f"030 {rng.randint(2, 8)}{digits(rng, 7)}",
                f"0{rng.choice(['151', '160', '170', '172', '176'])}/{rng.randint(2, 9)}"
                f"{digits(rng, 7)}",
                f"089-{rng.randint(2, 8)}{digits(rng, 6)}",
                f"0221 {rng.randint(2, 8)}{digits(rng, 6)}",
            ]
        ),
        "FR": lambda: rng.choice([" ", ".", ""]).join(
            [f"0{rng.choice('1234567')}", *(digits(rng, 2) for _ in range(4))]
        ),
        "IN": lambda: rng.choice(["{} {}", "{}{}", "0{} {}"]).format(
            rng.choice("6789") + digits(rng, 4), digits(rng, 5)
        ),
        "AU": lambda: rng.choice(
            [
                f"04{rng.randint(0, 3)}{rng.randint(0, 9)} {digits(rng, 3)} {digits(rng, 3)}",
                f"({rng.choice(['02', '03'])}) 9{digits(rng, 3)} {digits(rng, 4)}",
            ]
        ),
    }  # fmt: skip
    return made[region]()


def disguised(rng: random.Random, name: str, domain: str) -> str:
    at, dot = rng.choice(
        [(" at ", " dot "), ("[at]", "."), (" (at) ", " (dot) "), (" [at] ", "[dot]"),
         ("(at)", "."), (" AT ", " DOT "), (" at ", "(dot)"), ("{at}", "{dot}"), ("<at>", ".")]
    )  # fmt: skip
    return name + at + domain.replace(".", dot)


def keys(rng: random.Random) -> dict[str, str]:
    some = letters
    password = "".join(rng.choices(string.ascii_lowercase, k=10))
    basic = base64.b64encode(f"{rng.choice(NAMES)}:{password}".encode()).decode()
    hexes = "".join(rng.choices("0123456789abcdef", k=64))
    return {
        "AWS key id": "AKIA" + "".join(rng.choices(string.ascii_uppercase + "234567", k=16)),
        "AWS secret": f"AWS_SECRET_ACCESS_KEY={some(rng, 40, '/+')}",
        "Hugging Face": "hf_" + some(rng, 34),
        "npm": "npm_" + some(rng, 36),
        "PyPI": "pypi-AgEIcHlwaS5vcmc" + some(rng, 120, "-_"),
        "Google API": "AIza" + some(rng, 35, "-_"),
        "Google OAuth": "GOCSPX-" + some(rng, 28, "-_"),
        "Docker": "dckr_pat_" + some(rng, 27, "-_"),
        "Azure storage": f"AccountKey={some(rng, 86, '/+')}==",
        "Azure secret": f"{some(rng, 3)}8Q~{some(rng, 34, '-_.~')}",
        "GitHub": rng.choice(["ghp_", "gho_", "ghs_"]) + some(rng, 36),
        "GitHub fine": f"github_pat_{some(rng, 22)}_{some(rng, 59)}",
        "GitLab": "glpat-" + some(rng, 20, "-_"),
        "Slack": f"xoxb-{digits(rng, 11)}-{digits(rng, 12)}-{some(rng, 24)}",
        "Stripe": rng.choice(["sk_live_", "rk_live_", "sk_test_"]) + some(rng, 24),
        "OpenAI": "sk-proj-" + some(rng, 48, "-_"),
        "Anthropic": "sk-ant-api03-" + some(rng, 93, "-_") + "AA",
        "database URL": f"postgres://{rng.choice(NAMES)}:{password}@db.internal:5432/app",
        "Basic": f"Authorization: Basic {basic}",
        "Ratchet": f"ratchet_{hexes[:12]}_{some(rng, 43, '-_')}",
        "DigitalOcean": "dop_v1_" + hexes,
        "Telegram": f"{digits(rng, 10)}:{some(rng, 35, '-_')}",
    }


def passages(rng: random.Random) -> dict[str, tuple[str, str]]:
    """Return one passage a row of the table, with what of it must not be left."""
    email = f"{rng.choice(NAMES)}@{rng.choice(DOMAINS)}"
    visa = card(rng, "4", 16)
    made = {"e-mail address": email}
    made["e-mail, disguised"] = disguised(rng, *email.split("@"))
    made |= {f"card, {name}": card(rng, *form) for name, form in CARDS.items()}
    made["IBAN"] = iban(rng)
    made["IBAN, lower case"] = iban(rng).lower()
    made |= {
        f"telephone, {name}": phone(rng, name) for name in ("US", "GB", "DE", "FR", "IN", "AU")
    }
    made |= {f"key, {name}": value for name, value in keys(rng).items()}
    at = rng.randint(1, len(visa) - 1)
    made["zero-width in a card"] = f"{visa[:at]}\u200b{visa[at:]}"
    made["full-width card"] = "".join(chr(ord(c) + 0xFEE0) if c.isdigit() else c for c in visa)
    made["full-width e-mail"] = "".join(chr(ord(c) + 0xFEE0) for c in email)
    made["percent-encoded e-mail"] = quote(email, safe="")
    return {name: (value, _core(name, value)) for name, value in made.items()}


def _core(name: str, value: str) -> str:
    """Return the part that gives it away: what stands after a name or a word before it."""
    for mark in ("=", "Basic ", "://"):
        if name.startswith("key") and mark in value and not value.endswith(mark):
            value = value.split(mark, 1)[1]
    return value


def others(rng: random.Random) -> dict[str, str]:
    """Return what is none of it."""
    when = datetime.fromtimestamp(rng.randint(1_500_000_000, 1_800_000_000), UTC)
    return {
        "order number": f"order {digits(rng, 8)}",
        "invoice": f"INV-{digits(rng, 4)}-{digits(rng, 6)}",
        "tracking number": f"1Z{letters(rng, 16).upper()}",
        "time": when.isoformat(),
        "date and amount": f"{when:%d.%m.%Y}, {rng.randint(1, 9999):,}.{digits(rng, 2)} EUR",
        "milliseconds": str(int(when.timestamp() * 1000)),
        "UUID": str(uuid.UUID(int=rng.getrandbits(128))),
        "git digest": "".join(rng.choices("0123456789abcdef", k=40)),
        "version": ".".join(str(rng.randint(0, 40)) for _ in range(3)),
        "16 random digits": digits(rng, 16),
        "at and dot in words": f"meet me at the {rng.choice(['red', 'blue'])} dot on the map",
        "shop": f"I bought it at {rng.choice(['amazon', 'ebay', 'zalando'])}.com",
        "address without password": f"https://example.org/{letters(rng, 12)}?n={digits(rng, 2)}",
        "long name": "-".join(
            ("retry", "backoff", "settings", "handler", "module", "timeout")[: rng.randint(3, 6)]
        ),
        "basic": f"basic {rng.choice(['training', 'authentication', 'understanding'])} course",
    }  # fmt: skip


def real_texts(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield real messages by data set: parts that no test of the rules reads."""
    with (folder / "banking77" / "test.csv").open(newline="", encoding="utf-8") as file:
        yield "BANKING77, test part", [row["text"] for row in csv.DictReader(file)]
    with gzip.open(
        folder / "hh-rlhf" / "harmless-base-test.jsonl.gz", "rt", encoding="utf-8"
    ) as file:
        yield "HH-RLHF, dialogues", [json.loads(line)["chosen"] for line in file]
    for name in ("MWOZ", "SGD"):
        with gzip.open(folder / "uss" / f"{name}.txt.gz", "rt", encoding="utf-8") as file:
            turns = [line.split("\t")[1] for line in file if line.count("\t") > 1]
            yield f"USS, turns of {name}", turns


def recall(redactor: Redactor, each: int, rng: random.Random) -> dict[str, tuple[int, int]]:
    """Return how many passages of each row are gone, of how many."""
    found, asked = Counter[str](), Counter[str]()
    for _ in range(each):
        made = passages(rng)
        texts = [rng.choice(SENTENCES).format(value) for value, _ in made.values()]
        left = redactor.redact(texts).texts
        for (name, (_, core)), text in zip(made.items(), left, strict=True):
            asked[name] += 1
            found[name] += core not in text and "<" in text and _nothing_of(core, text)
    return {name: (found[name], many) for name, many in asked.items()}


def _nothing_of(core: str, text: str) -> bool:
    """Tell whether no half of a passage is left: a part that was cut out is none found."""
    half = max(6, len(core) // 2)
    return not any(core[at : at + half] in text for at in range(len(core) - half + 1))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--each", type=int, default=200, help="passages of each row")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    options = parser.parse_args()
    rng, redactor = random.Random(21), Redactor(RedactionConfig(sample=0))
    print(
        f"Measured on {datetime.now(UTC).date()} at commit {commit()}, {os.cpu_count()} cores, "
        f"{platform.machine()}, Python {platform.python_version()}.\n"
    )
    print("| what | found | of |\n|---|---:|---:|")
    for name, (found, many) in recall(redactor, options.each, rng).items():
        print(f"| {name} | {found / many:.1%} | {many} |")
    print("\n| what is none of it | taken for personal data | of |\n|---|---:|---:|")
    wrong, made = Counter[str](), Counter[str]()
    for _ in range(options.each):
        for name, text in others(rng).items():
            made[name] += 1
            wrong[name] += redactor.redact([text]).changed
    for name, many in made.items():
        print(f"| {name} | {wrong[name] / many:.1%} | {many} |")
    report_real(redactor.redact, options.data)


def report_real(redact: Callable[[list[str]], object], folder: Path) -> None:
    """Print what is found in real messages, whose publishers took personal data out."""
    if not folder.is_dir():
        print("\nNo real messages: the folder of public data is not there.")
        return
    notes = ""
    print("\n| real messages | with a passage taken out | of | kinds |\n|---|---:|---:|---|")
    for name, texts in real_texts(folder):
        found = redact(texts)
        if name.endswith("MWOZ"):
            told = sum(len(_UK.findall(text)) for text in texts)
            left = sum(len(_UK.findall(text)) for text in found.texts)  # type: ignore[attr-defined]
            notes = f"\nOf {told} British numbers of eleven digits in MWOZ {told - left} went."
        kinds = ", ".join(f"{kind} {n}" for kind, n in found.counts.items())  # type: ignore[attr-defined]
        print(f"| {name} | {found.changed} | {len(texts):,} | {kinds or '-'} |")  # type: ignore[attr-defined]
    print(notes)


if __name__ == "__main__":
    main()
