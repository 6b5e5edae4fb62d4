/* The self test's part on training heads: trains four of them on fixed awkward numbers and hashes every bit that comes out.
   tests/crossisa/twin_head.py computes the same in numpy. */
#include "mw_exact.h"

#include "mw_head.h"
#include "mw_math.h"
#include "selftest.h"

uint64_t selftest_head(void);

#define MOST_ROWS 100
#define MOST_FEATURES 64
#define MOST_WEIGHTS 1024
#define MOST_STEPS 300
#define WORKSPACE (1 << 18)

/* A multiple of 2^-15 in -1..1, all of them exact. */
static float even(void) { return (float)((int32_t)(rnd() & 0xffffu) - 32768) * 0x1p-15f; }

static float features[MOST_ROWS * MOST_FEATURES], targets[MOST_ROWS * 16];
static uint16_t halves[MOST_ROWS * MOST_FEATURES];
static int8_t small[MOST_ROWS * MOST_FEATURES];
static uint32_t labels[MOST_ROWS], order[MOST_ROWS];
static float weights[MOST_WEIGHTS], before[MOST_WEIGHTS], slots[2 * MOST_WEIGHTS], losses[MOST_STEPS], out[MOST_ROWS * 16];
static uint8_t workspace[WORKSPACE];

static void functions(void) {
  for (uint32_t i = 0; i < 4096; i++) {
    const float x = mw_float(i * 0x00100021u);
    const uint32_t magnitude = mw_bits(x) & MW_MAGNITUDE;
    float results[3] = {0, 0, 0};
    if (magnitude <= 0x42dc0000u) results[0] = mw_exp(x), results[1] = mw_tanh(x);
    if (!(mw_bits(x) >> 31) && magnitude >= 0x00800000u && magnitude < MW_EXPONENT_BITS) results[2] = mw_log(x);
    feed(results, sizeof results);
  }
}

static void one(const mw_head *h, uint8_t dtype, size_t n, uint32_t first, uint32_t steps) {
  const size_t size = mw_head_size(h), entries = n * h->features;
  size_t at = 0;
  uint64_t step = 0;
  mw_rows rows = {features, dtype, 0x1p-6f, labels, targets, n};
  law(size && size <= MOST_WEIGHTS && entries <= sizeof features / sizeof *features, "a head of the self test is too large");
  law(mw_head_workspace(h, n) <= WORKSPACE, "a head of the self test needs more room");
  for (size_t i = 0; i < entries; i++) {
    const uint32_t bits = rnd();
    features[i] = even();
    halves[i] = (uint16_t)(bits & 0x83ffu) | (uint16_t)((bits >> 16) % 16 << 10); /* subnormal halves among them */
    small[i] = (int8_t)((int32_t)(bits >> 16 & 255) - 128);
  }
  if (dtype == 2) rows.features = halves;
  if (dtype == 4) rows.features = small;
  for (size_t i = 0; i < n; i++) labels[i] = rnd() % h->outputs;
  for (size_t i = 0; i < n * h->outputs; i++) targets[i] = (even() + 1.0f) * 0.5f;
  for (size_t i = 0; i < size; i++) weights[i] = rnd() % 8 ? even() * 0.25f : mw_float(rnd() & 0x807fffffu); /* subnormal */
  memset(slots, 0, sizeof slots);
  memcpy(before, weights, sizeof weights);
  law(mw_head_train(h, &rows, weights, slots, &step, h->steps + 1, losses, workspace, sizeof workspace, &at) == MW_HEAD,
      "a head is trained past its end");
  law(!mw_head_train(h, &rows, weights, slots, &step, first, losses, workspace, sizeof workspace, &at) && step == first,
      "training a head is refused");
  law(!mw_head_train(h, &rows, weights, slots, &step, steps - first, losses + first, workspace, sizeof workspace, &at) && step == steps,
      "training a head further is refused");
  feed(weights, size * sizeof *weights);
  feed(slots, mw_head_slots(h) * size * sizeof *slots);
  feed(losses, steps * sizeof *losses);
  law(!mw_head_infer(h, &rows, weights, out, workspace, sizeof workspace, &at), "a trained head does not infer");
  feed(out, n * h->outputs * sizeof *out);
  mw_head wild = *h;
  wild.rate = 0x1p+120f;
  memcpy(weights, before, sizeof weights);
  memset(slots, 0, sizeof slots);
  step = 0;
  const mw_status status = mw_head_train(&wild, &rows, weights, slots, &step, steps, losses, workspace, sizeof workspace, &at);
  law(status == MW_DIVERGED && !step && !memcmp(weights, before, size * sizeof *weights), "a training that diverges leaves something behind");
  const uint64_t where = at;
  feed(&where, sizeof where);
}

uint64_t selftest_head(void) {
  state = 88172645463325252u;
  hash = 0xcbf29ce484222325u;
  law(!mw_check_arithmetic(), "this build fuses, or this processor flushes subnormals");
  functions();
  for (uint32_t n = 1; n <= MOST_ROWS; n += 33) {
    mw_permutation(0x0123456789abcdefu, n, order, n);
    feed(order, n * sizeof *order);
  }
  mw_head h = {.features = 50, .outputs = 10, .loss = MW_SOFTMAX, .optimizer = MW_SGD, .schedule = MW_LINEAR, .batch = 32,
               .steps = 300, .every = 7, .seed = 0xfedcba9876543210u, .rate = 0.5f, .rate_end = 0.01f, .factor = 0.75f,
               .decay = 0.001f, .beta1 = 0.9f, .beta2 = 0.999f, .epsilon = 1e-7f};
  one(&h, 1, 100, 300, 300);
  h.features = 21, h.hidden[0] = 19, h.outputs = 7, h.activation = MW_TANH, h.optimizer = MW_MOMENTUM, h.schedule = MW_STAIRS;
  h.batch = 8, h.rate = 0.05f;
  one(&h, 4, 37, 13, 60);
  h.features = 16, h.hidden[0] = 17, h.hidden[1] = 12, h.outputs = 5, h.activation = MW_RELU, h.optimizer = MW_ADAM, h.loss = MW_MSE;
  h.batch = 16;
  one(&h, 2, 33, 59, 60);
  h.features = 33, h.hidden[0] = h.hidden[1] = 0, h.outputs = 3, h.loss = MW_LOGISTIC, h.schedule = MW_CONSTANT;
  one(&h, 1, 40, 1, 60);
  return hash;
}
