"""Open the channels of a policy: each gets its secret here, and holds it alone.

channels = open_channels(policy, settings.notify, os.environ)
channels["team"].send(message, now=now)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ratchet.errors import SettingsError
from ratchet.notify.mail import Mail
from ratchet.notify.others import OtherChannel, check_addresses
from ratchet.notify.policy import (
    AlertPolicy,
    AppriseChannel,
    ChannelConfig,
    MailChannel,
    SlackChannel,
)
from ratchet.notify.results import Channel
from ratchet.notify.slack import Slack
from ratchet.notify.webhook import Webhook
from ratchet.records import digest
from ratchet.settings import value_of


def open_channels(
    policy: AlertPolicy, addresses: Sequence[str], environ: Mapping[str, str]
) -> dict[str, Channel]:
    """Return the channels of a policy and of RATCHET_NOTIFY, by the key of each.

    Raises:
        SettingsError: A secret is missing, or an address is none that Apprise knows; the message
            shows neither.
    """
    channels = [_opened(name, config, environ) for name, config in policy.channels.items()]
    return {one.key: one for one in (*channels, *address_channels(addresses))}


def address_channels(addresses: Sequence[str]) -> list[Channel]:
    """Return the channels of addresses of Apprise.

    Raises:
        SettingsError: Apprise does not understand one; the message names it by its number.
    """
    check_addresses(addresses)
    return [OtherChannel(digest(one), one.partition(":")[0], one) for one in addresses]


def _opened(name: str, config: ChannelConfig, environ: Mapping[str, str]) -> Channel:
    if isinstance(config, MailChannel):
        password = config.password and _secret(name, config.password, environ)
        return Mail(name, config, password)
    if isinstance(config, SlackChannel):
        return Slack.of(name, _secret(name, config.url, environ))
    if isinstance(config, AppriseChannel):
        address = _secret(name, config.url, environ)
        check_addresses([address], f"{config.url} of the channel {name}")
        return OtherChannel(name, name, address)
    return Webhook.of(name, config.url, _secret(name, config.secret, environ))


def _secret(name: str, variable: str, environ: Mapping[str, str]) -> str:
    found = value_of(environ, variable)
    if not found:
        raise SettingsError(
            f"the channel {name} needs its secret in {variable}, got none; set it, or name a file "
            f"that holds it in {variable}_FILE"
        )
    return found
