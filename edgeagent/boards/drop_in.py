"""Writes the limits of a board's profile as a drop-in of its systemd unit."""

from __future__ import annotations

from .reading import BoardProfile

PLACE = "/etc/systemd/system/edgeagent.service.d/50-board.conf"


def unit_drop_in(profile: BoardProfile) -> str:
    """Return the text of the drop-in; PLACE is where it goes."""
    lines = [f"# Limits of the agent on {profile.title}, from the profile {profile.name}: edgeagent board unit {profile.name}"]
    lines += ["[Service]"]
    for name, figure in profile.unit.items():
        lines += [f"# {figure.source}", f"{name}={figure.value}"]
    return "\n".join(lines) + "\n"
