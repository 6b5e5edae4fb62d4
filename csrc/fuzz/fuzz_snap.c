/* The device's side on any weights: what a round sends is a section that apply takes to the same bits, one pass that knows the step
   and a collection of the largest agree, a refusal moves nothing, taking back restores every bit, and no array is left.

   Input: exponent, step (2 bytes), flags, threshold, n; then base, q, trained, residual, in floats of any bits. Two tensors are made
   of them; flags say whether Qs are within the range, trained weights near, and the second tensor verbatim. */
#include "../mw_bits.h"
#include "../mw_round.h"
#include "fuzz.h"

#define N 160
#define ROOM (2 * MW_STRETCH + N)

typedef struct model {
  mw_tensor tensors[2];
  float *base, *w, *trained;
  int32_t *q;
  uint16_t *residual, *left;
  size_t n;
} model;

static void make(model *m, size_t first, int exponent, int verbatim) {
  for (size_t t = 0; t < 2; t++) {
    const size_t from = t ? first : 0;
    m->tensors[t] = (mw_tensor){m->base + from, m->w + from, m->q + from, m->trained + from, m->residual + from, m->left + from,
                                t ? m->n - first : first, 7 + from, 0, 0, exponent, 1, (uint8_t)(t && verbatim)};
  }
}

/* What a refusal must leave alone. */
typedef struct kept {
  float *w;
  int32_t *q;
} kept;

static kept keep(const model *m) { return (kept){copy_of(m->w, m->n, sizeof *m->w), copy_of(m->q, m->n, sizeof *m->q)}; }
static int unmoved(const model *m, kept k) { return same(m->w, k.w, m->n, sizeof *m->w) && same(m->q, k.q, m->n, sizeof *m->q); }
static void drop(kept k) { free(k.w), free(k.q); }

/* The sections say what happened: apply does the same to what was there before. */
static void apply_too(const model *m, kept before, const mw_choice *choices, const uint32_t *index, const int32_t *value) {
  for (size_t t = 0, from = 0; t < 2; from = choices[t++].end) {
    const mw_tensor *x = m->tensors + t;
    const size_t at0 = (size_t)(x->base - m->base), count = choices[t].end - from;
    size_t at;
    for (size_t k = from; k < choices[t].end; k++) LAW(index[k] < x->n && (k == from || index[k] > index[k - 1]) && value[k]);
    if (!count) continue;
    LAW(!mw_apply_lattice(x->base, before.w + at0, before.q + at0, x->n, index + from, value + from, count, x->exponent, choices[t].step, &at));
  }
  LAW(unmoved(m, before));
}

static void residual_is_finite(const model *m) {
  for (size_t t = 0; t < 2; t++)
    for (size_t i = 0; m->tensors[t].kind == 0 && i < m->tensors[t].n; i++) LAW((m->tensors[t].left[i] & 0x7f80u) != 0x7f80u);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  input in = {data, size};
  int exponent = (int8_t)take_u8(&in);
  int64_t step = take_step(&in);
  uint8_t flags = take_u8(&in);
  float threshold, edge;
  take(&in, &threshold, sizeof threshold);
  model m = {.n = take_u8(&in) % (N + 1)};
  m.base = take_array(&in, m.n, sizeof *m.base);
  m.q = take_array(&in, m.n, sizeof *m.q);
  m.trained = take_array(&in, m.n, sizeof *m.trained);
  m.residual = take_array(&in, m.n, sizeof *m.residual);
  m.w = room(m.n, sizeof *m.w);
  m.left = take_array(&in, m.n, sizeof *m.left);
  const int in_range = exponent >= MW_EXPONENT_MIN && exponent <= MW_EXPONENT_MAX;
  for (size_t i = 0; i < m.n; i++) {
    if (flags & 1) m.q[i] %= MW_Q_MAX + 1;
    m.w[i] = in_range ? mw_weight(m.base[i], m.q[i], mw_power(exponent)) : m.base[i];
    if (!(flags & 2)) continue;
    /* trained as a small move of w, as training makes it */
    m.trained[i] = mw_float(mw_bits(m.w[i]) ^ (mw_bits(m.trained[i]) & 0x00ffffffu));
    m.residual[i] &= 0x3fff;
  }
  make(&m, m.n / 3, exponent, flags & 4);
  uint32_t *index = room(ROOM, sizeof *index);
  int32_t *value = room(ROOM, sizeof *value), *bits = room(ROOM, sizeof *bits);
  mw_pass *pass = room(1, sizeof *pass);
  mw_choice choices[2] = {{step, threshold, 0, 0}, {step, threshold, 0, 0}};
  mw_fault fault = {9, 0};
  kept before = keep(&m), at_start = keep(&m);

  memset(pass, 0, sizeof *pass);
  mw_status little = mw_adopt_known(m.tensors, 2, choices, pass, index, value, 2 * MW_STRETCH, &fault); /* room for one block at once */
  if (little == MW_NO_ROOM) mw_abandon(m.tensors, 2, choices, pass, index, value);
  if (!little) LAW(!mw_retract(m.tensors, 2, choices, index, value, &fault));
  LAW(unmoved(&m, before));
  memset(pass, 0, sizeof *pass);
  mw_status known = mw_adopt_known(m.tensors, 2, choices, pass, index, value, ROOM, &fault);
  uint64_t lanes[2];
  if (known) {
    LAW(unmoved(&m, before));
  } else {
    LAW(pass->found <= m.n && choices[1].end == pass->found && choices[0].clamped + choices[1].clamped <= m.n);
    if (step) residual_is_finite(&m); /* otherwise nothing was looked at */
    apply_too(&m, before, choices, index, value);
    LAW(!mw_retract(m.tensors, 2, choices, index, value, &fault) && unmoved(&m, at_start));
  }
  size_t ends[2], found, k = 1 + flags % (N + 1);
  memset(pass, 0, sizeof *pass);
  mw_status collected = mw_collect(m.tensors, 2, k, pass, index, value, ROOM, ends, &edge, &fault);
  LAW(unmoved(&m, at_start));
  if (!collected) {
    for (size_t i = 0; i < pass->found; i++) LAW((mw_bits(mw_float((uint32_t)value[i])) & MW_MAGNITUDE) >= pass->bar);
    LAW(pass->found >= k ? edge > 0 : edge == 0);
    memcpy(bits, value, pass->found * sizeof *bits);
    if (choices[0].threshold < edge) choices[0].threshold = choices[1].threshold = edge;
    if (!mw_adopt(m.tensors, 2, choices, ends, index, value, &found, lanes, &fault)) {
      LAW(found <= pass->found);
      if (step) residual_is_finite(&m);
      LAW(!mw_retract(m.tensors, 2, choices, index, value, &fault));
    }
    LAW(unmoved(&m, at_start));
  }
  uint32_t *changed = room(m.n, sizeof *changed);
  int32_t *difference = room(m.n, sizeof *difference);
  if (!mw_adopt_verbatim(m.tensors, 2, changed, difference, m.n, ends, lanes, &fault)) {
    for (size_t i = 0; m.tensors[1].kind == 1 && i < m.tensors[1].n; i++)
      LAW(mw_bits(m.tensors[1].w[i]) == mw_bits(m.tensors[1].trained[i]) && mw_finite(m.tensors[1].w[i]));
    mw_choice plain[2] = {{1, 0, ends[0], 0}, {1, 0, ends[1], 0}};
    LAW(!mw_retract(m.tensors, 2, plain, changed, difference, &fault) && unmoved(&m, at_start));
  } else {
    LAW(unmoved(&m, at_start));
  }
  drop(before), drop(at_start);
  free(m.base), free(m.q), free(m.trained), free(m.residual), free(m.w), free(m.left);
  free(index), free(value), free(bits), free(pass), free(changed), free(difference);
  return 0;
}
