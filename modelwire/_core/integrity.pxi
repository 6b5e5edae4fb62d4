# Checks and digests.


def check_rounding():
    _check(mw_check_rounding())


def crc32c(data):
    cdef _Arrays a = _Arrays()
    cdef const uint8_t *p_data = <const uint8_t *>a.take(data, "data", _BYTES, 1)
    cdef size_t length = a.n
    cdef uint32_t crc
    with nogil:
        crc = mw_crc32c(p_data, length)
    return crc


def fingerprint(q, *, start, verbatim):
    cdef _Arrays a = _Arrays()
    cdef const int32_t *p_q = a.integers(q, "q")
    cdef size_t n = a.n
    cdef uint64_t first = _start(start)
    cdef bint shifted = verbatim
    cdef uint64_t lanes[2]
    with nogil:
        mw_fingerprint(p_q, n, first, shifted, lanes)
    return lanes[0], lanes[1]


def fingerprint_sparse(index, value, *, step, start, verbatim):
    cdef _Sparse s = _Sparse(index, value)
    cdef int64_t units = _step(step)
    cdef uint64_t first = _start(start)
    cdef bint shifted = verbatim
    cdef uint64_t lanes[2]
    cdef mw_status status
    with nogil:
        status = mw_fingerprint_sparse(s.index, s.value, s.count, units, first, shifted, lanes)
    _check(status)
    return lanes[0], lanes[1]
