/* The dense pass for x86-64 with AVX2: 32 entries a test, and what it writes need not pass through the caches. */
#include "mw_scan.h"

#ifdef __x86_64__
#include <immintrin.h>

#define MW_TARGET __attribute__((target("avx2,bmi")))
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

MW_TARGET static size_t avx2_scan(const float *w, const float *trained, const uint16_t *residual, size_t length, size_t rest, uint32_t alarm,
                               uint32_t first, uint16_t *left, uint32_t *index, float *d) {
  const __m256i magnitude = _mm256_set1_epi32(MW_MAGNITUDE), below = _mm256_set1_epi32((int)alarm - 1);
  const __m256i half = _mm256_set1_epi32(0x7fff), one = _mm256_set1_epi32(1);
  size_t found = 0, listed = 0, i = 0;
  uint32_t masks[MW_STRETCH / 32];
  uint16_t again[MW_STRETCH / 32];
  /* Listed without a branch: which groups hold something is not to be predicted. */
  for (; i + 32 <= length; i += 32) {
    MW_ASK_AHEAD(w, trained, residual, i, rest)
    MW_ASK_AHEAD(w, trained, residual, i + MW_LINE, rest)
    EIGHT(0) EIGHT(1) EIGHT(2) EIGHT(3)
    STORE(0, b0, b1)
    STORE(16, b2, b3)
    const uint32_t mask = MASK();
    again[listed] = (uint16_t)i;
    masks[listed] = mask;
    listed += mask != 0;
  }
  for (size_t g = 0; g < listed; g++) {
    uint32_t mask = masks[g];
    do {
      const size_t place = again[g] + (unsigned)__builtin_ctz(mask);
      index[found] = first + (uint32_t)place;
      d[found++] = mw_difference(w[place], trained[place], residual[place]);
    } while (mask &= mask - 1);
  }
  return mw_scan_rest(w, trained, residual, length, alarm, first, left, index, d, i, found);
}

MW_TARGET static void avx2_put(uint16_t *to, const uint16_t *left, size_t length, int far) {
  if (!far || (uintptr_t)to % 32 || length % 16) {
    mw_generic_put(to, left, length, far);
    return;
  }
  for (size_t i = 0; i < length; i += 16) _mm256_stream_si256((__m256i *)(to + i), _mm256_loadu_si256((const __m256i *)(left + i)));
}

static void avx2_settle(void) { _mm_sfence(); }

static int usable(void) { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi"); }

const mw_kernels mw_avx2 = {
    "avx2",
    usable,
    avx2_scan,
    avx2_put,
    avx2_settle,
    mw_generic_weights_from_q,
    mw_generic_q_from_weights,
    mw_generic_fingerprint,
    mw_generic_crc32c,
    tiled_split_planes,
    tiled_join_planes,
    tiled_narrow,
};
#endif
