/* Heads of any settings on any rows, labels and weights: what is taken ends in finite numbers, the same for every kernel and
   however the steps are cut into calls; what is refused has written nothing; a workspace one byte short is refused, not overrun.

   Input: the settings field by field, rows, cut, flags; then features, labels, targets, weights, in floats of any bits. */
#include "../mw_head.h"
#include "fuzz.h"

#define WIDEST 40

static int finite_array(const float *f, size_t n) {
  for (size_t i = 0; i < n; i++) {
    uint32_t u;
    memcpy(&u, &f[i], sizeof u);
    if ((u & 0x7f800000u) == 0x7f800000u) return 0;
  }
  return 1;
}

/* A number from 0 to 2: most inputs should be heads that can be trained. */
static float take_rate(input *in, int wild) {
  float x;
  uint32_t u = take_u32(in);
  if (!wild) return (float)(u >> 8) * 0x1p-23f;
  memcpy(&x, &u, sizeof x);
  return x;
}

typedef struct run {
  mw_status status;
  size_t at;
  uint64_t step;
  float *weights, *slots, *losses;
} run;

static run train(const mw_head *h, const mw_rows *rows, const float *weights, uint32_t cut) {
  const size_t size = mw_head_size(h), kept = size * mw_head_slots(h), length = mw_head_workspace(h, rows->n);
  run r = {MW_OK, 0, 0, copy_of(weights, size, sizeof *weights), room(kept, sizeof(float)), room(h->steps, sizeof(float))};
  uint8_t *workspace = room(length, 1);
  if (kept) memset(r.slots, 0, kept * sizeof *r.slots);
  for (int part = 0; part < 2 && !r.status; part++) {
    const uint32_t count = part ? h->steps - cut : cut;
    const uint64_t step = r.step;
    float *before = copy_of(r.weights, size, sizeof *before), *slots_before = copy_of(r.slots, kept, sizeof *before);
    LAW(!length || mw_head_train(h, rows, r.weights, r.slots, &r.step, count, r.losses + step, workspace, length - 1, &r.at));
    LAW(same(before, r.weights, size, sizeof *before) && r.step == step);
    r.status = mw_head_train(h, rows, r.weights, r.slots, &r.step, count, r.losses + step, workspace, length, &r.at);
    if (r.status) {
      LAW(same(before, r.weights, size, sizeof *before) && same(slots_before, r.slots, kept, sizeof *before) && r.step == step);
    } else {
      LAW(r.step == step + count && finite_array(r.weights, size) && finite_array(r.slots, kept) && finite_array(r.losses + step, count));
    }
    free(before), free(slots_before);
  }
  free(workspace);
  return r;
}

static void done(run *r) { free(r->weights), free(r->slots), free(r->losses); }

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  input in = {data, size};
  const uint8_t flags = take_u8(&in);
  const int wild = flags & 1;
  mw_head h = {0};
  h.features = take_u8(&in) % (WIDEST + 1), h.outputs = take_u8(&in) % (WIDEST + 1);
  h.hidden[0] = flags & 2 ? take_u8(&in) % WIDEST : 0, h.hidden[1] = flags & 4 ? take_u8(&in) % WIDEST : 0;
  h.activation = 1 + take_u8(&in) % (wild ? 4 : 2), h.loss = 1 + take_u8(&in) % (wild ? 4 : 3);
  h.optimizer = 1 + take_u8(&in) % (wild ? 4 : 3), h.schedule = 1 + take_u8(&in) % (wild ? 4 : 3);
  h.batch = take_u8(&in) % 8, h.steps = take_u8(&in) % 6, h.every = take_u8(&in) % 4, h.seed = take_u32(&in);
  h.rate = take_rate(&in, wild), h.rate_end = take_rate(&in, wild), h.decay = take_rate(&in, wild);
  h.factor = take_rate(&in, wild) * 0.5f, h.beta1 = take_rate(&in, wild) * 0.49f, h.beta2 = take_rate(&in, wild) * 0.49f;
  h.epsilon = wild ? take_rate(&in, 1) : 1e-7f;
  const size_t n = take_u8(&in) % 12, entries = mw_head_size(&h);
  const uint32_t cut = h.steps ? take_u8(&in) % (h.steps + 1) : 0;
  mw_rows rows = {.dtype = flags & 8 ? 4 : flags & 16 ? 2 : 1, .scale = take_rate(&in, wild) + 0x1p-20f, .n = n};
  if (wild && flags & 32) rows.dtype = take_u8(&in);
  void *features = take_array(&in, n * h.features, rows.dtype == 4 ? 1 : rows.dtype == 2 ? 2 : 4);
  uint32_t *labels = take_array(&in, n, sizeof *labels);
  float *targets = take_array(&in, n * h.outputs, sizeof *targets);
  float *weights = take_array(&in, entries, sizeof *weights);
  if (!wild) {
    for (size_t i = 0; i < n; i++) labels[i] %= h.outputs + 1;
    for (size_t i = 0; i < entries; i++) {
      uint32_t u;
      memcpy(&u, &weights[i], sizeof u);
      u &= 0xbfffffffu; /* below 2 */
      memcpy(&weights[i], &u, sizeof u);
    }
  }
  rows.features = features, rows.labels = labels, rows.targets = targets;
  if (!entries || !n) {
    LAW(mw_head_workspace(&h, n) == 0);
  } else {
    LAW(!mw_choose("generic"));
    run plain = train(&h, &rows, weights, 0), parted = train(&h, &rows, weights, cut);
    if (!plain.status) {
      const size_t length = mw_head_workspace(&h, n);
      size_t at;
      LAW(!parted.status && same(plain.weights, parted.weights, entries, 4) && same(plain.losses, parted.losses, h.steps, 4));
      float *out = room(n * h.outputs, sizeof *out);
      uint8_t *workspace = room(length, 1);
      const mw_status inferred = mw_head_infer(&h, &rows, plain.weights, out, workspace, length, &at);
      LAW(!inferred || (inferred == MW_FEATURE_NOT_FINITE && at < n)); /* training may not have come to that row */
      free(out), free(workspace);
    }
    for (size_t k = 0; mw_kernel_name(k); k++) {
      if (mw_choose(mw_kernel_name(k))) continue;
      run other = train(&h, &rows, weights, 0);
      LAW(other.status == plain.status && (!plain.status || other.at == plain.at) && other.step == plain.step);
      LAW(same(other.weights, plain.weights, entries, 4) && same(other.slots, plain.slots, entries * mw_head_slots(&h), 4));
      done(&other);
    }
    done(&plain), done(&parted);
  }
  free(features), free(labels), free(targets), free(weights);
  return 0;
}
