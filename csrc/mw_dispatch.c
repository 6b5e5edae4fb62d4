/* Chooses, once, which implementation of each kernel runs. */
#include "mw_dispatch.h"

#include <string.h>

static int always(void) { return 1; }

static const mw_kernels GENERIC = {
    "generic",
    always,
    mw_generic_differences,
    mw_generic_snap,
    mw_generic_weights_from_q,
    mw_generic_q_from_weights,
    mw_generic_fingerprint,
    mw_generic_crc32c,
};

/* The best comes first, the generic one last. */
static const mw_kernels *const KNOWN[] = {&GENERIC};
#define KNOWN_COUNT (sizeof KNOWN / sizeof *KNOWN)

/* The one variable of this library. */
static const mw_kernels *chosen = &GENERIC;

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

mw_status mw_snap(const float *w, const float *trained, const uint16_t *residual, const int32_t *q, size_t n, int exponent, int64_t step,
                  float threshold, uint32_t *index, int32_t *value, size_t capacity, size_t *count, size_t *clamped, size_t *at) {
  return chosen->snap(w, trained, residual, q, n, exponent, step, threshold, index, value, capacity, count, clamped, at);
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
