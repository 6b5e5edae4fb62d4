/* The head trainer: checks, the order of the rows, batches, losses, rates. Its dense loops are in mw_head_lanes.h. */
#include "mw_exact.h"

#include "mw_head_kernels.h"
#include "mw_math.h"
#include "mw_mode.h"

#define LINE 16 /* floats of a cache line */

mw_status mw_check_arithmetic(void) {
  mw_status status = mw_check_rounding();
  if (status) return status;
  volatile float least = 0x1p-126f, half = 0.5f, subnormal = 0x1p-149f, large = 0x1p+100f;
  if (least * half == 0.0f || subnormal * large == 0.0f) return MW_SUBNORMALS;
  volatile float a = 1.0f + 0x1p-12f, minus = -(1.0f + 0x1p-11f);
  const float x = a, y = minus;
  return x * x + y == 0.0f ? MW_OK : MW_FUSED; /* the product's last bit is rounded off, unless it is fused with the sum */
}

static const mw_head_kernels *kernels(void) {
#ifdef __x86_64__
  if (!strcmp(mw_chosen(), "avx2")) return &mw_head_avx2;
#endif
  return &mw_head_generic;
}

static size_t padded(size_t n) { return (n + MW_STRIPES - 1) / MW_STRIPES * MW_STRIPES; }

static int within(float x, float low, float high) { return x >= low && x <= high; }

static int usable(const mw_head *h) {
  const int layers = h->hidden[0] ? (h->activation == MW_RELU || h->activation == MW_TANH) : !h->hidden[1];
  return layers && h->features >= 1 && h->features <= MW_HEAD_FEATURES_MAX && h->hidden[0] <= MW_HEAD_WIDTH_MAX &&
         h->hidden[1] <= MW_HEAD_WIDTH_MAX && h->outputs >= (h->loss == MW_SOFTMAX ? 2u : 1u) && h->outputs <= MW_HEAD_WIDTH_MAX &&
         h->loss >= MW_SOFTMAX && h->loss <= MW_LOGISTIC && h->optimizer >= MW_SGD && h->optimizer <= MW_ADAM &&
         h->schedule >= MW_CONSTANT && h->schedule <= MW_STAIRS && h->batch >= 1 && h->batch <= MW_HEAD_BATCH_MAX && h->steps >= 1 &&
         (h->schedule != MW_STAIRS || h->every >= 1) && within(h->rate, 0, FLT_MAX) && within(h->rate_end, 0, FLT_MAX) &&
         within(h->factor, 0, 1) && within(h->decay, 0, FLT_MAX) && within(h->beta1, 0, 0x1.fffffep-1f) &&
         within(h->beta2, 0, 0x1.fffffep-1f) && within(h->epsilon, FLT_MIN, FLT_MAX);
}

/* Write the widths of a head's layers, inputs first, and return how many layers there are. */
static size_t widths(const mw_head *h, size_t width[MW_HEAD_LAYERS + 1]) {
  size_t layers = 0;
  width[0] = h->features;
  for (size_t k = 0; k < 2; k++)
    if (h->hidden[k]) width[++layers] = h->hidden[k];
  width[++layers] = h->outputs;
  return layers;
}

size_t mw_head_size(const mw_head *h) {
  if (!usable(h)) return 0;
  size_t width[MW_HEAD_LAYERS + 1], total = 0;
  for (size_t l = 0, layers = widths(h, width); l < layers; l++) total += width[l + 1] * (width[l] + 1);
  return total;
}

size_t mw_head_slots(const mw_head *h) { return h->optimizer == MW_ADAM ? 2 : h->optimizer == MW_MOMENTUM; }

typedef struct frame {
  const mw_head *head;
  const mw_head_kernels *kernels;
  mw_layer layer[MW_HEAD_LAYERS];
  size_t layers;
  float *quads;
  uint32_t *order;
} frame;

/* Lay the frame out over the workspace and return its floats; with workspace NULL only count them. */
static uint64_t lay_out(frame *f, const mw_head *h, size_t n, float *workspace) {
  size_t width[MW_HEAD_LAYERS + 1], high = 0;
  uint64_t used = 0;
  f->head = h;
  f->kernels = kernels();
  f->layers = widths(h, width);
#define TAKE(pointer, floats)                       \
  {                                                 \
    if (workspace) (pointer) = workspace + used;    \
    used += (uint64_t)(floats);                     \
  }
  for (size_t k = 0; k < f->layers; k++) {
    mw_layer *l = &f->layer[k];
    memset(l, 0, sizeof *l);
    l->inputs = width[k];
    l->neurons = width[k + 1];
    l->wide = padded(l->inputs);
    l->high = padded(l->neurons);
    l->stride = (l->wide / LINE | 1) * LINE;
    if (l->high > high) high = l->high;
    TAKE(l->x, (uint64_t)h->batch * l->stride)
    TAKE(l->w, (uint64_t)l->neurons * l->wide)
    TAKE(l->bias, l->high)
    for (size_t s = 0; s < mw_head_slots(h); s++) {
      TAKE(l->slots[s], (uint64_t)l->neurons * l->wide)
      TAKE(l->bias_slots[s], l->high)
    }
    TAKE(l->delta, (uint64_t)h->batch * l->high)
  }
  TAKE(f->quads, 8 * high)
  if (workspace) f->order = (uint32_t *)(void *)(workspace + used);
#undef TAKE
  return used + n;
}

size_t mw_head_workspace(const mw_head *h, size_t n) {
  frame f;
  if (!usable(h) || !n || n > UINT32_MAX) return 0;
  const uint64_t bytes = 4 * lay_out(&f, h, n, NULL) + 4 * LINE;
  return bytes < SIZE_MAX / 2 ? (size_t)bytes : 0;
}

/* Copy the caller's arrays in (or out, when back is set): matrix and biases of each layer, the padding left zero. */
static void carry(float *dense, size_t rows, size_t columns, float *wide, size_t stride, int back) {
  for (size_t r = 0; r < rows; r++)
    if (back)
      memcpy(dense + r * columns, wide + r * stride, columns * sizeof *dense);
    else
      memcpy(wide + r * stride, dense + r * columns, columns * sizeof *dense);
}

static void carry_all(frame *f, float *weights, float *slots, int back) {
  const size_t size = mw_head_size(f->head), count = slots ? mw_head_slots(f->head) : 0;
  size_t at = 0;
  for (size_t k = 0; k < f->layers; k++) {
    mw_layer *l = &f->layer[k];
    const size_t bias = at + l->neurons * l->inputs;
    carry(weights + at, l->neurons, l->inputs, l->w, l->wide, back);
    carry(weights + bias, 1, l->neurons, l->bias, l->high, back);
    for (size_t s = 0; s < count; s++) {
      carry(slots + s * size + at, l->neurons, l->inputs, l->slots[s], l->wide, back);
      carry(slots + s * size + bias, 1, l->neurons, l->bias_slots[s], l->high, back);
    }
    at = bias + l->neurons;
  }
}

static int all_finite(const float *x, size_t n) {
  uint32_t bad = 0;
  for (size_t i = 0; i < n; i++) bad |= !mw_finite(x[i]);
  return !bad;
}

static mw_status begin(frame *f, const mw_head *h, const mw_rows *rows, const float *weights, float *slots, uint8_t *workspace,
                       size_t length) {
  mw_status status = mw_check_arithmetic();
  if (status) return status;
  const size_t needed = mw_head_workspace(h, rows->n), size = mw_head_size(h);
  if (!needed || (rows->dtype != 1 && rows->dtype != 2 && rows->dtype != 4)) return MW_HEAD;
  if (rows->dtype == 4 && !within(rows->scale, FLT_MIN, 0x1p+100f)) return MW_HEAD;
  if (length < needed) return MW_NO_ROOM;
  if (!all_finite(weights, size) || (slots && !all_finite(slots, size * mw_head_slots(h)))) return MW_WEIGHT_NOT_FINITE;
  const size_t past = (uintptr_t)workspace % (4 * LINE);
  float *aligned = (float *)(void *)(workspace + (past ? 4 * LINE - past : 0));
  memset(aligned, 0, (size_t)(4 * (lay_out(f, h, rows->n, aligned) - rows->n)));
  union { const float *in; float *out; } w = {weights}; /* carry writes to it only on the way back */
  carry_all(f, w.out, slots, 0);
  return MW_OK;
}

/* Row `from` of the features as float32. */
static mw_status take_row(const mw_rows *rows, size_t features, size_t from, float *restrict x) {
  uint32_t bad = 0;
  if (rows->dtype == 4) {
    const int8_t *q = (const int8_t *)rows->features + from * features;
    const float scale = rows->scale;
    for (size_t i = 0; i < features; i++) x[i] = (float)q[i] * scale;
  } else if (rows->dtype == 2) {
    const uint16_t *bits = (const uint16_t *)rows->features + from * features;
    for (size_t i = 0; i < features; i++) {
      const uint32_t h = bits[i];
      bad |= (h & 0x7c00u) == 0x7c00u;
      x[i] = mw_float(mw_bits(mw_float((h & 0x7fffu) << 13) * 0x1p+112f) | (h & 0x8000u) << 16); /* exact */
    }
  } else {
    memcpy(x, (const float *)rows->features + from * features, features * sizeof *x);
    bad = !all_finite(x, features);
  }
  return bad ? MW_FEATURE_NOT_FINITE : MW_OK;
}

/* The batch's rows through all layers; the last one's outputs go to its delta. */
static mw_status look(frame *f, const mw_rows *rows, const uint32_t *order, size_t first, size_t batch, size_t *at) {
  for (size_t b = 0; b < batch; b++) {
    *at = order ? order[first + b] : first + b;
    mw_status status = take_row(rows, f->head->features, *at, f->layer[0].x + b * f->layer[0].stride);
    if (status) return status;
  }
  for (size_t k = 0; k < f->layers; k++) {
    const mw_layer *l = &f->layer[k];
    if (k + 1 == f->layers) {
      f->kernels->forward(l, batch, l->delta, l->high, f->quads);
      break;
    }
    const mw_layer *next = l + 1;
    f->kernels->forward(l, batch, next->x, next->stride, f->quads);
    for (size_t b = 0; b < batch; b++) f->kernels->activate(next->x + b * next->stride, next->wide, f->head->activation == MW_TANH);
  }
  return MW_OK;
}

/* 16 striped sums, then the tree. n: whole stripes. */
static float sum(const float *x, size_t n) {
  float s[MW_STRIPES] = {0};
  for (size_t i = 0; i < n; i += MW_STRIPES)
    for (size_t k = 0; k < MW_STRIPES; k++) s[k] += x[i + k];
  for (size_t half = MW_STRIPES / 2; half; half /= 2)
    for (size_t k = 0; k < half; k++) s[k] += s[k + half];
  return s[0];
}

static float largest(const float *x, size_t n) {
  float s[MW_STRIPES];
  for (size_t k = 0; k < MW_STRIPES; k++) s[k] = x[0];
  for (size_t i = 0; i < n; i++) s[i % MW_STRIPES] = x[i] > s[i % MW_STRIPES] ? x[i] : s[i % MW_STRIPES];
  for (size_t k = 1; k < MW_STRIPES; k++) s[0] = s[k] > s[0] ? s[k] : s[0];
  return s[0];
}

/* A row's loss; its outputs z become the loss's slopes, times share. */
static float softmax(const frame *f, float *restrict z, size_t high, uint32_t label, float share) {
  const size_t n = f->head->outputs;
  const float top = largest(z, n), own = z[label];
  f->kernels->exponentials(z, n, top);
  const float whole = sum(z, high);
  for (size_t j = 0; j < n; j++) z[j] = z[j] / whole;
  z[label] = z[label] - 1.0f;
  for (size_t j = 0; j < n; j++) z[j] = z[j] * share;
  return whole == whole ? mw_log(whole) - (own - top) : whole; /* a NaN among the outputs: mw_log would make a number of it */
}

static float squares(const frame *f, float *restrict z, size_t high, const float *restrict target, float share) {
  const size_t n = f->head->outputs;
  float *restrict terms = f->quads;
  memset(terms, 0, high * sizeof *terms);
  for (size_t j = 0; j < n; j++) {
    const float error = z[j] - target[j];
    terms[j] = error * error;
    z[j] = error * share;
  }
  return sum(terms, high) / (float)n;
}

static float logistic(const frame *f, float *restrict z, size_t high, const float *restrict target, float share) {
  const size_t n = f->head->outputs;
  float *restrict terms = f->quads;
  memset(terms, 0, high * sizeof *terms);
  for (size_t j = 0; j < n; j++) {
    const float e = mw_exp(mw_float(mw_bits(z[j]) | 0x80000000u)), more = 1.0f + e; /* e^-|z| */
    terms[j] = ((z[j] > 0.0f ? z[j] : 0.0f) - z[j] * target[j]) + mw_log(more);
    z[j] = ((z[j] >= 0.0f ? 1.0f : e) / more - target[j]) * share;
  }
  return sum(terms, high) / (float)n;
}

static mw_status judge(frame *f, const mw_rows *rows, size_t first, size_t batch, float *loss, size_t *at) {
  const mw_layer *last = &f->layer[f->layers - 1];
  const size_t n = f->head->outputs;
  const float part = 1.0f / (float)batch, share = part / (float)n;
  float total = 0.0f;
  for (size_t b = 0; b < batch; b++) {
    float *z = last->delta + b * last->high;
    *at = f->order[first + b];
    if (f->head->loss == MW_SOFTMAX) {
      if (rows->labels[*at] >= n) return MW_LABEL;
      total = total + softmax(f, z, last->high, rows->labels[*at], part);
      continue;
    }
    const float *target = rows->targets + *at * n;
    if (!all_finite(target, n)) return MW_LABEL;
    total = total + (f->head->loss == MW_MSE ? squares(f, z, last->high, target, 2.0f * share) : logistic(f, z, last->high, target, share));
  }
  *loss = total * part;
  return MW_OK;
}

static double power(double x, uint64_t n) {
  double product = 1.0;
  for (; n; n >>= 1, x = x * x)
    if (n & 1) product = product * x;
  return product;
}

static mw_mover mover_at(const mw_head *h, uint64_t step) {
  double rate = h->rate;
  if (h->schedule == MW_LINEAR) rate = rate + ((double)h->rate_end - rate) * ((double)step / (double)h->steps);
  if (h->schedule == MW_STAIRS) rate = rate * power(h->factor, step / h->every);
  const float plain = (float)rate;
  if (h->optimizer == MW_ADAM)
    rate = rate * __builtin_sqrt(1.0 - power(h->beta2, step + 1)) / (1.0 - power(h->beta1, step + 1));
  return (mw_mover){h->optimizer, (float)rate, plain * h->decay, h->beta1, h->beta2, 1.0f - h->beta1, 1.0f - h->beta2, h->epsilon};
}

static uint64_t mixed(uint64_t z) { /* the finaliser of splitmix64 */
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
  z = (z ^ z >> 27) * 0x94d049bb133111ebu;
  return z ^ z >> 31;
}

void mw_permutation(uint64_t seed, uint64_t epoch, uint32_t *order, size_t n) {
  uint64_t state = mixed(seed ^ mixed(epoch + 1));
  for (size_t i = 0; i < n; i++) order[i] = (uint32_t)i;
  for (size_t left = n; left > 1; left--) {
    const uint64_t uneven = (0 - (uint64_t)left) % left; /* 2^64 mod left: draws below it would favour some */
    uint64_t draw;
    do draw = mixed(state += 0x9e3779b97f4a7c15u);
    while (draw < uneven);
    const size_t other = (size_t)(draw % left);
    const uint32_t last = order[left - 1];
    order[left - 1] = order[other];
    order[other] = last;
  }
}

static void learn(frame *f, size_t batch, const mw_mover *mover) {
  for (size_t k = f->layers; k-- > 0;) {
    mw_layer *l = &f->layer[k];
    if (k) {
      f->kernels->backward(l, batch, f->layer[k - 1].delta);
      f->kernels->slope(l->x, l->stride, f->layer[k - 1].delta, batch, l->wide, f->head->activation == MW_TANH);
    }
    f->kernels->update(l, batch, mover);
  }
}

static MW_APART mw_status train(const mw_head *h, const mw_rows *rows, float *weights, float *slots, uint64_t *step, uint32_t count,
                                float *losses, uint8_t *workspace, size_t length, size_t *at) {
  frame f;
  *at = 0;
  if (*step > h->steps || count > h->steps - *step) return MW_HEAD;
  mw_status status = begin(&f, h, rows, weights, slots, workspace, length);
  if (status) return status;
  const uint64_t a_round = (rows->n + h->batch - 1) / h->batch; /* steps of an epoch; the last batch may be smaller */
  for (uint32_t k = 0; k < count; k++) {
    const uint64_t now = *step + k, place = now % a_round;
    if (!k || !place) mw_permutation(h->seed, now / a_round, f.order, rows->n);
    const size_t first = (size_t)place * h->batch, batch = rows->n - first < h->batch ? rows->n - first : h->batch;
    const mw_mover mover = mover_at(h, now);
    if ((status = look(&f, rows, f.order, first, batch, at)) || (status = judge(&f, rows, first, batch, &losses[k], at))) return status;
    *at = (size_t)now;
    if (!mw_finite(losses[k])) return MW_DIVERGED;
    learn(&f, batch, &mover);
  }
  for (size_t k = 0; k < f.layers; k++) {
    const mw_layer *l = &f.layer[k];
    int finite = all_finite(l->w, l->neurons * l->wide) && all_finite(l->bias, l->high);
    for (size_t s = 0; s < mw_head_slots(h); s++)
      finite = finite && all_finite(l->slots[s], l->neurons * l->wide) && all_finite(l->bias_slots[s], l->high);
    if (!finite) return MW_DIVERGED;
  }
  carry_all(&f, weights, slots, 1);
  *step += count;
  return MW_OK;
}

mw_status mw_head_train(const mw_head *h, const mw_rows *rows, float *weights, float *slots, uint64_t *step, uint32_t count,
                        float *losses, uint8_t *workspace, size_t length, size_t *at) {
  const uint64_t mode = mw_keep_subnormals();
  const mw_status status = train(h, rows, weights, slots, step, count, losses, workspace, length, at);
  mw_set_mode(mode);
  return status;
}

static MW_APART mw_status infer(const mw_head *h, const mw_rows *rows, const float *weights, float *out, uint8_t *workspace, size_t length,
                                size_t *at) {
  frame f;
  *at = 0;
  mw_status status = begin(&f, h, rows, weights, NULL, workspace, length);
  if (status) return status;
  const mw_layer *last = &f.layer[f.layers - 1];
  for (size_t first = 0; first < rows->n; first += h->batch) {
    const size_t batch = rows->n - first < h->batch ? rows->n - first : h->batch;
    if ((status = look(&f, rows, NULL, first, batch, at))) return status;
    float *to = out + first * h->outputs;
    carry(to, batch, h->outputs, last->delta, last->high, 1);
    for (size_t i = 0; i < batch * h->outputs; i++)
      if (to[i] != to[i]) to[i] = mw_float(0x7fc00000u); /* processors differ in the sign of a NaN that they make */
  }
  return MW_OK;
}

mw_status mw_head_infer(const mw_head *h, const mw_rows *rows, const float *weights, float *out, uint8_t *workspace, size_t length,
                        size_t *at) {
  const uint64_t mode = mw_keep_subnormals();
  const mw_status status = infer(h, rows, weights, out, workspace, length, at);
  mw_set_mode(mode);
  return status;
}
