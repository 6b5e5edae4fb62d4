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

void mw_walk_begin(mw_walk *walk, uint32_t rows, uint32_t columns, size_t count, uint16_t *scratch) {
  *walk = (mw_walk){.size = (uint64_t)rows * columns, .count = count, .columns = columns, .row_density = DENSITY_START, .scratch = scratch};
  walk->blocks = columns / MW_BLOCK + (columns % MW_BLOCK != 0);
  if (!count) return;
  for (uint32_t i = 0; i < columns; i++) scratch[i] = DENSITY_START;
  for (uint32_t i = 0; i < walk->blocks; i++) scratch[columns + i] = BLOCK_DENSITY_START;
}

/* The block's own flag. */
static inline int code_any(mw_stream *s, mw_walk *walk, uint16_t *block, uint64_t behind, size_t open, uint64_t next, int reading) {
  const uint32_t density = *block & DENSITY;
  const unsigned context = walk->left_block * 2u + ((*block & ABOVE) != 0);
  int any = 1;
  if (open <= walk->size - behind) any = mw_code(&s->coder, &s->model.any[class_of(density)][context], next < behind, reading);
  *block = (uint16_t)(moved(density, any, BLOCK_SHIFT) | (any ? ABOVE : 0));
  walk->left_block = (uint32_t)any;
  return any;
}

/* Walk on, row by row, for n entries. Flags that can only have one value are not coded: what reads without an error is exactly
   what a writer writes. index and value are written only when reading. The walk stops right behind an entry. */
static inline mw_status walk_on(mw_stream *s, mw_walk *walk, uint32_t *index, int32_t *value, const size_t n, const int reading) {
  const uint32_t columns = walk->columns;
  const uint64_t size = walk->size;
  uint16_t *column = walk->scratch, *block = walk->scratch + columns;
  size_t k = 0;
  while (k < n) {
    const size_t open = walk->count - walk->done; /* entries not coded when this block goes on */
    const size_t k0 = k;
    const uint32_t first = walk->block * MW_BLOCK, last = columns - first < MW_BLOCK ? columns : first + MW_BLOCK;
    const uint64_t start = walk->start;
    if (!walk->inside) {
      const uint64_t next = reading ? 0 : index[k];
      const int above_block = (block[walk->block] & ABOVE) != 0;
      if (code_any(s, walk, &block[walk->block], start + last, open, next, reading)) {
        walk->inside = 1;
        walk->next = first;
        walk->some = walk->left = walk->left2 = 0;
      } else if (above_block) {
        for (uint32_t i = first; i < last; i++) column[i] &= (uint16_t)~ABOVE;
      }
    }
    if (walk->inside) {
      uint32_t i = walk->next;
      for (; i < last && k < n; i++) {
        const uint32_t column_density = column[i] & DENSITY;
        const int above = (column[i] & ABOVE) != 0;
        unsigned column_sign = column[i] >> SIGN_SHIFT;
        unsigned nonzero = 1;
        if (open - (k - k0) < size - start - i && (walk->some || i != last - 1))
          nonzero = (unsigned)mw_code(&s->coder,
                                      &s->model.nonzero[class_of(column_density)][class_of(walk->row_density)][above * 4 + walk->left * 2 + walk->left2],
                                      !reading && index[k] == start + i, reading);
        if (nonzero) {
          if (reading) index[k] = (uint32_t)(start + i);
          int32_t v = code_value(s, reading ? 0 : value[k], &s->model.sign[walk->row_sign * 3 + column_sign], reading);
          if (reading) value[k] = v;
          walk->row_sign = column_sign = v < 0 ? 2 : 1;
          walk->some = 1;
          k++;
        }
        walk->row_density = moved(walk->row_density, (int)nonzero, ROW_SHIFT);
        column[i] = (uint16_t)(moved(column_density, (int)nonzero, COLUMN_SHIFT) | (nonzero ? ABOVE : 0) | column_sign << SIGN_SHIFT);
        walk->left2 = walk->left;
        walk->left = nonzero;
        if (s->coder.status) return s->coder.status;
      }
      walk->next = i;
      walk->inside = i < last;
      walk->done += k - k0;
    }
    if (!walk->inside && ++walk->block == walk->blocks) {
      walk->block = 0;
      walk->left_block = 0;
      walk->start += columns;
      if (s->coder.status) return s->coder.status;
    }
  }
  return s->coder.status;
}

mw_status mw_check_shape(uint32_t rows, uint32_t columns, size_t count, size_t scratch_length) {
  const uint64_t size = (uint64_t)rows * columns;
  if (size > UINT32_MAX || count > size) return MW_SHAPE;
  return scratch_length < mw_scratch(columns) ? MW_NO_ROOM : MW_OK;
}

void mw_encode_begin(mw_stream *s, uint8_t *out, size_t capacity) {
  mw_coder_write(&s->coder, out, capacity);
  begin(&s->model);
}

mw_status mw_encode_some(mw_stream *s, mw_walk *walk, const uint32_t *index, const int32_t *value, size_t n) {
  if (s->coder.status) return s->coder.status;
  if (n > walk->count - walk->done) return MW_SHAPE;
  return walk_on(s, walk, (uint32_t *)index, (int32_t *)value, n, 0);
}

mw_status mw_encode_section(mw_stream *s, uint32_t rows, uint32_t columns, const uint32_t *index, const int32_t *value, size_t count,
                            uint16_t *scratch, size_t scratch_length, size_t *at) {
  mw_walk walk;
  mw_status status = mw_check_shape(rows, columns, count, scratch_length);
  *at = 0;
  for (size_t k = 0; !status && k < count; k++) status = mw_check_entry(index, value, k, (size_t)rows * columns, at);
  if (status) return status;
  mw_walk_begin(&walk, rows, columns, count, scratch);
  return mw_encode_some(s, &walk, index, value, count);
}

mw_status mw_encode_end(mw_stream *s, size_t *length) { return mw_coder_finish(&s->coder, length); }

void mw_decode_begin(mw_stream *s, const uint8_t *in, size_t length) {
  mw_coder_read(&s->coder, in, length);
  begin(&s->model);
}

mw_status mw_decode_some(mw_stream *s, mw_walk *walk, uint32_t *index, int32_t *value, size_t room, size_t *got) {
  const size_t before = walk->done;
  *got = 0;
  if (s->coder.status) return s->coder.status;
  mw_status status = walk_on(s, walk, index, value, room < walk->count - before ? room : walk->count - before, 1);
  if (!status) *got = walk->done - before;
  return status;
}

mw_status mw_decode_section(mw_stream *s, uint32_t rows, uint32_t columns, uint32_t *index, int32_t *value, size_t count,
                            uint16_t *scratch, size_t scratch_length) {
  mw_walk walk;
  size_t got;
  mw_status status = mw_check_shape(rows, columns, count, scratch_length);
  if (status) return status;
  mw_walk_begin(&walk, rows, columns, count, scratch);
  return mw_decode_some(s, &walk, index, value, count, &got);
}

mw_status mw_decode_end(const mw_stream *s) { return mw_coder_end(&s->coder); }
