"""Log-in by OpenID Connect: the code flow with PKCE, state and nonce bound to the browser.

State, nonce and PKCE's verifier derive from the secret in the browser's cookie, so nothing is kept
between the two halves of a log-in, and a code that another browser got is of no use. An account
belongs to issuer and subject; a claim gives it its name, and never opens the account of another.
"""

from __future__ import annotations

import hmac
import logging
from typing import Any
from urllib.parse import parse_qs, quote, unquote

from authlib.common.errors import AuthlibBaseError
from authlib.integrations.requests_client import OAuth2Session
from fastapi import FastAPI, Request, Response
from fastapi.responses import RedirectResponse
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from ratchet.errors import ConflictError
from ratchet.records.accounts import Account, Outcome
from ratchet.store.accounts import note_action
from ratchet.web.accounts import account_id
from ratchet.web.options import OpenIdOptions
from ratchet.web.people import RefusedError, caller, derived, new_account_of
from ratchet.web.rendering import Place
from ratchet.web.signing_in import local_path, signed_in

logger = logging.getLogger(__name__)

CALLBACK = "/openid/callback"
_SIGNED_BY = ("RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "ES512", "EdDSA", "Ed25519")
"""Signatures by a key pair; one by the client's secret or none at all is refused."""
_SECONDS = 10.0
_LEEWAY_SECONDS = 60
_MOST_SUBJECT = 500
_NOT_PROVEN = "The provider did not prove who you are; try again, or ask an admin."


def add_openid(app: FastAPI) -> tuple[Place, ...]:
    """Add the two halves of a log-in, where a provider is named."""
    options = app.state.pages.options.openid
    if options is None:
        return ()

    @app.get("/openid/start")
    def start(request: Request) -> Response:
        target = local_path(parse_qs(request.url.query).get("next", ["/"])[0])
        session, secret = _session(request, options), request.state.secret
        try:
            endpoint = _described(session, options)["authorization_endpoint"]
        except (OSError, ValueError, KeyError) as error:
            logger.warning("the provider of OpenID Connect does not answer: %r", error)
            raise RefusedError(
                "the provider does not answer; try again later, or ask an admin"
            ) from error
        url, _ = session.create_authorization_url(
            endpoint,
            state=_state(secret, target),
            nonce=derived(secret, "nonce"),
            code_verifier=derived(secret, "verifier"),
        )
        return RedirectResponse(url, 303)

    @app.get(CALLBACK)
    def callback(request: Request) -> Response:
        given = {name: values[0] for name, values in parse_qs(request.url.query).items()}
        target = _target(request.state.secret, given.get("state", ""))
        try:
            claims = _claims(request, options, given.get("code", ""))
        except (AuthlibBaseError, JoseError, OSError, ValueError, KeyError) as error:
            logger.warning("a log-in by OpenID Connect failed: %r", error)
            _note(request, "", "refused", type(error).__name__)
            raise RefusedError(_NOT_PROVEN) from error
        try:
            account = account_of(request, options, claims)
        except RefusedError as error:
            _note(request, str(claims.get(options.name_claim, "")), "refused", str(error))
            raise
        _note(request, account.name, "done", "")
        return signed_in(request, account, target)

    return ()


def account_of(request: Request, options: OpenIdOptions, claims: dict[str, Any]) -> Account:
    """Return the account of a subject; who is new gets one where newcomers are let in.

    An account that an admin made under the name, and that has neither password nor subject yet,
    becomes the subject's, where the name is a proven address or another claim that the admin chose.

    Raises:
        RefusedError: It is disabled, nobody new is let in, or the name is somebody else's.
    """
    shared = request.app.state.pages
    subject = f"{options.issuer} {claims['sub']}"[:_MOST_SUBJECT]
    known: Account | None = shared.store.account_of_subject(subject)
    if known is None:
        name = _name(options, claims)
        waiting = shared.store.account(account_id(name))
        if waiting is not None:
            if waiting.subject or waiting.password_hash:
                raise RefusedError(
                    f"the name {name[:120]!r} is that of another account; ask an admin"
                )
            shared.store.change_account(waiting.id, subject=subject)
            known = waiting
        else:
            now = shared.clock()
            made = new_account_of(name, shared.options, now, subject=subject)
            try:
                known = shared.doorkeeper.newcomer(made, now, caller(request))
            except ConflictError as error:
                raise RefusedError(str(error)) from error
    if known.disabled:
        raise RefusedError(f"the account {known.name!r} is disabled; ask an admin")
    return known


def _name(options: OpenIdOptions, claims: dict[str, Any]) -> str:
    name = str(claims.get(options.name_claim) or "")
    if not name:
        raise RefusedError(
            f"the provider must say the claim {options.name_claim!r} of people, got none; choose "
            "another by `name_claim`"
        )
    if options.name_claim == "email" and claims.get("email_verified") is not True:
        raise RefusedError(
            "the provider must have verified the address of who signs in, got one that is not; "
            "verify it there, or choose another claim by `name_claim`"
        )
    return name


def _session(request: Request, options: OpenIdOptions) -> Any:
    shared = request.app.state.pages
    base = shared.options.address or str(request.base_url).rstrip("/")
    return OAuth2Session(
        client_id=options.client_id,
        client_secret=options.client_secret,
        scope="openid email profile",
        redirect_uri=f"{base}{CALLBACK}",
        code_challenge_method="S256",
        default_timeout=_SECONDS,
    )


def _described(session: Any, options: OpenIdOptions) -> dict[str, Any]:
    """Return what the provider says of itself.

    Raises:
        ValueError: It is another issuer.
        OSError: It does not answer.
    """
    address = f"{options.issuer.rstrip('/')}/.well-known/openid-configuration"
    answer = session.get(address, withhold_token=True, timeout=_SECONDS)
    answer.raise_for_status()
    described = answer.json()
    if described.get("issuer") != options.issuer:
        raise ValueError(f"the issuer must be {options.issuer}, got {described.get('issuer')!r}")
    return dict(described)


def _claims(request: Request, options: OpenIdOptions, code: str) -> dict[str, Any]:
    """Exchange a code for the claims of who signed in, and see that they hold."""
    secret = request.state.secret
    session = _session(request, options)
    described = _described(session, options)
    token = session.fetch_token(
        described["token_endpoint"],
        code=code,
        grant_type="authorization_code",
        code_verifier=derived(secret, "verifier"),
        timeout=_SECONDS,
    )
    answer = session.get(described["jwks_uri"], withhold_token=True, timeout=_SECONDS)
    answer.raise_for_status()
    keys = KeySet.import_key_set(answer.json())
    found = jwt.decode(token["id_token"], keys, algorithms=list(_SIGNED_BY))
    rules = jwt.JWTClaimsRegistry(
        now=int(request.app.state.pages.clock().timestamp()),
        leeway=_LEEWAY_SECONDS,
        iss={"essential": True, "value": options.issuer},
        aud={"essential": True, "value": options.client_id},
        exp={"essential": True},
        iat={"essential": True},
        sub={"essential": True},
        nonce={"essential": True, "value": derived(secret, "nonce")},
    )
    rules.validate(found.claims)
    return dict(found.claims)


def _state(secret: str, target: str) -> str:
    return f"{derived(secret, f'state {target}')}.{quote(target, safe='')}"


def _target(secret: str, state: str) -> str:
    """Return where a log-in leads, from a state that this browser was given.

    Raises:
        RefusedError: It was not.
    """
    target = local_path(unquote(state.partition(".")[2]))
    expected = _state(secret, target)
    if not hmac.compare_digest(state.encode("utf-8", "replace"), expected.encode()):
        raise RefusedError("this log-in was not begun in this browser; begin it again")
    return target


def _note(request: Request, name: str, outcome: Outcome, reason: str) -> None:
    shared = request.app.state.pages
    note_action(
        shared.store,
        name,
        "log-in by OpenID Connect",
        now=shared.clock(),
        outcome=outcome,
        reason=reason,
        address=caller(request),
    )
