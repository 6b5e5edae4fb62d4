/* The linear fingerprint: two sums of Q times mixed indices mod 2^64. It adds like the deltas and is no cryptographic hash. */
#include "mw_bits.h"
#include "mw_dispatch.h"
#include "mw_fingerprint.h"

void mw_generic_fingerprint(const int32_t *q, size_t n, uint64_t start, int verbatim, uint64_t lanes[2]) {
  uint64_t a = 0, b = 0;
  for (size_t from = 0; from < n; from += 16) {
    const size_t to = n - from < 16 ? n : from + 16;
    int32_t any = 0;
    for (size_t i = from; i < to; i++) any |= q[i];
    if (!any) continue; /* most of a model never moved */
    for (size_t i = from; i < to; i++) {
      if (!q[i]) continue;
      mw_lanes_add(&a, &b, q[i], start + i, verbatim);
    }
  }
  lanes[0] = a;
  lanes[1] = b;
}

mw_status mw_fingerprint_sparse(const uint32_t *index, const int32_t *value, size_t count, int64_t step, uint64_t start, int verbatim,
                                uint64_t lanes[2]) {
  mw_status status = mw_check_step(step);
  if (status) return status;
  uint64_t a = 0, b = 0;
  for (size_t k = 0; k < count; k++) mw_lanes_add(&a, &b, value[k] * step, start + index[k], verbatim);
  lanes[0] = a;
  lanes[1] = b;
  return MW_OK;
}
