/* The self test's part on what is no number: puts every kind of it into every array of every kernel that takes floats, and hashes what
   is said of it. tests/crossisa/twin_non_finite.py does the same in numpy; mw.h has the rule. */
#include <string.h>

#include "mw_apply.h"
#include "mw_bits.h"
#include "mw_head.h"
#include "mw_planes.h"
#include "mw_round.h"
#include "mw_sections.h"
#include "selftest.h"

uint64_t selftest_non_finite(void);

#define SOUND 40 /* entries of a tensor that comes before */
#define N 530    /* longer than a stretch, with a group of 16 and a rest behind it */
#define ALL (SOUND + N)
#define ROOM (ALL + 2 * MW_STRETCH)
#define OUTPUTS 19

/* The last two become zeros where they are rounded to bfloat16 as numbers are. */
static const uint32_t KINDS[] = {0x7f800000u, 0xff800000u, 0xffc00000u, 0x7f800001u, 0x7fff7fffu, 0x7fff8000u, 0xffffffffu};
static const size_t PLACES[] = {31, 512, 529};
enum { BASE, WEIGHTS, TRAINED, RESIDUAL, ARRAYS };

static float base[ALL], w[ALL], trained[ALL], kept_w[ALL], out[ALL];
static int32_t q[ALL], kept_q[ALL], value[ROOM];
static uint32_t index_of[ROOM];
static uint16_t residual[ALL], left[ALL], stored[N], scratch[2 * N];
static uint8_t stream_bytes[1 << 12], workspace[1 << 14], changed[N / 8 + 1], byte_planes[4 * N];
static size_t stream_length;

/* at as a pointer: an argument beside the call that sets it could be read before. */
static void said(mw_status status, size_t tensor, const size_t *at) {
  const uint64_t all[3] = {(uint64_t)status, status ? tensor : 0, status ? *at : 0};
  feed(all, sizeof all);
}

/* Numbers that every type has. */
static void make_sound(void) {
  for (size_t i = 0; i < ALL; i++) {
    base[i] = (float)((int32_t)(i % 37) - 18);
    q[i] = 5;
    w[i] = base[i] + 5;
    trained[i] = w[i] + (i & 1 ? 3.0f : -3.0f);
    residual[i] = 0;
  }
}

static void spoil(int which, size_t place, uint32_t bits) {
  make_sound();
  float *const arrays[] = {base, w, trained};
  if (which == RESIDUAL)
    residual[SOUND + place] = (uint16_t)(bits >> 16);
  else
    memcpy(&arrays[which][SOUND + place], &bits, sizeof bits);
  memcpy(kept_w, w, sizeof w);
  memcpy(kept_q, q, sizeof q);
}

static void as_model(mw_tensor model[2], uint8_t dtype) {
  for (size_t t = 0; t < 2; t++) {
    const size_t from = t ? SOUND : 0, n = t ? N : SOUND;
    model[t] = (mw_tensor){base + from, w + from, q + from, trained + from, residual + from, left + from, n, from, 1, (uint32_t)n, 0,
                           t ? dtype : (uint8_t)MW_FLOAT32, MW_KIND_LATTICE};
  }
}

static void ended(mw_status status, size_t tensor, size_t at, uint64_t found, const uint64_t lanes[2]) {
  said(status, tensor, &at);
  if (!status) {
    const uint64_t all[3] = {found, lanes[0], lanes[1]};
    feed(all, sizeof all);
  } else {
    law(!memcmp(w, kept_w, sizeof w) && !memcmp(q, kept_q, sizeof q), "what is refused for no number leaves a trace");
  }
}

static void known(uint8_t dtype, float threshold) {
  static mw_pass pass;
  mw_tensor model[2];
  mw_choice choices[2] = {{1, 0.5f, 0, 0}, {1, threshold, 0, 0}};
  mw_fault fault = {0, 0};
  as_model(model, dtype);
  memset(&pass, 0, sizeof pass);
  const mw_status status = mw_adopt_known(model, 2, choices, &pass, index_of, value, ROOM, &fault);
  ended(status, fault.tensor, fault.index, pass.found, pass.lanes);
}

static void largest(uint8_t dtype) {
  static mw_pass pass;
  mw_tensor model[2];
  mw_fault fault = {0, 0};
  size_t ends[2];
  float edge;
  const uint64_t none[2] = {0, 0};
  as_model(model, dtype);
  memset(&pass, 0, sizeof pass);
  const mw_status status = mw_collect(model, 2, ALL, &pass, index_of, value, ROOM, ends, &edge, &fault);
  ended(status, fault.tensor, fault.index, pass.found, none);
}

static void candidates(uint8_t dtype) {
  mw_tensor model[2];
  mw_choice choices[2] = {{1, 0.5f, 0, 0}, {1, 0.5f, 0, 0}};
  mw_fault fault = {0, 0};
  const size_t ends[2] = {SOUND, ALL};
  size_t found = 0;
  uint64_t lanes[2];
  as_model(model, dtype);
  for (size_t i = 0; i < ALL; i++) {
    index_of[i] = (uint32_t)(i < SOUND ? i : i - SOUND);
    value[i] = (int32_t)mw_bits(i & 1 ? 3.0f : -3.0f);
  }
  const mw_status status = mw_adopt(model, 2, choices, ends, index_of, value, &found, lanes, &fault);
  ended(status, fault.tensor, fault.index, found, lanes);
}

static void make_stream(void) {
  mw_stream stream;
  size_t at = 0;
  for (uint32_t i = 0; i < N; i++) index_of[i] = i, value[i] = 7;
  mw_encode_begin(&stream, stream_bytes, sizeof stream_bytes);
  law(!mw_encode_section(&stream, 1, SOUND, index_of, value, SOUND, scratch, 2 * N, &at), "encode refuses a section");
  law(!mw_encode_section(&stream, 1, N, index_of, value, N, scratch, 2 * N, &at), "encode refuses a section");
  law(!mw_encode_end(&stream, &stream_length), "encode refuses to end");
}

static void streamed(uint8_t dtype, int snapshot) {
  const mw_row rows[2] = {{0, MW_CODEC_RANGE, 1, 0, 0, 0, SOUND}, {1, MW_CODEC_RANGE, 1, 0, 0, 0, N}};
  const mw_update update = {
      .table = (const uint8_t *)rows, .rows = 2, .stream = stream_bytes, .length = stream_length, .snapshot = snapshot};
  mw_tensor model[2];
  mw_place place = {0, 0, 0};
  uint64_t lanes[2] = {0, 0};
  as_model(model, dtype);
  const mw_status status = mw_apply_stream(model, 2, &update, NULL, lanes, scratch, 2 * N, &place, NULL, NULL);
  ended(status, place.tensor, place.at, 0, lanes);
}

/* The kernels of one float32 tensor. */
static void one_tensor(void) {
  size_t at = 0;
  const float *const b = base + SOUND, *const x = w + SOUND;
  said(mw_differences(x, trained + SOUND, residual + SOUND, N, out, &at), 0, &at);
  said(mw_weights_from_q(b, q + SOUND, N, 0, out, &at), 0, &at);
  said(mw_q_from_weights(b, x, N, 0, value, &at), 0, &at);
  for (uint32_t i = 0; i < N; i++) index_of[i] = i, value[i] = 7;
  said(mw_check_lattice(b, q + SOUND, N, index_of, value, N, 0, 1, &at), 0, &at);
  for (uint8_t dtype = MW_FLOAT32; dtype <= MW_INT8; dtype++) said(mw_round_stored(x, N, dtype, out, &at), 0, &at);
  for (uint8_t dtype = MW_FLOAT16; dtype <= MW_INT8; dtype++) said(mw_to_storage(x, N, dtype, stored, &at), 0, &at);
  size_t count;
  said(mw_split_planes(x, b, N, 4, MW_EXPONENT_BITS, changed, byte_planes, N, &count, &at), 0, &at);
}

static void sixteen_bits(uint8_t dtype, uint32_t infinity, size_t place, uint32_t bits) {
  size_t at = 0, count;
  make_sound();
  law(!mw_to_storage(w + SOUND, N, dtype, stored, &at), "a number is not stored");
  stored[place] = (uint16_t)(infinity | (bits >> 31) << 15 | (bits & 1) | (bits >> 13 & 0x200u));
  said(mw_from_storage(stored, N, dtype, out, &at), 0, &at);
  said(mw_split_planes(stored, NULL, N, 2, infinity, changed, byte_planes, N, &count, &at), 0, &at);
}

/* A head whose one output overflows, to an infinity or to a NaN. */
static void head(void) {
  static const float PAIRS[4][2] = {{1, 1}, {-1, -1}, {1, -1}, {-1, 1}};
  const mw_head h = {.features = 2, .outputs = OUTPUTS, .loss = MW_SOFTMAX, .optimizer = MW_SGD, .schedule = MW_CONSTANT, .batch = 1,
                     .steps = 3, .rate = 0.01f, .epsilon = 1e-7f};
  const float features[2] = {0x1p+127f, 0x1p+127f};
  const uint32_t label = 0;
  const mw_rows rows = {features, 1, 1.0f, &label, NULL, 1};
  for (size_t k = 0; k < OUTPUTS * 4; k++) {
    float weights[OUTPUTS * 3] = {0}, losses[3];
    size_t at = 0;
    uint64_t step = 0;
    for (size_t i = 0; i < 2; i++) weights[k / 4 * 2 + i] = PAIRS[k % 4][i] * 0x1p+127f;
    const mw_status status = mw_head_train(&h, &rows, weights, NULL, &step, 3, losses, workspace, sizeof workspace, &at);
    said(status, 0, &at);
  }
}

uint64_t selftest_non_finite(void) {
  hash = 0xcbf29ce484222325u;
  state = 0;
  make_stream();
  for (size_t k = 0; k < sizeof KINDS / sizeof *KINDS; k++)
    for (size_t p = 0; p < sizeof PLACES / sizeof *PLACES; p++) {
      for (int which = BASE; which < ARRAYS; which++) {
        for (uint8_t dtype = MW_FLOAT32; dtype <= MW_INT8; dtype++) {
          spoil(which, PLACES[p], KINDS[k]), known(dtype, 0.5f);
          spoil(which, PLACES[p], KINDS[k]), known(dtype, 1e30f);
          spoil(which, PLACES[p], KINDS[k]), largest(dtype);
          if (which == BASE || which == WEIGHTS) spoil(which, PLACES[p], KINDS[k]), candidates(dtype);
          if (which == BASE && p == 0) spoil(which, PLACES[p], KINDS[k]), streamed(dtype, 0);
          if (which == BASE && p == 2) spoil(which, PLACES[p], KINDS[k]), streamed(dtype, 1);
        }
        spoil(which, PLACES[p], KINDS[k]), one_tensor();
      }
      sixteen_bits(MW_FLOAT16, 0x7c00u, PLACES[p], KINDS[k]);
      sixteen_bits(MW_BFLOAT16, 0x7f80u, PLACES[p], KINDS[k]);
    }
  head();
  return hash;
}
