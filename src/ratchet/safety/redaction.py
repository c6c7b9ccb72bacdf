"""Take personal data and credentials out of texts: Presidio's recognisers, without a model.

    redacted = Redactor(RedactionConfig()).redact(texts)

Each passage is replaced by its kind, e.g. `<EMAIL_ADDRESS>`. Nothing is fetched from anywhere.

Found are things with a form: addresses, numbers with check digits, telephone numbers, keys. Names,
streets and dates of birth have none, and cannot be found reliably without a model: name the folder
of one for token classification (`RedactionConfig.ner_model`) to have names found as well.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict, Field

from ratchet.errors import ModelError
from ratchet.safety.disguises import DISGUISED, reading
from ratchet.safety.recognisers import (
    NotOfALongerCode,
    Passages,
    Several,
    card_numbers,
    disguised_emails,
    ibans,
    offline_domains,
    secrets,
)

PersonalDataKind = Literal[
    "CREDIT_CARD",
    "CRYPTO",
    "EMAIL_ADDRESS",
    "IBAN_CODE",
    "IP_ADDRESS",
    "MAC_ADDRESS",
    "PHONE_NUMBER",
    "SECRET",
    "US_SSN",
]
KINDS: tuple[PersonalDataKind, ...] = (
    "CREDIT_CARD", "CRYPTO", "EMAIL_ADDRESS", "IBAN_CODE", "IP_ADDRESS", "MAC_ADDRESS",
    "PHONE_NUMBER", "SECRET", "US_SSN",
)  # fmt: skip

_TRIGGERS: dict[str, str] = {
    "CREDIT_CARD": r"(?:\p{Nd}[^\p{Nd}]*){12}",
    "CRYPTO": r"(?i)[a-z0-9]{25}",
    "EMAIL_ADDRESS": r"(?is)@|\bat\b.*\bdot\b|[\[({<]\s{0,2}(?:at|ät|arroba|a)\s{0,2}[\])}>]",
    "IBAN_CODE": r"(?i)[a-z]{2}\p{Nd}{2}",
    "IP_ADDRESS": r"\p{Nd}\.\p{Nd}|[0-9a-fA-F]?:[0-9a-fA-F:]",
    "MAC_ADDRESS": r"(?i)[0-9a-f]{2}[:.-]?[0-9a-f]{2}[:.-]",
    "PHONE_NUMBER": r"(?:\p{Nd}[^\p{Nd}]*){6}",
    "SECRET": r"[A-Za-z0-9_/+~.%-]{16}|PRIVATE KEY|://|\d:[\w-]|(?i:basic|bearer)\s",
    "US_SSN": r"(?:\p{Nd}[^\p{Nd}]*){9}",
}
"""What a text must hold for a recogniser to find anything; most texts need not be looked at."""
_AROUND = 40


class RedactionConfig(BaseModel):
    """What is taken out.

    Attributes:
        enabled: Redact at all; never turn it off for a set that leaves the machine.
        kinds: What is looked for.
        phone_regions: Countries whose telephone numbers are known without a country code.
        minimum_score: Presidio's confidence in [0, 1] from where on a passage goes; a telephone
            number has 0.4, what passed a check digit 1.
        ner_model: Folder of a token-classification model in Hugging Face format, for names.
        ner_kinds: What that model is asked for.
        sample: Redacted passages that are kept for a person to look at.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    enabled: bool = True
    kinds: tuple[PersonalDataKind, ...] = KINDS
    phone_regions: tuple[str, ...] = ("US", "GB", "DE", "FR", "IN", "AU")
    minimum_score: Annotated[float, Field(ge=0.0, le=1.0)] = 0.4
    ner_model: Path | None = None
    ner_kinds: tuple[str, ...] = ("PERSON", "LOCATION")
    sample: Annotated[int, Field(ge=0, le=1_000)] = 20


@dataclass(frozen=True, slots=True)
class Redacted:
    """Texts without personal data.

    Attributes:
        texts: In the order given.
        counts: Passages taken out, by kind.
        changed: Texts in which something was taken out.
        sample: Passages with what stands around them, redacted.
    """

    texts: tuple[str, ...]
    counts: dict[str, int]
    changed: int
    sample: tuple[str, ...]

    @classmethod
    def together(cls, passes: Sequence[Self], sample: int) -> Self:
        """Return what several passes found, with at most so many passages as a sample."""
        counts = Counter[str]()
        for one in passes:
            counts.update(one.counts)
        return cls(
            texts=tuple(text for one in passes for text in one.texts),
            counts=dict(sorted(counts.items())),
            changed=sum(one.changed for one in passes),
            sample=tuple(text for one in passes for text in one.sample)[:sample],
        )


class Redactor:
    """Recognisers made ready; build one and use it for many texts."""

    def __init__(self, config: RedactionConfig) -> None:
        self.config = config
        self._recognisers = _recognisers(config) if config.enabled else {}

    def redact(self, texts: Sequence[str]) -> Redacted:
        """Take personal data out of texts; a text that holds none stays as it is.

        Redacting twice changes nothing more.
        """
        if not self._recognisers or not texts:
            return Redacted(tuple(texts), {}, 0, ())
        spans = self._found(texts)
        # the same in disguise: in zero-width and full-width characters, and behind %-escapes
        disguised = pc.match_substring_regex(pa.array(texts, pa.large_string()), DISGUISED)
        rows = pc.indices_nonzero(disguised).to_pylist()
        read = {row: plain for row in rows if (plain := reading(texts[row])) is not None}
        named = list(read)
        for number, found in self._found([read[row][0] for row in named]).items():
            places = read[named[number]][1]
            spans.setdefault(named[number], []).extend(_placed(item, places) for item in found)
        return self._replaced(texts, spans)

    def _found(self, texts: Sequence[str]) -> dict[int, list[Any]]:
        """Return what recognisers are sure enough of, by text."""
        spans: dict[int, list[Any]] = {}
        column = pa.array(texts, pa.large_string())
        for kind, recogniser in self._recognisers.items():
            for row in _suspects(column, kind):
                results = recogniser.analyze(texts[row], self._kinds(kind), None) or []
                confident = [r for r in results if r.score >= self.config.minimum_score]
                if confident:
                    spans.setdefault(row, []).extend(confident)
        return spans

    def _kinds(self, kind: str) -> list[str]:
        return list(self.config.ner_kinds) if kind == "NER" else [kind]

    def _replaced(self, texts: Sequence[str], spans: dict[int, list[Any]]) -> Redacted:
        from presidio_anonymizer import AnonymizerEngine

        engine = AnonymizerEngine()
        done, counts = list(texts), Counter[str]()
        sample: list[str] = []
        for row in sorted(spans):
            result = engine.anonymize(texts[row], spans[row])
            done[row] = result.text
            counts.update(item.entity_type for item in result.items)
            for item in result.items:
                if len(sample) < self.config.sample:
                    start, end = max(0, item.start - _AROUND), item.end + _AROUND
                    sample.append(result.text[start:end].replace("\n", " "))
        return Redacted(tuple(done), dict(sorted(counts.items())), len(spans), tuple(sample))


@lru_cache(maxsize=4)
def redactor(config: RedactionConfig) -> Redactor:
    """Return a redactor, built once a configuration."""
    return Redactor(config)


def _placed(found: Any, places: Sequence[int]) -> Any:
    """Return what was found in a text as it is read, where that is written."""
    from presidio_analyzer import RecognizerResult

    start, end = places[found.start], places[found.end]
    return RecognizerResult(found.entity_type, start, end, found.score)


def _suspects(column: pa.Array, kind: str) -> Iterator[int]:
    if kind == "NER":
        yield from range(len(column))
        return
    suspicious = pc.match_substring_regex(column, _TRIGGERS[kind])
    yield from pc.indices_nonzero(suspicious).to_pylist()


def _recognisers(config: RedactionConfig) -> dict[str, Any]:
    logging.getLogger("presidio-analyzer").setLevel(logging.ERROR)
    from presidio_analyzer import predefined_recognizers as known

    made: dict[str, Callable[[], Any]] = {
        "CREDIT_CARD": lambda: Passages("CREDIT_CARD", card_numbers),
        "CRYPTO": known.CryptoRecognizer,
        "EMAIL_ADDRESS": _emails,
        "IBAN_CODE": lambda: Passages("IBAN_CODE", ibans),
        "IP_ADDRESS": known.IpRecognizer,
        "MAC_ADDRESS": known.MacAddressRecognizer,
        "PHONE_NUMBER": lambda: NotOfALongerCode(
            known.PhoneRecognizer(supported_regions=config.phone_regions)
        ),
        "SECRET": secrets,
        "US_SSN": known.UsSsnRecognizer,
    }
    recognisers: dict[str, Any] = {kind: made[kind]() for kind in config.kinds}
    if config.ner_model is not None:
        recognisers["NER"] = _names(config.ner_model, config.ner_kinds)
    return recognisers


def _emails() -> Any:
    """Build Presidio's recogniser of e-mail addresses without its download of domain endings."""
    from presidio_analyzer.predefined_recognizers import EmailRecognizer

    is_domain = offline_domains()

    class OfflineEmail(EmailRecognizer):  # type: ignore[misc]
        """Knows the domain endings that came with tldextract."""

        def validate_result(self, pattern_text: str) -> bool:
            return is_domain(pattern_text)

    return Several(OfflineEmail(), Passages("EMAIL_ADDRESS", disguised_emails(is_domain)))


def _names(folder: Path, kinds: Sequence[str]) -> Any:
    if not (folder / "config.json").exists():
        raise ModelError(
            f"ner_model must be a folder with a token-classification model, got {folder.name!r} "
            "without a config.json; leave it out to redact without names"
        )
    from presidio_analyzer.predefined_recognizers import HuggingFaceNerRecognizer

    recogniser = HuggingFaceNerRecognizer(
        supported_entities=list(kinds), model_name=str(folder), device="cpu"
    )
    recogniser.load()
    return recogniser
