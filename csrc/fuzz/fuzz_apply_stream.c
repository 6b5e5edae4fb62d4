/* Whole updates, sound and hostile, against a model on the move: a refusal leaves every bit, what is applied is the formula and
   nothing else, the fingerprint keeps up, and a snapshot gives what it gives from the base.

   Input: flags (bit 0: snapshot, bit 1: entries are coded here instead of read as a stream, bit 2: another fingerprint is expected,
   bit 3: the model is at its base), tensors; for each kind, dtype, rows, columns, exponent; a byte for each of the table's rows with
   step and count; base and q of each tensor; the stream, or gaps and values. */
#include <math.h>

#include "../mw_apply.h"
#include "../mw_bits.h"
#include "../mw_sections.h"
#include "fuzz.h"

#define TENSORS 3

static uint32_t held(uint32_t bits, uint8_t dtype) { /* the nearest thing that such a tensor may hold */
  if (dtype == MW_INT32) return bits;
  if (!mw_finite_bits(bits)) bits &= 0x807fffffu;
  if (dtype == MW_INT8) return mw_bits((float)((int)(bits % 255) - 127));
  const float w = mw_stored(mw_float(bits), dtype);
  return mw_finite(w) ? mw_bits(w) : 0;
}

/* The weight that q gives, from the C library; an infinity where none may be. */
static uint32_t formula(const mw_tensor *t, size_t i) {
  const uint32_t base = mw_bits(t->base[i]);
  if (t->kind == MW_KIND_VERBATIM) return base + (uint32_t)t->q[i];
  if (!t->q[i]) return base;
  return mw_bits(mw_stored(t->base[i] + (float)ldexp((double)t->q[i], t->exponent), t->dtype));
}

/* Is this a class of tensor that a coded stream moves? */
static int moves(const mw_tensor *t) { return t->kind == MW_KIND_VERBATIM || (t->kind == MW_KIND_LATTICE && t->dtype <= MW_INT8); }

static int sound(const mw_tensor *t, size_t i) {
  const uint32_t bits = formula(t, i);
  if (!moves(t)) return !t->q[i];
  if (t->kind == MW_KIND_LATTICE) return mw_in_range(t->q[i]) && mw_finite_bits(bits);
  return t->dtype == MW_INT32 || (mw_finite_bits(bits) && mw_bits(mw_stored(mw_float(bits), t->dtype)) == bits);
}

static void sum(const mw_tensor *tensors, size_t count, uint64_t lanes[2]) {
  lanes[0] = lanes[1] = 0;
  for (size_t t = 0; t < count; t++) {
    uint64_t part[2];
    mw_fingerprint(tensors[t].q, tensors[t].n, tensors[t].start, tensors[t].kind == MW_KIND_VERBATIM, part);
    lanes[0] += part[0], lanes[1] += part[1];
  }
}

static void make(input *in, mw_tensor *t, uint64_t start) {
  static const uint8_t SORTS[][2] = {{0, 1}, {0, 2}, {0, 3}, {0, 4}, {1, 1}, {1, 2}, {1, 3}, {1, 5}, {2, 1}, {0, 5}};
  const uint8_t *sort = SORTS[take_u8(in) % (sizeof SORTS / sizeof *SORTS)];
  *t = (mw_tensor){.kind = sort[0], .dtype = sort[1], .start = start};
  t->rows = 1 + take_u8(in) % 6;
  t->columns = 1 + take_u8(in) % 40;
  t->exponent = (int8_t)take_u8(in);
  if (t->exponent < MW_EXPONENT_MIN || t->exponent > MW_EXPONENT_MAX) t->exponent /= 2;
  if (t->kind != MW_KIND_LATTICE || t->dtype >= MW_INT8) t->exponent = 0;
  t->n = (size_t)t->rows * t->columns;
}

static void fill(input *in, mw_tensor *t, int at_base) {
  uint32_t *base = room(t->n, 4), *w = room(t->n, 4);
  int32_t *q = room(t->n, sizeof *q);
  t->base = (const float *)(const void *)base, t->w = (float *)(void *)w, t->q = q;
  for (size_t i = 0; i < t->n; i++) {
    base[i] = held(i % 4 ? take_u8(in) * 0x01010101u : take_u32(in), t->dtype);
    const int32_t moved = (int32_t)(take_u8(in) * 0x00010101u) - 0x00400000;
    q[i] = at_base || (moved & 3) ? 0 : moved;
    if (!sound(t, i)) q[i] = 0;
    w[i] = formula(t, i);
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  input in = {data, size};
  const uint8_t flags = take_u8(&in);
  mw_tensor tensors[TENSORS];
  mw_row rows[TENSORS];
  uint32_t *index[TENSORS];
  int32_t *value[TENSORS];
  const size_t count = 1 + take_u8(&in) % TENSORS;
  size_t section = 0, widest = 0, capacity = 64, length = 0, at;
  uint64_t start = 1000, before[2], lanes[2], after[2];
  for (size_t t = 0; t < count; t++, start += tensors[t - 1].n) {
    make(&in, &tensors[t], start);
    fill(&in, &tensors[t], flags & 8);
    if (widest < mw_scratch(tensors[t].columns)) widest = mw_scratch(tensors[t].columns);
    const uint8_t shape = take_u8(&in), step = take_u8(&in);
    mw_row row = {(uint16_t)t, 1, 1, 0, (int8_t)tensors[t].exponent, 0, take_u8(&in) % (uint32_t)(tensors[t].n + 1)};
    if (tensors[t].kind == MW_KIND_LATTICE) row.mantissa = (uint8_t)(step | 1), row.shift = step % 23;
    if (shape >= 0xf0) { /* a row that is not as it should be */
      uint8_t *bytes = (uint8_t *)&row;
      bytes[shape % sizeof row] = step;
    }
    if (!(shape & 1) && row.count) rows[section++] = row;
  }
  uint16_t *scratch = room(widest, sizeof *scratch);
  uint8_t *stream = NULL;
  static mw_stream writer;
  if (flags & 2) {
    for (size_t s = 0; s < section; s++) {
      const mw_tensor *t = &tensors[rows[s].tensor % count];
      if (rows[s].count > t->n) rows[s].count = (uint32_t)t->n;
      index[s] = room(rows[s].count, sizeof **index), value[s] = room(rows[s].count, sizeof **value);
      size_t next = 0;
      for (size_t k = 0; k < rows[s].count; k++) {
        const uint8_t gap = take_u8(&in), large = take_u8(&in);
        next += gap % (t->n - next - (rows[s].count - k - 1) < 8 ? 1 : 3);
        index[s][k] = (uint32_t)next++;
        value[s][k] = large < 0xfe ? (int32_t)large - 127 : (int32_t)take_u32(&in);
        if (!value[s][k]) value[s][k] = 1;
      }
      capacity += rows[s].count * 40 + t->n * 2;
    }
    stream = room(capacity, 1);
    mw_encode_begin(&writer, stream, capacity);
    for (size_t s = 0; s < section; s++) {
      const mw_tensor *t = &tensors[rows[s].tensor % count];
      LAW(mw_encode_section(&writer, t->rows, t->columns, index[s], value[s], rows[s].count, scratch, widest, &at) == MW_OK);
      free(index[s]), free(value[s]);
    }
    LAW(mw_encode_end(&writer, &length) == MW_OK);
    uint8_t *whole = stream;
    stream = copy_of(whole, length, 1);
    free(whole);
  } else {
    length = in.left;
    stream = copy_of(in.data, length, 1);
  }
  uint8_t *table = copy_of(rows, section, sizeof *rows);
  void *old_w[TENSORS], *old_q[TENSORS];
  for (size_t t = 0; t < count; t++) {
    old_w[t] = copy_of(tensors[t].w, tensors[t].n, 4), old_q[t] = copy_of(tensors[t].q, tensors[t].n, 4);
  }
  sum(tensors, count, before);
  lanes[0] = before[0], lanes[1] = before[1];
  const mw_update update = {.table = table, .rows = section, .stream = stream, .length = length, .snapshot = flags & 1};
  const uint64_t other[2] = {before[0] + 1, before[1]};
  mw_place place = {0, 0, 0};
  for (int turn = 0; turn < 2; turn++) {
    mw_status status = mw_apply_stream(tensors, count, &update, turn || flags & 4 ? other : NULL, lanes, scratch, widest, &place, NULL, NULL);
    LAW(status != MW_CHANGED && status != MW_NO_ROOM && status != MW_ROUNDING);
    for (size_t t = 0; t < count; t++) {
      if (status) {
        LAW(same(tensors[t].w, old_w[t], tensors[t].n, 4) && same(tensors[t].q, old_q[t], tensors[t].n, 4));
        continue;
      }
      for (size_t i = 0; i < tensors[t].n; i++) {
        uint32_t bits;
        memcpy(&bits, &tensors[t].w[i], sizeof bits);
        LAW(bits == formula(&tensors[t], i) && sound(&tensors[t], i));
      }
    }
    if (status) {
      LAW(lanes[0] == before[0] && lanes[1] == before[1]);
      break;
    }
    sum(tensors, count, after);
    LAW(lanes[0] == after[0] && lanes[1] == after[1]);
    /* Again, with a fingerprint that can't come out: back to these bits. A snapshot gives them from any state. */
    if (flags & 1) {
      LAW(mw_apply_stream(tensors, count, &update, after, lanes, scratch, widest, &place, NULL, NULL) == MW_OK);
      LAW(lanes[0] == after[0] && lanes[1] == after[1]);
    }
    before[0] = lanes[0], before[1] = lanes[1];
    for (size_t t = 0; t < count; t++) {
      memcpy(old_w[t], tensors[t].w, tensors[t].n * 4);
      memcpy(old_q[t], tensors[t].q, tensors[t].n * 4);
    }
    if (after[0] == other[0] && after[1] == other[1]) break;
  }
  for (size_t t = 0; t < count; t++) {
    free((void *)(uintptr_t)tensors[t].base), free(tensors[t].w), free(tensors[t].q), free(old_w[t]), free(old_q[t]);
  }
  free(scratch), free(stream), free(table);
  return 0;
}
