"""TLS by a certificate and its key."""

from __future__ import annotations

import ssl

from ratchet.errors import InvalidInputError
from ratchet.gateway.options import GatewayOptions


def tls_context(options: GatewayOptions) -> ssl.SSLContext | None:
    """Return how connections are encrypted; None where they are not.

    Raises:
        InvalidInputError: Certificate and key do not fit, or cannot be read.
    """
    cert, key = options.tls_cert, options.tls_key
    if cert is None and key is None:
        return None
    if cert is None or key is None:
        raise InvalidInputError(
            "TLS needs a certificate and its key, got one of them; name both by --tls-cert and "
            "--tls-key"
        )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(cert, key, password=_no_passphrase)
    except (OSError, ValueError) as error:
        raise InvalidInputError(
            f"--tls-cert and --tls-key must be a certificate and its key without a passphrase, in "
            f"PEM, got {cert} and {key}: {error}"
        ) from error
    return context


def _no_passphrase() -> str:
    """Stand in for OpenSSL's question on the terminal, which would wait for ever."""
    return ""
