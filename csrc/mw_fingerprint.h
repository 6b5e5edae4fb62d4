/* One entry's share of the fingerprint, for all kernels that sum it. */
#ifndef MW_FINGERPRINT_H
#define MW_FINGERPRINT_H

#include <stdint.h>

/* The finaliser of splitmix64. */
static inline uint64_t mw_mix(uint64_t z) {
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
  z = (z ^ z >> 27) * 0x94d049bb133111ebu;
  return z ^ z >> 31;
}

/* Odd, so that no single non-zero entry can vanish. A verbatim tensor's entries count mod 2^32: the shift keeps just that. */
static inline uint64_t mw_lane_weight(uint64_t i, unsigned lane, int verbatim) {
  uint64_t r = mw_mix(i * 2 + lane + 0x9e3779b97f4a7c15u) | 1;
  return verbatim ? r << 32 : r;
}

/* Add the entry with the global index i, which has moved by so many units (bits, where verbatim). */
static inline void mw_lanes_add(uint64_t *a, uint64_t *b, int64_t moved, uint64_t i, int verbatim) {
  *a += (uint64_t)moved * mw_lane_weight(i, 0, verbatim);
  *b += (uint64_t)moved * mw_lane_weight(i, 1, verbatim);
}

#endif
