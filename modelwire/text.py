"""Which characters may stand in a text that travels: a table of its own, so that no two readers differ by the Unicode that they know."""

from __future__ import annotations

import re

# Controls, spaces but the plain one, what has no width or turns the direction, private use, and what is no character.
REFUSED = (
    (0x0000, 0x001F), (0x007F, 0x00A0), (0x00AD, 0x00AD), (0x061C, 0x061C), (0x1680, 0x1680), (0x180E, 0x180E), (0x2000, 0x200F),
    (0x2028, 0x202F), (0x205F, 0x206F), (0x3000, 0x3000), (0xD800, 0xDFFF), (0xE000, 0xF8FF), (0xFDD0, 0xFDEF), (0xFEFF, 0xFEFF),
    (0xFFF9, 0xFFFB), (0xFFFE, 0xFFFF), (0xF0000, 0x10FFFF),
)  # fmt: skip
_REFUSED = re.compile("[" + "".join(f"{chr(first)}-{chr(last)}" for first, last in REFUSED) + "]")


def is_plain(text: str) -> bool:
    """Return whether a text holds none of the refused characters; what `str.isprintable` takes always is plain."""
    return _REFUSED.search(text) is None
