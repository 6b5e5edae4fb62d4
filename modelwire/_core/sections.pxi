# Sections to coded bytes and back.


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
