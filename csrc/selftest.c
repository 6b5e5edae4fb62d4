/* Runs every kernel over a fixed stream of awkward numbers and prints one hash of all that came out. Every build for every
   processor must print the same, and tests/crossisa/twin.py computes it in numpy. Exits 1 when a law of the lattice breaks. */
#include <stdio.h>
#include <stdlib.h>

#include "mw_bits.h"
#include "mw_round.h"
#include "mw_sections.h"

#define N 768
#define ROUNDS 3
#define STREAM (1 << 16)

static const int EXPONENTS[] = {-96, -95, -40, -14, 0, 31, 99, 100};
static const int64_t STEPS[ROUNDS] = {96, 255 << 3, 1};
static const uint32_t COLUMNS[ROUNDS] = {32, 768, 5};
#define EXPONENT_COUNT (sizeof EXPONENTS / sizeof *EXPONENTS)

static uint64_t state, hash = 0xcbf29ce484222325u;

static uint32_t rnd(void) {
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return (uint32_t)(state >> 16);
}

/* FNV-1a. */
static void feed(const void *data, size_t length) {
  const uint8_t *bytes = data;
  for (size_t i = 0; i < length; i++) hash = (hash ^ bytes[i]) * 0x100000001b3u;
}

static void feed_number(uint64_t number) { feed(&number, sizeof number); }

/* at as a pointer: an argument beside the call that sets it could be read before. */
static mw_status feed_status(mw_status status, const size_t *at) {
  feed_number((uint64_t)status);
  if (status >= MW_INDEX && status <= MW_OFF_LATTICE && status != MW_VALUE) feed_number(*at);
  return status;
}

static void law(int holds, const char *what) {
  if (holds) return;
  printf("broken: %s\n", what);
  exit(1);
}

static int same(const void *a, const void *b, size_t length) { return !memcmp(a, b, length); }

static float base[N], w[N], centre[N], trained[N], out[N];
static int32_t q[N], centre_q[N], found_q[N];
static float other_w[N];
static int32_t other_q[N];
static uint16_t residual[N], left[N], other_left[N], scratch[2 * N];
static uint32_t index_of[ROUNDS][N], decoded_index[ROUNDS][N], noise_index[N], bits[N], base_bits[N];
static int32_t value_of[ROUNDS][N], decoded_value[ROUNDS][N], noise_value[N];
static size_t counts[ROUNDS];
static uint8_t stream_bytes[STREAM], mutated[STREAM];
static mw_stream stream;

/* Subnormals, -0.0, exact and near cancellations, and weights from far below to far above the unit. */
static void make_tensor(int e) {
  for (size_t i = 0; i < N; i++) {
    uint32_t kind = rnd();
    int32_t units = (int32_t)(rnd() % (2 * MW_Q_MAX + 1)) - MW_Q_MAX;
    if ((kind & 7) == 0) units = 0;
    if ((kind & 7) == 1) units = (int32_t)(rnd() % 7) - 3;
    if ((kind & 7) >= 2 && (kind & 7) <= 4) units /= 1 << rnd() % 22;
    q[i] = units;
    uint32_t cancel = mw_bits((float)-units * mw_power(e));
    int32_t exponent = e + 127 + (int32_t)(rnd() % 48) - 20;
    if (exponent < 1) exponent = 1;
    if (exponent > 250) exponent = 250;
    uint32_t plain = (rnd() & 0x807fffffu) | (uint32_t)exponent << 23;
    switch (kind >> 3 & 7) {
      case 0: plain = rnd() & 0x807fffffu; break;
      case 1: plain = 0x80000000u; break;
      case 2: plain = cancel; break;
      case 3: plain = cancel & 0x7f800000u ? cancel + rnd() % 7 - 3 : cancel; break;
      default: break;
    }
    base[i] = mw_float(plain);
    residual[i] = (uint16_t)(mw_bits((float)((int32_t)(rnd() % 65) - 32) * mw_power(e)) >> 16);
  }
}

static void train(int e, int64_t step) {
  for (size_t i = 0; i < N; i++) {
    uint32_t kind = rnd() & 15;
    int32_t moved = ((int32_t)(rnd() % 257) - 128) * (int32_t)step / 32;
    uint32_t wild = (rnd() & 0x807fffffu) | (uint32_t)(e < 100 ? e + 127 + 24 : 250) << 23;
    uint32_t subnormal = rnd() & 0x807fffffu;
    trained[i] = w[i];
    if (kind >= 4) trained[i] = w[i] + (float)moved * mw_power(e);
    if (kind == 1) trained[i] = mw_float(wild);
    if (kind == 2) trained[i] = mw_float(subnormal);
  }
}

static void feed_fingerprint(const int32_t *of, uint64_t lanes[2], int verbatim) {
  mw_fingerprint(of, N, 1000003, verbatim, lanes);
  feed(lanes, 2 * sizeof *lanes);
}

/* The tensor as two tensors of one model, for the passes that take a model. */
static void as_model(mw_tensor model[2], int e, float *weights, int32_t *integers, uint16_t *rest) {
  const size_t first = N / 2 - 100;
  for (size_t t = 0; t < 2; t++) {
    const size_t from = t ? first : 0;
    const mw_tensor tensor = {base + from, weights + from, integers + from, trained + from, residual + from, rest + from,
                              t ? N - first : first, 1000003 + from, 0, 0, e, 1, 0};
    model[t] = tensor;
  }
}

/* Indices within the whole tensor again. */
static void joined(uint32_t *index, size_t from, size_t to) {
  for (size_t k = from; k < to; k++) index[k] += N / 2 - 100;
}

static mw_status feed_fault(mw_status status, const mw_fault *fault) {
  feed_number((uint64_t)status);
  if (status) {
    feed_number(fault->tensor);
    feed_number(fault->index);
  }
  return status;
}

/* Collect the k largest and adopt them, and see that it is what one pass gives that knows the step; then take all of it back. */
static void collect_and_adopt(int e, size_t r, float threshold, size_t k) {
  static mw_pass pass;
  static uint32_t index[N + 2 * MW_STRETCH];
  static int32_t value[N + 2 * MW_STRETCH];
  mw_tensor model[2];
  mw_choice choices[2] = {{STEPS[r], threshold, 0, 0}, {STEPS[r], threshold, 0, 0}}, known[2] = {choices[0], choices[1]};
  mw_fault fault = {0, 0};
  size_t ends[2] = {0, 0}, found = 0;
  uint64_t lanes[2];
  float edge = 0;
  memcpy(other_w, w, sizeof w);
  memcpy(other_q, q, sizeof q);
  as_model(model, e, other_w, other_q, other_left);
  memset(&pass, 0, sizeof pass);
  law(!feed_fault(mw_collect(model, 2, k, &pass, index, value, sizeof index / sizeof *index, ends, &edge, &fault), &fault),
      "collect refuses what is finite");
  feed(&edge, sizeof edge);
  feed(other_left, sizeof other_left);
  if (choices[0].threshold < edge) choices[0].threshold = choices[1].threshold = edge;
  known[0].threshold = known[1].threshold = choices[0].threshold;
  law(!feed_fault(mw_adopt(model, 2, choices, ends, index, value, &found, lanes, &fault), &fault), "what was collected is refused");
  feed_number(found);
  feed(lanes, sizeof lanes);
  feed(other_w, sizeof other_w);
  feed(other_left, sizeof other_left);
  memcpy(left, other_left, sizeof left);
  memcpy(out, other_w, sizeof out);
  law(!mw_retract(model, 2, choices, index, value, &fault), "what was adopted can't be taken back");
  law(same(w, other_w, sizeof w) && same(q, other_q, sizeof q), "what was taken back is not what was there before");
  memset(&pass, 0, sizeof pass);
  law(!mw_adopt_known(model, 2, known, &pass, index, value, sizeof index / sizeof *index, &fault), "a known step is refused");
  law(pass.found == found && same(lanes, pass.lanes, sizeof lanes), "a known step sends something else");
  law(same(out, other_w, sizeof out) && same(left, other_left, sizeof left), "a known step gives another model");
}

static void round_trip(int e, size_t r) {
  static mw_pass pass;
  static uint32_t index[N + 2 * MW_STRETCH];
  static int32_t value[N + 2 * MW_STRETCH];
  size_t at = 0;
  const int64_t step = STEPS[r];
  const float threshold = 0.6f * ((float)step * mw_power(e));
  uint64_t before[2], change[2], after[2];
  mw_tensor model[2];
  mw_choice choices[2] = {{step, threshold, 0, 0}, {step, threshold, 0, 0}};
  mw_fault fault = {0, 0};
  train(e, step);
  feed_status(mw_differences(w, trained, residual, N, out, &at), &at);
  feed(out, sizeof out);
  feed_fingerprint(q, before, 0);
  for (size_t k = 1; k <= N; k *= 5) collect_and_adopt(e, r, threshold, k);
  as_model(model, e, w, q, left);
  memset(&pass, 0, sizeof pass);
  law(!feed_fault(mw_adopt_known(model, 2, choices, &pass, index, value, sizeof index / sizeof *index, &fault), &fault),
      "a round is refused that should be taken");
  counts[r] = pass.found;
  joined(index, choices[0].end, pass.found);
  memcpy(index_of[r], index, counts[r] * sizeof *index);
  memcpy(value_of[r], value, counts[r] * sizeof *value);
  memcpy(residual, left, sizeof left);
  feed_number(counts[r]);
  feed_number(choices[0].clamped + choices[1].clamped);
  feed(index_of[r], counts[r] * sizeof **index_of);
  feed(value_of[r], counts[r] * sizeof **value_of);
  feed(w, sizeof w);
  feed(residual, sizeof residual);
  feed(q, sizeof q);
  feed_fingerprint(q, after, 0);
  mw_fingerprint_sparse(index_of[r], value_of[r], counts[r], step, 1000003, 0, change);
  law(before[0] + change[0] == after[0] && before[1] + change[1] == after[1], "the fingerprint is not linear");
  law(change[0] == pass.lanes[0] && change[1] == pass.lanes[1], "a pass adds something else to the fingerprint");
  law(!mw_apply_lattice(base, centre, centre_q, N, index_of[r], value_of[r], counts[r], e, step, &at), "apply refuses what was adopted");
  law(same(w, centre, sizeof w) && same(q, centre_q, sizeof q), "the centre's weights differ from the device's");
}

static mw_status decode(const uint8_t *data, size_t length) {
  mw_status status = MW_OK;
  mw_decode_begin(&stream, data, length);
  for (size_t r = 0; !status && r < ROUNDS; r++)
    status = mw_decode_section(&stream, N / COLUMNS[r] + 1, COLUMNS[r], decoded_index[r], decoded_value[r], counts[r], scratch,
                               sizeof scratch / sizeof *scratch);
  if (!status) status = mw_decode_end(&stream);
  for (size_t r = 0; !status && r < ROUNDS; r++) {
    feed(decoded_index[r], counts[r] * sizeof **decoded_index);
    feed(decoded_value[r], counts[r] * sizeof **decoded_value);
  }
  return status;
}

static void code(void) {
  size_t at = 0, length = 0;
  mw_encode_begin(&stream, stream_bytes, sizeof stream_bytes);
  for (size_t r = 0; r < ROUNDS; r++)
    law(!mw_encode_section(&stream, N / COLUMNS[r] + 1, COLUMNS[r], index_of[r], value_of[r], counts[r], scratch,
                           sizeof scratch / sizeof *scratch, &at),
        "encode refuses a section");
  law(!mw_encode_end(&stream, &length), "encode refuses to end");
  feed_number(length);
  feed(stream_bytes, length);
  law(!decode(stream_bytes, length), "decode refuses what was encoded");
  for (int round = 0; round < 4; round++) {
    memcpy(mutated, stream_bytes, length);
    const size_t place = rnd() % length; /* one draw a statement: C leaves the order within one open */
    mutated[place] ^= (uint8_t)(1 << rnd() % 8);
    feed_status(decode(mutated, length - rnd() % 3), NULL);
  }
}

/* Undo all rounds from Q itself, and see the base's bits again. */
static void invert(int e) {
  size_t at = 0, count = 0;
  for (size_t i = 0; i < N; i++)
    if (centre_q[i]) {
      decoded_index[0][count] = (uint32_t)i;
      decoded_value[0][count++] = -centre_q[i];
    }
  law(!mw_apply_lattice(base, centre, centre_q, N, decoded_index[0], decoded_value[0], count, e, 1, &at), "the inverse is refused");
  law(same(base, centre, sizeof base), "the inverse does not give the base's bits");
}

static void refuse(int e) {
  size_t at = 0;
  for (int round = 0; round < 8; round++) {
    size_t count = 1 + rnd() % 6;
    uint32_t place = rnd() % N;
    for (size_t k = 0; k < count; k++) {
      noise_index[k] = place;
      uint32_t noise = rnd();
      noise_value[k] = (int32_t)(noise >> rnd() % 32);
      place += rnd() % 200 + (round > 4);
    }
    int64_t step = STEPS[rnd() % ROUNDS];
    step <<= rnd() % 20;
    feed_status(mw_check_lattice(base, q, N, noise_index, noise_value, count, e, step, &at), &at);
    feed_status(mw_apply_verbatim(base_bits, bits, found_q, N, noise_index, noise_value, count, &at), &at);
    feed(bits, sizeof bits);
    feed(found_q, sizeof found_q);
  }
}

int main(int argc, char **argv) {
  size_t at = 0;
  if (mw_choose(argc > 1 ? argv[1] : "")) return 2;
  law(!mw_check_rounding(), "this processor does not round to nearest even");
  for (size_t k = 0; k < EXPONENT_COUNT; k++) {
    const int e = EXPONENTS[k];
    state = 88172645463325252u + k;
    make_tensor(e);
    law(!feed_status(mw_weights_from_q(base, q, N, e, w, &at), &at), "the first weights are refused");
    memcpy(centre, w, sizeof w);
    memcpy(centre_q, q, sizeof q);
    feed(base, sizeof base);
    feed(w, sizeof w);
    for (size_t r = 0; r < ROUNDS; r++) round_trip(e, r);
    memset(found_q, 0, sizeof found_q);
    feed_status(mw_q_from_weights(base, w, N, e, found_q, &at), &at);
    feed(found_q, sizeof found_q);
    code();
    invert(e);
    memcpy(bits, w, sizeof w);
    memcpy(base_bits, base, sizeof base);
    for (size_t i = 0; i < N; i++) {
      uint32_t difference = bits[i] - base_bits[i];
      memcpy(&found_q[i], &difference, sizeof difference);
    }
    uint64_t lanes[2];
    feed_fingerprint(found_q, lanes, 1);
    refuse(e);
    feed_number(mw_crc32c((const uint8_t *)w, sizeof w));
  }
  printf("%016llx %s\n", (unsigned long long)hash, mw_chosen());
  return 0;
}
