# The device's side: what changed, what is worth sending, taking it over.


def differences(w, trained, residual, out):
    cdef _Arrays a = _Arrays()
    cdef const float *p_w = a.floats(w, "w")
    cdef const float *p_trained = a.floats(trained, "trained")
    cdef const uint16_t *p_residual = <const uint16_t *>a.take(residual, "residual", _U16, 2)
    cdef float *p_out = <float *>a.take(out, "out", _F32, 4, True)
    cdef size_t n = a.n, at = 0
    cdef mw_status status
    with nogil:
        status = mw_differences(p_w, p_trained, p_residual, n, p_out, &at)
    _check(status, at)


def collect(w, trained, residual, left, index, d, *, least):
    cdef _Arrays a = _Arrays(), kept = _Arrays()
    cdef const float *p_w = a.floats(w, "w")
    cdef const float *p_trained = a.floats(trained, "trained")
    cdef const uint16_t *p_residual = <const uint16_t *>a.take(residual, "residual", _U16, 2)
    cdef uint16_t *p_left = <uint16_t *>a.take(left, "left", _U16, 2, True)
    cdef uint32_t *p_index = <uint32_t *>kept.take(index, "index", _U32, 4, True)
    cdef float *p_d = <float *>kept.take(d, "d", _F32, 4, True)
    cdef size_t n = a.n, capacity = kept.n, count = 0, at = 0
    cdef float bar = least
    cdef int huge = 0
    cdef mw_status status
    with nogil:
        status = mw_collect(p_w, p_trained, p_residual, n, bar, p_left, p_index, p_d, capacity, &count, &huge, &at)
    if status == MW_NO_ROOM:
        return None
    _check(status, at)
    return count, bool(huge)


def kth_magnitude(d, k):
    cdef _Arrays a = _Arrays()
    cdef const float *p_d = a.floats(d, "d")
    cdef size_t n = a.n, rank
    cdef float edge = 0
    cdef mw_status status
    if not 0 < whole(k) <= n:
        raise KernelError(what="k", reason=f"expected 1 to {n}, got {k}")
    rank = k
    with nogil:
        status = mw_kth_magnitude(p_d, n, rank, &edge)
    _check(status)
    return edge


def quantise(q, index, d, *, exponent, step, threshold):
    cdef _Arrays a = _Arrays(), kept = _Arrays()
    cdef const int32_t *p_q = a.integers(q, "q")
    cdef const uint32_t *p_index = <const uint32_t *>kept.take(index, "index", _U32, 4)
    cdef const float *p_d = kept.floats(d, "d")
    cdef size_t n = a.n, candidates = kept.n, count = 0, clamped = 0, at = 0
    cdef int e = _exponent(exponent)
    cdef int64_t units = _step(step)
    cdef float least = threshold
    sent = np.empty(candidates, np.uint32)
    value = np.empty(candidates, np.int32)
    cdef uint32_t *p_sent = <uint32_t *>kept.take(sent, "sent", _U32, 4, True)
    cdef int32_t *p_value = <int32_t *>kept.take(value, "value", _I32, 4, True)
    cdef mw_status status
    with nogil:
        status = mw_quantise(p_q, n, p_index, p_d, candidates, e, units, least, p_sent, p_value, &count, &clamped, &at)
    _check(status, at, n)
    if 2 * count < candidates:  # do not hold twice the memory that the result needs
        return sent[:count].copy(), value[:count].copy(), clamped
    return sent[:count], value[:count], clamped


def snap(w, trained, residual, q, *, exponent, step, threshold):
    cdef _Arrays a = _Arrays()
    cdef const float *p_w = a.floats(w, "w")
    cdef const float *p_trained = a.floats(trained, "trained")
    cdef const uint16_t *p_residual = <const uint16_t *>a.take(residual, "residual", _U16, 2)
    cdef const int32_t *p_q = a.integers(q, "q")
    cdef size_t n = a.n, count = 0, clamped = 0, at = 0
    cdef int e = _exponent(exponent)
    cdef int64_t s = _step(step)
    cdef float least = threshold
    # Untouched pages of these cost nothing; what is returned is cut to size.
    index = np.empty(n, np.uint32)
    value = np.empty(n, np.int32)
    cdef uint32_t *p_index = <uint32_t *>a.take(index, "index", _U32, 4, True)
    cdef int32_t *p_value = <int32_t *>a.take(value, "value", _I32, 4, True)
    cdef mw_status status
    with nogil:
        status = mw_snap(p_w, p_trained, p_residual, p_q, n, e, s, least, p_index, p_value, n, &count, &clamped, &at)
    _check(status, at)
    return index[:count].copy(), value[:count].copy(), clamped


def adopt(base, w, trained, residual, q, index, value, *, exponent, step):
    cdef _Arrays a = _Arrays()
    cdef const float *p_base = a.floats(base, "base")
    cdef float *p_w = <float *>a.take(w, "w", _F32, 4, True)
    cdef const float *p_trained = a.floats(trained, "trained")
    cdef uint16_t *p_residual = <uint16_t *>a.take(residual, "residual", _U16, 2, True)
    cdef int32_t *p_q = <int32_t *>a.take(q, "q", _I32, 4, True)
    cdef _Sparse s = _Sparse(index, value)
    cdef size_t n = a.n, at = 0
    cdef int e = _exponent(exponent)
    cdef int64_t units = _step(step)
    cdef mw_status status
    with nogil:
        status = mw_adopt(p_base, p_w, p_trained, p_residual, p_q, n, s.index, s.value, s.count, e, units, &at)
    _check(status, at, n)


def adopt_sent(base, w, trained, residual, q, left, index, value, *, exponent, step):
    cdef _Arrays a = _Arrays()
    cdef const float *p_base = a.floats(base, "base")
    cdef float *p_w = <float *>a.take(w, "w", _F32, 4, True)
    cdef const float *p_trained = a.floats(trained, "trained")
    cdef const uint16_t *p_residual = <const uint16_t *>a.take(residual, "residual", _U16, 2)
    cdef int32_t *p_q = <int32_t *>a.take(q, "q", _I32, 4, True)
    cdef uint16_t *p_left = <uint16_t *>a.take(left, "left", _U16, 2, True)
    cdef _Sparse s = _Sparse(index, value)
    cdef size_t n = a.n, at = 0
    cdef int e = _exponent(exponent)
    cdef int64_t units = _step(step)
    cdef _Arrays scratch = _Arrays()
    cdef float *p_old_w = <float *>scratch.take(np.empty(s.count, np.float32), "old_w", _F32, 4, True)
    cdef uint16_t *p_old_left = <uint16_t *>scratch.take(np.empty(s.count, np.uint16), "old_left", _U16, 2, True)
    cdef mw_status status
    with nogil:
        status = mw_adopt_sent(p_base, p_w, p_trained, p_residual, p_q, n, s.index, s.value, s.count, e, units, p_left, p_old_w,
                               p_old_left, &at)
    _check(status, at, n)
