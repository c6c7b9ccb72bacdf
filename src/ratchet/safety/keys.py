"""Forms of keys, tokens and passwords, by who gives them out."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping

PRIVATE_KEY = (
    r"-----BEGIN (?:[A-Z0-9]{2,12} ){0,2}PRIVATE KEY(?: BLOCK)?-----"
    r"(?:[\s\S]*?-----END (?:[A-Z0-9]{2,12} ){0,2}PRIVATE KEY(?: BLOCK)?-----|[\s\S]*)"
)
_START, _NAMED = r"(?<![\w-])", r"""[\w .-]{0,40}["']?\s{0,4}(?:[:=]|=>|\bis\b)\s{0,4}["']?"""
TOKENS: Mapping[str, str] = {
    "aws": rf"(?i:(?<=(?:aws|secret)[\w .-]{{0,40}}(?:key|secret){_NAMED}))"
    r"[A-Za-z0-9/+]{40}(?![A-Za-z0-9/+])",
    "anthropic and openai": _START + r"sk-[A-Za-z0-9_-]{20,255}",
    "azure": r"(?i:(?<=AccountKey=|SharedAccessKey=))[A-Za-z0-9+/]{42,86}={1,2}"
    r"|(?<![\w~.-])[\w~.-]{3}[78]Q~[\w~.-]{31,34}(?![\w~-])"
    r"|(?<=[?&]sig=)(?:[A-Za-z0-9+/]|%2[BbFf]){43,60}(?:=|%3[Dd])",
    "databricks": _START + r"dapi[0-9a-f]{32}(?:-\d)?(?!\w)",
    "digitalocean": _START + r"do[opr]_v1_[0-9a-f]{64}(?!\w)",
    "docker": _START + r"dckr_[po]at_[\w-]{20,64}",
    "github": _START + r"(?:gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_\w{40,255})",
    "gitlab": _START + r"gl(?:pat|rt|dt|cbt|ptt|ft|soat)-[\w-]{20,64}",
    "google": _START + r"(?:AIza[\w-]{35}|GOCSPX-[\w-]{28}|ya29\.[\w-]{20,255}|1//0[\w-]{40,120})",
    "groq, replicate and others": _START
    + r"(?:gsk|xai|r8|pplx|fw|nvapi|tgp_v1|csk)[_-][\w-]{30,100}",
    "hugging face": _START + r"(?:hf|api_org)_[A-Za-z0-9]{30,64}(?!\w)",
    "npm": _START + r"npm_[A-Za-z0-9]{36}(?!\w)|(?<=_authToken=)[\w-]{20,64}",
    "pypi": _START + r"pypi-[\w-]{50,255}",
    "ratchet": _START + r"ratchet_[A-Za-z0-9]{4,40}_[\w-]{16,100}",
    "slack": _START + r"(?:xox[abeoprs]-[A-Za-z0-9-]{20,255}|xapp-\d-[A-Za-z0-9-]{20,255})"
    r"|(?<=hooks\.slack\.com/services/)T\w{6,14}/B\w{6,14}/\w{20,30}",
    "stripe": _START + r"(?:[sr]k_(?:live|test)_[A-Za-z0-9]{16,255}|whsec_[A-Za-z0-9+/]{24,64})",
    "telegram": _START + r"\d{8,10}:[\w-]{35}(?![\w-])",
    "twilio and sendgrid": _START + r"(?:SK[0-9a-f]{32}(?!\w)|SG\.[\w-]{20,24}\.[\w-]{40,50})",
}
"""What has a form of its own; the digit that nearly all hold tells them from words with hyphens."""
PASSWORDS: Mapping[str, str] = {
    "an address with a password": r"(?i)\b[a-z][a-z0-9+]{1,30}://[^\s:/@\"'<>]{0,100}:[^\s/@\"'<>]{1,200}"
    r"@[^\s\"'<>]{1,300}",
    "basic authentication": r"(?i:(?<=\bbasic\s{1,4}))[A-Za-z0-9+/]{8,400}={0,2}(?![\w+/=])",
    "a bearer's token": r"(?i:(?<=\bbearer\s{1,4}))[\w.~+/-]{20,2000}={0,2}",
}
"""What is known by what stands around it, digits or none."""


def is_basic(passage: str) -> bool:
    """Tell whether a passage is base64 of a name and a password."""
    try:
        said = base64.b64decode(passage, validate=True).decode()
    except (binascii.Error, ValueError):
        return False
    return re.fullmatch(r"[^\s:]{1,100}:[^\r\n]{1,200}", said) is not None
