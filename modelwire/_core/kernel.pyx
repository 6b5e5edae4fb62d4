# cython: language_level=3, boundscheck=False, wraparound=False, auto_pickle=False, autotestdict=False
"""Binds csrc to numpy arrays: checks the arrays, drops the GIL, calls, turns the status into an error."""

from cpython.buffer cimport (
    PyBUF_C_CONTIGUOUS,
    PyBUF_FORMAT,
    PyBUF_WRITABLE,
    PyBuffer_Release,
    PyObject_GetBuffer,
)
from cpython.bytes cimport PyBytes_AsString, PyBytes_FromStringAndSize
from libc.stddef cimport size_t
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t, uintptr_t

from operator import index as whole

import numpy as np

from modelwire.errors import ConfigError, KernelError

from .csrc cimport *
from .statuses import error_of


STATUS_END = int(MW_STATUS_END)


cdef int _check(mw_status status, size_t at=0, size_t size=0, size_t tensor=0) except -1:
    if status != MW_OK:
        raise error_of(status, tensor=tensor, index=at, size=size)
    return 0


cdef class _Arrays:
    """The buffers of one call, released when it ends. All that are taken without a length of their own hold n entries."""

    cdef Py_buffer views[8]
    cdef int taken
    cdef Py_ssize_t n

    def __cinit__(self):
        self.taken = 0
        self.n = -1

    def __dealloc__(self):
        cdef int i
        for i in range(self.taken):
            PyBuffer_Release(&self.views[i])

    cdef void *take(self, object array, str name, str kinds, Py_ssize_t itemsize, bint writable=False, Py_ssize_t length=-1) except? NULL:
        """Return the pointer of an aligned, contiguous, 1-D array whose format is one of kinds. length: entries, -1 for n."""
        cdef Py_buffer *view = &self.views[self.taken]
        try:
            PyObject_GetBuffer(array, view, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT | (PyBUF_WRITABLE if writable else 0))
        except (BufferError, TypeError, ValueError) as problem:
            raise KernelError(what=name, reason=str(problem)) from None
        self.taken += 1
        cdef bytes format = view.format if view.format is not NULL else b"B"
        if view.itemsize != itemsize or format.lstrip(b"<=@").decode("ascii", "replace") not in kinds.split():
            raise KernelError(what=name, reason=f"expected {_KINDS[kinds]}, got items of {format!r}")
        if view.ndim != 1:
            raise KernelError(what=name, reason=f"expected 1 dimension, got {view.ndim}")
        cdef Py_ssize_t entries = view.len // itemsize
        if entries and <uintptr_t>view.buf % <uintptr_t>itemsize:
            raise KernelError(what=name, reason="the array is not aligned")
        if length < 0:
            length = self.n
        if length < 0:
            self.n = entries
        elif entries != length:
            raise KernelError(what=name, reason=f"expected {length} entries, got {entries}")
        return view.buf

    cdef const float *floats(self, object array, str name) except? NULL:
        return <const float *>self.take(array, name, _F32, 4)

    cdef const int32_t *integers(self, object array, str name) except? NULL:
        return <const int32_t *>self.take(array, name, _I32, 4)


cdef str _F32 = "f", _U16 = "H", _I32 = "i l", _U32 = "I L", _BYTES = "B b c"
_KINDS = {_F32: "float32", _U16: "uint16", _I32: "int32", _U32: "uint32", _BYTES: "bytes"}


cdef class _Sparse:
    """Index and value of one section."""

    cdef _Arrays arrays
    cdef const uint32_t *index
    cdef const int32_t *value
    cdef size_t count

    def __cinit__(self, index, value):
        self.arrays = _Arrays()
        self.index = <const uint32_t *>self.arrays.take(index, "index", _U32, 4)
        self.value = <const int32_t *>self.arrays.take(value, "value", _I32, 4)
        self.count = self.arrays.n


cdef int64_t _step(object step) except? -1:
    """Return step as C takes it; whatever does not fit is no step and becomes 0."""
    step = whole(step)
    return step if 0 < step < 1 << 40 else 0


cdef int _exponent(object exponent) except? -1000:
    exponent = whole(exponent)
    return exponent if -1000 < exponent < 1000 else 1000


cdef uint64_t _start(object start) except? 0:
    return whole(start) & 0xFFFFFFFFFFFFFFFF


def kernel_name():
    """Return the name of the implementation that runs."""
    return mw_chosen().decode()


def kernel_names():
    """Return the names of all implementations in this build, the best first."""
    cdef size_t i = 0
    names = []
    while mw_kernel_name(i) is not NULL:
        names.append(mw_kernel_name(i).decode())
        i += 1
    return tuple(names)


def choose(name):
    """Let the implementation `name` run, or the best for this processor when it is empty. Raises ConfigError."""
    cdef bytes encoded = name.encode()
    if mw_choose(encoded) != MW_OK:
        raise ConfigError(reason=f"MODELWIRE_KERNEL={name}: this build and processor have {', '.join(kernel_names())} and reference")


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


cdef class _Shape:
    """Rows and columns as uint32, and the scratch that they need."""

    cdef uint32_t rows
    cdef uint32_t columns

    def __cinit__(self, rows, columns):
        rows, columns = whole(rows), whole(columns)
        # The scratch grows with the columns: refuse before it is allocated. An index names 2^32 - 1 entries at most.
        if rows < 0 or columns < 0 or rows * columns > 0xFFFFFFFF:
            raise error_of(MW_SHAPE)
        self.rows = rows if columns else 0
        self.columns = columns if rows else 0


cdef object _scratch(list shapes):
    """Return scratch that is enough for every shape."""
    cdef size_t most = 1
    cdef _Shape shape
    for shape in shapes:
        most = max(most, mw_scratch(shape.columns))
    return np.empty(most, np.uint16)


def encode_sections(sections):
    sections = [(_Shape(rows, columns), _Sparse(index, value)) for rows, columns, index, value in sections]
    cdef _Shape shape
    cdef _Sparse sparse
    cdef _Arrays a = _Arrays()
    scratch = _scratch([shape for shape, _ in sections])
    cdef uint16_t *p_scratch = <uint16_t *>a.take(scratch, "scratch", _U16, 2, True)
    cdef size_t scratch_length = a.n, at = 0, length = 0, capacity = 256, tensor = 0
    cdef mw_stream stream
    cdef uint8_t *out
    cdef mw_status status = MW_NO_ROOM
    for _, sparse in sections:
        capacity += 3 * sparse.count
    while True:
        coded = PyBytes_FromStringAndSize(NULL, capacity)
        out = <uint8_t *>PyBytes_AsString(coded)
        mw_encode_begin(&stream, out, capacity)
        status = MW_OK
        for tensor, (shape, sparse) in enumerate(sections):
            with nogil:
                status = mw_encode_section(&stream, shape.rows, shape.columns, sparse.index, sparse.value, sparse.count,
                                           p_scratch, scratch_length, &at)
            if status != MW_OK:
                break
        else:
            tensor = 0
            status = mw_encode_end(&stream, &length)
        if status != MW_NO_ROOM:
            break
        capacity *= 2
    _check(status, at, <size_t>shape.rows * shape.columns if sections else 0, tensor)
    return coded[:length]


def decode_sections(data, shapes):
    cdef list wanted = []
    cdef size_t count, scratch_length
    cdef _Shape shape
    for rows, columns, entries in shapes:
        shape = _Shape(rows, columns)
        entries = whole(entries)
        if not 0 <= entries <= <uint64_t>shape.rows * shape.columns:
            raise error_of(MW_SHAPE)
        wanted.append((shape, entries))
    cdef _Arrays a = _Arrays(), outputs
    cdef const uint8_t *p_data = <const uint8_t *>a.take(data, "data", _BYTES, 1)
    cdef size_t length = a.n
    scratch = _scratch([shape for shape, _ in wanted])
    cdef uint16_t *p_scratch = <uint16_t *>a.take(scratch, "scratch", _U16, 2, True, len(scratch))
    scratch_length = len(scratch)
    cdef mw_stream stream
    cdef uint32_t *p_index
    cdef int32_t *p_value
    cdef mw_status status
    mw_decode_begin(&stream, p_data, length)
    decoded = []
    for shape, entries in wanted:
        count = entries
        index = np.empty(count, np.uint32)
        value = np.empty(count, np.int32)
        outputs = _Arrays()
        p_index = <uint32_t *>outputs.take(index, "index", _U32, 4, True)
        p_value = <int32_t *>outputs.take(value, "value", _I32, 4, True)
        with nogil:
            status = mw_decode_section(&stream, shape.rows, shape.columns, p_index, p_value, count, p_scratch, scratch_length)
        _check(status)
        decoded.append((index, value))
    _check(mw_decode_end(&stream))
    return decoded
