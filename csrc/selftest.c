/* Runs every kernel over a fixed stream of awkward numbers and prints one hash of all that came out, then one of what is said of what
   is no number. Every build for every processor must print the same, and tests/crossisa/twin.py computes it in numpy. Exits 1 when a
   law of the lattice breaks. */
#include <stdio.h>
#include <stdlib.h>

#include "mw_bits.h"
#include "mw_apply.h"
#include "mw_planes.h"
#include "mw_round.h"
#include "mw_sections.h"
#include "selftest.h"

#define N 768
#define ROUNDS 3
#define STREAM (1 << 16)

uint64_t selftest_head(void);       /* selftest_head.c */
uint64_t selftest_non_finite(void); /* selftest_non_finite.c */

static const int EXPONENTS[] = {-96, -95, -40, -14, 0, 31, 99, 100};
static const int64_t STEPS[ROUNDS] = {96, 255 << 3, 1};
static const uint32_t COLUMNS[ROUNDS] = {32, 768, 5};
#define EXPONENT_COUNT (sizeof EXPONENTS / sizeof *EXPONENTS)

static void feed_number(uint64_t number) { feed(&number, sizeof number); }

/* at as a pointer: an argument beside the call that sets it could be read before. */
static mw_status feed_status(mw_status status, const size_t *at) {
  feed_number((uint64_t)status);
  if (status >= MW_INDEX && status <= MW_OFF_LATTICE && status != MW_VALUE) feed_number(*at);
  return status;
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
static void indexed(uint32_t *index, size_t from, size_t to) {
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
  indexed(index, choices[0].end, pass.found);
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

/* The same stream, read and written in pieces of any size. */
static void code_in_pieces(size_t length) {
  size_t again = 0;
  mw_walk walk;
  mw_decode_begin(&stream, stream_bytes, length);
  for (size_t r = 0; r < ROUNDS; r++) {
    size_t got = 0;
    mw_walk_begin(&walk, N / COLUMNS[r] + 1, COLUMNS[r], counts[r], scratch);
    for (size_t k = 0, room; k < counts[r]; k += got) {
      room = 1 + rnd() % 60;
      law(!mw_decode_some(&stream, &walk, noise_index, noise_value, room, &got), "a piece is refused");
      law(got == room || k + got == counts[r], "a piece ends too early");
      law(same(noise_index, index_of[r] + k, got * sizeof *noise_index) && same(noise_value, value_of[r] + k, got * sizeof *noise_value),
          "a piece holds something else");
    }
  }
  law(!mw_decode_end(&stream), "the pieces do not end");
  mw_encode_begin(&stream, mutated, sizeof mutated);
  for (size_t r = 0; r < ROUNDS; r++) {
    mw_walk_begin(&walk, N / COLUMNS[r] + 1, COLUMNS[r], counts[r], scratch);
    for (size_t k = 0, n; k < counts[r]; k += n) {
      n = 1 + rnd() % 60;
      if (n > counts[r] - k) n = counts[r] - k;
      law(!mw_encode_some(&stream, &walk, index_of[r] + k, value_of[r] + k, n), "a piece is not written");
    }
    law(mw_encode_some(&stream, &walk, index_of[r], value_of[r], 1) == MW_SHAPE, "more is written than was announced");
  }
  law(!mw_encode_end(&stream, &again) && again == length && same(mutated, stream_bytes, length), "pieces give another stream");
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
  const uint64_t drawn = state; /* how pieces are cut is nothing that the hash knows of */
  code_in_pieces(length);
  state = drawn;
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

/* A finite entry of a stored type: every bit drawn, and cut down to its sign where that is no number. */
static uint32_t stored_bits(uint32_t drawn, uint32_t width, uint32_t infinity) {
  const uint32_t top = 1u << (8 * width - 1);
  drawn &= top | (top - 1);
  return infinity && (drawn & (top - 1)) >= infinity ? drawn & top : drawn;
}

static uint8_t parent_bits[4 * N], fresh_bits[4 * N], joined[4 * N], changed[N / 8], byte_planes[4 * N];

static void planes(uint8_t dtype, uint32_t width, uint32_t infinity) {
  size_t at = 0, count = 0;
  for (size_t i = 0; i < N; i++) {
    const uint32_t parent = stored_bits(rnd(), width, infinity), kind = rnd(), by = rnd();
    uint32_t fresh = parent;
    if (kind & 3) fresh = stored_bits(parent + by % 200 - 100, width, infinity);
    if ((kind & 31) == 31) fresh = stored_bits(by, width, infinity);
    memcpy(parent_bits + i * width, &parent, width); /* little-endian */
    memcpy(fresh_bits + i * width, &fresh, width);
  }
  law(!mw_split_planes(fresh_bits, parent_bits, N, width, infinity, changed, byte_planes, N, &count, &at), "planes refuse a number");
  feed_number(count);
  feed(changed, sizeof changed);
  for (uint32_t p = 0; p < width; p++) feed(byte_planes + p * N, count);
  law(!mw_join_planes(changed, byte_planes, N, count, parent_bits, N, width, infinity, joined, &at) &&
          same(joined, fresh_bits, N * width),
      "planes do not give back what was split");
  mw_ordered_differences(fresh_bits, parent_bits, N, width, infinity, found_q);
  feed(found_q, sizeof found_q);
  if (dtype == MW_FLOAT16 || dtype == MW_BFLOAT16 || dtype == MW_INT8) {
    law(!mw_from_storage(fresh_bits, N, dtype, out, &at), "what is stored can't be held");
    feed(out, sizeof out);
    law(!mw_to_storage(out, N, dtype, joined, &at) && same(joined, fresh_bits, N * width), "what is held is not what was stored");
  }
  for (int round = 0; round < 8; round++) {
    const uint32_t place = rnd() % N, bit = rnd() % 8, which = rnd();
    uint8_t *byte = which & 1 ? changed + place / 8 : byte_planes + place;
    *byte ^= (uint8_t)(1 << bit);
    if (!feed_status(mw_join_planes(changed, byte_planes, N, count, parent_bits, N, width, infinity, joined, &at), &at))
      feed(joined, N * width);
    *byte ^= (uint8_t)(1 << bit);
  }
}

/* Sums around where 16 bits round, overflow and have subnormals. */
static void stored(uint8_t dtype) {
  for (size_t i = 0; i < N; i++) {
    size_t at = 0;
    const uint32_t noise = rnd(), kind = rnd();
    uint32_t sum = (noise & 0x807fffffu) | (0x60u + kind % 48) << 23;
    if ((kind & 0xf000) == 0) sum = (noise & 0x807fffffu) | 0x7f000000u;
    if ((kind & 0xf000) == 0x1000) sum &= 0xffffe000u + (noise & 0x2000u);
    float whole = mw_float(sum), held = 0;
    if (dtype == MW_INT8) whole = (float)((int32_t)(noise % 300) - 150);
    if (!feed_status(mw_round_stored(&whole, 1, dtype, &held, &at), &at)) feed(&held, sizeof held);
  }
}

#define TENSORS 4
static float model_base[TENSORS][N], model_w[TENSORS][N], kept_w[TENSORS][N];
static int32_t model_q[TENSORS][N], kept_q[TENSORS][N];
static const uint32_t MODEL_COLUMNS[TENSORS] = {32, 768, 4, 96};
static const uint8_t MODEL_DTYPES[TENSORS] = {MW_FLOAT32, MW_FLOAT32, MW_FLOAT16, MW_INT8};

/* The base of a model of all classes, and what entry i of each tensor is to move by, in steps of 1, 1, 3 and 1. */
static void make_model(size_t i, int32_t moves[TENSORS]) {
  const uint32_t difference = mw_bits(w[i]) - mw_bits(base[i]);
  model_base[0][i] = model_base[1][i] = base[i];
  moves[0] = q[i];
  memcpy(&moves[1], &difference, sizeof difference);
  model_base[2][i] = mw_from_f16((uint16_t)(rnd() & 0xbfffu));
  moves[2] = (int32_t)(rnd() % 2001) - 1000;
  const int32_t code = (int32_t)(rnd() % 255) - 127;
  model_base[3][i] = (float)code;
  moves[3] = (int32_t)(rnd() % 255) - 127 - code;
}

static void feed_model(void) {
  for (size_t t = 0; t < TENSORS; t++) {
    feed(model_w[t], sizeof *model_w);
    feed(model_q[t], sizeof *model_q);
  }
}

/* A whole update of a whole model, as one stream, and the same with a bit of it changed. */
static void whole_update(int e) {
  mw_tensor tensors[TENSORS];
  mw_row rows[TENSORS];
  mw_place place = {0, 0, 0};
  uint64_t lanes[2] = {0, 0};
  size_t at = 0, length = 0;
  static int32_t moves[N][TENSORS];
  for (size_t i = 0; i < N; i++) make_model(i, moves[i]);
  mw_encode_begin(&stream, stream_bytes, sizeof stream_bytes);
  for (size_t t = 0; t < TENSORS; t++) {
    const int exponent = t == 0 ? e : t == 2 ? -14 : 0;
    uint32_t count = 0;
    for (uint32_t i = 0; i < N; i++)
      if (moves[i][t]) noise_index[count] = i, noise_value[count++] = moves[i][t];
    tensors[t] = (mw_tensor){.base = model_base[t], .w = model_w[t], .q = model_q[t], .n = N, .start = t * N,
                             .rows = N / MODEL_COLUMNS[t], .columns = MODEL_COLUMNS[t], .exponent = exponent,
                             .dtype = MODEL_DTYPES[t], .kind = t == 1 ? MW_KIND_VERBATIM : MW_KIND_LATTICE};
    rows[t] = (mw_row){(uint16_t)t, MW_CODEC_RANGE, t == 2 ? 3 : 1, 0, (int8_t)exponent, 0, count};
    law(!mw_encode_section(&stream, tensors[t].rows, tensors[t].columns, noise_index, noise_value, count, scratch,
                           sizeof scratch / sizeof *scratch, &at),
        "encode refuses a model");
    memcpy(model_w[t], model_base[t], sizeof *model_w);
    memset(model_q[t], 0, sizeof *model_q);
  }
  law(!mw_encode_end(&stream, &length), "encode refuses to end a model");
  mw_update update = {.table = (const uint8_t *)rows, .rows = TENSORS, .stream = stream_bytes, .length = length};
  const size_t room = sizeof scratch / sizeof *scratch;
  law(!mw_apply_stream(tensors, TENSORS, &update, NULL, lanes, scratch, room, &place, NULL, NULL), "a whole update is refused");
  law(same(model_w[0], w, sizeof w) && same(model_w[1], w, sizeof w), "a whole update gives other weights");
  feed(lanes, sizeof lanes);
  feed_model();
  update.stream = mutated;
  for (int round = 0; round < 6; round++) {
    memcpy(mutated, stream_bytes, length);
    const size_t byte = rnd() % length;
    mutated[byte] ^= (uint8_t)(1 << rnd() % 8);
    update.length = length - rnd() % 2;
    update.snapshot = round & 1;
    memcpy(kept_w, model_w, sizeof kept_w);
    memcpy(kept_q, model_q, sizeof kept_q);
    if (feed_status(mw_apply_stream(tensors, TENSORS, &update, NULL, lanes, scratch, room, &place, NULL, NULL), &place.at))
      law(same(kept_w, model_w, sizeof kept_w) && same(kept_q, model_q, sizeof kept_q), "a refused update leaves a trace");
    feed(lanes, sizeof lanes);
    feed_model();
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
    whole_update(e);
  }
  state = 88172645463325252u;
  planes(MW_FLOAT32, 4, 0x7f800000u);
  planes(MW_FLOAT16, 2, 0x7c00u);
  planes(MW_BFLOAT16, 2, 0x7f80u);
  planes(MW_INT8, 1, 0);
  planes(MW_INT32, 4, 0);
  for (uint8_t dtype = MW_FLOAT32; dtype <= MW_INT8; dtype++) stored(dtype);
  feed_number(selftest_head());
  printf("%016llx %s\n", (unsigned long long)hash, mw_chosen());
  printf("%016llx what is no number\n", (unsigned long long)selftest_non_finite());
  return 0;
}
