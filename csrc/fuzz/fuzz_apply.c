/* Hostile sections against the kernels that check and apply them: check says what apply says, a refusal writes nothing, what is
   applied is the lattice's formula and nothing else, taking it back restores every bit, and the fingerprint keeps up.

   Input: flags (bit 0: verbatim), exponent, step (2 bytes), n, count; then base, q, index, value. */
#include <math.h>

#include "../mw.h"
#include "fuzz.h"

#define N 64

static uint32_t bits_of(float f) {
  uint32_t u;
  memcpy(&u, &f, sizeof u);
  return u;
}

/* The formula, from the C library: exact product, one rounding. */
static uint32_t lattice(float base, int64_t q, int exponent) {
  return bits_of(q ? base + (float)ldexp((double)q, exponent) : base);
}

static int finite_bits(uint32_t u) { return (u & 0x7f800000u) != 0x7f800000u; }

typedef struct state {
  float *base, *w;
  int32_t *q;
  size_t n;
} state;

static mw_status check(int verbatim, const state *s, const uint32_t *index, const int32_t *value, size_t count, int exponent, int64_t step,
                       size_t *at) {
  return verbatim ? mw_check_verbatim((const uint32_t *)(const void *)s->base, s->q, s->n, index, value, count, at)
                  : mw_check_lattice(s->base, s->q, s->n, index, value, count, exponent, step, at);
}

static mw_status apply(int verbatim, const state *s, const uint32_t *index, const int32_t *value, size_t count, int exponent, int64_t step,
                       size_t *at) {
  return verbatim ? mw_apply_verbatim((const uint32_t *)(const void *)s->base, (uint32_t *)(void *)s->w, s->q, s->n, index, value, count, at)
                  : mw_apply_lattice(s->base, s->w, s->q, s->n, index, value, count, exponent, step, at);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  input in = {data, size};
  uint8_t flags = take_u8(&in);
  const int verbatim = flags & 1;
  int exponent = (int8_t)take_u8(&in);
  int64_t step = take_step(&in);
  state s = {.n = take_u8(&in) % (N + 1)};
  size_t count = take_u8(&in) % (N + 1), at = SIZE_MAX, at2 = SIZE_MAX;
  s.base = take_array(&in, s.n, sizeof *s.base);
  s.q = take_array(&in, s.n, sizeof *s.q);
  s.w = room(s.n, sizeof *s.w);
  uint32_t *index = take_array(&in, count, sizeof *index);
  int32_t *value = take_array(&in, count, sizeof *value);
  if (flags & 2) /* gaps instead of indices, so that most inputs get past the first check */
    for (size_t k = 0; k < count; k++) index[k] = (index[k] & 3) + (k ? index[k - 1] + 1 : 0);
  if (flags & 4)
    for (size_t i = 0; i < s.n; i++) s.q[i] %= 2 * MW_Q_MAX; /* near the range */
  int parent = 1; /* w is what the kernels give for q: otherwise it is anything */
  if (verbatim) {
    for (size_t i = 0; i < s.n; i++) {
      uint32_t u = bits_of(s.base[i]) + (uint32_t)s.q[i];
      memcpy(&s.w[i], &u, sizeof u);
    }
  } else if (mw_weights_from_q(s.base, s.q, s.n, exponent, s.w, &at)) {
    LAW(exponent < MW_EXPONENT_MIN || exponent > MW_EXPONENT_MAX || at < s.n);
    parent = 0;
    if (s.n) memcpy(s.w, s.base, s.n * sizeof *s.w);
  } else {
    int32_t *found = room(s.n, sizeof *found);
    float *again = room(s.n, sizeof *again);
    if (!mw_q_from_weights(s.base, s.w, s.n, exponent, found, &at)) {
      LAW(!mw_weights_from_q(s.base, found, s.n, exponent, again, &at));
      LAW(same(again, s.w, s.n, sizeof *again));
    }
    free(found), free(again);
  }
  float *w = copy_of(s.w, s.n, sizeof *w);
  int32_t *q = copy_of(s.q, s.n, sizeof *q);
  uint64_t before[2], after[2], moved[2];
  mw_fingerprint(s.q, s.n, 1000, verbatim, before);
  mw_status checked = check(verbatim, &s, index, value, count, exponent, step, &at);
  LAW(same(s.w, w, s.n, sizeof *w) && same(s.q, q, s.n, sizeof *q));
  mw_status status = apply(verbatim, &s, index, value, count, exponent, step, &at2);
  LAW(status == checked && at == at2);
  if (status) {
    LAW(same(s.w, w, s.n, sizeof *w) && same(s.q, q, s.n, sizeof *q));
  } else {
    if (verbatim) step = 1;
    for (size_t i = 0, k = 0; i < s.n; i++) {
      if (k < count && index[k] == i) {
        int64_t sum = (int64_t)q[i] + value[k] * step;
        LAW(verbatim ? (uint32_t)s.q[i] == (uint32_t)sum : s.q[i] == sum && sum >= -MW_Q_MAX && sum <= MW_Q_MAX);
        LAW(bits_of(s.w[i]) == (verbatim ? bits_of(s.base[i]) + (uint32_t)sum : lattice(s.base[i], sum, exponent)));
        LAW(finite_bits(bits_of(s.w[i])));
        k++;
      } else {
        LAW(s.q[i] == q[i] && bits_of(s.w[i]) == bits_of(w[i]));
      }
    }
    mw_fingerprint(s.q, s.n, 1000, verbatim, after);
    LAW(mw_fingerprint_sparse(index, value, count, step, 1000, verbatim, moved) == MW_OK);
    LAW(after[0] == before[0] + moved[0] && after[1] == before[1] + moved[1]);
    int reversible = parent;
    for (size_t k = 0; k < count; k++) {
      reversible &= value[k] != INT32_MIN && (!verbatim || finite_bits(bits_of(w[index[k]])));
      value[k] = value[k] == INT32_MIN ? INT32_MIN : -value[k];
    }
    if (reversible) {
      LAW(apply(verbatim, &s, index, value, count, exponent, step, &at) == MW_OK);
      LAW(same(s.q, q, s.n, sizeof *q) && same(s.w, w, s.n, sizeof *w));
    }
  }
  free(s.base), free(s.w), free(s.q), free(index), free(value), free(w), free(q);
  return 0;
}
