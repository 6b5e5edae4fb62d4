# Stored tensors: held float32 to stored bits and back, and the byte planes of ordered differences.

cdef str _B8 = "B"
_KINDS[_B8] = "uint8"
_INFINITIES = {4: (0, 0x7F800000), 2: (0, 0x7C00, 0x7F80), 1: (0,)}


cdef uint8_t _dtype(object dtype, object among) except 0:
    if dtype not in among:
        raise KernelError(what="dtype", reason=f"expected one of {', '.join(map(str, among))}, got {dtype}")
    return whole(dtype)


cdef uint32_t _width(object array, str name) except 0:
    """Return the bytes of an entry: 1, 2 or 4."""
    try:
        size = memoryview(array).itemsize
    except TypeError as problem:
        raise KernelError(what=name, reason=str(problem)) from None
    return size if size in (1, 2, 4) else 4  # another size is refused when the array is taken


cdef str _unsigned(uint32_t width):
    return _U32 if width == 4 else _U16 if width == 2 else _B8


cdef int64_t _infinity(object infinity, uint32_t width) except -1:
    infinity = whole(infinity)
    if infinity not in _INFINITIES[width]:
        raise KernelError(what="infinity", reason=f"{infinity:#x} is not one of a type of {width} bytes")
    return infinity


def to_storage(held, stored, *, dtype):
    cdef _Arrays a = _Arrays()
    cdef uint8_t kind = _dtype(dtype, (2, 3, 4))
    cdef uint32_t width = 1 if kind == 4 else 2
    cdef const float *p_held = a.floats(held, "held")
    cdef void *p_stored = a.take(stored, "stored", _unsigned(width), width, True)
    cdef size_t n = a.n, at = 0
    cdef mw_status status
    with nogil:
        status = mw_to_storage(p_held, n, kind, p_stored, &at)
    _check(status, at, n)


def from_storage(stored, held, *, dtype):
    cdef _Arrays a = _Arrays()
    cdef uint8_t kind = _dtype(dtype, (2, 3, 4))
    cdef uint32_t width = 1 if kind == 4 else 2
    cdef const void *p_stored = a.take(stored, "stored", _unsigned(width), width)
    cdef float *p_held = <float *>a.take(held, "held", _F32, 4, True)
    cdef size_t n = a.n, at = 0
    cdef mw_status status
    with nogil:
        status = mw_from_storage(p_stored, n, kind, p_held, &at)
    _check(status, at, n)


def round_stored(sums, held, *, dtype):
    cdef _Arrays a = _Arrays()
    cdef uint8_t kind = _dtype(dtype, (1, 2, 3, 4))
    cdef const float *p_sums = a.floats(sums, "sums")
    cdef float *p_held = <float *>a.take(held, "held", _F32, 4, True)
    cdef size_t n = a.n, at = 0
    cdef mw_status status
    with nogil:
        status = mw_round_stored(p_sums, n, kind, p_held, &at)
    _check(status, at, n)


def ordered_differences(fresh, parent, d, *, infinity):
    cdef _Arrays a = _Arrays()
    cdef uint32_t width = _width(fresh, "fresh"), end = _infinity(infinity, width)
    cdef const void *p_fresh = a.take(fresh, "fresh", _unsigned(width), width)
    cdef const void *p_parent = a.take(parent, "parent", _unsigned(width), width)
    cdef int32_t *p_d = <int32_t *>a.take(d, "d", _I32, 4, True)
    cdef size_t n = a.n
    cdef mw_status status
    with nogil:
        status = mw_ordered_differences(p_fresh, p_parent, n, width, end, p_d)
    _check(status)


def split_planes(fresh, parent, changed, planes, *, infinity):
    cdef _Arrays a = _Arrays()
    cdef uint32_t width = _width(fresh, "fresh"), end = _infinity(infinity, width)
    cdef const void *p_fresh = a.take(fresh, "fresh", _unsigned(width), width)
    cdef const void *p_parent = NULL
    if parent is not None:
        p_parent = a.take(parent, "parent", _unsigned(width), width)
    cdef size_t n = a.n, count = 0, at = 0
    cdef uint8_t *p_changed = <uint8_t *>a.take(changed, "changed", _B8, 1, True, (n + 7) // 8)
    cdef uint8_t *p_planes = <uint8_t *>a.take(planes, "planes", _B8, 1, True, width * n)
    cdef mw_status status
    with nogil:
        status = mw_split_planes(p_fresh, p_parent, n, width, end, p_changed, p_planes, n, &count, &at)
    _check(status, at, n)
    return count


def join_planes(changed, planes, parent, fresh, *, count, infinity):
    cdef _Arrays a = _Arrays(), coded = _Arrays()
    cdef uint32_t width = _width(fresh, "fresh"), end = _infinity(infinity, width)
    cdef void *p_fresh = a.take(fresh, "fresh", _unsigned(width), width, True)
    cdef const void *p_parent = NULL
    if parent is not None:
        p_parent = a.take(parent, "parent", _unsigned(width), width)
    cdef size_t n = a.n, at = 0, kept, stride
    cdef const uint8_t *p_changed = <const uint8_t *>a.take(changed, "changed", _B8, 1, False, (n + 7) // 8)
    cdef const uint8_t *p_planes = <const uint8_t *>coded.take(planes, "planes", _B8, 1)
    stride = <size_t>coded.n // width
    if not 0 <= whole(count) <= min(n, stride) or stride * width != <size_t>coded.n:
        raise KernelError(what="planes", reason=f"{coded.n} bytes for {count} of {n} entries")
    kept = count
    cdef mw_status status
    with nogil:
        status = mw_join_planes(p_changed, p_planes, stride, kept, p_parent, n, width, end, p_fresh, &at)
    _check(status, at, n)


def check_lz4(block):
    cdef _Arrays a = _Arrays()
    cdef const uint8_t *p_block = <const uint8_t *>a.take(block, "block", _B8, 1)
    cdef size_t n = a.n
    cdef mw_status status
    with nogil:
        status = mw_check_lz4(p_block, n)
    _check(status)
