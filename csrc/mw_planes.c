/* Held tensors to stored bits and back, ordered differences, and the checks around the byte planes. */
#define MW_TARGET
#include "mw_planes_tiles.h"

#include "mw_dispatch.h"

mw_status mw_generic_split_planes(const void *fresh, const void *parent, size_t n, uint32_t width, uint32_t infinity, uint8_t *changed,
                                  uint8_t *planes, size_t stride, size_t *count, size_t *at) {
  return tiled_split_planes(fresh, parent, n, width, infinity, changed, planes, stride, count, at);
}

mw_status mw_generic_join_planes(const uint8_t *changed, const uint8_t *planes, size_t stride, const void *parent, size_t n,
                                 uint32_t width, uint32_t infinity, void *fresh, size_t *at) {
  return tiled_join_planes(changed, planes, stride, parent, n, width, infinity, fresh, at);
}

size_t mw_generic_narrow(const float *held, size_t n, int half, uint16_t *stored) { return tiled_narrow(held, n, half, stored); }

mw_status mw_check_changed(const uint8_t *changed, size_t n, size_t count) {
  const size_t bits = bits_in(changed, (n + 7) / 8);
  if (bits != count || (n % 8 && changed[n / 8] >> n % 8)) return MW_PLANES;
  return MW_OK;
}

mw_status mw_from_storage(const void *stored, size_t n, uint8_t dtype, float *held, size_t *at) {
  const uint16_t *halves = stored;
  const int8_t *codes = stored;
  uint32_t worst = 0;
  *at = 0;
  if (dtype == MW_INT8) {
    for (size_t i = 0; i < n; i++) held[i] = (float)codes[i];
    return MW_OK;
  }
  const uint32_t infinity = dtype == MW_FLOAT16 ? 0x7c00u : 0x7f80u;
  for (size_t i = 0; i < n; i++) {
    const uint32_t magnitude = halves[i] & 0x7fffu;
    worst = magnitude > worst ? magnitude : worst;
  }
  for (size_t i = 0; worst >= infinity && i < n; i++)
    if ((halves[i] & 0x7fffu) >= infinity) {
      *at = i;
      return MW_WEIGHT_NOT_FINITE;
    }
  if (dtype == MW_FLOAT16) {
    for (size_t i = 0; i < n; i++) held[i] = mw_from_f16(halves[i]);
  } else {
    for (size_t i = 0; i < n; i++) held[i] = mw_from_bf16(halves[i]);
  }
  return MW_OK;
}

mw_status mw_round_stored(const float *sum, size_t n, uint8_t dtype, float *held, size_t *at) {
  for (size_t i = 0; i < n; i++) {
    *at = i;
    if (!mw_finite(mw_stored(sum[i], dtype))) return mw_stored_fault(sum[i], dtype);
  }
  *at = 0;
  for (size_t i = 0; i < n; i++) held[i] = mw_stored(sum[i], dtype);
  return MW_OK;
}

mw_status mw_ordered_differences(const void *fresh, const void *parent, size_t n, uint32_t width, uint32_t infinity, int32_t *d) {
  if (width == 4) {
    const uint32_t *f = fresh, *p = parent, order = infinity ? 0x7fffffffu : 0;
    for (size_t i = 0; i < n; i++) d[i] = (int32_t)(ORDERED(uint32_t, int32_t, f[i], order) - ORDERED(uint32_t, int32_t, p[i], order));
  } else if (width == 2) {
    const uint16_t *f = fresh, *p = parent, order = infinity ? 0x7fffu : 0;
    for (size_t i = 0; i < n; i++)
      d[i] = (int32_t)((uint32_t)(ORDERED(uint16_t, int16_t, f[i], order) - ORDERED(uint16_t, int16_t, p[i], order)) << 16);
  } else {
    const uint8_t *f = fresh, *p = parent;
    for (size_t i = 0; i < n; i++) d[i] = (int32_t)((uint32_t)(f[i] - p[i]) << 24);
  }
  return MW_OK;
}

/* The length that a token's four bits begin; *place is moved behind its further bytes. It fits: a block has fewer than 2^24 bytes. */
static int lz4_length(const uint8_t *block, size_t length, size_t *place, size_t *found) {
  uint8_t more = 255;
  for (*found &= 15; *found >= 15 && more == 255; *found += more) {
    if (*place == length) return 0;
    more = block[(*place)++];
  }
  return 1;
}

mw_status mw_check_lz4(const uint8_t *block, size_t length) {
  for (size_t place = 0; place < length;) {
    const uint8_t token = block[place++];
    size_t literals = token >> 4, match = token;
    if (!lz4_length(block, length, &place, &literals) || literals > length - place) return MW_LZ4;
    place += literals;
    if (place == length) return MW_OK; /* the last sequence has no match */
    if (length - place < 2 || !(block[place] | block[place + 1])) return MW_LZ4;
    place += 2;
    if (!lz4_length(block, length, &place, &match)) return MW_LZ4;
  }
  return MW_LZ4; /* no bytes at all, or none behind a match */
}
