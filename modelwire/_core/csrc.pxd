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
        MW_LZ4
        MW_ROW
        MW_UNIT
        MW_VERBATIM_STEP
        MW_CROWDED
        MW_FINGERPRINT
        MW_CHANGED
        MW_SUBNORMALS
        MW_FUSED
        MW_HEAD
        MW_FEATURE_NOT_FINITE
        MW_LABEL
        MW_DIVERGED
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


cdef extern from "mw_planes.h" nogil:
    mw_status mw_to_storage(const float *held, size_t n, uint8_t dtype, void *stored, size_t *at)
    mw_status mw_from_storage(const void *stored, size_t n, uint8_t dtype, float *held, size_t *at)
    mw_status mw_round_stored(const float *sum, size_t n, uint8_t dtype, float *held, size_t *at)
    mw_status mw_ordered_differences(const void *fresh, const void *parent, size_t n, uint32_t width, uint32_t infinity, int32_t *d)
    mw_status mw_split_planes(const void *fresh, const void *parent, size_t n, uint32_t width, uint32_t infinity, uint8_t *changed,
                              uint8_t *planes, size_t stride, size_t *count, size_t *at)
    mw_status mw_join_planes(const uint8_t *changed, const uint8_t *planes, size_t stride, size_t count, const void *parent, size_t n,
                             uint32_t width, uint32_t infinity, void *fresh, size_t *at)
    mw_status mw_check_lz4(const uint8_t *block, size_t length)


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


cdef extern from "mw_apply.h" nogil:
    ctypedef struct mw_update:
        const uint8_t *table
        size_t rows
        const uint8_t *stream
        size_t length
        int snapshot
        const uint16_t *codes
        const uint32_t *factors
        uint32_t *sums

    ctypedef struct mw_place:
        size_t tensor
        size_t at
        size_t size

    ctypedef void (*mw_progress)(void *context, size_t read) noexcept nogil

    enum: MW_ROW_BYTES
    enum: MW_BUCKETS
    mw_status mw_check_table(const uint8_t *table, size_t rows, int snapshot)
    mw_status mw_apply_stream(const mw_tensor *tensors, size_t count, const mw_update *update, const uint64_t *expect,
                              uint64_t *lanes, uint16_t *scratch, size_t scratch_length, mw_place *place, mw_progress progress,
                              void *context)


cdef extern from "mw_head.h" nogil:
    ctypedef struct mw_head:
        uint32_t features
        uint32_t hidden[2]
        uint32_t outputs
        uint8_t activation
        uint8_t loss
        uint8_t optimizer
        uint8_t schedule
        uint32_t batch
        uint32_t steps
        uint32_t every
        uint64_t seed
        float rate
        float rate_end
        float factor
        float decay
        float beta1
        float beta2
        float epsilon

    ctypedef struct mw_rows:
        const void *features
        uint8_t dtype
        float scale
        const uint32_t *labels
        const float *targets
        size_t n

    mw_status mw_check_arithmetic()
    size_t mw_head_size(const mw_head *head)
    size_t mw_head_slots(const mw_head *head)
    size_t mw_head_workspace(const mw_head *head, size_t n)
    mw_status mw_head_train(const mw_head *head, const mw_rows *rows, float *weights, float *slots, uint64_t *step, uint32_t count,
                            float *losses, uint8_t *workspace, size_t length, size_t *at)
    mw_status mw_head_infer(const mw_head *head, const mw_rows *rows, const float *weights, float *out, uint8_t *workspace,
                            size_t length, size_t *at)
    void mw_permutation(uint64_t seed, uint64_t epoch, uint32_t *order, size_t n)
