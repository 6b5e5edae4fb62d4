/* Taking over what is sent of a trained model, and taking it back. */
#include "mw_fingerprint.h"
#include "mw_scan.h"

/* How one tensor's entries are judged. */
typedef struct rule {
  int64_t step;
  float step_size, unit;
  uint32_t least; /* magnitude's bits, at least 1 */
} rule;

/* What becomes of one entry. */
typedef struct move {
  int64_t whole; /* steps; 0 when it is not sent */
  int32_t q;
  float weight;
  uint16_t left;
  int clamped;
} move;

static int lattice(const mw_tensor *t) { return t->kind == 0; }
static int verbatim(const mw_tensor *t) { return t->kind == 1; }

static mw_status rule_of(const mw_tensor *t, const mw_choice *choice, rule *r) {
  mw_status status;
  if ((status = mw_check_unit(t->exponent)) || (status = mw_check_step(choice->step))) return status;
  if (!(choice->threshold >= 0)) return MW_THRESHOLD;
  r->step = choice->step;
  r->unit = mw_power(t->exponent);
  r->step_size = (float)choice->step * r->unit;
  r->least = mw_bits(choice->threshold) & MW_MAGNITUDE;
  r->least += !r->least;
  return MW_OK;
}

/* The weight of entry i at q, as it is stored. */
static inline float weight_at(const mw_tensor *t, size_t i, int32_t q, float unit) { return mw_weight_as(t->base[i], q, unit, t->dtype); }

/* Codes of int8 end sooner than the lattice: cut to what is left of +-127. w is finite; what is left is compared as a float, because
   a w that is no code may be far beyond all integers. */
static inline int64_t within_codes(float w, int64_t whole, int *cut) {
  const float end = (float)MW_INT8_MAX - (whole > 0 ? w : -w);
  const int64_t many = whole > 0 ? whole : -whole;
  if ((float)many <= end) return whole;
  const int64_t room = end > 0 ? (int64_t)end : 0;
  *cut = 1;
  return whole > 0 ? room : -room;
}

static inline mw_status judge(const mw_tensor *t, size_t i, float d, const rule *r, move *m) {
  const uint32_t magnitude = mw_bits(d) & MW_MAGNITUDE;
  m->whole = 0;
  m->clamped = 0;
  if (magnitude >= MW_EXPONENT_BITS) return mw_finite(t->trained[i]) ? MW_DIFFERENCE_NOT_FINITE : MW_TRAINED_NOT_FINITE;
  if (magnitude >= r->least) {
    const int32_t q = t->q[i];
    if (!mw_in_range(q)) return MW_RANGE;
    m->whole = mw_steps(d, q, r->step, r->step_size, &m->clamped);
    if (t->dtype == MW_INT8 && m->whole) {
      if (!mw_finite(t->w[i])) return MW_WEIGHT_NOT_FINITE;
      m->whole = within_codes(t->w[i], m->whole, &m->clamped);
    }
    m->q = (int32_t)(q + m->whole * r->step);
  }
  if (!m->whole) return magnitude < MW_BF16_OVERFLOW ? MW_OK : MW_RESIDUAL_NOT_FINITE;
  m->weight = weight_at(t, i, m->q, r->unit);
  if (!mw_finite(m->weight)) return mw_stored_fault(mw_weight(t->base[i], m->q, r->unit), t->dtype);
  const float rest = mw_left_over(d, t->w[i], m->weight);
  if (!mw_fits_bf16(rest)) return mw_finite(t->w[i]) ? MW_RESIDUAL_NOT_FINITE : MW_WEIGHT_NOT_FINITE;
  m->left = mw_to_bf16(rest);
  return MW_OK;
}

/* Adopt what a chunk holds. left: of entry `origin` on. */
static mw_status adopt_chunk(const mw_tensor *t, const rule *r, const mw_chunk *c, uint16_t *left, size_t origin, uint32_t *index,
                             int32_t *value, size_t *found, size_t *clamped, uint64_t lanes[2], mw_fault *fault) {
  size_t kept = *found;
  uint64_t a = 0, b = 0;
  mw_status status = MW_OK;
  for (size_t k = 0; k < c->count; k++) {
    const size_t i = c->index[k];
    move m;
    if ((status = judge(t, i, c->d[k], r, &m))) {
      fault->tensor = c->tensor;
      fault->index = i;
      break;
    }
    *clamped += (size_t)m.clamped;
    if (!m.whole) continue;
    t->q[i] = m.q;
    t->w[i] = m.weight;
    left[i - origin] = m.left;
    index[kept] = (uint32_t)i;
    value[kept++] = (int32_t)m.whole;
    mw_lanes_add(&a, &b, m.whole * r->step, t->start + i, 0);
  }
  *found = kept;
  lanes[0] += a;
  lanes[1] += b;
  return status;
}

/* Take back the entries from..to of one tensor. */
static mw_status retract_tensor(const mw_tensor *t, int64_t step, const uint32_t *index, int32_t *value, size_t from, size_t to, size_t *at) {
  const float unit = lattice(t) ? mw_power(t->exponent) : 0;
  for (size_t k = from; k < to; k++) {
    const size_t i = index[k];
    *at = i;
    if (i >= t->n || (k > from && i <= index[k - 1])) return MW_INDEX;
  }
  for (size_t k = from; k < to; k++) {
    const size_t i = index[k];
    if (to - k > MW_AHEAD) {
      const size_t soon = index[k + MW_AHEAD];
      __builtin_prefetch(t->q + soon, 1);
      __builtin_prefetch(t->w + soon, 1);
      if (lattice(t)) {
        __builtin_prefetch(t->base + soon);
        __builtin_prefetch(t->trained + soon);
        __builtin_prefetch(t->residual + soon);
        __builtin_prefetch(t->left + soon, 1);
      }
    }
    if (verbatim(t)) {
      const uint32_t old = mw_bits(t->w[i]) - (uint32_t)value[k], q = (uint32_t)t->q[i] - (uint32_t)value[k];
      memcpy(&t->w[i], &old, sizeof old);
      memcpy(&t->q[i], &q, sizeof q);
      continue;
    }
    t->q[i] = (int32_t)(t->q[i] - value[k] * step);
    t->w[i] = weight_at(t, i, t->q[i], unit);
    const float d = mw_difference(t->w[i], t->trained[i], t->residual[i]);
    t->left[i] = mw_to_bf16(d);
    const uint32_t bits = mw_bits(d);
    memcpy(&value[k], &bits, sizeof bits);
  }
  return MW_OK;
}

mw_status mw_retract(const mw_tensor *tensors, size_t count, const mw_choice *choices, const uint32_t *index, int32_t *value,
                     mw_fault *fault) {
  for (size_t t = 0, from = 0; t < count; from = choices[t++].end) {
    if (choices[t].end == from) continue;
    fault->tensor = t;
    mw_status status = choices[t].end < from ? MW_SHAPE : MW_OK;
    if (!status && lattice(tensors + t) && !(status = mw_check_unit(tensors[t].exponent))) status = mw_check_step(choices[t].step);
    if (!status) status = retract_tensor(tensors + t, choices[t].step, index, value, from, choices[t].end, &fault->index);
    if (status) return status;
  }
  return MW_OK;
}

/* Take back what a pass adopted before a fault; the tensor in hand ends at found. What was adopted is in order: nothing can fail. */
static void take_back(const mw_tensor *tensors, mw_choice *choices, size_t in_hand, const uint32_t *index, int32_t *value, size_t found) {
  mw_fault none;
  choices[in_hand].end = found;
  mw_retract(tensors, in_hand + 1, choices, index, value, &none);
}

static mw_status check_choices(const mw_tensor *tensors, size_t count, const mw_choice *choices, mw_fault *fault) {
  rule r;
  for (size_t t = 0; t < count; t++) {
    if (!lattice(tensors + t) || !choices[t].step) continue;
    mw_status status = tensors[t].n > UINT32_MAX ? MW_SHAPE : rule_of(tensors + t, choices + t, &r);
    fault->tensor = t;
    fault->index = 0;
    if (status) return status;
  }
  return MW_OK;
}

#define AT_A_TIME 24 /* candidates whose memory is asked for while those before them are adopted */

mw_status mw_adopt(const mw_tensor *tensors, size_t count, mw_choice *choices, const size_t *ends, uint32_t *index, int32_t *value,
                   size_t *found, uint64_t lanes[2], mw_fault *fault) {
  mw_chunk chunk[2];
  rule rules[2];
  size_t kept = 0, entry = 0, tensor = 0, from = 0, waiting = SIZE_MAX; /* waiting: tensor of the chunk that is yet to be adopted */
  int which = 0, misplaced = 0;
  mw_fault earlier = {0, 0};
  mw_status status = check_choices(tensors, count, choices, fault);
  if (status) return status;
  lanes[0] = lanes[1] = 0;
  *found = 0;
  for (size_t t = 0; t < count; t++) {
    choices[t].end = choices[t].clamped = 0;
    if (ends[t] < (t ? ends[t - 1] : 0)) return MW_SHAPE;
  }
  for (;;) {
    /* Fill a chunk from one tensor: what it sends, or can't keep as a residual. */
    while (tensor < count && (entry == ends[tensor] || !lattice(tensors + tensor) || !choices[tensor].step)) {
      entry = from = ends[tensor];
      /* A tensor ends where the chunks before it were adopted; one that still waits sets the end when it has been. */
      choices[tensor++].end = kept;
    }
    mw_chunk *c = &chunk[which];
    c->count = 0;
    if (tensor < count) {
      const mw_tensor *t = tensors + tensor;
      rule_of(t, choices + tensor, &rules[which]);
      const uint32_t alarm = rules[which].least < MW_BF16_OVERFLOW ? rules[which].least : MW_BF16_OVERFLOW;
      const size_t to = ends[tensor] - entry < AT_A_TIME ? ends[tensor] : entry + AT_A_TIME;
      c->tensor = tensor;
      for (; entry < to; entry++) {
        const uint32_t i = index[entry];
        if (i >= t->n || (entry > from && i <= index[entry - 1])) {
          misplaced = 1;
          *fault = (mw_fault){tensor, i};
          break;
        }
        c->index[c->count] = i;
        c->d[c->count] = mw_float((uint32_t)value[entry]);
        __builtin_prefetch(t->base + i);
        __builtin_prefetch(t->w + i, 1);
        __builtin_prefetch(t->q + i, 1);
        __builtin_prefetch(t->left + i, 1);
        c->count += ((uint32_t)value[entry] & MW_MAGNITUDE) >= alarm;
      }
    }
    size_t in_hand = waiting;
    if (waiting != SIZE_MAX) {
      const mw_tensor *t = tensors + waiting;
      status = adopt_chunk(t, &rules[!which], &chunk[!which], t->left, 0, index, value, &kept, &choices[waiting].clamped, lanes, &earlier);
      for (size_t x = waiting; x < tensor; x++) choices[x].end = kept;
    }
    if (!status && misplaced) { /* what comes before it is judged first */
      const mw_tensor *t = tensors + tensor;
      in_hand = tensor;
      status = adopt_chunk(t, &rules[which], c, t->left, 0, index, value, &kept, &choices[tensor].clamped, lanes, &earlier);
      if (!status) {
        status = MW_INDEX;
        earlier = *fault;
      }
    }
    if (status) {
      *fault = earlier;
      take_back(tensors, choices, in_hand, index, value, kept);
      return status;
    }
    if (tensor == count) break;
    waiting = tensor;
    which = !which;
  }
  *found = kept;
  return MW_OK;
}

/* Adopt the chunk that waits and write what is left of its block to where it stays. The tensors up to `next` end with it, or go on. */
static mw_status finish(const mw_kernels *kernels, const mw_tensor *tensors, mw_choice *choices, mw_pass *pass, mw_chunk *c, size_t next,
                        int far, uint32_t *index, int32_t *value, mw_fault *fault) {
  const mw_tensor *t = tensors + c->tensor;
  mw_status status = MW_OK;
  if (c->count) {
    rule r;
    if ((status = rule_of(t, choices + c->tensor, &r))) return status;
    status = adopt_chunk(t, &r, c, c->left, c->start, index, value, &pass->found, &choices[c->tensor].clamped, pass->lanes, fault);
  }
  if (status) {
    take_back(tensors, choices, c->tensor, index, value, pass->found);
    return status;
  }
  kernels->put(t->left + c->start, c->left, c->length, far);
  c->length = 0;
  for (size_t x = c->tensor; x < next; x++) choices[x].end = pass->found;
  return MW_OK;
}

mw_status mw_adopt_known(const mw_tensor *tensors, size_t count, mw_choice *choices, mw_pass *pass, uint32_t *index, int32_t *value,
                         size_t capacity, mw_fault *fault) {
  const mw_kernels *kernels = mw_kernels_in_use();
  mw_status status = check_choices(tensors, count, choices, fault);
  size_t total = 0;
  if (status) return status;
  if (capacity < 2 * MW_STRETCH) return MW_SHAPE;
  for (size_t t = 0; t < count; t++) total += lattice(tensors + t) && choices[t].step ? tensors[t].n : 0;
  const int far = total > MW_FAR;
  if (!pass->tensor && !pass->entry)
    for (size_t t = 0; t < count; t++) choices[t].end = choices[t].clamped = 0;
  for (;;) {
    if (capacity - pass->found < 2 * MW_STRETCH) { /* the chunk that waits, and the one that is filled now */
      status = MW_NO_ROOM;
      break;
    }
    while (pass->tensor < count) {
      const mw_tensor *t = tensors + pass->tensor;
      if (lattice(t) && choices[pass->tensor].step && pass->entry < t->n) break;
      choices[pass->tensor++].end = pass->found;
      pass->entry = 0;
    }
    mw_chunk *c = &pass->chunk[pass->which], *waiting = &pass->chunk[!pass->which];
    if (pass->tensor < count) {
      const mw_tensor *t = tensors + pass->tensor;
      const size_t start = pass->entry, rest = t->n - start;
      const uint32_t least = mw_bits(choices[pass->tensor].threshold) & MW_MAGNITUDE;
      const uint32_t alarm = least > MW_BF16_OVERFLOW ? MW_BF16_OVERFLOW : least + !least;
      c->tensor = pass->tensor;
      c->start = start;
      c->length = rest < MW_STRETCH ? rest : MW_STRETCH;
      c->count = kernels->scan(t->w + start, t->trained + start, t->residual + start, c->length, rest, alarm, (uint32_t)start, c->left,
                               c->index, c->d);
      for (size_t k = 0; k < c->count; k++) {
        __builtin_prefetch(t->base + c->index[k]);
        __builtin_prefetch(t->q + c->index[k], 1);
      }
      pass->entry += c->length;
    }
    if (waiting->length && (status = finish(kernels, tensors, choices, pass, waiting, pass->tensor, far, index, value, fault))) break;
    if (pass->tensor == count) break;
    pass->which = !pass->which;
  }
  kernels->settle();
  return status;
}

void mw_abandon(const mw_tensor *tensors, size_t count, mw_choice *choices, const mw_pass *pass, const uint32_t *index, int32_t *value) {
  const mw_chunk *waiting = &pass->chunk[!pass->which];
  const size_t in_hand = waiting->length ? waiting->tensor : pass->tensor;
  if (count && pass->found) take_back(tensors, choices, in_hand < count ? in_hand : count - 1, index, value, pass->found);
}

mw_status mw_adopt_verbatim(const mw_tensor *tensors, size_t count, uint32_t *index, int32_t *value, size_t capacity, size_t *ends,
                            uint64_t lanes[2], mw_fault *fault) {
  size_t found = 0;
  lanes[0] = lanes[1] = 0;
  for (size_t t = 0; t < count; t++) {
    const mw_tensor *x = tensors + t;
    if (!verbatim(x)) continue;
    if (x->n > UINT32_MAX) return MW_SHAPE;
    for (size_t i = 0; i < x->n; i++) {
      const uint32_t new = mw_bits(x->trained[i]);
      if (x->dtype != MW_INT32 && !mw_finite_bits(new)) {
        fault->tensor = t;
        fault->index = i;
        return MW_TRAINED_NOT_FINITE;
      }
      found += new != mw_bits(x->w[i]);
    }
  }
  if (found > capacity) return MW_NO_ROOM;
  found = 0;
  for (size_t t = 0; t < count; ends[t++] = found) {
    const mw_tensor *x = tensors + t;
    if (!verbatim(x)) continue;
    for (size_t i = 0; i < x->n; i++) {
      const uint32_t new = mw_bits(x->trained[i]), moved = new - mw_bits(x->w[i]), q = (uint32_t)x->q[i] + moved;
      if (!moved) continue;
      memcpy(&x->w[i], &new, sizeof new);
      memcpy(&x->q[i], &q, sizeof q);
      index[found] = (uint32_t)i;
      memcpy(&value[found++], &moved, sizeof moved);
      mw_lanes_add(&lanes[0], &lanes[1], (int32_t)moved, x->start + i, 1);
    }
  }
  return MW_OK;
}
