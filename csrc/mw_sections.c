/* The model of a section: which entries are not zero, their signs and magnitudes. One walk serves writer and reader. */
#include "mw_sections.h"

#include "mw_bits.h"

/* State of a column or block, 16 bits: density out of 4096 in the low 12, was it non-zero in the row above; then the last sign of a
   column. When a block was all zero in the row above, its columns' ABOVE are of an older row, and not looked at. */
#define DENSITY 0x0fff
#define ABOVE 0x1000
#define ABOVE_SHIFT 12
#define SIGN_SHIFT 13
#define PLUS 0x2000 /* twice that is minus */
#define SIGN 0x6000

#define DENSITY_START 200
#define BLOCK_DENSITY_START 800
#define DENSITY_SHIFT 4 /* of columns and blocks */
#define ROW_SHIFT 5

/* Classes of density are 2.5 times as wide as the one before; LEAST is where each begins, TYPICAL its geometric mean. */
static const uint16_t LEAST[MW_CLASSES + 1] = {0, 52, 131, 328, 819, 2048, 4096};
static const uint16_t TYPICAL[MW_CLASSES] = {30, 83, 207, 518, 1295, 2896};
#define EXPECTED_SEEN 6 /* how much a probability that starts at the class's density is believed */

#define TIMES_8(k) k, k, k, k, k, k, k, k
#define TIMES_64(k) TIMES_8(k), TIMES_8(k), TIMES_8(k), TIMES_8(k), TIMES_8(k), TIMES_8(k), TIMES_8(k), TIMES_8(k)
const uint8_t mw_shift_after[MW_SEEN_MAX + 1] = {
    1,          2,          2,          2,          2,           TIMES_8(3),  TIMES_8(4),  TIMES_8(4), TIMES_8(5),
    TIMES_8(5), TIMES_8(5), TIMES_8(5), TIMES_64(6), TIMES_64(7), TIMES_64(7), 8,
};

/* A sum of comparisons: there is no branch to guess. */
MW_INLINE uint32_t class_of(uint32_t density) {
  uint32_t class = 0;
  for (int c = 1; c < MW_CLASSES; c++) class += density >= LEAST[c];
  return class;
}

/* A flag that is 1 with the probability ones / 4096. */
static mw_bit expect(unsigned ones) { return mw_bit_at((uint16_t)(ones << 4), EXPECTED_SEEN); }

static void begin(mw_model *m) {
  const mw_bit unknown = mw_bit_at(0x8000, 0);
  mw_bit *p = (mw_bit *)m;
  for (size_t i = 0; i < sizeof *m / sizeof *p; i++) p[i] = unknown;
  for (unsigned c = 0; c < MW_CLASSES; c++) {
    for (unsigned i = 0; i < 4; i++) m->any[c * 4 + i] = expect(TYPICAL[c]);
    for (unsigned r = 0; r < MW_CLASSES; r++)
      for (unsigned i = 0; i < 8; i++) m->nonzero[(c * MW_CLASSES + r) * 8 + i] = expect((TYPICAL[c] + TYPICAL[r]) / 2u);
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

/* The states of a block's columns do not change within their row, nor do those of its blocks: the part of a flag's context that
   comes from them is computed ahead for 32 of them, and what they learn is written behind for all. Both go by eights, in the
   vectors of the compiler's own (where the processor has none they are taken apart); what is beyond n in the last eight is written
   but of no use. A comparison gives -1 for true. */
#define EIGHT 8
typedef int16_t eight __attribute__((vector_size(16)));

MW_INLINE eight eight_at(const uint16_t *from) {
  eight x;
  memcpy(&x, from, sizeof x);
  return x;
}

MW_INLINE void look_up(const uint16_t *state, const uint32_t n, const int16_t above, const int16_t each_class, const int above_shift,
                       uint16_t *context) {
  for (uint32_t i = 0; i < n; i += EIGHT) {
    const eight s = eight_at(state + i), density = s & DENSITY;
    eight class = {0};
    for (int c = 1; c < MW_CLASSES; c++) class -= density >= (int16_t)LEAST[c];
    const eight found = class * each_class + ((s & above) >> above_shift);
    memcpy(context + i, &found, sizeof found);
  }
}

/* nonzero, minus: a bit a state. */
MW_INLINE void learn(uint16_t *state, const uint32_t n, uint32_t nonzero, uint32_t minus) {
  const eight place = {1, 2, 4, 8, 16, 32, 64, 128};
  for (uint32_t i = 0; i < n; i += EIGHT, nonzero >>= EIGHT, minus >>= EIGHT) {
    const eight s = eight_at(state + i), density = s & DENSITY;
    const eight hit = (place & (int16_t)(nonzero & 0xff)) == place, negative = (place & (int16_t)(minus & 0xff)) == place;
    const eight up = density + ((4095 - density) >> DENSITY_SHIFT) + (ABOVE | PLUS) + (negative & PLUS);
    const eight down = density - (density >> DENSITY_SHIFT) + (s & SIGN);
    const eight next = (hit & up) | (~hit & down);
    memcpy(state + i, &next, sizeof next);
  }
}

/* How many bits are set. */
MW_INLINE uint32_t ones_of(uint32_t x) {
  x -= x >> 1 & 0x55555555u;
  x = (x & 0x33333333u) + (x >> 2 & 0x33333333u);
  return ((x + (x >> 4)) & 0x0f0f0f0fu) * 0x01010101u >> 24;
}

MW_INLINE uint32_t least_of(uint64_t a, uint32_t b) { return a < b ? (uint32_t)a : b; }

/* Entries of one block from where the walk stands, until the block's end or until n entries were coded in all; returns how many
   those are now. forced: the zeros left in the section may end in this block. */
MW_INLINE size_t code_block(mw_coder *coder, mw_model *m, mw_walk *walk, const uint16_t *column, const uint32_t width, uint32_t *index,
                            int32_t *value, size_t k, const size_t n, const int forced, const int reading) {
  mw_coder c = *coder;
  const uint32_t at = walk->at;
  uint32_t density = walk->row_density, class = class_of(density), row_sign = walk->row_sign;
  uint32_t nonzero = walk->nonzero, minus = walk->minus, i = walk->next;
  uint64_t zeros = forced ? walk->zeros - (i - ones_of(nonzero)) : 0;
  uint16_t context[MW_BLOCK + 2];
  look_up(column, width, walk->above ? ABOVE : 0, MW_CLASSES * 8, ABOVE_SHIFT - 2, context);
  context[width] = context[width + 1] = 0; /* what is added behind the last entry has to land somewhere */
  if (i && nonzero >> (i - 1) & 1) context[i] += 2, context[i + 1] += 1;
  if (i > 1 && nonzero >> (i - 2) & 1) context[i] += 1;
  for (;;) {
    /* The last entry must be the one, when all before it were zero: it has no flag. */
    const uint32_t flagged = nonzero ? width : width - 1;
    uint32_t stop = flagged;
    if (!reading) {
      if (k == n) break;
      if (index[k] - at < width) stop = index[k] - at;
    }
    for (; i < stop; i++) {
      if (forced && !zeros) break;
      if (mw_code_rare(&c, &m->nonzero[context[i] + class * 8], 0, reading)) break;
      density -= density >> ROW_SHIFT;
      class -= density < LEAST[class];
      if (forced) zeros--;
    }
    if (i == width) break;
    if (!reading && i < flagged && !(forced && !zeros)) mw_code_rare(&c, &m->nonzero[context[i] + class * 8], 1, 0);
    if (reading) index[k] = at + i;
    const int32_t v = code_value(&c, m, reading ? 0 : value[k], &m->sign[row_sign * 3 + (column[i] >> SIGN_SHIFT)], reading);
    if (reading) value[k] = v;
    nonzero |= 1u << i;
    minus |= (uint32_t)(v < 0) << i;
    row_sign = v < 0 ? 2 : 1;
    density += (4095 - density) >> ROW_SHIFT;
    class = class_of(density);
    i++;
    k++;
    context[i] += 2, context[i + 1] += 1;
    if (reading && k == n) break;
    if (i == width) break;
  }
  *coder = c;
  walk->row_density = density, walk->row_sign = row_sign;
  walk->nonzero = nonzero, walk->minus = minus, walk->next = i;
  return k;
}

/* The flags of up to 32 blocks, from where the walk stands until one is 1 or all are passed; returns whether one is. */
MW_INLINE uint32_t code_flags(mw_coder *coder, mw_model *m, mw_walk *walk, const uint32_t n, const uint32_t next, const int reading) {
  mw_coder c = *coder;
  const uint32_t from = walk->flag, columns = walk->columns - (walk->chunk + from) * MW_BLOCK;
  const uint16_t *context = walk->context;
  uint32_t j = from, stop = n;
  /* A block that is longer than the zeros left must have an entry: it has no flag. */
  if (walk->zeros < columns) {
    stop = least_of(from + walk->zeros / MW_BLOCK, n);
    if (stop < n && walk->zeros % MW_BLOCK >= columns - (stop - from) * MW_BLOCK) stop++;
  }
  const uint32_t ahead = next - walk->at, block = ahead < columns ? least_of(from + ahead / MW_BLOCK, n) : n;
  for (; j < stop && (reading || j < block); j++)
    if (mw_code_rare(&c, &m->any[context[j]], 0, reading)) break;
  if (!reading && j < stop) mw_code_rare(&c, &m->any[context[j]], 1, 0);
  *coder = c;
  const uint32_t passed = least_of((uint64_t)(j - from) * MW_BLOCK, columns);
  walk->zeros -= passed;
  walk->at += passed;
  walk->flag = j;
  if (j == n) return 0;
  walk->some |= 1u << j;
  walk->above = context[j] & 1;
  walk->context[j + 1] += 2;
  return 1;
}

void mw_walk_begin(mw_walk *walk, uint32_t rows, uint32_t columns, size_t count, uint16_t *scratch) {
  const uint32_t blocks = columns / MW_BLOCK + (columns % MW_BLOCK != 0);
  *walk = (mw_walk){.scratch = scratch, .left = count, .columns = columns, .blocks = blocks, .row_density = DENSITY_START};
  walk->zeros = (uint64_t)rows * columns - count;
  if (!count) return;
  const size_t states = MW_WHOLE(columns);
  for (size_t i = 0; i < states; i++) scratch[i] = DENSITY_START;
  for (size_t i = states; i < mw_scratch(columns); i++) scratch[i] = BLOCK_DENSITY_START;
}

/* Walk on, row by row, 32 blocks by 32 blocks, for n entries. Flags that can only have one value are not coded: what reads without an
   error is exactly what a writer writes. index and value are written only when reading. The walk stops right behind an entry. */
MW_INLINE mw_status walk_on(mw_stream *s, mw_walk *walk, uint32_t *index, int32_t *value, const size_t n, const int reading) {
  if (!n) return s->coder.status;
  uint16_t *columns = walk->scratch, *blocks = columns + MW_WHOLE(walk->columns);
  mw_coder c = s->coder;
  mw_model *m = &s->model;
  size_t k = 0;
  while (k < n) {
    const uint32_t flags = least_of(walk->blocks - walk->chunk, MW_BLOCK);
    if (!walk->begun) {
      look_up(blocks + walk->chunk, flags, ABOVE, 4, ABOVE_SHIFT, walk->context);
      walk->context[0] = (uint16_t)(walk->context[0] + (walk->some >> 31) * 2 * (walk->chunk > 0));
      walk->begun = 1;
      walk->flag = walk->some = 0;
    }
    while (k < n && walk->flag < flags) {
      if (!walk->inside) {
        if (!code_flags(&c, m, walk, flags, reading ? 0 : index[k], reading)) break;
        walk->inside = 1;
        walk->next = walk->nonzero = walk->minus = 0;
      }
      const uint32_t first = (walk->chunk + walk->flag) * MW_BLOCK, width = least_of(walk->columns - first, MW_BLOCK);
      if (walk->zeros >= width)
        k = code_block(&c, m, walk, columns + first, width, index, value, k, n, 0, reading);
      else
        k = code_block(&c, m, walk, columns + first, width, index, value, k, n, 1, reading);
      if (reading) mw_coder_overrun(&c);
      if (walk->next < width) break;
      walk->inside = 0;
      walk->zeros -= width - ones_of(walk->nonzero);
      walk->at += width;
      walk->flag++;
      learn(columns + first, width, walk->nonzero, walk->minus);
      if (c.status) break;
    }
    if (walk->flag < flags) break;
    learn(blocks + walk->chunk, flags, walk->some, 0);
    walk->begun = 0;
    walk->chunk += flags;
    if (walk->chunk == walk->blocks) walk->chunk = 0;
    if (reading) mw_coder_overrun(&c);
    if (c.status) break;
  }
  s->coder = c;
  walk->left -= k;
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
