# The device's side of a round: what stands out of the trained weights, taking over what is sent, and taking that back.


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


cdef class Round:
    """The arrays of one round, taken once. Their pointers stand as long as the lists are held: arrays of numpy do not move."""

    cdef mw_tensor *tensors
    cdef mw_choice *choices
    cdef size_t *ends
    cdef Py_ssize_t count
    cdef object held

    def __cinit__(self, base, w, q, trained, residual, left, *, exponents, kinds, dtypes, starts):
        cdef Py_ssize_t t, n
        cdef mw_tensor *x
        cdef str kinds_of
        cdef int lattice
        self.count = len(kinds)
        self.held = lists = tuple(list(arrays) for arrays in (base, w, q, trained, residual, left))
        for arrays in (*lists, exponents, dtypes, starts):
            if len(arrays) != self.count:
                raise KernelError(what="round", reason=f"expected {self.count} tensors, got {len(arrays)}")
        self.tensors = <mw_tensor *>calloc(self.count + 1, sizeof(mw_tensor))
        self.choices = <mw_choice *>calloc(self.count + 1, sizeof(mw_choice))
        self.ends = <size_t *>calloc(self.count + 1, sizeof(size_t))
        if self.tensors is NULL or self.choices is NULL or self.ends is NULL:
            raise MemoryError
        for t in range(self.count):
            x = &self.tensors[t]
            x.kind, x.dtype, x.exponent, x.start = kinds[t], dtypes[t], _exponent(exponents[t]), _start(starts[t])
            if x.kind > 1:
                continue
            lattice = x.kind == 0
            kinds_of = _I32 if x.dtype == 5 else _F32
            x.n = n = len(lists[0][t])
            x.base = <const float *>_pointer(lists[0][t], "base", kinds_of, 4, False, n)
            x.w = <float *>_pointer(lists[1][t], "w", kinds_of, 4, True, n)
            x.q = <int32_t *>_pointer(lists[2][t], "q", _I32, 4, True, n)
            x.trained = <const float *>_pointer(lists[3][t], "trained", kinds_of, 4, False, n)
            if x.n and x.trained == x.w:
                raise KernelError(what="trained", reason="it is the weights themselves, which the round changes")
            if lattice:
                x.residual = <const uint16_t *>_pointer(lists[4][t], "residual", _U16, 2, False, n)
                x.left = <uint16_t *>_pointer(lists[5][t], "left", _U16, 2, True, n)
                if x.n and x.residual == x.left:
                    raise KernelError(what="left", reason="it is the residual itself, which the round reads")

    def __dealloc__(self):
        free(self.tensors)
        free(self.choices)
        free(self.ends)

    cdef int choose(self, steps, thresholds) except -1:
        cdef Py_ssize_t t
        if len(steps) != self.count or len(thresholds) != self.count:
            raise KernelError(what="steps", reason=f"expected {self.count}, got {len(steps)} and {len(thresholds)} thresholds")
        for t in range(self.count):
            # A step that C can't take is refused there; 0 alone leaves a tensor out.
            self.choices[t].step = -1 if steps[t] and not _step(steps[t]) else _step(steps[t])
            self.choices[t].threshold = thresholds[t]
        return 0

    cdef int bound(self, ends, size_t size) except -1:
        cdef size_t before = 0
        cdef Py_ssize_t t
        if len(ends) != self.count:
            raise KernelError(what="ends", reason=f"expected {self.count}, got {len(ends)}")
        for t in range(self.count):
            self.ends[t] = ends[t]
            if not before <= self.ends[t] <= size:
                raise KernelError(what="ends", reason="they are not in order")
            before = self.ends[t]
        return 0

    cdef list of_choices(self, bint clamped):
        cdef Py_ssize_t t
        return [self.choices[t].clamped if clamped else self.choices[t].end for t in range(self.count)]

    def collect(self, k):
        cdef mw_pass *state = <mw_pass *>calloc(1, sizeof(mw_pass))
        cdef size_t rank = max(1, k), room = _room(rank), all_of_them = self.size(0)
        cdef Py_ssize_t t
        cdef _Arrays a
        cdef uint32_t *p_index
        cdef int32_t *p_d
        cdef float edge = 0
        cdef mw_fault fault
        cdef mw_status status = MW_NO_ROOM
        if state is NULL:
            raise MemoryError
        try:
            if room > all_of_them + 2 * MW_STRETCH:
                room = all_of_them + 2 * MW_STRETCH
            index, d = np.empty(room, np.uint32), np.empty(room, np.int32)
            while status == MW_NO_ROOM:
                a = _Arrays()
                p_index = <uint32_t *>a.take(index, "index", _U32, 4, True)
                p_d = <int32_t *>a.take(d, "d", _I32, 4, True)
                room = a.n
                fault.tensor = fault.index = 0
                with nogil:
                    status = mw_collect(self.tensors, self.count, rank, state, p_index, p_d, room, self.ends, &edge, &fault)
                if status == MW_NO_ROOM:
                    index, d = _grown(index), _grown(d)
            _check(status, fault.index, 0, fault.tensor)
            return index[:state.found], d[:state.found], [self.ends[t] for t in range(self.count)], edge, _float_of(state.bar)
        finally:
            free(state)

    def adopt(self, index, d, ends, *, steps, thresholds):
        cdef _Arrays a = _Arrays()
        cdef uint32_t *p_index = <uint32_t *>a.take(index, "index", _U32, 4, True)
        cdef int32_t *p_d = <int32_t *>a.take(d, "d", _I32, 4, True)
        cdef size_t found = 0
        cdef uint64_t lanes[2]
        cdef mw_fault fault
        cdef mw_status status
        self.choose(steps, thresholds)
        self.bound(ends, a.n)
        fault.tensor = fault.index = 0
        with nogil:
            status = mw_adopt(self.tensors, self.count, self.choices, self.ends, p_index, p_d, &found, lanes, &fault)
        _check(status, fault.index, self.tensors[fault.tensor].n if self.count else 0, fault.tensor)
        return index[:found], d[:found], self.of_choices(False), self.of_choices(True), (lanes[0], lanes[1])

    def adopt_known(self, *, steps, thresholds, room=0):
        cdef mw_pass *state = <mw_pass *>calloc(1, sizeof(mw_pass))
        cdef size_t entries = _room(room), all_of_them = self.size(0)
        cdef _Arrays a
        cdef uint32_t *p_index
        cdef int32_t *p_value
        cdef mw_fault fault
        cdef mw_status status = MW_NO_ROOM
        if state is NULL:
            raise MemoryError
        try:
            self.choose(steps, thresholds)
            if entries > all_of_them + 2 * MW_STRETCH:
                entries = all_of_them + 2 * MW_STRETCH
            index, value = np.empty(entries, np.uint32), np.empty(entries, np.int32)
            while status == MW_NO_ROOM:
                a = _Arrays()
                p_index = <uint32_t *>a.take(index, "index", _U32, 4, True)
                p_value = <int32_t *>a.take(value, "value", _I32, 4, True)
                entries = a.n
                fault.tensor = fault.index = 0
                with nogil:
                    status = mw_adopt_known(self.tensors, self.count, self.choices, state, p_index, p_value, entries, &fault)
                if status == MW_NO_ROOM:
                    try:
                        index, value = _grown(index), _grown(value)
                    except MemoryError:
                        mw_abandon(self.tensors, self.count, self.choices, state, p_index, p_value)
                        raise
            _check(status, fault.index, 0, fault.tensor)
            found = state.found
            return index[:found], value[:found], self.of_choices(False), self.of_choices(True), (state.lanes[0], state.lanes[1])
        finally:
            free(state)

    def adopt_verbatim(self):
        cdef size_t room = self.size(1)
        cdef Py_ssize_t t
        cdef _Arrays a = _Arrays()
        index, value = np.empty(room, np.uint32), np.empty(room, np.int32)
        cdef uint32_t *p_index = <uint32_t *>a.take(index, "index", _U32, 4, True)
        cdef int32_t *p_value = <int32_t *>a.take(value, "value", _I32, 4, True)
        cdef uint64_t lanes[2]
        cdef mw_fault fault
        cdef mw_status status
        fault.tensor = fault.index = 0
        with nogil:
            status = mw_adopt_verbatim(self.tensors, self.count, p_index, p_value, room, self.ends, lanes, &fault)
        _check(status, fault.index, 0, fault.tensor)
        ends = [self.ends[t] for t in range(self.count)]
        found = self.ends[self.count - 1] if self.count else 0
        return index[:found], value[:found], ends, (lanes[0], lanes[1])

    def retract(self, index, value, ends, *, steps):
        cdef _Arrays a = _Arrays()
        cdef const uint32_t *p_index = <const uint32_t *>a.take(index, "index", _U32, 4)
        cdef int32_t *p_value = <int32_t *>a.take(value, "value", _I32, 4, True)
        cdef Py_ssize_t t
        cdef mw_fault fault
        cdef mw_status status
        self.choose(steps, steps)
        self.bound(ends, a.n)
        for t in range(self.count):
            self.choices[t].end = self.ends[t]
        fault.tensor = fault.index = 0
        with nogil:
            status = mw_retract(self.tensors, self.count, self.choices, p_index, p_value, &fault)
        _check(status, fault.index, self.tensors[fault.tensor].n if self.count else 0, fault.tensor)

    cdef size_t size(self, int kind):
        cdef size_t total = 0
        cdef Py_ssize_t t
        for t in range(self.count):
            total += self.tensors[t].n if self.tensors[t].kind == kind else 0
        return total


cdef size_t _room(size_t entries):
    """Return for how many entries to make room when about `entries` of them will be kept."""
    return entries + entries // 6 + 4 * MW_STRETCH


cdef object _grown(object array):
    """Return a larger array with the same start."""
    more = np.empty(len(array) + len(array) // 2 + 4 * MW_STRETCH, array.dtype)
    more[: len(array)] = array
    return more


cdef float _float_of(uint32_t bits):
    cdef float value
    memcpy(&value, &bits, sizeof(value))
    return value


def kth_magnitude(d, k):
    cdef _Arrays a = _Arrays()
    cdef const int32_t *p_d = a.integers(d, "d")
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
