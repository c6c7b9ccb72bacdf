"""Options of the pages, read from the file that `RATCHET_PAGES` names.

host: 0.0.0.0                        # 127.0.0.1 without it
address: https://ratchet.example     # as people type it, where a proxy or TLS stands in front
tls_cert: /etc/ratchet/cert.pem
tls_key: /etc/ratchet/key.pem
session_hours: 12
newcomers: viewer                    # role of who signs in elsewhere and has no account yet
proxy: {header: X-Forwarded-User, addresses: [10.0.0.0/24]}
openid: {issuer: https://id.example, client_id: ratchet}   # its secret: RATCHET_OPENID_SECRET
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from ratchet.errors import InvalidInputError
from ratchet.files.text import finding, printable
from ratchet.files.yaml import read_yaml
from ratchet.gateway.hosts import is_loopback, parse_origin, proxy_networks
from ratchet.records.accounts import PageRole

PORT = 8100
"""The port where nobody says another."""
SECRET = "RATCHET_OPENID_SECRET"
"""The variable with the secret of the client of OpenID Connect."""


def _address(text: str) -> str:
    address = text.rstrip("/").lower()
    try:
        known = parse_origin(address) is not None
    except ValueError:
        known = False
    if not known:
        raise ValueError("an address must be a scheme and a host, such as https://ratchet.example")
    return address


def _networks(addresses: tuple[str, ...]) -> tuple[str, ...]:
    proxy_networks(addresses)
    return addresses


Address = Annotated[str, AfterValidator(_address)]


class ProxyOptions(BaseModel):
    """A proxy that has signed people in before it sends them here.

    Attributes:
        header: The header with a person's name. The proxy must remove one that a browser sends.
        addresses: Addresses or networks of proxies; from elsewhere the header means nothing.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    header: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9-]{0,80}$")]
    addresses: Annotated[tuple[str, ...], Field(min_length=1), AfterValidator(_networks)]


class OpenIdOptions(BaseModel):
    """A provider of OpenID Connect that people sign in with.

    Attributes:
        issuer: Its address, below which `.well-known/openid-configuration` lies.
        client_id: What it calls these pages.
        name_claim: The claim that becomes an account's name.
        says: Name of the provider on the button.
        client_secret: Read from the environment, never from the file.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    issuer: Annotated[str, Field(pattern=r"^https?://[^\s?#]+$")]
    client_id: Annotated[str, Field(min_length=1, max_length=300)]
    name_claim: Annotated[str, Field(pattern=r"^\w{1,60}$")] = "email"
    says: Annotated[str, Field(min_length=1, max_length=60)] = "OpenID Connect"
    client_secret: str | None = Field(default=None, repr=False)


class PagesOptions(BaseModel):
    """How the pages are served, and who gets in.

    Attributes:
        host: Address to listen on.
        address: Scheme, host and port as people type them; None for what is listened on.
        tls_cert: Certificate in PEM, with its chain.
        tls_key: Its key.
        session_hours: Hours after which somebody signs in again.
        newcomers: The role of who signs in by the proxy or by OpenID Connect and has no account
            yet; None refuses them.
        proxy: None where no proxy signs people in.
        openid: None without OpenID Connect.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = "127.0.0.1"
    address: Address | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    session_hours: Annotated[float, Field(gt=0.0, le=24.0 * 90, allow_inf_nan=False)] = 12.0
    newcomers: PageRole | None = None
    proxy: ProxyOptions | None = None
    openid: OpenIdOptions | None = None

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine reaches the pages."""
        return is_loopback(self.host)

    @property
    def is_encrypted(self) -> bool:
        """Whether browsers reach the pages by HTTPS."""
        if self.address is not None:
            return self.address.startswith("https:")
        return self.tls_cert is not None


def read_options(path: Path | None, environ: Mapping[str, str]) -> PagesOptions:
    """Return the options of a file; the defaults without one.

    Args:
        path: The file.
        environ: Holds the secret of OpenID Connect.

    Raises:
        InvalidInputError: It is not there, no YAML, or says what there is not.
    """
    if path is None:
        return PagesOptions()
    names = ", ".join(PagesOptions.model_fields)
    content: dict[Any, Any] = dict(read_yaml(path, what="options of pages", holds=names))
    openid = content.get("openid")
    if isinstance(openid, Mapping):
        if "client_secret" in openid:
            raise InvalidInputError(
                f"a secret must not stand in {printable(path.name)}, got client_secret; put it "
                f"into {SECRET}, or into the file that {SECRET}_FILE names"
            )
        content["openid"] = {**openid, "client_secret": environ.get(SECRET) or None}
    try:
        return PagesOptions.model_validate(content)
    except ValidationError as error:
        raise InvalidInputError(
            f"{printable(path.name)}, {finding(error, 200)}; correct it"
        ) from error
