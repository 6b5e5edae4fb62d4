/* The table of kernels that have more than one implementation: portable C (mw_snap.c), AVX2 (mw_avx2.c), NEON on 64-bit ARM
   (mw_neon.c). A new one is a file mw_<name>.c with an mw_kernels of its own, listed in mw_dispatch.c. Each must give the bits of
   the generic one; where it has nothing better it borrows the generic function. On 32-bit ARM no float arithmetic in NEON:
   it flushes subnormals. */
#ifndef MW_DISPATCH_H
#define MW_DISPATCH_H

#include "mw.h"

typedef struct mw_kernels {
  const char *name;
  int (*usable)(void); /* can this processor run it */
  mw_status (*differences)(const float *w, const float *trained, const uint16_t *residual, size_t n, float *out, size_t *at);
  /* As mw_collect, after its checks; bar: the magnitude's bits, at least 1. */
  mw_status (*collect)(const float *w, const float *trained, const uint16_t *residual, size_t n, uint32_t bar, uint16_t *left,
                       uint32_t *index, float *d, size_t capacity, size_t *count, int *huge, size_t *at);
  mw_status (*snap)(const float *w, const float *trained, const uint16_t *residual, const int32_t *q, size_t n, int exponent, int64_t step,
                    float threshold, uint32_t *index, int32_t *value, size_t capacity, size_t *count, size_t *clamped, size_t *at);
  mw_status (*adopt)(const float *base, float *w, const float *trained, uint16_t *residual, int32_t *q, size_t n, const uint32_t *index,
                     const int32_t *value, size_t count, int exponent, int64_t step, size_t *at);
  mw_status (*weights_from_q)(const float *base, const int32_t *q, size_t n, int exponent, float *w, size_t *at);
  mw_status (*q_from_weights)(const float *base, const float *w, size_t n, int exponent, int32_t *q, size_t *at);
  void (*fingerprint)(const int32_t *q, size_t n, uint64_t start, int verbatim, uint64_t lanes[2]);
  uint32_t (*crc32c)(const uint8_t *data, size_t length);
  mw_status (*split_planes)(const void *fresh, const void *parent, size_t n, uint32_t width, uint32_t infinity, uint8_t *changed,
                            uint8_t *planes, size_t stride, size_t *count, size_t *at);
  /* As mw_join_planes, after its checks. */
  mw_status (*join_planes)(const uint8_t *changed, const uint8_t *planes, size_t stride, const void *parent, size_t n, uint32_t width,
                           uint32_t infinity, void *fresh, size_t *at);
  /* Write held as float16 (half) or bfloat16; n, or the start of a tile in which an entry is not of that type. */
  size_t (*narrow)(const float *held, size_t n, int half, uint16_t *stored);
} mw_kernels;

extern const mw_kernels mw_generic;
extern const mw_kernels mw_avx2; /* x86-64 alone */
extern const mw_kernels mw_neon; /* 64-bit ARM alone */

/* The last entries of a collect, from i on, when found entries were kept before them: fewer than a register's worth. */
mw_status mw_collect_rest(const float *w, const float *trained, const uint16_t *residual, size_t n, uint32_t bar, uint16_t *left,
                          uint32_t *index, float *d, size_t capacity, size_t i, size_t found, size_t *count, int *huge, size_t *at);

mw_status mw_generic_weights_from_q(const float *base, const int32_t *q, size_t n, int exponent, float *w, size_t *at);
mw_status mw_generic_q_from_weights(const float *base, const float *w, size_t n, int exponent, int32_t *q, size_t *at);
void mw_generic_fingerprint(const int32_t *q, size_t n, uint64_t start, int verbatim, uint64_t lanes[2]);
uint32_t mw_generic_crc32c(const uint8_t *data, size_t length);
mw_status mw_generic_split_planes(const void *fresh, const void *parent, size_t n, uint32_t width, uint32_t infinity, uint8_t *changed,
                                  uint8_t *planes, size_t stride, size_t *count, size_t *at);
mw_status mw_generic_join_planes(const uint8_t *changed, const uint8_t *planes, size_t stride, const void *parent, size_t n,
                                 uint32_t width, uint32_t infinity, void *fresh, size_t *at);
size_t mw_generic_narrow(const float *held, size_t n, int half, uint16_t *stored);
mw_status mw_check_changed(const uint8_t *changed, size_t n, size_t count);

#endif
