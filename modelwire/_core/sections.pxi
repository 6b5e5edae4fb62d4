# Sections to coded bytes and back: the Python objects are read once, then all sections are coded in one stretch of C.

cdef struct _Piece:
    Py_buffer index_view
    Py_buffer value_view
    const uint32_t *index
    const int32_t *value
    size_t count
    uint32_t rows
    uint32_t columns
    int held  # how many of the views are to be released


cdef int _shape(object given_rows, object given_columns, _Piece *piece, size_t *scratch) except -1:
    """Take over rows and columns, and let scratch be enough for them."""
    rows, columns = whole(given_rows), whole(given_columns)
    # The scratch grows with the columns: refuse before it is allocated. An index names 2^32 - 1 entries at most.
    if rows < 0 or columns < 0 or rows * columns > 0xFFFFFFFF:
        raise error_of(MW_SHAPE)
    piece.rows = rows if columns else 0
    piece.columns = columns if rows else 0
    scratch[0] = max(scratch[0], mw_scratch(piece.columns))
    return 0


cdef bint _plain(const Py_buffer *view, char first, char second):
    """Return whether this is one dimension of aligned 4-byte integers of one of two formats, as numpy's arrays are."""
    cdef const char *format = view.format
    return (
        view.ndim == 1 and view.itemsize == 4 and format is not NULL and (format[0] == first or format[0] == second)
        and format[1] == 0 and <uintptr_t>view.buf % 4 == 0
    )


cdef class _Pieces:
    """The sections of one call and their buffers, released when it ends."""

    cdef _Piece *pieces
    cdef size_t count
    cdef size_t scratch
    cdef size_t entries
    cdef list unusual  # arrays of other formats, which _Sparse takes or refuses

    def __cinit__(self, size_t count):
        self.unusual = []
        self.scratch = 1
        self.pieces = <_Piece *>PyMem_Malloc((count + 1) * sizeof(_Piece))
        if self.pieces is NULL:
            raise MemoryError
        memset(self.pieces, 0, (count + 1) * sizeof(_Piece))
        self.count = count

    def __dealloc__(self):
        cdef size_t i
        if self.pieces is NULL:
            return
        for i in range(self.count):
            if self.pieces[i].held > 0:
                PyBuffer_Release(&self.pieces[i].index_view)
            if self.pieces[i].held > 1:
                PyBuffer_Release(&self.pieces[i].value_view)
        PyMem_Free(self.pieces)

    cdef int take(self, size_t place, object index, object value) except -1:
        """Take the entries of one section."""
        cdef _Piece *piece = &self.pieces[place]
        cdef _Sparse sparse
        PyObject_GetBuffer(index, &piece.index_view, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT)
        piece.held = 1
        PyObject_GetBuffer(value, &piece.value_view, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT)
        piece.held = 2
        if (
            piece.index_view.len == piece.value_view.len
            and _plain(&piece.index_view, b"I", b"L") and _plain(&piece.value_view, b"i", b"l")
        ):
            piece.index = <const uint32_t *>piece.index_view.buf
            piece.value = <const int32_t *>piece.value_view.buf
            piece.count = piece.index_view.len // 4
        else:
            sparse = _Sparse(index, value)
            self.unusual.append(sparse)
            piece.index, piece.value, piece.count = sparse.index, sparse.value, sparse.count
        self.entries += piece.count
        return 0


def encode_sections(sections):
    sections = list(sections)
    cdef _Pieces all = _Pieces(len(sections))
    cdef size_t place = 0
    for place, (rows, columns, index, value) in enumerate(sections):
        _shape(rows, columns, &all.pieces[place], &all.scratch)
        try:
            all.take(place, index, value)
        except (BufferError, TypeError, ValueError):
            _Sparse(index, value)  # says in our words what is wrong
            raise
    cdef _Arrays a = _Arrays()
    cdef uint16_t *scratch = <uint16_t *>a.take(np.empty(all.scratch, np.uint16), "scratch", _U16, 2, True)
    cdef size_t count = all.count, scratch_length = a.n, capacity = 256 + 3 * all.entries, at = 0, length = 0
    cdef const _Piece *pieces = all.pieces
    cdef mw_stream stream
    cdef uint8_t *out
    cdef mw_status status = MW_NO_ROOM
    while True:
        coded = PyBytes_FromStringAndSize(NULL, capacity)
        out = <uint8_t *>PyBytes_AsString(coded)
        with nogil:
            mw_encode_begin(&stream, out, capacity)
            status = MW_OK
            place = 0
            while place < count:
                status = mw_encode_section(&stream, pieces[place].rows, pieces[place].columns, pieces[place].index, pieces[place].value,
                                           pieces[place].count, scratch, scratch_length, &at)
                if status != MW_OK:
                    break
                place += 1
            if status == MW_OK:
                status = mw_encode_end(&stream, &length)
        if status != MW_NO_ROOM:
            break
        capacity *= 2
    if status != MW_OK:
        _check(status, at, <size_t>pieces[place].rows * pieces[place].columns if place < count else 0, place if place < count else 0)
    return coded[:length]


def decode_sections(data, shapes):
    shapes = list(shapes)
    cdef _Pieces all = _Pieces(len(shapes))
    cdef _Piece *piece
    cdef size_t place = 0, entries = 0
    for place, (rows, columns, wanted) in enumerate(shapes):
        piece = &all.pieces[place]
        _shape(rows, columns, piece, &all.scratch)
        wanted = whole(wanted)
        if not 0 <= wanted <= <uint64_t>piece.rows * piece.columns:
            raise error_of(MW_SHAPE)
        piece.count = wanted
        all.entries += piece.count
    cdef _Arrays a = _Arrays(), scratches = _Arrays(), outputs = _Arrays()
    cdef const uint8_t *p_data = <const uint8_t *>a.take(data, "data", _BYTES, 1)
    cdef uint16_t *scratch = <uint16_t *>scratches.take(np.empty(all.scratch, np.uint16), "scratch", _U16, 2, True)
    # One array for all sections: theirs are parts of it.
    index, value = np.empty(all.entries, np.uint32), np.empty(all.entries, np.int32)
    cdef uint32_t *p_index = <uint32_t *>outputs.take(index, "index", _U32, 4, True)
    cdef int32_t *p_value = <int32_t *>outputs.take(value, "value", _I32, 4, True)
    cdef size_t count = all.count, length = a.n, scratch_length = all.scratch
    cdef mw_stream stream
    cdef mw_status status = MW_OK
    place = 0
    with nogil:
        mw_decode_begin(&stream, p_data, length)
        while place < count and status == MW_OK:
            piece = &all.pieces[place]
            status = mw_decode_section(&stream, piece.rows, piece.columns, p_index + entries, p_value + entries, piece.count, scratch,
                                       scratch_length)
            entries += piece.count
            place += 1
        if status == MW_OK:
            status = mw_decode_end(&stream)
    _check(status)
    decoded, start = [], 0
    for place in range(count):
        end = start + all.pieces[place].count
        decoded.append((index[start:end], value[start:end]))
        start = end
    return decoded
