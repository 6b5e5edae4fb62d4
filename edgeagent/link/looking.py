"""What `edgeagent doctor` finds of the broker, with the settings that the agent goes by."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgeagent.settings.tree import LinkSettings
from edgecommon import probing, reaching
from edgecommon.mqtt_packets import MqttVersion
from edgecommon.probing import Found, LookWish
from modelwire.wire import topics

from . import credentials

if TYPE_CHECKING:
    import ssl

_VERSIONS = {"5": (MqttVersion.FIVE,), "3.1.1": (MqttVersion.FOUR,)}


def look(
    settings: LinkSettings, folder: Path, fleet: str, device: str, model: str, *, busy: str = "", heard: str = "", free: bool = False
) -> list[Found]:
    """Return what each step to the broker comes to. busy: why the session of a running agent is let alone; it is connected then.

    heard: when the centre was last heard, as a part of a sentence. free: no agent runs.

    Raises ConfigError, BadArgument or MissingFile for settings that can't be used.
    """
    broker = credentials.described(settings, folder, credentials.password_of(folder, settings))
    context = credentials.tls_of(folder, settings) if broker.tls else None
    wish = LookWish(
        broker, reaching.BOARD, settings.client_id or f"{fleet}.{device}",
        listen=(topics.all_down(fleet, device), topics.trust_of_all(fleet)),
        speak=topics.up(fleet, device, model, "state"), echo=echo(fleet), session=int(settings.session_expiry),
        heard=heard, free=free,
        versions=_VERSIONS.get(settings.protocol, (MqttVersion.FIVE, MqttVersion.FOUR)),
        seconds=min(settings.connect_timeout, probing.SECONDS),
    )  # fmt: skip

    def made() -> ssl.SSLContext:
        assert context is not None
        return context

    return probing.look(wish, made, busy=busy)


def echo(fleet: str) -> str:
    """Return the topic on which a look sends a message to itself: no board and no centre listens there."""
    return f"{topics.ROOT}/{fleet}/all/all/dn/look"
