/* Dense passes in plain C, tile by tile. Each implementation's file includes this once, with MW_TARGET naming what the compiler
   may use in it, and lists the functions in its table: the same text, so the same bits, in wider registers. */
#ifndef MW_TARGET
#error "define MW_TARGET, empty where the build's own flags are all there is"
#endif

#include "mw_bits.h"
#include "mw_dispatch.h"

/* Differences are looked at in tiles of this many: one vectorised pass, and a second look only where something stands out. */
#define TILE 64

/* Write the differences of one tile to d and return the largest magnitude as bits: it orders like the floats, and infinities and
   NaNs come above every finite one. Signed, because plain SSE2 compares only those. */
MW_TARGET static inline uint32_t tile(const float *w, const float *trained, const uint16_t *residual, size_t length, float *d) {
  int32_t largest = 0;
  for (size_t i = 0; i < length; i++) {
    d[i] = mw_difference(w[i], trained[i], residual[i]);
    int32_t magnitude = (int32_t)(mw_bits(d[i]) & MW_MAGNITUDE);
    largest = magnitude > largest ? magnitude : largest;
  }
  return (uint32_t)largest;
}

static inline size_t tile_length(size_t start, size_t n) { return n - start < TILE ? n - start : TILE; }

MW_TARGET static mw_status tiled_differences(const float *w, const float *trained, const uint16_t *residual, size_t n, float *out, size_t *at) {
  float d[TILE];
  for (size_t start = 0; start < n; start += TILE) {
    size_t length = tile_length(start, n);
    if (tile(w + start, trained + start, residual + start, length, d) < MW_EXPONENT_BITS) continue;
    for (size_t i = 0; i < length; i++)
      if (!mw_finite(d[i])) return mw_difference_fault(trained, start + i, at);
  }
  for (size_t i = 0; i < n; i++) out[i] = mw_difference(w[i], trained[i], residual[i]);
  return MW_OK;
}

MW_TARGET static mw_status tiled_snap(const float *w, const float *trained, const uint16_t *residual, const int32_t *q, size_t n, int exponent,
                          int64_t step, float threshold, uint32_t *index, int32_t *value, size_t capacity, size_t *count, size_t *clamped,
                          size_t *at) {
  mw_status status;
  *count = *clamped = *at = 0;
  if ((status = mw_check_unit(exponent)) || (status = mw_check_step(step))) return status;
  if (!(threshold >= 0)) return MW_THRESHOLD;
  if (n > UINT32_MAX) return MW_SHAPE;
  const uint32_t least = mw_bits(threshold) & MW_MAGNITUDE;
  const float step_size = (float)step * mw_power(exponent);
  float d[TILE];
  size_t found = 0, cut = 0;
  for (size_t start = 0; start < n; start += TILE) {
    size_t length = tile_length(start, n);
    if (tile(w + start, trained + start, residual + start, length, d) < least) continue;
    for (size_t i = 0; i < length; i++) {
      uint32_t magnitude = mw_bits(d[i]) & MW_MAGNITUDE;
      if (magnitude >= MW_EXPONENT_BITS) return mw_difference_fault(trained, start + i, at);
      if (magnitude < least || !magnitude) continue;
      if (!mw_in_range(q[start + i])) {
        *at = start + i;
        return MW_RANGE;
      }
      int64_t whole = mw_steps(d[i], q[start + i], step, step_size, &cut);
      if (!whole) continue;
      if (found == capacity) return MW_NO_ROOM;
      index[found] = (uint32_t)(start + i);
      value[found++] = (int32_t)whole;
    }
  }
  *count = found;
  *clamped = cut;
  return MW_OK;
}

/* Name the first entry of a tile whose difference, or what is left of it, is not to be kept; MW_OK when there is none. k is the
   first update at or behind the tile's start. */
static mw_status fault_of_tile(const float *base, const float *w, const float *trained, const int32_t *q, const float *d, size_t start,
                               size_t length, const uint32_t *index, const int32_t *value, size_t count, size_t k, float unit,
                               int64_t step, size_t *at) {
  for (size_t i = start; i < start + length; i++) {
    float left = d[i - start];
    if (!mw_finite(left)) return mw_difference_fault(trained, i, at);
    if (k < count && index[k] == i) {
      left = mw_left_over(left, w[i], mw_weight(base[i], (int32_t)(q[i] + value[k] * step), unit));
      k++;
    }
    if (!mw_fits_bf16(left)) {
      *at = i;
      return MW_RESIDUAL_NOT_FINITE;
    }
  }
  return MW_OK;
}

MW_TARGET static mw_status tiled_adopt(const float *base, float *w, const float *trained, uint16_t *residual, int32_t *q, size_t n, const uint32_t *index,
                   const int32_t *value, size_t count, int exponent, int64_t step, size_t *at) {
  mw_status status = mw_check_lattice(base, q, n, index, value, count, exponent, step, at);
  if (status) return status;
  const float unit = mw_power(exponent);
  float d[TILE];
  for (size_t start = 0, k = 0; start < n; start += TILE) {
    size_t length = tile_length(start, n), first = k;
    int suspect = tile(w + start, trained + start, residual + start, length, d) >= MW_BF16_OVERFLOW;
    for (; k < count && index[k] < start + length; k++) {
      size_t i = index[k];
      suspect |= !mw_fits_bf16(mw_left_over(d[i - start], w[i], mw_weight(base[i], (int32_t)(q[i] + value[k] * step), unit)));
    }
    if (suspect && (status = fault_of_tile(base, w, trained, q, d, start, length, index, value, count, first, unit, step, at)))
      return status;
  }
  for (size_t start = 0, k = 0; start < n; start += TILE) {
    size_t length = tile_length(start, n);
    tile(w + start, trained + start, residual + start, length, d);
    for (size_t i = 0; i < length; i++) residual[start + i] = mw_to_bf16(d[i]);
    for (; k < count && index[k] < start + length; k++) {
      size_t i = index[k];
      q[i] = (int32_t)(q[i] + value[k] * step);
      float weight = mw_weight(base[i], q[i], unit);
      residual[i] = mw_to_bf16(mw_left_over(d[i - start], w[i], weight));
      w[i] = weight;
    }
  }
  return MW_OK;
}
