/* Stored tensors as integers: the way between held float32 and stored bits, ordered differences, and their byte planes.
 *
 * A stored entry has width bytes: 4 for float32 and int32, 2 for float16 and bfloat16, 1 for int8. infinity is the magnitude of
 * the type's infinity as bits (0x7f800000, 0x7c00, 0x7f80), and 0 for a type of integers. ordered(x) maps bits to integers that
 * rise with the numbers: of floats all bits but the first are inverted where that one is set, integers are as they are. */
#ifndef MW_PLANES_H
#define MW_PLANES_H

#include "mw.h"

/* What a held tensor is stored as, and back; dtype: float16, bfloat16 or int8. The first refuses what its type has no value for
   (MW_NOT_STORED), the second what is no number; outputs then mean nothing. */
mw_status mw_to_storage(const float *held, size_t n, uint8_t dtype, void *stored, size_t *at);
mw_status mw_from_storage(const void *stored, size_t n, uint8_t dtype, float *held, size_t *at);
/* sum rounded to what dtype stores, any dtype of floats or int8. MW_WEIGHT_NOT_FINITE or MW_RANGE where that does not end well. */
mw_status mw_round_stored(const float *sum, size_t n, uint8_t dtype, float *held, size_t *at);

/* d[i] = ordered(fresh[i]) - ordered(parent[i]), its first bit the integer's first: so differences of all widths add mod 2^32. */
mw_status mw_ordered_differences(const void *fresh, const void *parent, size_t n, uint32_t width, uint32_t infinity, int32_t *d);

/* z = zigzag(ordered(fresh) - ordered(parent)) mod 2^(8 width). Bit i % 8 of changed[i / 8] tells whether z of entry i is not 0, and
   byte p of the z that are not goes to planes[p * stride], in order; *count of them. parent NULL: all zeros. changed holds
   (n + 7) / 8 bytes, planes width * stride, stride >= n. Refuses an entry of fresh that is no number; outputs then mean nothing. */
mw_status mw_split_planes(const void *fresh, const void *parent, size_t n, uint32_t width, uint32_t infinity, uint8_t *changed,
                          uint8_t *planes, size_t stride, size_t *count, size_t *at);

/* The way back; fresh may be parent. MW_PLANES when changed has not count bits, or one past the end; MW_VALUE when a changed entry's
   z is 0. What a refusal leaves in fresh means nothing. */
mw_status mw_join_planes(const uint8_t *changed, const uint8_t *planes, size_t stride, size_t count, const void *parent, size_t n,
                         uint32_t width, uint32_t infinity, void *fresh, size_t *at);

/* MW_LZ4 unless block is whole sequences of the LZ4 block format, none with a match at offset 0. liblz4 takes such a match and makes
   zeros of it, other readers refuse it. It looks at nothing else that liblz4 refuses itself. */
mw_status mw_check_lz4(const uint8_t *block, size_t length);

#endif
