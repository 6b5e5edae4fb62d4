/* One table of kernels for each implementation. A faster one is an mw_<name>.c with an mw_kernels of its own, listed in
   mw_dispatch.c. Each must give the bits of the generic one; where it has nothing better it borrows the generic function. On
   32-bit ARM no float arithmetic in NEON: it flushes subnormals. */
#ifndef MW_DISPATCH_H
#define MW_DISPATCH_H

#include "mw.h"

typedef struct mw_kernels {
  const char *name;
  int (*usable)(void); /* can this processor run it */
  /* Write bf16(d) of `length` entries, MW_STRETCH at most, to left, and those whose magnitude's bits are at least `alarm`, in order,
     to index (counted from `first`) and d; return how many. rest: entries of the tensor from here on, to ask memory for ahead. */
  size_t (*scan)(const float *w, const float *trained, const uint16_t *residual, size_t length, size_t rest, uint32_t alarm,
                 uint32_t first, uint16_t *left, uint32_t *index, float *d);
  /* Copy what scan wrote to where it stays. far: the model is larger than the caches, so it need not pass through them. */
  void (*put)(uint16_t *to, const uint16_t *left, size_t length, int far);
  void (*settle)(void); /* after the last put: what went past the caches is there for other threads */
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

const mw_kernels *mw_kernels_in_use(void);

size_t mw_generic_scan(const float *w, const float *trained, const uint16_t *residual, size_t length, size_t rest, uint32_t alarm,
                       uint32_t first, uint16_t *left, uint32_t *index, float *d);
void mw_generic_settle(void);
void mw_generic_put(uint16_t *to, const uint16_t *left, size_t length, int far);
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
