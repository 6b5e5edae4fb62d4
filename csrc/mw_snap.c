/* The device's side of the lattice: what changed, what of it is worth sending, and taking over what was sent. */
#include "mw_bits.h"
#include "mw_dispatch.h"

/* Differences are looked at in tiles of this many: one vectorised pass, and a second look only where something stands out. */
#define TILE 64
#define MAGNITUDE 0x7fffffffu

static inline float difference(float w, float trained, uint16_t residual) { return (trained - w) + mw_from_bf16(residual); }

static mw_status not_finite(const float *trained, size_t i, size_t *at) {
  *at = i;
  return mw_finite(trained[i]) ? MW_DIFFERENCE_NOT_FINITE : MW_TRAINED_NOT_FINITE;
}

/* Write the differences of one tile to d and return the largest magnitude as bits: it orders like the floats, and infinities and
   NaNs come above every finite one. Signed, because plain SSE2 compares only those. */
static uint32_t tile(const float *w, const float *trained, const uint16_t *residual, size_t length, float *d) {
  int32_t largest = 0;
  for (size_t i = 0; i < length; i++) {
    d[i] = difference(w[i], trained[i], residual[i]);
    int32_t magnitude = (int32_t)(mw_bits(d[i]) & MAGNITUDE);
    largest = magnitude > largest ? magnitude : largest;
  }
  return (uint32_t)largest;
}

static inline size_t tile_length(size_t start, size_t n) { return n - start < TILE ? n - start : TILE; }

mw_status mw_generic_differences(const float *w, const float *trained, const uint16_t *residual, size_t n, float *out, size_t *at) {
  float d[TILE];
  for (size_t start = 0; start < n; start += TILE) {
    size_t length = tile_length(start, n);
    if (tile(w + start, trained + start, residual + start, length, d) < MW_EXPONENT_BITS) continue;
    for (size_t i = 0; i < length; i++)
      if (!mw_finite(d[i])) return not_finite(trained, start + i, at);
  }
  for (size_t i = 0; i < n; i++) out[i] = difference(w[i], trained[i], residual[i]);
  return MW_OK;
}

/* Whole steps of one entry, cut to the range; sets *clamped when it had to cut. |q| is within range. */
static int64_t steps(float d, int32_t q, int64_t step, float step_size, size_t *clamped) {
  float ratio = mw_float(mw_bits(d) & MAGNITUDE) / step_size;
  int64_t whole = mw_rint(ratio < 2147483648.0f ? ratio : 2147483648.0f);
  int64_t room = (MW_Q_MAX + (d > 0 ? -(int64_t)q : (int64_t)q)) / step;
  if (whole < 1) whole = 1;
  if (whole > room) {
    whole = room;
    ++*clamped;
  }
  return d > 0 ? whole : -whole;
}

mw_status mw_generic_snap(const float *w, const float *trained, const uint16_t *residual, const int32_t *q, size_t n, int exponent,
                          int64_t step, float threshold, uint32_t *index, int32_t *value, size_t capacity, size_t *count, size_t *clamped,
                          size_t *at) {
  mw_status status;
  *count = *clamped = *at = 0;
  if ((status = mw_check_unit(exponent)) || (status = mw_check_step(step))) return status;
  if (!(threshold >= 0)) return MW_THRESHOLD;
  if (n > UINT32_MAX) return MW_SHAPE;
  const uint32_t least = mw_bits(threshold) & MAGNITUDE;
  const float step_size = (float)step * mw_power(exponent);
  float d[TILE];
  size_t found = 0, cut = 0;
  for (size_t start = 0; start < n; start += TILE) {
    size_t length = tile_length(start, n);
    if (tile(w + start, trained + start, residual + start, length, d) < least) continue;
    for (size_t i = 0; i < length; i++) {
      uint32_t magnitude = mw_bits(d[i]) & MAGNITUDE;
      if (magnitude >= MW_EXPONENT_BITS) return not_finite(trained, start + i, at);
      if (magnitude < least || !magnitude) continue;
      if (!mw_in_range(q[start + i])) {
        *at = start + i;
        return MW_RANGE;
      }
      int64_t whole = steps(d[i], q[start + i], step, step_size, &cut);
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

/* From here on rounding to bfloat16 gives an infinity. */
#define BF16_OVERFLOW 0x7f7f8000u

static inline int fits_bf16(float x) { return (mw_bits(x) & MAGNITUDE) < BF16_OVERFLOW; }

/* What is left of d when w has moved to the new weight. */
static inline float left_over(float d, float w, float weight) { return d - (weight - w); }

/* Name the first entry of a tile whose difference, or what is left of it, is not to be kept; MW_OK when there is none. k is the
   first update at or behind the tile's start. */
static mw_status fault_of_tile(const float *base, const float *w, const float *trained, const int32_t *q, const float *d, size_t start,
                               size_t length, const uint32_t *index, const int32_t *value, size_t count, size_t k, float unit,
                               int64_t step, size_t *at) {
  for (size_t i = start; i < start + length; i++) {
    float left = d[i - start];
    if (!mw_finite(left)) return not_finite(trained, i, at);
    if (k < count && index[k] == i) {
      left = left_over(left, w[i], mw_weight(base[i], (int32_t)(q[i] + value[k] * step), unit));
      k++;
    }
    if (!fits_bf16(left)) {
      *at = i;
      return MW_RESIDUAL_NOT_FINITE;
    }
  }
  return MW_OK;
}

mw_status mw_adopt(const float *base, float *w, const float *trained, uint16_t *residual, int32_t *q, size_t n, const uint32_t *index,
                   const int32_t *value, size_t count, int exponent, int64_t step, size_t *at) {
  mw_status status = mw_check_lattice(base, q, n, index, value, count, exponent, step, at);
  if (status) return status;
  const float unit = mw_power(exponent);
  float d[TILE];
  for (size_t start = 0, k = 0; start < n; start += TILE) {
    size_t length = tile_length(start, n), first = k;
    int suspect = tile(w + start, trained + start, residual + start, length, d) >= BF16_OVERFLOW;
    for (; k < count && index[k] < start + length; k++) {
      size_t i = index[k];
      suspect |= !fits_bf16(left_over(d[i - start], w[i], mw_weight(base[i], (int32_t)(q[i] + value[k] * step), unit)));
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
      residual[i] = mw_to_bf16(left_over(d[i - start], w[i], weight));
      w[i] = weight;
    }
  }
  return MW_OK;
}
