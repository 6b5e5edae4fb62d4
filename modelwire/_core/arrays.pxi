# The buffers of a call: checked, taken, and released when it ends.

from libc.string cimport strlen

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


cdef bint _fits(Py_buffer *view, const char *kinds, Py_ssize_t itemsize, Py_ssize_t n) noexcept:
    """Return whether a buffer is what `_Arrays.take` asks for: aligned, 1-D, n entries of one of these formats."""
    cdef const char *format = view.format
    if format is NULL or view.itemsize != itemsize or view.ndim != 1 or view.len != n * itemsize:
        return False
    if n and <uintptr_t>view.buf % <uintptr_t>itemsize:
        return False
    if format[0] in b"<=@":
        format += 1
    return strlen(format) == 1 and (format[0] == kinds[0] or format[0] == kinds[1])


cdef void *_pointer(object array, str name, str kinds, Py_ssize_t itemsize, bint writable, Py_ssize_t n) except? NULL:
    """Return what `_Arrays.take` does, of an array that is held by others for as long as the pointer is used; n: entries, -1 for any."""
    cdef Py_buffer view
    cdef void *found
    cdef bint fits
    try:
        PyObject_GetBuffer(array, &view, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT | (PyBUF_WRITABLE if writable else 0))
    except (BufferError, TypeError, ValueError) as problem:
        raise KernelError(what=name, reason=str(problem)) from None
    fits = _fits(&view, b"f" if kinds is _F32 else b"H" if kinds is _U16 else b"il", itemsize, view.len // itemsize if n < 0 else n)
    found = view.buf
    PyBuffer_Release(&view)
    if not fits:
        _Arrays().take(array, name, kinds, itemsize, writable, n)  # says what is wrong
    return found
