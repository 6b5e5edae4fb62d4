/* The model of a section: which entries are not zero, their signs and magnitudes. One walk serves writer and reader. */
#include "mw_sections.h"

#include "mw_bits.h"

/* State of a column or block, 16 bits: density out of 4096 in the low 12, was it non-zero in the row above, last sign. */
#define DENSITY 0x0fffu
#define ABOVE 0x1000u
#define SIGN_SHIFT 13
#define SIGN (3u << SIGN_SHIFT)

#define DENSITY_START 200
#define BLOCK_DENSITY_START 800
#define COLUMN_SHIFT 4
#define ROW_SHIFT 5
#define BLOCK_SHIFT 4

/* Classes of density are 2.5 times as wide as the one before; LEAST is where each begins, TYPICAL its geometric mean. */
static const uint16_t LEAST[MW_CLASSES + 1] = {0, 52, 131, 328, 819, 2048, 4096};
static const uint16_t TYPICAL[MW_CLASSES] = {30, 83, 207, 518, 1295, 2896};
#define EXPECTED_SEEN 6 /* how much a probability that starts at the class's density is believed */

#define EIGHT(k) k, k, k, k, k, k, k, k
#define SIXTY_FOUR(k) EIGHT(k), EIGHT(k), EIGHT(k), EIGHT(k), EIGHT(k), EIGHT(k), EIGHT(k), EIGHT(k)
const uint8_t mw_shift_of[MW_SEEN_MAX + 1] = {
    1, 2, 2, 2, 2, EIGHT(3), EIGHT(4), EIGHT(4), EIGHT(5), EIGHT(5), EIGHT(5), EIGHT(5), SIXTY_FOUR(6), SIXTY_FOUR(7), SIXTY_FOUR(7), 8};

/* Sums of comparisons: no branch to guess, and a vector's work for the columns of a block. */
MW_INLINE uint32_t class_of(uint32_t density) {
  uint32_t class = 0;
  for (int c = 1; c < MW_CLASSES; c++) class += density >= LEAST[c];
  return class;
}

MW_INLINE uint32_t moved(uint32_t density, int bit, int shift) {
  return bit ? density + ((4095 - density) >> shift) : density - (density >> shift);
}

/* A flag that is 1 with the probability ones / 4096. */
static mw_bit expect(unsigned ones) {
  uint16_t one = (uint16_t)(ones << 4);
  return (mw_bit){one, one, EXPECTED_SEEN, 0};
}

static void begin(mw_model *m) {
  mw_bit *p = (mw_bit *)m;
  for (size_t i = 0; i < sizeof *m / sizeof *p; i++) p[i] = (mw_bit){0x8000, 0x8000, 0, 0};
  for (unsigned c = 0; c < MW_CLASSES; c++) {
    for (unsigned i = 0; i < 4; i++) m->any[c][i] = expect(TYPICAL[c]);
    for (unsigned r = 0; r < MW_CLASSES; r++)
      for (unsigned i = 0; i < 8; i++) m->nonzero[c][r][i] = expect((TYPICAL[c] + TYPICAL[r]) / 2u);
  }
}

/* A number >= 1 as Exp-Golomb: its length in bits, then the bits below the first. Reading gives less than 2^31. */
MW_INLINE uint32_t code_golomb(mw_coder *c, mw_model *m, uint32_t number, const int reading) {
  uint32_t length = 0;
  while (length < MW_LENGTHS - 1 && mw_code_rare(c, &m->length[length], !reading && number >> (length + 1), reading)) length++;
  uint32_t got = 1, below = length;
  for (; below > 0 && length - below < MW_TREE; below--)
    got = got << 1 | mw_code_even(c, &m->digit[length][got], number >> (below - 1) & 1, reading);
  return got << below | mw_code_raw(c, number, below, reading);
}

/* Sign and magnitude of a value that is not zero; returns it. */
MW_INLINE int32_t code_value(mw_coder *c, mw_model *m, int32_t value, mw_bit *sign, const int reading) {
  const uint32_t negative = mw_code_even(c, sign, value < 0, reading);
  uint32_t magnitude = value < 0 ? 0u - (uint32_t)value : (uint32_t)value; /* 1 .. 2^31 */
  uint32_t counted = 1;
  while (counted <= MW_ESCAPE && mw_code_rare(c, &m->more[counted - 1], magnitude > counted, reading)) counted++;
  if (counted > MW_ESCAPE) counted = MW_ESCAPE + code_golomb(c, m, magnitude - MW_ESCAPE, reading);
  if (!reading) return value;
  if (counted > (uint32_t)INT32_MAX + negative) {
    mw_coder_overrun(c);
    mw_coder_fail(c, MW_STREAM_DAMAGED);
  }
  return negative ? -(int32_t)((counted - 1) & INT32_MAX) - 1 : (int32_t)(counted & INT32_MAX);
}

/* The columns of a block do not change within their row: the part of each flag's context that comes from them is computed ahead
   for all of them, and what they learn is written behind for all of them. With a constant width both become vector code. */
MW_INLINE void look_up(const uint16_t *column, const uint32_t width, uint16_t *context) {
  for (uint32_t i = 0; i < width; i++) {
    const uint16_t state = column[i];
    const int16_t density = (int16_t)(state & DENSITY);
    int16_t class = 0;
    for (int c = 1; c < MW_CLASSES; c++) class = (int16_t)(class + (density >= (int16_t)LEAST[c]));
    context[i] = (uint16_t)(class * (MW_CLASSES * 8) + ((state & ABOVE) >> 10));
  }
}

static const uint16_t PLACE[16] = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768};

/* nonzero, minus: a bit a column. */
MW_INLINE void learn(uint16_t *column, const uint32_t width, uint32_t nonzero, uint32_t minus) {
  const uint16_t some = (uint16_t)nonzero, negative = (uint16_t)minus;
  for (uint32_t i = 0; i < width; i++) {
    const uint16_t state = column[i], density = state & DENSITY;
    const uint16_t hit = (some & PLACE[i]) ? 0xffff : 0, below = (negative & PLACE[i]) ? 0xffff : 0;
    const uint16_t up = (uint16_t)(density + ((uint16_t)(4095 - density) >> COLUMN_SHIFT));
    const uint16_t down = (uint16_t)(density - (density >> COLUMN_SHIFT));
    const uint16_t sign = (uint16_t)((1u << SIGN_SHIFT) + (below & (1u << SIGN_SHIFT)));
    column[i] = (uint16_t)((hit & (up | ABOVE | sign)) | (uint16_t)(~hit & (down | (state & SIGN))));
  }
}

/* The row so far, as the flags of its entries see it. */
typedef struct row_state {
  uint32_t density, class, sign;
  uint32_t left; /* 2: the entry before was not zero, 1: the one before that */
} row_state;

MW_INLINE void pass_zero(row_state *row) {
  row->left >>= 1;
  row->density -= row->density >> ROW_SHIFT;
  row->class -= row->density < LEAST[row->class];
}

MW_INLINE void pass_value(row_state *row, int32_t value) {
  row->left = row->left >> 1 | 2;
  row->density += (4095 - row->density) >> ROW_SHIFT;
  row->class = class_of(row->density);
  row->sign = value < 0 ? 2 : 1;
}

/* What is known of a block while it is walked; kept in the walk when it stops inside. */
typedef struct part {
  uint32_t next;           /* column of the block that comes next */
  uint32_t nonzero, minus; /* a bit a column, of those passed */
} part;

/* Entries of one block from where it stands, until its end or until n entries were coded in all; returns how many those are now.
   forced: the zeros left in the section may end in this block; zeros: how many are left. */
MW_INLINE size_t code_block(mw_coder *coder, mw_model *m, row_state *row_, part *part_, const uint16_t *column, const uint32_t width, const uint32_t at,
                            uint64_t zeros, uint32_t *index, int32_t *value, size_t k, const size_t n, const int forced, const int reading) {
  mw_bit *flags = &m->nonzero[0][0][0];
  mw_coder c = *coder;
  row_state row = *row_;
  part p = *part_;
  uint16_t context[MW_BLOCK];
  if (width == MW_BLOCK)
    look_up(column, MW_BLOCK, context);
  else
    look_up(column, width, context);
  uint32_t i = p.next;
  for (;;) {
    /* The last entry must be the one, when all before it were zero: it has no flag. */
    const uint32_t flagged = p.nonzero ? width : width - 1;
    if (reading) {
      uint32_t bit = 1;
      for (; i < flagged; i++) {
        if (forced && !zeros) break;
        bit = mw_code_rare(&c, &flags[context[i] + row.class * 8 + row.left], 0, 1);
        if (!MW_LIKELY(!bit)) break;
        pass_zero(&row);
        if (forced) zeros--;
      }
      if (i == width) break;
      index[k] = at + i;
    } else {
      if (k == n) break;
      const uint32_t stop = index[k] - at < width ? index[k] - at : width;
      for (; i < stop; i++) {
        mw_code_rare(&c, &flags[context[i] + row.class * 8 + row.left], 0, 0);
        pass_zero(&row);
        if (forced) zeros--;
      }
      if (i == width) break;
      if (i < flagged && !(forced && !zeros)) mw_code_rare(&c, &flags[context[i] + row.class * 8 + row.left], 1, 0);
    }
    mw_bit *sign = &m->sign[row.sign * 3 + (column[i] >> SIGN_SHIFT)];
    const int32_t v = code_value(&c, m, reading ? 0 : value[k], sign, reading);
    if (reading) value[k] = v;
    pass_value(&row, v);
    p.nonzero |= 1u << i;
    p.minus |= (uint32_t)(v < 0) << i;
    i++;
    k++;
    if (reading && k == n) break;
  }
  p.next = i;
  *coder = c, *row_ = row, *part_ = p;
  return k;
}

MW_INLINE uint32_t ones_of(uint32_t x) {
  x -= x >> 1 & 0x55555555u;
  x = (x & 0x33333333u) + (x >> 2 & 0x33333333u);
  return ((x + (x >> 4)) & 0x0f0f0f0fu) * 0x01010101u >> 24;
}

MW_INLINE void learn_block(uint16_t *column, uint32_t width, const part *p) {
  if (width == MW_BLOCK) {
    learn(column, 16, p->nonzero, p->minus);
    learn(column + 16, 16, p->nonzero >> 16, p->minus >> 16);
  } else {
    learn(column, width < 16 ? width : 16, p->nonzero, p->minus);
    if (width > 16) learn(column + 16, width - 16, p->nonzero >> 16, p->minus >> 16);
  }
}

void mw_walk_begin(mw_walk *walk, uint32_t rows, uint32_t columns, size_t count, uint16_t *scratch) {
  const uint32_t blocks = columns / MW_BLOCK + (columns % MW_BLOCK != 0);
  *walk = (mw_walk){.left = count, .zeros = (uint64_t)rows * columns - count, .columns = columns, .row_density = DENSITY_START, .scratch = scratch};
  if (!count) return;
  for (uint32_t i = 0; i < columns; i++) scratch[i] = DENSITY_START;
  for (uint32_t i = 0; i < blocks; i++) scratch[columns + i] = BLOCK_DENSITY_START;
}

/* Walk on, row by row and block by block, for n entries. Flags that can only have one value are not coded: what reads without an
   error is exactly what a writer writes. index and value are written only when reading. The walk stops right behind an entry. */
MW_INLINE mw_status walk_on(mw_stream *s, mw_walk *walk, uint32_t *index, int32_t *value, const size_t n, const int reading) {
  mw_model *m = &s->model;
  mw_coder c = s->coder;
  const uint32_t columns = walk->columns, blocks = columns / MW_BLOCK + (columns % MW_BLOCK != 0);
  uint16_t *column = walk->scratch, *block = walk->scratch + columns;
  row_state row = {walk->row_density, class_of(walk->row_density), walk->row_sign, walk->left_entries};
  part p = {walk->next, walk->nonzero, walk->minus};
  uint64_t zeros = walk->zeros;
  uint32_t at = walk->at, b = walk->block, left_block = walk->left_block, inside = walk->inside;
  size_t k = 0;
  while (k < n) {
    const uint32_t first = b * MW_BLOCK, width = columns - first < MW_BLOCK ? columns - first : MW_BLOCK;
    if (!inside) {
      const uint32_t state = block[b];
      uint32_t any = 1;
      if (zeros >= width) {
        mw_bit *flag = &m->any[class_of(state & DENSITY)][left_block * 2 + ((state & ABOVE) != 0)];
        any = mw_code_rare(&c, flag, !reading && index[k] - at < width, reading);
      }
      block[b] = (uint16_t)(moved(state & DENSITY, (int)any, BLOCK_SHIFT) | (any ? ABOVE : 0));
      left_block = any;
      if (!any) {
        if (state & ABOVE)
          for (uint32_t i = first; i < first + width; i++) column[i] &= (uint16_t)~ABOVE;
        zeros -= width;
      } else {
        inside = 1;
        row.left = 0;
        p = (part){0, 0, 0};
      }
    }
    if (inside) {
      if (zeros >= width)
        k = code_block(&c, m, &row, &p, column + first, width, at, zeros, index, value, k, n, 0, reading);
      else
        k = code_block(&c, m, &row, &p, column + first, width, at, zeros - (p.next - ones_of(p.nonzero)), index, value, k, n, 1, reading);
      if (p.next < width) break;
      inside = 0;
      zeros -= width - ones_of(p.nonzero);
      learn_block(column + first, width, &p);
      if (c.status) break;
    }
    at += width;
    if (++b == blocks) {
      b = left_block = 0;
      if (reading) mw_coder_overrun(&c);
      if (c.status) break;
    }
  }
  if (reading) mw_coder_overrun(&c);
  s->coder = c;
  walk->left -= k;
  walk->zeros = zeros;
  walk->at = at, walk->block = b, walk->left_block = left_block, walk->inside = inside;
  walk->row_density = row.density, walk->row_sign = row.sign, walk->left_entries = row.left;
  walk->next = p.next, walk->nonzero = p.nonzero, walk->minus = p.minus;
  return c.status;
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
  if (n > walk->left) return MW_SHAPE;
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
  const size_t n = room < walk->left ? room : walk->left;
  *got = 0;
  if (s->coder.status) return s->coder.status;
  mw_status status = walk_on(s, walk, index, value, n, 1);
  if (!status) *got = n;
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
