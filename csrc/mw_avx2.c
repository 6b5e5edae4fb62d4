/* The dense passes for x86-64 with AVX2: the plain C in registers of eight, and a collect that looks at 32 entries a test. */
#include "mw_dispatch.h"

#ifdef __x86_64__
#include <immintrin.h>

#define MW_TARGET __attribute__((target("avx2,bmi")))
#include "mw_tiles.h"
#include "mw_planes_tiles.h"

/* Load eight differences, add "does it ring the alarm" to the mask of 32, round to bfloat16 in 32-bit lanes. */
#define EIGHT(j)                                                                                                                 \
  const __m256i r##j = _mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(residual + i + 8 * (j)))), 16); \
  const __m256 d##j =                                                                                                            \
      _mm256_add_ps(_mm256_sub_ps(_mm256_loadu_ps(trained + i + 8 * (j)), _mm256_loadu_ps(w + i + 8 * (j))), _mm256_castsi256_ps(r##j)); \
  const __m256i u##j = _mm256_castps_si256(d##j);                                                                                \
  const __m256i hit##j = _mm256_cmpgt_epi32(_mm256_and_si256(u##j, magnitude), below);                                           \
  const __m256i b##j = _mm256_srli_epi32(                                                                                        \
      _mm256_add_epi32(_mm256_add_epi32(u##j, half), _mm256_and_si256(_mm256_srli_epi32(u##j, 16), one)), 16);

/* Two rounded eights side by side; the pack works within halves of a register, the permutation puts them in order. */
#define STORE(j, a, b) \
  _mm256_storeu_si256((__m256i *)(left + i + (j)), _mm256_permute4x64_epi64(_mm256_packus_epi32(a, b), 0xd8));

/* One bit an entry, in order: packing works within halves of a register, the permutation puts the fours in order. */
#define MASK()                                                                                                             \
  (uint32_t) _mm256_movemask_epi8(_mm256_permutevar8x32_epi32(                                                             \
      _mm256_packs_epi16(_mm256_packs_epi32(hit0, hit1), _mm256_packs_epi32(hit2, hit3)), _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7)))

#define BLOCK 32 /* groups of 32 entries: what they hold is still in the nearest cache at the second look */

MW_TARGET static mw_status avx2_collect(const float *w, const float *trained, const uint16_t *residual, size_t n, uint32_t bar,
                                        uint16_t *left, uint32_t *index, float *d, size_t capacity, size_t *count, int *huge,
                                        size_t *at) {
  const uint32_t alarm = bar < MW_BF16_OVERFLOW ? bar : MW_BF16_OVERFLOW;
  const __m256i magnitude = _mm256_set1_epi32(MW_MAGNITUDE), below = _mm256_set1_epi32((int)alarm - 1);
  const __m256i half = _mm256_set1_epi32(0x7fff), one = _mm256_set1_epi32(1);
  size_t found = 0, i = 0, again[BLOCK];
  uint32_t masks[BLOCK];
  while (n - i >= 32) {
    /* Listed without a branch: which groups hold something is not to be predicted. */
    size_t listed = 0;
    for (size_t g = 0; g < BLOCK && n - i >= 32; g++, i += 32) {
      ASK_AHEAD(w, trained, residual, i, n)
      ASK_AHEAD(w, trained, residual, i + LINE, n)
      EIGHT(0) EIGHT(1) EIGHT(2) EIGHT(3)
      STORE(0, b0, b1)
      STORE(16, b2, b3)
      const uint32_t mask = MASK();
      again[listed] = i;
      masks[listed] = mask;
      listed += mask != 0;
    }
    for (size_t g = 0; g < listed; g++) {
      uint32_t mask = masks[g];
      do {
        const size_t place = again[g] + (unsigned)__builtin_ctz(mask);
        const float x = mw_difference(w[place], trained[place], residual[place]);
        const uint32_t bits = mw_bits(x) & MW_MAGNITUDE;
        if (__builtin_expect(bits >= MW_BF16_OVERFLOW, 0)) {
          if (bits >= MW_EXPONENT_BITS) return mw_difference_fault(trained, place, at);
          *huge = 1;
          if (bits < bar) continue;
        }
        if (found == capacity) return MW_NO_ROOM;
        index[found] = (uint32_t)place;
        d[found++] = x;
      } while (mask &= mask - 1);
    }
  }
  return mw_collect_rest(w, trained, residual, n, bar, left, index, d, capacity, i, found, count, huge, at);
}

static int usable(void) { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi"); }

const mw_kernels mw_avx2 = {
    "avx2",
    usable,
    tiled_differences,
    avx2_collect,
    tiled_snap,
    tiled_adopt,
    mw_generic_weights_from_q,
    mw_generic_q_from_weights,
    mw_generic_fingerprint,
    mw_generic_crc32c,
    tiled_split_planes,
    tiled_join_planes,
    tiled_narrow,
};
#endif
