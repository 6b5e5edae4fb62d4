/* Runs every kernel over a fixed stream of awkward numbers and prints one hash of all that came out. Every build for every
   processor must print the same, and tests/crossisa/twin.py computes it in numpy. Exits 1 when a law of the lattice breaks. */
#include <stdio.h>
#include <stdlib.h>

#include "mw_bits.h"
#include "mw_planes.h"
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
static float collected[N], other_w[N];
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

/* The other way to what snap and adopt give: collect with a lower bar, choose, adopt what was sent alone. */
static void collect_and_adopt(int e, size_t r, float threshold) {
  size_t at = 0, found = 0, sent = 0, clamped = 0;
  int huge = 0;
  float edge = 0;
  law(mw_collect(w, trained, residual, N, 0, left, noise_index, collected, N / 2, &found, &huge, &at) == MW_NO_ROOM,
      "collect finds room where there is none");
  law(!feed_status(mw_collect(w, trained, residual, N, 0.5f * threshold, left, noise_index, collected, N, &found, &huge, &at), &at) &&
          !huge,
      "collect refuses what snap took");
  feed_number(found);
  feed(noise_index, found * sizeof *noise_index);
  feed(collected, found * sizeof *collected);
  feed(left, sizeof left);
  for (size_t k = 1; k <= found; k += 1 + k / 2) {
    law(!mw_kth_magnitude(collected, found, k, &edge), "the k-th magnitude is refused");
    feed(&edge, sizeof edge);
  }
  law(!mw_quantise(q, N, noise_index, collected, found, e, STEPS[r], threshold, noise_index, noise_value, &sent, &clamped, &at),
      "quantise refuses what was collected");
  law(sent == counts[r] && same(noise_index, index_of[r], sent * sizeof *noise_index) &&
          same(noise_value, value_of[r], sent * sizeof *noise_value),
      "what was collected quantises to something else");
  memcpy(other_w, w, sizeof w);
  memcpy(other_q, q, sizeof q);
  law(!mw_adopt_sent(base, other_w, trained, residual, other_q, N, noise_index, noise_value, sent, e, STEPS[r], left, collected, other_left,
                     &at),
      "what was collected is refused");
}

static void round_trip(int e, size_t r) {
  size_t at = 0, clamped = 0;
  const int64_t step = STEPS[r];
  const float threshold = 0.6f * ((float)step * mw_power(e));
  uint64_t before[2], change[2], after[2];
  train(e, step);
  feed_status(mw_differences(w, trained, residual, N, out, &at), &at);
  feed(out, sizeof out);
  law(!feed_status(mw_snap(w, trained, residual, q, N, e, step, threshold, index_of[r], value_of[r], N, &counts[r], &clamped, &at), &at),
      "snap refuses what it should take");
  feed_number(counts[r]);
  feed_number(clamped);
  feed(index_of[r], counts[r] * sizeof **index_of);
  feed(value_of[r], counts[r] * sizeof **value_of);
  feed_fingerprint(q, before, 0);
  collect_and_adopt(e, r, threshold);
  law(!mw_adopt(base, w, trained, residual, q, N, index_of[r], value_of[r], counts[r], e, step, &at), "adopt refuses what was snapped");
  law(same(w, other_w, sizeof w) && same(q, other_q, sizeof q), "adopting what was collected gives another model");
  law(same(residual, left, sizeof left), "adopting what was collected leaves something else");
  feed(w, sizeof w);
  feed(residual, sizeof residual);
  feed(q, sizeof q);
  feed_fingerprint(q, after, 0);
  mw_fingerprint_sparse(index_of[r], value_of[r], counts[r], step, 1000003, 0, change);
  law(before[0] + change[0] == after[0] && before[1] + change[1] == after[1], "the fingerprint is not linear");
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
  state = 88172645463325252u;
  planes(MW_FLOAT32, 4, 0x7f800000u);
  planes(MW_FLOAT16, 2, 0x7c00u);
  planes(MW_BFLOAT16, 2, 0x7f80u);
  planes(MW_INT8, 1, 0);
  planes(MW_INT32, 4, 0);
  for (uint8_t dtype = MW_FLOAT32; dtype <= MW_INT8; dtype++) stored(dtype);
  printf("%016llx %s\n", (unsigned long long)hash, mw_chosen());
  return 0;
}
