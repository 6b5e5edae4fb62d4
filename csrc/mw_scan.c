/* The dense pass in portable C, written so that a compiler turns it into whatever registers there are. */
#include "mw_scan.h"

/* Groups in which anything stands out are listed, without a branch, because which ones do is not to be predicted. */
#define GROUP 16

/* Loops of their own, over many entries each, are what compilers vectorise. Returns the bits that any of the differences has. */
static uint32_t round_all(const float *restrict w, const float *restrict trained, const uint16_t *restrict residual, size_t length,
                          uint16_t *restrict left) {
  uint32_t any = 0;
  for (size_t i = 0; i < length; i++) {
    const float d = mw_difference(w[i], trained[i], residual[i]);
    left[i] = mw_to_bf16(d);
    any |= mw_bits(d);
  }
  return any;
}

static int all_finite(const float *restrict w, const float *restrict trained, const uint16_t *restrict residual, size_t length) {
  uint32_t carried = 0; /* into the sign, by exponents of ones alone */
  for (size_t i = 0; i < length; i++)
    carried |= (mw_bits(mw_difference(w[i], trained[i], residual[i])) & MW_MAGNITUDE) + (0x80000000u - MW_EXPONENT_BITS);
  return !(carried >> 31);
}

#define SIGNS 0x8000800080008000u
#define FOUR_TIMES 0x0001000100010001u

/* Rounding keeps the order of numbers: what reaches the alarm reaches it as a bfloat16 too, and four of those fit in a word. With its
   sign bit set each stays above the alarm's without borrowing from its neighbour, and keeps that bit if it reaches it. */
static inline uint64_t reaching(const uint16_t *left, uint64_t four_alarms) {
  uint64_t four;
  memcpy(&four, left, sizeof four);
  return ((four | SIGNS) - four_alarms) & SIGNS;
}

/* One bit an entry, in order: the product brings the four sign bits side by side. */
static inline uint32_t mask_of(const uint16_t *left, uint64_t four_alarms) {
  uint32_t mask = 0;
  for (unsigned j = 0; j < GROUP; j += 4) mask |= (uint32_t)((reaching(left + j, four_alarms) >> 15) * 0x0001000200040008u >> 48 & 15) << j;
  return mask;
}

size_t mw_generic_scan(const float *w, const float *trained, const uint16_t *residual, size_t length, size_t rest, uint32_t alarm,
                       uint32_t first, uint16_t *left, uint32_t *index, float *d) {
  const uint64_t four_alarms = mw_to_bf16(mw_float(alarm)) * FOUR_TIMES;
  size_t found = 0, i = 0, listed = 0;
  uint16_t again[MW_STRETCH / GROUP];
  for (size_t line = 0; line < length; line += MW_LINE) {
    MW_ASK_AHEAD(w, trained, residual, line, rest)
  }
  /* Of a NaN it may make a zero, that stands out nowhere. One operation an entry tells that there is none; only where a difference
     reaches 2 can their bits together have such an exponent, and each is asked. */
  const uint32_t any = round_all(w, trained, residual, length, left);
  if (!mw_finite_bits(any) && !all_finite(w, trained, residual, length))
    return mw_scan_rest(w, trained, residual, length, alarm, first, left, index, d, 0, 0);
  for (; i + GROUP <= length; i += GROUP) {
    uint64_t group = 0;
    for (size_t j = i; j < i + GROUP; j += 4) group |= reaching(left + j, four_alarms);
    again[listed] = (uint16_t)i;
    listed += group != 0;
  }
  for (size_t g = 0; g < listed; g++) {
    for (uint32_t mask = mask_of(left + again[g], four_alarms); mask; mask &= mask - 1) {
      const size_t place = again[g] + (unsigned)__builtin_ctz(mask);
      const float x = mw_difference(w[place], trained[place], residual[place]);
      index[found] = first + (uint32_t)place;
      d[found] = x;
      found += (mw_bits(x) & MW_MAGNITUDE) >= alarm;
    }
  }
  return mw_scan_rest(w, trained, residual, length, alarm, first, left, index, d, i, found);
}

void mw_generic_put(uint16_t *to, const uint16_t *left, size_t length, int far) {
  (void)far;
  memcpy(to, left, length * sizeof *to);
}

void mw_generic_settle(void) {}

static int always(void) { return 1; }

const mw_kernels mw_generic = {
    "generic",
    always,
    mw_generic_scan,
    mw_generic_put,
    mw_generic_settle,
    mw_generic_weights_from_q,
    mw_generic_q_from_weights,
    mw_generic_fingerprint,
    mw_generic_crc32c,
    mw_generic_split_planes,
    mw_generic_join_planes,
    mw_generic_narrow,
};

mw_status mw_differences(const float *w, const float *trained, const uint16_t *residual, size_t n, float *out, size_t *at) {
  for (size_t i = 0; i < n; i++)
    if (!mw_finite(mw_difference(w[i], trained[i], residual[i]))) return mw_difference_fault(trained, i, at);
  for (size_t i = 0; i < n; i++) out[i] = mw_difference(w[i], trained[i], residual[i]);
  return MW_OK;
}
