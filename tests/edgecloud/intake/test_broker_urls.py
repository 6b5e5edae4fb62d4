"""A broker is named by a URL, and what is none is refused at once."""

from __future__ import annotations

import pytest

from edgecloud.intake.mqtt import parse_broker
from modelwire.errors import BadArgument


@pytest.mark.parametrize("host", ["host..example", "a" * 64 + ".example", "-" * 300])
def test_a_broker_whose_name_no_resolver_takes_is_refused_at_once(host):
    with pytest.raises(BadArgument, match="is no broker"):
        parse_broker(f"mqtt://{host}")
