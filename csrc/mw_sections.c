/* The model of a section: which entries are not zero, their signs and magnitudes. One walk serves writer and reader. */
#include "mw_sections.h"

#include "mw_bits.h"

/* A column's state, 16 bits: density in the low 12, what stood above, the sign of its last value. */
#define DENSITY 0x0fffu
#define ABOVE 0x1000u
#define SIGN_SHIFT 14

static const uint8_t BUCKET[64] = {0, 1, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 4, 4, 4, 4, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5,
                                   6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6};

static inline unsigned bucket(uint32_t density) { return BUCKET[density >> 6]; }

static inline uint32_t drift(uint32_t density, int bit, int slowness) {
  return (uint32_t)((int32_t)density + ((bit ? 4095 : 0) - (int32_t)density) / slowness);
}

static void begin(mw_model *m) {
  mw_bit *p = (mw_bit *)m;
  for (size_t i = 0; i < sizeof *m / sizeof *p; i++) p[i] = (mw_bit){0x8000, 0x8000};
}

/* Sign and magnitude of a value that is not zero; returns it. */
static inline int32_t code_value(mw_stream *s, int32_t value, unsigned above, mw_bit *sign, int reading) {
  mw_coder *c = &s->coder;
  int negative = mw_code(c, sign, value < 0, reading);
  uint32_t magnitude = negative ? 0u - (uint32_t)value : (uint32_t)value; /* 1 .. 2^31 */
  uint32_t counted = 0;
  while (counted < MW_ESCAPE && mw_code(c, &s->model.more[above][counted], magnitude - 1 > counted, reading)) counted++;
  if (counted == MW_ESCAPE) {
    /* rest >= 1 as Exp-Golomb: its length in bits, then the bits below the first */
    uint32_t rest = magnitude - MW_ESCAPE;
    int length = 0;
    while (length < 30 && mw_code(c, &s->model.length[length], !reading && rest >> (length + 1), reading)) length++;
    rest = (uint32_t)1 << length | mw_code_raw(c, rest, length, reading);
    if (reading) counted += rest;
  }
  if (!reading) return value;
  magnitude = counted + (counted < MW_ESCAPE ? 1 : 0);
  if (magnitude > (uint32_t)INT32_MAX + (uint32_t)negative) mw_coder_fail(c, MW_STREAM_DAMAGED);
  return negative ? (int32_t)(0u - magnitude) : (int32_t)magnitude;
}

/* Walk one section. Flags that can only have one value are not coded, so every stream that reads is one that a writer makes. */
static mw_status walk(mw_stream *s, uint32_t rows, uint32_t columns, uint32_t *index, int32_t *value, const size_t count, uint16_t *scratch,
                      const int reading) {
  mw_coder *c = &s->coder;
  const uint64_t size = (uint64_t)rows * columns;
  const uint32_t blocks = (columns + MW_BLOCK - 1) / MW_BLOCK;
  uint16_t *column = scratch, *block = scratch + columns;
  if (!count) return MW_OK;
  for (uint32_t i = 0; i < columns; i++) column[i] = 100;
  for (uint32_t i = 0; i < blocks; i++) block[i] = 800;
  uint32_t row_density = 100;
  unsigned row_sign = 0;
  size_t k = 0;
  for (uint64_t start = 0; k < count; start += columns) {
    int left_any = 0;
    for (uint32_t b = 0; b < blocks; b++) {
      const uint32_t first = b * MW_BLOCK, last = columns - first < MW_BLOCK ? columns : first + MW_BLOCK;
      const uint64_t after = size - start - last;
      int any = 1;
      if (count - k <= after)
        any = mw_code(c, &s->model.any[bucket(block[b] & DENSITY)][left_any * 2 + (block[b] & ABOVE ? 1 : 0)],
                      !reading && index[k] < start + last, reading);
      const int above_any = block[b] & ABOVE ? 1 : 0;
      block[b] = (uint16_t)(drift(block[b] & DENSITY, any, 8) | (any ? ABOVE : 0));
      left_any = any;
      if (!any) {
        if (above_any)
          for (uint32_t i = first; i < last; i++) column[i] &= (uint16_t)~ABOVE;
        continue;
      }
      const size_t before = k;
      int left1 = 0, left2 = 0;
      for (uint32_t i = first; i < last; i++) {
        const uint32_t state = column[i];
        const unsigned above = state & ABOVE ? 1 : 0;
        int nonzero = 1;
        if (count - k < size - start - i && !(k == before && i == last - 1))
          nonzero = mw_code(c, &s->model.nonzero[bucket(state & DENSITY)][bucket(row_density)][above * 4 + (unsigned)left1 * 2 + (unsigned)left2],
                            !reading && index[k] == start + i, reading);
        row_density = drift(row_density, nonzero, 32);
        left2 = left1;
        left1 = nonzero;
        unsigned column_sign = state >> SIGN_SHIFT;
        if (nonzero) {
          if (reading) index[k] = (uint32_t)(start + i);
          value[k] = code_value(s, reading ? 0 : value[k], above, &s->model.sign[row_sign * 3 + column_sign], reading);
          row_sign = column_sign = value[k] < 0 ? 2 : 1;
          if (c->status) return c->status;
          if (++k == count) return MW_OK;
        }
        column[i] = (uint16_t)(drift(state & DENSITY, nonzero, 16) | (nonzero ? ABOVE : 0) | column_sign << SIGN_SHIFT);
      }
    }
    if (c->status) return c->status;
  }
  return c->status;
}

static mw_status check_shape(uint32_t rows, uint32_t columns, size_t count, size_t scratch_length) {
  const uint64_t size = (uint64_t)rows * columns;
  if (size > UINT32_MAX || count > size) return MW_SHAPE;
  return scratch_length < mw_scratch(columns) ? MW_NO_ROOM : MW_OK;
}

void mw_encode_begin(mw_stream *s, uint8_t *out, size_t capacity) {
  mw_coder_write(&s->coder, out, capacity);
  begin(&s->model);
}

mw_status mw_encode_section(mw_stream *s, uint32_t rows, uint32_t columns, const uint32_t *index, const int32_t *value, size_t count,
                            uint16_t *scratch, size_t scratch_length, size_t *at) {
  mw_status status = check_shape(rows, columns, count, scratch_length);
  *at = 0;
  for (size_t k = 0; !status && k < count; k++) status = mw_check_entry(index, value, k, (size_t)rows * columns, at);
  if (status) return status;
  /* The walk writes index and value only when it reads a stream. */
  return walk(s, rows, columns, (uint32_t *)index, (int32_t *)value, count, scratch, 0);
}

mw_status mw_encode_end(mw_stream *s, size_t *length) { return mw_coder_finish(&s->coder, length); }

void mw_decode_begin(mw_stream *s, const uint8_t *in, size_t length) {
  mw_coder_read(&s->coder, in, length);
  begin(&s->model);
}

mw_status mw_decode_section(mw_stream *s, uint32_t rows, uint32_t columns, uint32_t *index, int32_t *value, size_t count,
                            uint16_t *scratch, size_t scratch_length) {
  mw_status status = check_shape(rows, columns, count, scratch_length);
  return status ? status : walk(s, rows, columns, index, value, count, scratch, 1);
}

mw_status mw_decode_end(const mw_stream *s) { return mw_coder_end(&s->coder); }
