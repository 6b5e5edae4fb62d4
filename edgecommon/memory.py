"""Memory that a process holds without using it."""

from __future__ import annotations

import contextlib
import ctypes
import re

_DONTNEED = 4  # MADV_DONTNEED
# Of programs and libraries alone: they are never unloaded, so that nothing else can come to lie in their place meanwhile.
_CODE = re.compile(rb"([0-9a-f]+)-([0-9a-f]+) r-[x-]p \S+ \S+ [1-9][0-9]* +/(?:.*\.so[.0-9]*|.*/python[.0-9]*)\n")
_MAPPING = re.compile(rb"[0-9a-f]+-[0-9a-f]+ .*\n")
_SIZE = re.compile(rb"(\w+): +([0-9]+) kB\n")
_CHANGED = (b"Anonymous", b"Swap", b"Private_Dirty", b"Locked")


def give_back(*, code: bool = False) -> None:
    """Give the kernel back what was freed: glibc keeps it in its heap, and the next large thing comes on top of that.

    code: also pages of programs and libraries, of which a start and a round use many and what comes then few. They stay in the page cache
    while there is room, and come back from there when they are used: that takes microseconds.
    """
    with contextlib.suppress(AttributeError, OSError):  # another C library keeps less
        ctypes.CDLL(None).malloc_trim(0)
    if code:
        with contextlib.suppress(AttributeError, OSError):
            _let_go_of_code()


def peak() -> int:
    """Return the most bytes that this process ever held; 0 when the kernel does not say."""
    with contextlib.suppress(OSError), open("/proc/self/status", "rb") as f:
        for line in f:
            if line.startswith(b"VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


def _let_go_of_code() -> None:
    madvise = ctypes.CDLL(None).madvise
    madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    for begin, end in _clean():
        madvise(begin, end - begin, _DONTNEED)


def _clean(process: str = "/proc/self") -> list[tuple[int, int]]:
    """Return (begin, end) of the mappings of code that can't be written here, and of which no page was ever changed."""
    # An emulator shows the program that it runs the mappings of that program in `maps`, and its own in `smaps`, a page or more further
    # on, where something else lies: where the two don't agree, nothing is let go of.
    with open(f"{process}/maps", "rb") as f:
        ours = frozenset(f)
    out, code, clean = list[tuple[int, int]](), None, False
    with open(f"{process}/smaps", "rb") as f:
        for line in f:
            if (size := _SIZE.fullmatch(line)) is not None:
                # What was changed, as an address that was put in when the library was loaded, is anonymous, here or in the swap.
                clean &= size[1] not in _CHANGED or size[2] == b"0"
            elif _MAPPING.fullmatch(line):
                if code is not None and clean:
                    out.append((int(code[1], 16), int(code[2], 16)))
                code, clean = _CODE.fullmatch(line), True
                if code is not None and line not in ours:
                    return []
    return out + ([(int(code[1], 16), int(code[2], 16))] if code is not None and clean else [])
