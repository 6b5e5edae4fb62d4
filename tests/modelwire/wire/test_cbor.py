"""CBOR of records and manifests: text is Unicode."""

from __future__ import annotations

import pytest

from modelwire.errors import Malformed
from modelwire.wire import cbor


@pytest.mark.parametrize("value", [{"note": "\udcff"}, {"\udcff": 1}, {1: 2}])
def test_text_that_is_no_unicode_is_malformed(value: cbor.Value) -> None:
    with pytest.raises(Malformed):
        cbor.encode(value)
