/* The dense pass for 64-bit ARM, where NEON is always there and rounds as IEEE 754 asks. Not for 32-bit ARM: its NEON flushes
   subnormals in float arithmetic, so the portable C in VFP is what runs there. */
#include "mw_scan.h"

#ifdef __aarch64__
#include <arm_neon.h>

/* Four differences from four residuals, the larger of each lane's magnitude so far, and their bfloat16s. */
#define FOUR(j, r)                                                                                                      \
  const float32x4_t d##j = vaddq_f32(vsubq_f32(vld1q_f32(trained + i + 4 * (j)), vld1q_f32(w + i + 4 * (j))),           \
                                     vreinterpretq_f32_u32(vshll_n_u16(r, 16)));                                        \
  const uint32x4_t u##j = vreinterpretq_u32_f32(d##j);                                                                  \
  largest = vmaxq_u32(largest, vandq_u32(u##j, magnitude));                                                             \
  const uint16x4_t b##j = vaddhn_u32(u##j, vaddq_u32(half, vandq_u32(vshrq_n_u32(u##j, 16), one)));

#define EIGHT(j, k)                                                \
  const uint16x8_t r##j = vld1q_u16(residual + i + 4 * (j));       \
  FOUR(j, vget_low_u16(r##j))                                      \
  FOUR(k, vget_high_u16(r##j))                                     \
  vst1q_u16(left + i + 4 * (j), vcombine_u16(b##j, b##k));

static size_t neon_scan(const float *w, const float *trained, const uint16_t *residual, size_t length, size_t rest, uint32_t alarm,
                        uint32_t first, uint16_t *left, uint32_t *index, float *d) {
  const uint32x4_t magnitude = vdupq_n_u32(MW_MAGNITUDE), half = vdupq_n_u32(0x7fff), one = vdupq_n_u32(1);
  size_t found = 0, listed = 0, i = 0;
  uint16_t again[MW_STRETCH / 16];
  for (; i + 16 <= length; i += 16) {
    uint32x4_t largest = vdupq_n_u32(0);
    MW_ASK_AHEAD(w, trained, residual, i, rest)
    EIGHT(0, 1) EIGHT(2, 3)
    again[listed] = (uint16_t)i;
    listed += vmaxvq_u32(largest) >= alarm;
  }
  for (size_t g = 0; g < listed; g++) {
    const size_t from = again[g];
    for (size_t j = from; j < from + 16; j++) {
      const float x = mw_difference(w[j], trained[j], residual[j]);
      index[found] = first + (uint32_t)j;
      d[found] = x;
      found += (mw_bits(x) & MW_MAGNITUDE) >= alarm;
    }
  }
  return mw_scan_rest(w, trained, residual, length, alarm, first, left, index, d, i, found);
}

static int usable(void) { return 1; }

const mw_kernels mw_neon = {
    "neon",
    usable,
    neon_scan,
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
#endif
