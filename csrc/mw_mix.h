/* The numbers that the fingerprint weighs entries with. */
#ifndef MW_MIX_H
#define MW_MIX_H

#include <stdint.h>

/* The finaliser of splitmix64. */
static inline uint64_t mw_mix(uint64_t z) {
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
  z = (z ^ z >> 27) * 0x94d049bb133111ebu;
  return z ^ z >> 31;
}

/* Odd, so that no single non-zero entry can vanish. A verbatim tensor's entries count mod 2^32: the shift keeps just that. */
static inline uint64_t mw_lane(uint64_t i, unsigned lane, int verbatim) {
  uint64_t r = mw_mix(i * 2 + lane + 0x9e3779b97f4a7c15u) | 1;
  return verbatim ? r << 32 : r;
}

#endif
