/* Chooses, once, which implementation of each kernel runs. */
#include "mw_bits.h"
#include "mw_dispatch.h"
#include "mw_planes.h"

/* The best comes first, the generic one last. */
static const mw_kernels *const KNOWN[] = {
#if defined(__x86_64__)
    &mw_avx2,
#elif defined(__aarch64__)
    &mw_neon,
#endif
    &mw_generic,
};
#define KNOWN_COUNT (sizeof KNOWN / sizeof *KNOWN)

/* The one variable of this library. */
static const mw_kernels *chosen = &mw_generic;

mw_status mw_choose(const char *name) {
  for (size_t i = 0; i < KNOWN_COUNT; i++)
    if ((!*name || !strcmp(name, KNOWN[i]->name)) && KNOWN[i]->usable()) {
      chosen = KNOWN[i];
      return MW_OK;
    }
  return MW_UNKNOWN_KERNEL;
}

const char *mw_chosen(void) { return chosen->name; }

const char *mw_kernel_name(size_t i) { return i < KNOWN_COUNT ? KNOWN[i]->name : NULL; }

const mw_kernels *mw_kernels_in_use(void) { return chosen; }

mw_status mw_weights_from_q(const float *base, const int32_t *q, size_t n, int exponent, float *w, size_t *at) {
  return chosen->weights_from_q(base, q, n, exponent, w, at);
}

mw_status mw_q_from_weights(const float *base, const float *w, size_t n, int exponent, int32_t *q, size_t *at) {
  return chosen->q_from_weights(base, w, n, exponent, q, at);
}

void mw_fingerprint(const int32_t *q, size_t n, uint64_t start, int verbatim, uint64_t lanes[2]) {
  chosen->fingerprint(q, n, start, verbatim, lanes);
}

uint32_t mw_crc32c(const uint8_t *data, size_t length) { return chosen->crc32c(data, length); }

mw_status mw_split_planes(const void *fresh, const void *parent, size_t n, uint32_t width, uint32_t infinity, uint8_t *changed,
                          uint8_t *planes, size_t stride, size_t *count, size_t *at) {
  *count = *at = 0;
  if (stride < n) return MW_NO_ROOM;
  return chosen->split_planes(fresh, parent, n, width, infinity, changed, planes, stride, count, at);
}

mw_status mw_join_planes(const uint8_t *changed, const uint8_t *planes, size_t stride, size_t count, const void *parent, size_t n,
                         uint32_t width, uint32_t infinity, void *fresh, size_t *at) {
  *at = 0;
  if (stride < count) return MW_NO_ROOM;
  mw_status status = mw_check_changed(changed, n, count);
  return status ? status : chosen->join_planes(changed, planes, stride, parent, n, width, infinity, fresh, at);
}

mw_status mw_to_storage(const float *held, size_t n, uint8_t dtype, void *stored, size_t *at) {
  *at = 0;
  size_t i = 0;
  if (dtype == MW_INT8) {
    int8_t *codes = stored;
    for (; i < n && held[i] >= -128.0f && held[i] <= 127.0f && (float)(int8_t)held[i] == held[i] && mw_bits(held[i]) != 0x80000000u; i++)
      codes[i] = (int8_t)held[i];
  } else {
    i = chosen->narrow(held, n, dtype == MW_FLOAT16, stored);
    for (; i < n && mw_finite(held[i]) && mw_bits(mw_stored(held[i], dtype)) == mw_bits(held[i]); i++) continue;
  }
  if (i == n) return MW_OK;
  *at = i;
  return mw_finite(held[i]) ? MW_NOT_STORED : MW_WEIGHT_NOT_FINITE;
}
