/* The dense passes over stored integers in plain C, tile by tile. Included once by each implementation, with MW_TARGET naming what
   the compiler may use in it: the same text, so the same bits, in wider registers. */
#ifndef MW_TARGET
#error "define MW_TARGET, empty where the build's own flags are all there is"
#endif

#include "mw_bits.h"
#include "mw_planes.h"

#define PLANES_TILE 512 /* entries: a tile and what comes of it stay in the nearest cache */

static const uint8_t NO_PARENT[PLANES_TILE * 4];

/* Every function once for each width: U the unsigned, S the signed integer of WIDTH bytes. Signed maxima, because plain SSE2
   compares only those. */
#define ORDERED(U, S, x, order) ((U)((x) ^ ((U)((S)(x) >> (8 * sizeof(U) - 1)) & (order))))

#define DEFINE_WIDTH(NAME, U, S, WIDTH)                                                                                            \
  MW_TARGET static mw_status split_##NAME(const U *fresh, const U *parent, size_t n, uint32_t infinity, uint8_t *changed,          \
                                          uint8_t *planes, size_t stride, size_t *count, size_t *at) {                             \
    const U magnitude = (U)((U)~(U)0 >> 1), order = infinity ? magnitude : 0;                                                      \
    U z[PLANES_TILE], kept[PLANES_TILE];                                                                                           \
    size_t found = 0;                                                                                                              \
    for (size_t start = 0; start < n; start += PLANES_TILE) {                                                                      \
      const size_t length = n - start < PLANES_TILE ? n - start : PLANES_TILE;                                                     \
      const U *f = fresh + start, *p = parent ? parent + start : (const U *)(const void *)NO_PARENT;                               \
      S worst = 0;                                                                                                                 \
      uint32_t some = 0;                                                                                                           \
      for (size_t i = 0; i < length; i++) {                                                                                        \
        const U x = f[i];                                                                                                          \
        const S m = (S)(x & magnitude);                                                                                            \
        worst = m > worst ? m : worst;                                                                                             \
        const U d = (U)(ORDERED(U, S, x, order) - ORDERED(U, S, p[i], order));                                                     \
        z[i] = (U)((U)(d << 1) ^ (U)((S)d >> (8 * WIDTH - 1)));                                                                    \
      }                                                                                                                            \
      for (size_t i = 0; i < length; i++) some += z[i] != 0;                                                                       \
      if (infinity && (U)worst >= infinity)                                                                                        \
        for (size_t i = 0;; i++)                                                                                                   \
          if ((f[i] & magnitude) >= infinity) {                                                                                    \
            *at = start + i;                                                                                                       \
            return MW_WEIGHT_NOT_FINITE;                                                                                           \
          }                                                                                                                        \
      uint8_t *bits = changed + start / 8;                                                                                         \
      const U *from = z;                                                                                                           \
      if (some == length && length % 8 == 0) {                                                                                     \
        memset(bits, 0xff, length / 8);                                                                                            \
      } else if (some) {                                                                                                           \
        /* Each is kept where the next one goes, and counts when it is not 0: which ones are is not to be predicted. */            \
        size_t k = 0;                                                                                                              \
        for (size_t i = 0; i < length; i += 8) {                                                                                   \
          uint32_t byte = 0;                                                                                                       \
          for (size_t j = 0; j < 8 && i + j < length; j++) {                                                                       \
            const uint32_t is = z[i + j] != 0;                                                                                     \
            kept[k] = z[i + j];                                                                                                    \
            k += is;                                                                                                               \
            byte |= is << j;                                                                                                       \
          }                                                                                                                        \
          bits[i / 8] = (uint8_t)byte;                                                                                             \
        }                                                                                                                          \
        from = kept;                                                                                                               \
      } else {                                                                                                                     \
        memset(bits, 0, (length + 7) / 8);                                                                                         \
      }                                                                                                                            \
      for (size_t b = 0; b < WIDTH; b++) {                                                                                         \
        uint8_t *out = planes + b * stride + found;                                                                                \
        for (size_t i = 0; i < some; i++) out[i] = (uint8_t)(from[i] >> (8 * b));                                                  \
      }                                                                                                                            \
      found += some;                                                                                                               \
    }                                                                                                                              \
    *count = found;                                                                                                                \
    return MW_OK;                                                                                                                  \
  }                                                                                                                                \
                                                                                                                                   \
  MW_TARGET static mw_status join_##NAME(const uint8_t *changed, const uint8_t *planes, size_t stride, const U *parent, size_t n,  \
                                         uint32_t infinity, U *fresh, size_t *at) {                                                \
    const U magnitude = (U)((U)~(U)0 >> 1), order = infinity ? magnitude : 0;                                                      \
    U z[PLANES_TILE], kept[PLANES_TILE + 1];                                                                                       \
    size_t found = 0;                                                                                                              \
    for (size_t start = 0; start < n; start += PLANES_TILE) {                                                                      \
      const size_t length = n - start < PLANES_TILE ? n - start : PLANES_TILE;                                                     \
      const U *p = parent ? parent + start : (const U *)(const void *)NO_PARENT;                                                   \
      const uint8_t *bits = changed + start / 8;                                                                                   \
      size_t some = 0, zeros = 0;                                                                                                  \
      for (size_t i = 0; i < (length + 7) / 8; i++) some += (size_t)__builtin_popcount(bits[i]);                                   \
      for (size_t i = 0; i < some; i++) kept[i] = 0;                                                                               \
      for (size_t b = 0; b < WIDTH; b++) {                                                                                         \
        const uint8_t *in = planes + b * stride + found;                                                                           \
        for (size_t i = 0; i < some; i++) kept[i] = (U)(kept[i] | (U)((U)in[i] << (8 * b)));                                       \
      }                                                                                                                            \
      for (size_t i = 0; i < some; i++) zeros += kept[i] == 0;                                                                     \
      const U *from = kept;                                                                                                        \
      if (zeros || some != length) {                                                                                               \
        size_t k = 0;                                                                                                              \
        kept[some] = 0;                                                                                                            \
        for (size_t i = 0; i < length; i++) {                                                                                      \
          const U is = (U)(bits[i / 8] >> (i % 8) & 1);                                                                            \
          z[i] = (U)(kept[k] & (U)-is);                                                                                            \
          if (zeros && is && !kept[k]) {                                                                                           \
            *at = start + i;                                                                                                       \
            return MW_VALUE;                                                                                                       \
          }                                                                                                                        \
          k += is;                                                                                                                 \
        }                                                                                                                          \
        from = z;                                                                                                                  \
      }                                                                                                                            \
      S worst = 0;                                                                                                                 \
      for (size_t i = 0; i < length; i++) {                                                                                        \
        const U d = (U)((U)(from[i] >> 1) ^ (U)(0 - (from[i] & 1)));                                                               \
        const U o = (U)(ORDERED(U, S, p[i], order) + d), x = ORDERED(U, S, o, order);                                              \
        const S m = (S)(x & magnitude);                                                                                            \
        worst = m > worst ? m : worst;                                                                                             \
        fresh[start + i] = x;                                                                                                      \
      }                                                                                                                            \
      if (infinity && (U)worst >= infinity)                                                                                        \
        for (size_t i = start;; i++)                                                                                               \
          if ((fresh[i] & magnitude) >= infinity) {                                                                                \
            *at = i;                                                                                                               \
            return MW_WEIGHT_NOT_FINITE;                                                                                           \
          }                                                                                                                        \
      found += some;                                                                                                               \
    }                                                                                                                              \
    return MW_OK;                                                                                                                  \
  }

DEFINE_WIDTH(32, uint32_t, int32_t, 4)
DEFINE_WIDTH(16, uint16_t, int16_t, 2)
DEFINE_WIDTH(8, uint8_t, int8_t, 1)

MW_TARGET static mw_status tiled_split_planes(const void *fresh, const void *parent, size_t n, uint32_t width, uint32_t infinity,
                                              uint8_t *changed, uint8_t *planes, size_t stride, size_t *count, size_t *at) {
  if (width == 4) return split_32(fresh, parent, n, infinity, changed, planes, stride, count, at);
  if (width == 2) return split_16(fresh, parent, n, infinity, changed, planes, stride, count, at);
  return split_8(fresh, parent, n, infinity, changed, planes, stride, count, at);
}

MW_TARGET static mw_status tiled_join_planes(const uint8_t *changed, const uint8_t *planes, size_t stride, const void *parent, size_t n,
                                             uint32_t width, uint32_t infinity, void *fresh, size_t *at) {
  if (width == 4) return join_32(changed, planes, stride, parent, n, infinity, fresh, at);
  if (width == 2) return join_16(changed, planes, stride, parent, n, infinity, fresh, at);
  return join_8(changed, planes, stride, parent, n, infinity, fresh, at);
}

/* Write held as 16-bit floats and return how many of a tile do not come back to the bit. */
MW_TARGET static size_t narrow_tile(const float *held, size_t length, int half, uint16_t *stored) {
  size_t lost = 0;
  if (half) {
    for (size_t i = 0; i < length; i++) {
      stored[i] = mw_to_f16(held[i]);
      lost += (mw_bits(mw_from_f16(stored[i])) != mw_bits(held[i])) | !mw_finite(held[i]);
    }
  } else {
    for (size_t i = 0; i < length; i++) {
      stored[i] = (uint16_t)(mw_bits(held[i]) >> 16);
      lost += ((mw_bits(held[i]) & 0xffffu) != 0) | !mw_finite(held[i]);
    }
  }
  return lost;
}

MW_TARGET static size_t tiled_narrow(const float *held, size_t n, int half, uint16_t *stored) {
  for (size_t start = 0; start < n; start += PLANES_TILE) {
    const size_t length = n - start < PLANES_TILE ? n - start : PLANES_TILE;
    if (narrow_tile(held + start, length, half, stored + start)) return start;
  }
  return n;
}
