/* The model of a section: which entries are not zero, their signs and magnitudes. One walk serves writer and reader. */
#include "mw_sections.h"

#include "mw_bits.h"

/* State of a column or block, 16 bits: density out of 4096 in the low 12, was it non-zero in the row above, last sign. */
#define DENSITY 0x0fffu
#define ABOVE 0x1000u
#define SIGN_SHIFT 13

#define DENSITY_START 200
#define BLOCK_DENSITY_START 800
#define COLUMN_SHIFT 4
#define ROW_SHIFT 5
#define BLOCK_SHIFT 4

/* Classes of density are 2.5 times as wide as the one before; LEAST is where each begins, TYPICAL its geometric mean. */
static const uint16_t LEAST[MW_CLASSES] = {0, 52, 131, 328, 819, 2048};
static const uint16_t TYPICAL[MW_CLASSES] = {30, 83, 207, 518, 1295, 2896};
#define EXPECTED_SEEN 6 /* how much a probability that starts at the class's density is believed */

static inline unsigned class_of(uint32_t density) {
  unsigned class = 0;
  while (class < MW_CLASSES - 1 && density >= LEAST[class + 1]) class++;
  return class;
}

static inline uint32_t moved(uint32_t density, int bit, int shift) {
  return bit ? density + ((4095 - density) >> shift) : density - (density >> shift);
}

/* A flag that is 1 with the probability ones / 4096. */
static mw_bit expect(unsigned ones) {
  uint16_t zero = (uint16_t)(0x10000u - (ones << 4));
  return (mw_bit){zero, zero, EXPECTED_SEEN};
}

static void begin(mw_model *m) {
  mw_bit *p = (mw_bit *)m;
  for (size_t i = 0; i < sizeof *m / sizeof *p; i++) p[i] = (mw_bit){0x8000, 0x8000, 0};
  for (unsigned c = 0; c < MW_CLASSES; c++) {
    for (unsigned i = 0; i < 4; i++) m->any[c][i] = expect(TYPICAL[c]);
    for (unsigned r = 0; r < MW_CLASSES; r++)
      for (unsigned i = 0; i < 8; i++) m->nonzero[c][r][i] = expect((TYPICAL[c] + TYPICAL[r]) / 2u);
  }
}

/* A number >= 1 as Exp-Golomb: its length in bits, then the bits below the first. Reading gives less than 2^31. */
static inline uint32_t code_golomb(mw_stream *s, uint32_t number, int reading) {
  int length = 0;
  while (length < MW_LENGTHS - 1 && mw_code(&s->coder, &s->model.length[length], !reading && number >> (length + 1), reading)) length++;
  uint32_t got = 1;
  int below = length;
  for (; below > 0 && length - below < MW_TREE; below--)
    got = got << 1 | (uint32_t)mw_code(&s->coder, &s->model.digit[length][got], (int)(number >> (below - 1) & 1), reading);
  return got << below | mw_code_raw(&s->coder, number, below, reading);
}

/* Sign and magnitude of a value that is not zero; returns it. */
static inline int32_t code_value(mw_stream *s, int32_t value, mw_bit *sign, int reading) {
  int negative = mw_code(&s->coder, sign, value < 0, reading);
  uint32_t magnitude = negative ? 0u - (uint32_t)value : (uint32_t)value; /* 1 .. 2^31 */
  uint32_t counted = 1;
  while (counted <= MW_ESCAPE && mw_code(&s->coder, &s->model.more[counted - 1], magnitude > counted, reading)) counted++;
  if (counted > MW_ESCAPE) counted = MW_ESCAPE + code_golomb(s, magnitude - MW_ESCAPE, reading);
  if (!reading) return value;
  if (counted > (uint32_t)INT32_MAX + (uint32_t)negative) mw_coder_fail(&s->coder, MW_STREAM_DAMAGED);
  return negative ? -(int32_t)((counted - 1) & INT32_MAX) - 1 : (int32_t)(counted & INT32_MAX);
}

/* Walk one section, row by row, until its last value. Flags that can only have one value are not coded: what reads without an
   error is exactly what a writer writes. index and value are written only when reading. */
static inline mw_status walk(mw_stream *s, uint32_t rows, uint32_t columns, uint32_t *index, int32_t *value, const size_t count,
                             uint16_t *scratch, const int reading) {
  mw_coder *c = &s->coder;
  const uint64_t size = (uint64_t)rows * columns;
  const uint32_t blocks = columns / MW_BLOCK + (columns % MW_BLOCK != 0);
  uint16_t *column = scratch, *block = scratch + columns;
  uint32_t row_density = DENSITY_START;
  unsigned row_sign = 0;
  size_t k = 0;
  if (!count) return MW_OK;
  for (uint32_t i = 0; i < columns; i++) column[i] = DENSITY_START;
  for (uint32_t i = 0; i < blocks; i++) block[i] = BLOCK_DENSITY_START;
  for (uint64_t start = 0; start < size; start += columns) {
    int left_block = 0;
    for (uint32_t b = 0; b < blocks; b++) {
      const uint32_t first = b * MW_BLOCK, last = columns - first < MW_BLOCK ? columns : first + MW_BLOCK;
      const uint32_t density = block[b] & DENSITY;
      const int above_block = (block[b] & ABOVE) != 0;
      int any = 1;
      if (count - k <= size - start - last)
        any = mw_code(c, &s->model.any[class_of(density)][left_block * 2 + above_block], !reading && index[k] < start + last, reading);
      block[b] = (uint16_t)(moved(density, any, BLOCK_SHIFT) | (any ? ABOVE : 0));
      left_block = any;
      if (!any) {
        if (above_block)
          for (uint32_t i = first; i < last; i++) column[i] &= (uint16_t)~ABOVE;
        continue;
      }
      const size_t before = k;
      int left = 0, left2 = 0;
      for (uint32_t i = first; i < last; i++) {
        const uint32_t column_density = column[i] & DENSITY;
        const int above = (column[i] & ABOVE) != 0;
        unsigned column_sign = column[i] >> SIGN_SHIFT;
        const int last_chance = k == before && i == last - 1;
        int nonzero = 1;
        if (count - k < size - start - i && !last_chance)
          nonzero = mw_code(c, &s->model.nonzero[class_of(column_density)][class_of(row_density)][above * 4 + left * 2 + left2],
                            !reading && index[k] == start + i, reading);
        if (nonzero) {
          if (reading) index[k] = (uint32_t)(start + i);
          int32_t v = code_value(s, reading ? 0 : value[k], &s->model.sign[row_sign * 3 + column_sign], reading);
          if (reading) value[k] = v;
          row_sign = column_sign = v < 0 ? 2 : 1;
          if (++k == count || c->status) return c->status;
        }
        row_density = moved(row_density, nonzero, ROW_SHIFT);
        column[i] = (uint16_t)(moved(column_density, nonzero, COLUMN_SHIFT) | (nonzero ? ABOVE : 0) | column_sign << SIGN_SHIFT);
        left2 = left;
        left = nonzero;
      }
    }
    if (c->status) return c->status;
  }
  return c->status; /* not reached: the last entries are forced */
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
