"""Topics have one form."""

from __future__ import annotations

import pytest

from modelwire.errors import Malformed
from modelwire.wire import topics


def test_topics_read_back() -> None:
    assert topics.up("demo", "pi-7", "digits", "update") == "e1/demo/pi-7/digits/up/update"
    t = topics.parse("e1/demo/pi-7/digits/dn/receipt")
    assert (t.fleet, t.device, t.model, t.way, t.leaf) == ("demo", "pi-7", "digits", "dn", "receipt")
    assert str(t) == "e1/demo/pi-7/digits/dn/receipt"


@pytest.mark.parametrize(
    "bad",
    ["", "e1/demo/pi-7/digits/up", "e2/demo/pi-7/digits/up/update", "e1/demo/+/digits/up/update", "e1/demo/pi-7/digits/up/receipt",
     "e1/demo/pi-7/digits/up/#", "e1/demo/PI/digits/up/update", "e1/demo/pi-7/digits/up/update/x", "e1//pi-7/digits/up/update"],
)  # fmt: skip
def test_other_topics_are_refused(bad: str) -> None:
    with pytest.raises(Malformed):
        topics.parse(bad)
