/* What the scans of all processors share. */
#ifndef MW_SCAN_H
#define MW_SCAN_H

#include "mw_bits.h"
#include "mw_dispatch.h"
#include "mw_round.h"

/* A processor's own prefetching stops at the end of a 4 KiB page: asking for lines of the next page keeps a dense pass going.
   A macro: gcc takes a function that only prefetches for one without effect, and drops the call. */
#define MW_LINE 16 /* floats */
#define MW_PAGE 1024
/* Entries from which on a model does not fit in the caches: 12 bytes of each are read or written. */
#define MW_FAR (3u << 20)
#define MW_ASK_AHEAD(w, trained, residual, i, rest)   \
  if ((rest) - (i) >= MW_PAGE + MW_LINE) {            \
    __builtin_prefetch((w) + (i) + MW_PAGE);          \
    __builtin_prefetch((trained) + (i) + MW_PAGE);    \
    __builtin_prefetch((residual) + (i) + MW_PAGE);   \
  }

/* The entries of a scan from i on, one by one; found were kept before them. */
static inline size_t mw_scan_rest(const float *w, const float *trained, const uint16_t *residual, size_t length, uint32_t alarm,
                                  uint32_t first, uint16_t *left, uint32_t *index, float *d, size_t i, size_t found) {
  for (; i < length; i++) {
    const float x = mw_difference(w[i], trained[i], residual[i]);
    left[i] = mw_to_bf16(x);
    index[found] = first + (uint32_t)i;
    d[found] = x;
    found += (mw_bits(x) & MW_MAGNITUDE) >= alarm;
  }
  return found;
}

#endif
