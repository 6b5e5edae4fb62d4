# All of the C that Python sees. The text of record is csrc/mw.h and csrc/mw_sections.h.

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
        MW_STATUS_END

    mw_status mw_choose(const char *name)
    const char *mw_chosen()
    const char *mw_kernel_name(size_t i)
    mw_status mw_check_rounding()
    uint32_t mw_crc32c(const uint8_t *data, size_t length)
    mw_status mw_differences(const float *w, const float *trained, const uint16_t *residual, size_t n, float *out, size_t *at)
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


cdef extern from "mw_model.h" nogil:
    ctypedef struct mw_tensor:
        const float *base
        float *w
        int32_t *q
        const float *trained
        const uint16_t *residual
        uint16_t *left
        size_t n
        uint64_t start
        uint32_t rows
        uint32_t columns
        int exponent
        uint8_t dtype
        uint8_t kind


cdef extern from "mw_round.h" nogil:
    const size_t MW_STRETCH

    ctypedef struct mw_fault:
        size_t tensor
        size_t index

    ctypedef struct mw_choice:
        int64_t step
        float threshold
        size_t end
        size_t clamped

    ctypedef struct mw_pass:
        size_t found
        uint32_t bar
        uint64_t lanes[2]

    mw_status mw_collect(const mw_tensor *tensors, size_t count, size_t k, mw_pass *state, uint32_t *index, int32_t *d,
                         size_t capacity, size_t *ends, float *edge, mw_fault *fault)
    mw_status mw_adopt(const mw_tensor *tensors, size_t count, mw_choice *choices, const size_t *ends, uint32_t *index,
                       int32_t *value, size_t *found, uint64_t *lanes, mw_fault *fault)
    mw_status mw_adopt_known(const mw_tensor *tensors, size_t count, mw_choice *choices, mw_pass *state, uint32_t *index,
                             int32_t *value, size_t capacity, mw_fault *fault)
    void mw_abandon(const mw_tensor *tensors, size_t count, mw_choice *choices, const mw_pass *state, const uint32_t *index,
                    int32_t *value)
    mw_status mw_adopt_verbatim(const mw_tensor *tensors, size_t count, uint32_t *index, int32_t *value, size_t capacity,
                                size_t *ends, uint64_t *lanes, mw_fault *fault)
    mw_status mw_retract(const mw_tensor *tensors, size_t count, const mw_choice *choices, const uint32_t *index, int32_t *value,
                         mw_fault *fault)
    mw_status mw_kth_magnitude(const int32_t *d, size_t n, size_t k, float *edge)


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
