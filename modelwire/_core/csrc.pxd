# All of the C that Python sees. The text of record is csrc/mw.h, csrc/mw_planes.h and csrc/mw_sections.h.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t


cdef extern from "mw.h" nogil:
    ctypedef enum mw_status:
        MW_OK
        MW_ROUNDING
        MW_UNKNOWN_KERNEL
        MW_EXPONENT
        MW_STEP
        MW_THRESHOLD
        MW_INDEX
        MW_VALUE
        MW_RANGE
        MW_TRAINED_NOT_FINITE
        MW_DIFFERENCE_NOT_FINITE
        MW_WEIGHT_NOT_FINITE
        MW_RESIDUAL_NOT_FINITE
        MW_OFF_LATTICE
        MW_SHAPE
        MW_STREAM_SHORT
        MW_STREAM_LONG
        MW_STREAM_DAMAGED
        MW_NO_ROOM
        MW_NOT_STORED
        MW_PLANES
        MW_ROW
        MW_UNIT
        MW_VERBATIM_STEP
        MW_CROWDED
        MW_FINGERPRINT
        MW_CHANGED
        MW_STATUS_END

    mw_status mw_choose(const char *name)
    const char *mw_chosen()
    const char *mw_kernel_name(size_t i)
    mw_status mw_check_rounding()
    uint32_t mw_crc32c(const uint8_t *data, size_t length)
    mw_status mw_differences(const float *w, const float *trained, const uint16_t *residual, size_t n, float *out, size_t *at)
    mw_status mw_collect(const float *w, const float *trained, const uint16_t *residual, size_t n, float least, uint16_t *left,
                         uint32_t *index, float *d, size_t capacity, size_t *count, int *huge, size_t *at)
    mw_status mw_kth_magnitude(const float *d, size_t n, size_t k, float *edge)
    mw_status mw_quantise(const int32_t *q, size_t n, const uint32_t *index, const float *d, size_t candidates, int exponent,
                          int64_t step, float threshold, uint32_t *sent, int32_t *value, size_t *count, size_t *clamped, size_t *at)
    mw_status mw_adopt_sent(const float *base, float *w, const float *trained, const uint16_t *residual, int32_t *q, size_t n,
                            const uint32_t *index, const int32_t *value, size_t count, int exponent, int64_t step, uint16_t *left,
                            float *old_w, uint16_t *old_left, size_t *at)
    mw_status mw_snap(const float *w, const float *trained, const uint16_t *residual, const int32_t *q, size_t n, int exponent,
                      int64_t step, float threshold, uint32_t *index, int32_t *value, size_t capacity, size_t *count,
                      size_t *clamped, size_t *at)
    mw_status mw_adopt(const float *base, float *w, const float *trained, uint16_t *residual, int32_t *q, size_t n,
                       const uint32_t *index, const int32_t *value, size_t count, int exponent, int64_t step, size_t *at)
    mw_status mw_check_lattice(const float *base, const int32_t *q, size_t n, const uint32_t *index, const int32_t *value,
                               size_t count, int exponent, int64_t step, size_t *at)
    mw_status mw_apply_lattice(const float *base, float *w, int32_t *q, size_t n, const uint32_t *index, const int32_t *value,
                               size_t count, int exponent, int64_t step, size_t *at)
    mw_status mw_check_verbatim(const uint32_t *base, const int32_t *q, size_t n, const uint32_t *index, const int32_t *value,
                                size_t count, size_t *at)
    mw_status mw_apply_verbatim(const uint32_t *base, uint32_t *w, int32_t *q, size_t n, const uint32_t *index,
                                const int32_t *value, size_t count, size_t *at)
    mw_status mw_weights_from_q(const float *base, const int32_t *q, size_t n, int exponent, float *w, size_t *at)
    mw_status mw_q_from_weights(const float *base, const float *w, size_t n, int exponent, int32_t *q, size_t *at)
    void mw_fingerprint(const int32_t *q, size_t n, uint64_t start, bint verbatim, uint64_t *lanes)
    mw_status mw_fingerprint_sparse(const uint32_t *index, const int32_t *value, size_t count, int64_t step, uint64_t start,
                                    bint verbatim, uint64_t *lanes)


cdef extern from "mw_planes.h" nogil:
    mw_status mw_to_storage(const float *held, size_t n, uint8_t dtype, void *stored, size_t *at)
    mw_status mw_from_storage(const void *stored, size_t n, uint8_t dtype, float *held, size_t *at)
    mw_status mw_round_stored(const float *sum, size_t n, uint8_t dtype, float *held, size_t *at)
    mw_status mw_ordered_differences(const void *fresh, const void *parent, size_t n, uint32_t width, uint32_t infinity, int32_t *d)
    mw_status mw_split_planes(const void *fresh, const void *parent, size_t n, uint32_t width, uint32_t infinity, uint8_t *changed,
                              uint8_t *planes, size_t stride, size_t *count, size_t *at)
    mw_status mw_join_planes(const uint8_t *changed, const uint8_t *planes, size_t stride, size_t count, const void *parent, size_t n,
                             uint32_t width, uint32_t infinity, void *fresh, size_t *at)


cdef extern from "mw_sections.h" nogil:
    ctypedef struct mw_stream:
        pass

    size_t mw_scratch(uint32_t columns)
    void mw_encode_begin(mw_stream *s, uint8_t *out, size_t capacity)
    mw_status mw_encode_section(mw_stream *s, uint32_t rows, uint32_t columns, const uint32_t *index, const int32_t *value,
                                size_t count, uint16_t *scratch, size_t scratch_length, size_t *at)
    mw_status mw_encode_end(mw_stream *s, size_t *length)
    void mw_decode_begin(mw_stream *s, const uint8_t *data, size_t length)
    mw_status mw_decode_section(mw_stream *s, uint32_t rows, uint32_t columns, uint32_t *index, int32_t *value, size_t count,
                                uint16_t *scratch, size_t scratch_length)
    mw_status mw_decode_end(const mw_stream *s)


cdef extern from "mw_model.h" nogil:
    ctypedef struct mw_tensor:
        const float *base
        float *w
        int32_t *q
        size_t n
        uint64_t start
        uint32_t rows
        uint32_t columns
        int exponent
        uint8_t dtype
        uint8_t kind


cdef extern from "mw_apply.h" nogil:
    ctypedef struct mw_update:
        const uint8_t *table
        size_t rows
        const uint8_t *stream
        size_t length
        int snapshot

    ctypedef struct mw_place:
        size_t tensor
        size_t at
        size_t size

    ctypedef void (*mw_progress)(void *context, size_t read) noexcept nogil

    enum: MW_ROW_BYTES
    mw_status mw_check_table(const uint8_t *table, size_t rows, int snapshot)
    mw_status mw_apply_stream(const mw_tensor *tensors, size_t count, const mw_update *update, const uint64_t *expect,
                              uint64_t *lanes, uint16_t *scratch, size_t scratch_length, mw_place *place, mw_progress progress,
                              void *context)
