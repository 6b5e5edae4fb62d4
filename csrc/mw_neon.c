/* The dense passes for 64-bit ARM, where NEON is always there and rounds as IEEE 754 asks. Not for 32-bit ARM: its NEON flushes
   subnormals in float arithmetic, so the portable C in VFP is what runs there. */
#include "mw_dispatch.h"

#ifdef __aarch64__
#include <arm_neon.h>

#define MW_TARGET
#include "mw_tiles.h"

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

static mw_status neon_collect(const float *w, const float *trained, const uint16_t *residual, size_t n, uint32_t bar, uint16_t *left,
                              uint32_t *index, float *d, size_t capacity, size_t *count, int *huge, size_t *at) {
  const uint32_t alarm = bar < MW_BF16_OVERFLOW ? bar : MW_BF16_OVERFLOW;
  const uint32x4_t magnitude = vdupq_n_u32(MW_MAGNITUDE), half = vdupq_n_u32(0x7fff), one = vdupq_n_u32(1);
  size_t found = 0, i = 0;
  for (; i + 32 <= n; i += 32) {
    uint32x4_t largest = vdupq_n_u32(0);
    ASK_AHEAD(w, trained, residual, i, n)
    ASK_AHEAD(w, trained, residual, i + LINE, n)
    EIGHT(0, 1) EIGHT(2, 3) EIGHT(4, 5) EIGHT(6, 7)
    if (vmaxvq_u32(largest) < alarm) continue;
    const float32x4_t all[8] = {d0, d1, d2, d3, d4, d5, d6, d7};
    float one_by_one[32];
    for (size_t j = 0; j < 8; j++) vst1q_f32(one_by_one + 4 * j, all[j]);
    for (size_t place = 0; place < 32; place++) {
      const uint32_t bits = mw_bits(one_by_one[place]) & MW_MAGNITUDE;
      if (bits < alarm) continue;
      if (bits >= MW_BF16_OVERFLOW) {
        if (bits >= MW_EXPONENT_BITS) return mw_difference_fault(trained, i + place, at);
        *huge = 1;
        if (bits < bar) continue;
      }
      if (found == capacity) return MW_NO_ROOM;
      index[found] = (uint32_t)(i + place);
      d[found++] = one_by_one[place];
    }
  }
  return mw_collect_rest(w, trained, residual, n, bar, left, index, d, capacity, i, found, count, huge, at);
}

static int usable(void) { return 1; }

const mw_kernels mw_neon = {
    "neon",
    usable,
    tiled_differences,
    neon_collect,
    tiled_snap,
    tiled_adopt,
    mw_generic_weights_from_q,
    mw_generic_q_from_weights,
    mw_generic_fingerprint,
    mw_generic_crc32c,
    mw_generic_split_planes,
    mw_generic_join_planes,
    mw_generic_narrow,
};
#endif
