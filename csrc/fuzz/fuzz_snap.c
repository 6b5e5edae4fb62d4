/* The device's side on any weights: what snap gives is a section that adopt and apply take or refuse alike, both end at the same
   bits, a refusal writes nothing, and no array is left however small it is.

   Input: exponent, step (2 bytes), flags, threshold, n; then base, q, trained, residual, in floats of any bits. */
#include "../mw.h"
#include "fuzz.h"

#define N 160 /* more than two tiles */

static int finite_array(const float *f, size_t n) {
  for (size_t i = 0; i < n; i++) {
    uint32_t u;
    memcpy(&u, &f[i], sizeof u);
    if ((u & 0x7f800000u) == 0x7f800000u) return 0;
  }
  return 1;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  input in = {data, size};
  int exponent = (int8_t)take_u8(&in);
  int64_t step = take_step(&in);
  uint8_t flags = take_u8(&in);
  float threshold;
  take(&in, &threshold, sizeof threshold);
  size_t n = take_u8(&in) % (N + 1), at = SIZE_MAX, count = SIZE_MAX, clamped = SIZE_MAX;
  float *base = take_array(&in, n, sizeof *base);
  int32_t *q = take_array(&in, n, sizeof *q);
  float *trained = take_array(&in, n, sizeof *trained);
  uint16_t *residual = take_array(&in, n, sizeof *residual);
  float *w = copy_of(base, n, sizeof *w), *d = room(n, sizeof *d);
  if (flags & 1)
    for (size_t i = 0; i < n; i++) q[i] %= MW_Q_MAX + 1;
  int on_lattice = !mw_weights_from_q(base, q, n, exponent, w, &at);
  if (flags & 2) /* trained as a small move of w, as training makes it */
    for (size_t i = 0; i < n; i++) {
      uint32_t u, move;
      memcpy(&u, &w[i], sizeof u), memcpy(&move, &trained[i], sizeof move);
      u ^= move & 0x00ffffffu;
      memcpy(&trained[i], &u, sizeof u);
      residual[i] &= 0x3fff;
    }
  mw_status differ = mw_differences(w, trained, residual, n, d, &at);
  if (differ) LAW((differ == MW_TRAINED_NOT_FINITE || differ == MW_DIFFERENCE_NOT_FINITE) && at < n);
  else LAW(finite_array(d, n));

  uint32_t *index = room(n, sizeof *index);
  int32_t *value = room(n, sizeof *value);
  mw_status status = mw_snap(w, trained, residual, q, n, exponent, step, threshold, index, value, n, &count, &clamped, &at);
  if (!status) {
    LAW(count <= n && clamped <= n);
    for (size_t k = 0; k < count; k++) {
      LAW(index[k] < n && (!k || index[k] > index[k - 1]) && value[k]);
      int64_t moved = q[index[k]] + value[k] * step;
      LAW(moved >= -MW_Q_MAX && moved <= MW_Q_MAX);
    }
    if (count) { /* an output that is one too small is refused, not overrun */
      size_t other, cut;
      uint32_t *less = room(count - 1, sizeof *less);
      int32_t *less_value = room(count - 1, sizeof *less_value);
      LAW(mw_snap(w, trained, residual, q, n, exponent, step, threshold, less, less_value, count - 1, &other, &cut, &at) == MW_NO_ROOM);
      free(less), free(less_value);
    }
    float *w1 = copy_of(w, n, sizeof *w), *w2 = copy_of(w, n, sizeof *w);
    int32_t *q1 = copy_of(q, n, sizeof *q), *q2 = copy_of(q, n, sizeof *q);
    uint16_t *r1 = copy_of(residual, n, sizeof *residual);
    mw_status adopted = mw_adopt(base, w1, trained, r1, q1, n, index, value, count, exponent, step, &at);
    mw_status applied = mw_apply_lattice(base, w2, q2, n, index, value, count, exponent, step, &at);
    if (adopted) {
      LAW(same(w1, w, n, sizeof *w) && same(q1, q, n, sizeof *q) && same(r1, residual, n, sizeof *residual));
    } else {
      LAW(applied == MW_OK && same(w1, w2, n, sizeof *w) && same(q1, q2, n, sizeof *q));
      for (size_t i = 0; i < n; i++) LAW((r1[i] & 0x7f80u) != 0x7f80u);
      if (on_lattice) {
        LAW(mw_weights_from_q(base, q1, n, exponent, w2, &at) == MW_OK && same(w1, w2, n, sizeof *w));
      }
    }
    free(w1), free(w2), free(q1), free(q2), free(r1);
  }
  free(base), free(q), free(trained), free(residual), free(w), free(d), free(index), free(value);
  return 0;
}
