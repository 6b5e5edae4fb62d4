/* The reader's side of the lattice: check an update whole, then apply it; the tensor from Q, and Q from the tensor. */
#include "mw_bits.h"
#include "mw_dispatch.h"

mw_status mw_check_rounding(void) {
  volatile float one = 1.0f, half = 0x1p-24f, three = 0x3p-24f;
  /* The first fails when rounding upward, the second downward and toward zero. */
  return one + half == 1.0f && one + three == 1.0f + 0x1p-22f ? MW_OK : MW_ROUNDING;
}

mw_status mw_check_lattice(const float *base, const int32_t *q, size_t n, const uint32_t *index, const int32_t *value, size_t count,
                           int exponent, int64_t step, size_t *at) {
  mw_status status;
  *at = 0;
  if ((status = mw_check_unit(exponent)) || (status = mw_check_step(step))) return status;
  const float unit = mw_power(exponent);
  for (size_t k = 0; k < count; k++) {
    const size_t soon = count - k > MW_AHEAD ? index[k + MW_AHEAD] : n;
    if (soon < n) {
      __builtin_prefetch(base + soon);
      __builtin_prefetch(q + soon);
    }
    if ((status = mw_check_entry(index, value, k, n, at))) return status;
    int64_t moved = q[index[k]] + value[k] * step;
    if (!mw_in_range(moved)) return MW_RANGE;
    if (!mw_finite(mw_weight(base[index[k]], (int32_t)moved, unit))) return MW_WEIGHT_NOT_FINITE;
  }
  return MW_OK;
}

mw_status mw_apply_lattice(const float *base, float *w, int32_t *q, size_t n, const uint32_t *index, const int32_t *value, size_t count,
                           int exponent, int64_t step, size_t *at) {
  mw_status status = mw_check_lattice(base, q, n, index, value, count, exponent, step, at);
  if (status) return status;
  const float unit = mw_power(exponent);
  for (size_t k = 0; k < count; k++) {
    if (count - k > MW_AHEAD) {
      __builtin_prefetch(base + index[k + MW_AHEAD]);
      __builtin_prefetch(q + index[k + MW_AHEAD], 1);
      __builtin_prefetch(w + index[k + MW_AHEAD], 1);
    }
    size_t i = index[k];
    q[i] = (int32_t)(q[i] + value[k] * step);
    w[i] = mw_weight(base[i], q[i], unit);
  }
  return MW_OK;
}

/* Bit patterns add mod 2^32, in unsigned arithmetic throughout. */
static inline uint32_t verbatim_bits(uint32_t base, int32_t q, int32_t value) { return base + (uint32_t)q + (uint32_t)value; }

mw_status mw_check_verbatim(const uint32_t *base, const int32_t *q, size_t n, const uint32_t *index, const int32_t *value, size_t count,
                            size_t *at) {
  *at = 0;
  for (size_t k = 0; k < count; k++) {
    mw_status status = mw_check_entry(index, value, k, n, at);
    if (status) return status;
    if (!mw_finite_bits(verbatim_bits(base[index[k]], q[index[k]], value[k]))) return MW_WEIGHT_NOT_FINITE;
  }
  return MW_OK;
}

mw_status mw_apply_verbatim(const uint32_t *base, uint32_t *w, int32_t *q, size_t n, const uint32_t *index, const int32_t *value,
                            size_t count, size_t *at) {
  mw_status status = mw_check_verbatim(base, q, n, index, value, count, at);
  if (status) return status;
  for (size_t k = 0; k < count; k++) {
    size_t i = index[k];
    uint32_t bits = verbatim_bits(base[i], q[i], value[k]);
    uint32_t moved = bits - base[i];
    w[i] = bits;
    memcpy(&q[i], &moved, sizeof moved);
  }
  return MW_OK;
}

mw_status mw_generic_weights_from_q(const float *base, const int32_t *q, size_t n, int exponent, float *w, size_t *at) {
  mw_status status = mw_check_unit(exponent);
  if (status) return status;
  const float unit = mw_power(exponent);
  for (size_t i = 0; i < n; i++) {
    *at = i;
    if (!mw_in_range(q[i])) return MW_RANGE;
    if (!mw_finite(mw_weight(base[i], q[i], unit))) return MW_WEIGHT_NOT_FINITE;
  }
  for (size_t i = 0; i < n; i++) w[i] = mw_weight(base[i], q[i], unit);
  return MW_OK;
}

/* Q of one entry, or a number outside the range when it cannot be one. scale = 2^-exponent; the product is exact. */
static inline int32_t recovered(float base, float w, double scale) {
  double units = ((double)w - (double)base) * scale;
  double magnitude = units < 0 ? -units : units;
  if (!(magnitude < MW_Q_MAX + 1.0)) return MW_Q_MAX + 1;
  int32_t t = (int32_t)magnitude;
  double rest = magnitude - t;
  t += rest > 0.5 || (rest == 0.5 && (t & 1));
  return units < 0 ? -t : t;
}

mw_status mw_generic_q_from_weights(const float *base, const float *w, size_t n, int exponent, int32_t *q, size_t *at) {
  mw_status status = mw_check_unit(exponent);
  if (status) return status;
  const float unit = mw_power(exponent);
  const double scale = mw_power(-exponent);
  for (size_t i = 0; i < n; i++) {
    *at = i;
    if (!mw_finite(base[i]) || !mw_finite(w[i])) return MW_WEIGHT_NOT_FINITE;
    int32_t units = recovered(base[i], w[i], scale);
    if (!mw_in_range(units) || mw_bits(mw_weight(base[i], units, unit)) != mw_bits(w[i])) return MW_OFF_LATTICE;
  }
  for (size_t i = 0; i < n; i++) q[i] = recovered(base[i], w[i], scale);
  return MW_OK;
}
