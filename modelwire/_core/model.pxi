# A whole model's arrays, taken once and held, and what is done to all of them in one call.

from cpython.mem cimport PyMem_Calloc, PyMem_Free


cdef class Model:
    """The arrays of one model, checked once and held; model-wide kernels read and write them without asking again."""

    cdef mw_tensor *tensors
    cdef Py_buffer *views
    cdef Py_ssize_t count, taken
    cdef size_t scratch
    cdef Py_ssize_t size  # entries of all tensors
    cdef tuple arrays

    def __cinit__(self, base, w, q, *, dtypes, kinds, shapes):
        arrays = (tuple(base), tuple(w), tuple(q))
        self.arrays = arrays
        self.count = len(arrays[0])
        if not len(arrays[1]) == len(arrays[2]) == len(dtypes) == len(kinds) == len(shapes) == self.count:
            raise KernelError(what="model", reason="its lists are not of one length")
        self.tensors = <mw_tensor *>PyMem_Calloc(self.count + 1, sizeof(mw_tensor))
        self.views = <Py_buffer *>PyMem_Calloc(3 * self.count + 1, sizeof(Py_buffer))
        if self.tensors is NULL or self.views is NULL:
            raise MemoryError
        cdef uint64_t start = 0
        cdef mw_tensor *tensor
        cdef _Shape shape
        cdef str held
        cdef Py_ssize_t t
        for t in range(self.count):
            tensor = &self.tensors[t]
            shape = _Shape(*shapes[t])
            tensor.rows, tensor.columns = shape.rows, shape.columns
            self.scratch = max(self.scratch, mw_scratch(shape.columns))
            tensor.dtype, tensor.kind = dtypes[t], kinds[t]
            tensor.n = <size_t>shape.rows * shape.columns
            tensor.start = start
            start += tensor.n
            self.size = <Py_ssize_t>start
            if tensor.kind == 2:  # planes move an exact tensor: to the kernels it has no entries
                tensor.n = tensor.rows = tensor.columns = 0
                continue
            held = _I32 if tensor.dtype == 5 else _F32
            tensor.base = <const float *>self._take(arrays[0][t], "base", held, tensor.n, False)
            tensor.w = <float *>self._take(arrays[1][t], "w", held, tensor.n, True)
            tensor.q = <int32_t *>self._take(arrays[2][t], "q", _I32, tensor.n, True)

    def __dealloc__(self):
        cdef Py_ssize_t i
        for i in range(self.taken):
            PyBuffer_Release(&self.views[i])
        PyMem_Free(self.views)
        PyMem_Free(self.tensors)

    cdef void *_take(self, object array, str name, str kinds, Py_ssize_t n, bint writable) except? NULL:
        cdef Py_buffer *view = &self.views[self.taken]
        cdef _Arrays slowly
        try:
            PyObject_GetBuffer(array, view, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT | (PyBUF_WRITABLE if writable else 0))
        except (BufferError, TypeError, ValueError) as problem:
            raise KernelError(what=name, reason=str(problem)) from None
        self.taken += 1
        if not _fits(view, b"f" if kinds is _F32 else b"il", 4, n):
            slowly = _Arrays()
            slowly.take(array, name, kinds, 4, writable, n)  # says what is wrong
        return view.buf

    def holds(self, base, w, q):
        """Return whether these lists still have the very arrays that were taken."""
        cdef Py_ssize_t t
        cdef tuple now
        for now, given in zip(self.arrays, (base, w, q)):
            if len(given) != self.count:
                return False
            for t in range(self.count):
                if given[t] is not now[t]:
                    return False
        return True


def check_table(table, *, snapshot):
    cdef _Arrays a = _Arrays()
    cdef const uint8_t *p_table = <const uint8_t *>a.take(table, "table", _BYTES, 1)
    return a.n % MW_ROW_BYTES == 0 and mw_check_table(p_table, a.n // MW_ROW_BYTES, bool(snapshot)) == MW_OK


cdef void _tell(void *context, size_t read) noexcept with gil:
    (<object>context)(read)


def apply_stream(Model model not None, exponents, table, stream, *, snapshot, lanes, expect=None, progress=None, counted=None):
    cdef _Arrays rows = _Arrays(), coded = _Arrays(), counts = _Arrays()
    cdef mw_update update
    cdef mw_place place
    cdef uint64_t now[2]
    cdef uint64_t then[2]
    cdef uint64_t *wanted = NULL
    cdef Py_ssize_t t
    cdef mw_status status
    cdef uint16_t *scratch
    update.table = <const uint8_t *>rows.take(table, "table", _BYTES, 1)
    update.rows = rows.n // MW_ROW_BYTES
    update.stream = <const uint8_t *>coded.take(stream, "stream", _BYTES, 1)
    update.length = coded.n
    update.snapshot = bool(snapshot)
    if rows.n % MW_ROW_BYTES or len(exponents) != model.count:
        raise KernelError(what="table", reason="its rows are not whole, or the exponents are not one a tensor")
    for t in range(model.count):
        model.tensors[t].exponent = _exponent(exponents[t])
    update.codes, update.factors, update.sums = NULL, NULL, NULL
    if counted is not None:
        codes, factors, sums = counted
        update.codes = <const uint16_t *>counts.take(codes, "codes", _U16, 2, False, model.size)
        update.factors = <const uint32_t *>counts.take(factors, "factors", _U32, 4, False, model.count)
        update.sums = <uint32_t *>counts.take(sums, "sums", _U32, 4, True, MW_BUCKETS)
    now[0], now[1] = _start(lanes[0]), _start(lanes[1])
    if expect is not None:
        then[0], then[1] = _start(expect[0]), _start(expect[1])
        wanted = then
    cdef void *context = <void *>progress
    cdef mw_progress tell = NULL
    if progress is not None:
        tell = _tell
    scratch = <uint16_t *>PyMem_Calloc(model.scratch + 1, sizeof(uint16_t))
    if scratch is NULL:
        raise MemoryError
    with nogil:
        status = mw_apply_stream(model.tensors, model.count, &update, wanted, now, scratch, model.scratch, &place, tell, context)
    PyMem_Free(scratch)
    _check(status, place.at, place.size, place.tensor)
    return now[0], now[1]
