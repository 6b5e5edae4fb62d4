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

mw_status mw_differences(const float *w, const float *trained, const uint16_t *residual, size_t n, float *out, size_t *at) {
  return chosen->differences(w, trained, residual, n, out, at);
}

mw_status mw_collect(const float *w, const float *trained, const uint16_t *residual, size_t n, float least, uint16_t *left, uint32_t *index,
                     float *d, size_t capacity, size_t *count, int *huge, size_t *at) {
  *count = *at = 0;
  *huge = 0;
  if (!(least >= 0)) return MW_THRESHOLD;
  if (n > UINT32_MAX) return MW_SHAPE;
  const uint32_t bar = mw_bits(least) & MW_MAGNITUDE;
  mw_status status = chosen->collect(w, trained, residual, n, bar ? bar : 1, left, index, d, capacity, count, huge, at);
  /* Which comes first, too many entries or one that is no number, would hang on how many a kernel looks at together. */
  for (size_t i = 0; status == MW_NO_ROOM && i < n; i++)
    if (!mw_finite(mw_difference(w[i], trained[i], residual[i]))) status = mw_difference_fault(trained, i, at);
  return status;
}

mw_status mw_snap(const float *w, const float *trained, const uint16_t *residual, const int32_t *q, size_t n, int exponent, int64_t step,
                  float threshold, uint32_t *index, int32_t *value, size_t capacity, size_t *count, size_t *clamped, size_t *at) {
  return chosen->snap(w, trained, residual, q, n, exponent, step, threshold, index, value, capacity, count, clamped, at);
}

mw_status mw_adopt(const float *base, float *w, const float *trained, uint16_t *residual, int32_t *q, size_t n, const uint32_t *index,
                   const int32_t *value, size_t count, int exponent, int64_t step, size_t *at) {
  return chosen->adopt(base, w, trained, residual, q, n, index, value, count, exponent, step, at);
}

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
