# The reader's side of the lattice.


def check_lattice(base, q, index, value, *, exponent, step):
    cdef _Arrays a = _Arrays()
    cdef const float *p_base = a.floats(base, "base")
    cdef const int32_t *p_q = a.integers(q, "q")
    cdef _Sparse s = _Sparse(index, value)
    cdef size_t n = a.n, at = 0
    cdef int e = _exponent(exponent)
    cdef int64_t units = _step(step)
    cdef mw_status status
    with nogil:
        status = mw_check_lattice(p_base, p_q, n, s.index, s.value, s.count, e, units, &at)
    _check(status, at, n)


def apply_lattice(base, w, q, index, value, *, exponent, step):
    cdef _Arrays a = _Arrays()
    cdef const float *p_base = a.floats(base, "base")
    cdef float *p_w = <float *>a.take(w, "w", _F32, 4, True)
    cdef int32_t *p_q = <int32_t *>a.take(q, "q", _I32, 4, True)
    cdef _Sparse s = _Sparse(index, value)
    cdef size_t n = a.n, at = 0
    cdef int e = _exponent(exponent)
    cdef int64_t units = _step(step)
    cdef mw_status status
    with nogil:
        status = mw_apply_lattice(p_base, p_w, p_q, n, s.index, s.value, s.count, e, units, &at)
    _check(status, at, n)


def check_verbatim(base, q, index, value):
    cdef _Arrays a = _Arrays()
    cdef const uint32_t *p_base = <const uint32_t *>a.take(base, "base", _U32, 4)
    cdef const int32_t *p_q = a.integers(q, "q")
    cdef _Sparse s = _Sparse(index, value)
    cdef size_t n = a.n, at = 0
    cdef mw_status status
    with nogil:
        status = mw_check_verbatim(p_base, p_q, n, s.index, s.value, s.count, &at)
    _check(status, at, n)


def apply_verbatim(base, w, q, index, value):
    cdef _Arrays a = _Arrays()
    cdef const uint32_t *p_base = <const uint32_t *>a.take(base, "base", _U32, 4)
    cdef uint32_t *p_w = <uint32_t *>a.take(w, "w", _U32, 4, True)
    cdef int32_t *p_q = <int32_t *>a.take(q, "q", _I32, 4, True)
    cdef _Sparse s = _Sparse(index, value)
    cdef size_t n = a.n, at = 0
    cdef mw_status status
    with nogil:
        status = mw_apply_verbatim(p_base, p_w, p_q, n, s.index, s.value, s.count, &at)
    _check(status, at, n)


def weights_from_q(base, q, w, *, exponent):
    cdef _Arrays a = _Arrays()
    cdef const float *p_base = a.floats(base, "base")
    cdef const int32_t *p_q = a.integers(q, "q")
    cdef float *p_w = <float *>a.take(w, "w", _F32, 4, True)
    cdef size_t n = a.n, at = 0
    cdef int e = _exponent(exponent)
    cdef mw_status status
    with nogil:
        status = mw_weights_from_q(p_base, p_q, n, e, p_w, &at)
    _check(status, at)


def q_from_weights(base, w, q, *, exponent):
    cdef _Arrays a = _Arrays()
    cdef const float *p_base = a.floats(base, "base")
    cdef const float *p_w = a.floats(w, "w")
    cdef int32_t *p_q = <int32_t *>a.take(q, "q", _I32, 4, True)
    cdef size_t n = a.n, at = 0
    cdef int e = _exponent(exponent)
    cdef mw_status status
    with nogil:
        status = mw_q_from_weights(p_base, p_w, n, e, p_q, &at)
    _check(status, at)
