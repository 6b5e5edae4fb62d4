/* Chooses, once, which implementation of each kernel runs. */
#include "mw_bits.h"
#include "mw_dispatch.h"

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
