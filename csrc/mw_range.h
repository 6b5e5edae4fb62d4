/* The binary range coder: bits with adaptive probabilities, and raw bits, to bytes and back. Integers only.
 *
 * Carry range coder with a 32-bit range. The stream is one number V in [low, low + range), written without trailing zero bytes
 * where the reader can add them; see docs/wire-format.md, "Range coder". One coder serves both directions: mw_code takes the
 * bit to write, or ignores it and returns the bit read. */
#ifndef MW_RANGE_H
#define MW_RANGE_H

#include "mw.h"

#define MW_RANGE_TOP (1u << 24)
#define MW_VIRTUAL_BYTES 4 /* zeros that a reader may add past the end */

/* The probability of a 0, out of 2^16, as the mean of a fast and a slow estimate. The first updates move by large parts: a stream of
   one update is so short that learning fast saves a tenth of its bytes. */
typedef struct mw_bit {
  uint16_t fast, slow;
  uint16_t seen; /* updates so far, up to MW_SEEN_MAX */
} mw_bit;

#define MW_FAST_SHIFT 5
#define MW_SLOW_SHIFT 8
#define MW_SEEN_MAX ((1 << MW_SLOW_SHIFT) - 3) /* from here on the slow estimate moves by 1/256 */

typedef struct mw_coder {
  uint64_t low;     /* writing: the 32-bit window, and the carry above it */
  uint32_t range;
  uint32_t code;    /* reading: V - low within the window */
  uint64_t pending; /* writing: bytes held back because a carry may still change them */
  uint8_t held;     /* writing: the first of them; the rest are 0xff */
  size_t shifts;    /* writing: bytes moved out of the window so far */
  uint8_t *out;
  const uint8_t *in;
  size_t capacity;  /* of out, or length of in */
  size_t used;      /* bytes written, or read with the virtual ones */
  mw_status status; /* the first failure; later calls go on harmlessly */
} mw_coder;

static inline void mw_coder_fail(mw_coder *c, mw_status status) {
  if (!c->status) c->status = status;
}

static inline void mw_coder_write(mw_coder *c, uint8_t *out, size_t capacity) {
  *c = (mw_coder){.range = 0xffffffffu, .pending = 1, .out = out, .capacity = capacity};
}

static inline uint32_t mw_next_byte(mw_coder *c) {
  uint32_t byte = 0;
  if (c->used < c->capacity)
    byte = c->in[c->used];
  else if (c->used >= c->capacity + MW_VIRTUAL_BYTES)
    mw_coder_fail(c, MW_STREAM_SHORT);
  c->used++;
  return byte;
}

static inline void mw_coder_read(mw_coder *c, const uint8_t *in, size_t length) {
  *c = (mw_coder){.range = 0xffffffffu, .in = in, .capacity = length};
  for (int i = 0; i < 4; i++) c->code = c->code << 8 | mw_next_byte(c);
  if (c->code == c->range) mw_coder_fail(c, MW_STREAM_DAMAGED);
}

static inline void mw_put_byte(mw_coder *c, uint8_t byte) {
  if (c->used < c->capacity)
    c->out[c->used++] = byte;
  else
    mw_coder_fail(c, MW_NO_ROOM);
}

/* Move the window one byte on. A byte below 0xff, or a carry, settles the bytes held back. The first byte held is the zero in
   front of the window, which no carry reaches: it is not written. */
static inline void mw_shift_out(mw_coder *c) {
  uint8_t carry = (uint8_t)(c->low >> 32);
  if (carry || (uint32_t)c->low < 0xff000000u) {
    if (c->shifts >= c->pending) mw_put_byte(c, (uint8_t)(c->held + carry));
    while (--c->pending) mw_put_byte(c, (uint8_t)(0xff + carry));
    c->held = (uint8_t)(c->low >> 24);
  }
  c->pending++;
  c->shifts++;
  c->low = (c->low & 0x00ffffffu) << 8;
}

static inline void mw_normalise(mw_coder *c, int reading) {
  while (c->range < MW_RANGE_TOP) {
    c->range <<= 8;
    if (reading)
      c->code = c->code << 8 | mw_next_byte(c);
    else
      mw_shift_out(c);
  }
}

/* floor(log2(seen + 3)): 1/2, 1/4 (from the second on), 1/8 (from the sixth), ... */
static inline int mw_shift(unsigned seen) {
  int shift = 1;
  for (unsigned x = (seen + 3) >> 2; x; x >>= 1) shift++;
  return shift;
}

static inline void mw_adapt(mw_bit *p, int bit) {
  int slow = MW_SLOW_SHIFT;
  if (p->seen < MW_SEEN_MAX) slow = mw_shift(p->seen++);
  int fast = slow < MW_FAST_SHIFT ? slow : MW_FAST_SHIFT;
  if (bit) {
    p->fast = (uint16_t)(p->fast - (p->fast >> fast));
    p->slow = (uint16_t)(p->slow - (p->slow >> slow));
  } else {
    p->fast = (uint16_t)(p->fast + ((0x10000u - p->fast) >> fast));
    p->slow = (uint16_t)(p->slow + ((0x10000u - p->slow) >> slow));
  }
}

static inline int mw_code(mw_coder *c, mw_bit *p, int bit, int reading) {
  uint32_t bound = (c->range >> 16) * (((uint32_t)p->fast + p->slow) >> 1);
  if (reading) bit = c->code >= bound;
  if (bit) {
    if (reading)
      c->code -= bound;
    else
      c->low += bound;
    c->range -= bound;
  } else {
    c->range = bound;
  }
  mw_adapt(p, bit);
  mw_normalise(c, reading);
  return bit;
}

/* count raw bits, the highest first. */
static inline uint32_t mw_code_raw(mw_coder *c, uint32_t bits, int count, int reading) {
  uint32_t got = 0;
  while (count--) {
    int bit = (int)(bits >> count & 1);
    c->range >>= 1;
    if (reading) {
      bit = c->code >= c->range;
      if (bit) c->code -= c->range;
      /* Halving an odd range leaves its last value unused: no encoder writes it. */
      if (c->code >= c->range) mw_coder_fail(c, MW_STREAM_DAMAGED);
    } else if (bit) {
      c->low += c->range;
    }
    got = got << 1 | (uint32_t)bit;
    mw_normalise(c, reading);
  }
  return got;
}

/* The number of [low, low + range) with the most trailing zero bytes, the smallest such. */
static inline uint64_t mw_roundest(uint32_t low, uint32_t range) {
  for (int zeros = 32; zeros > 0; zeros -= 8) {
    uint64_t mask = ((uint64_t)1 << zeros) - 1;
    uint64_t v = (low + mask) & ~mask;
    if (v - low < range) return v;
  }
  return low;
}

/* Write out V; gives the length, or the first failure. */
static inline mw_status mw_coder_finish(mw_coder *c, size_t *length) {
  size_t settled = c->shifts;
  c->low = (c->low & ~(uint64_t)0xffffffffu) + mw_roundest((uint32_t)c->low, c->range);
  for (int i = 0; i < 5; i++) mw_shift_out(c);
  if (c->status) return c->status;
  while (c->used > settled && !c->out[c->used - 1]) c->used--;
  *length = c->used;
  return MW_OK;
}

/* MW_OK when the bytes read are exactly what an encoder writes for what was read. */
static inline mw_status mw_coder_end(const mw_coder *c) {
  if (c->status) return c->status;
  if (c->used < c->capacity) return MW_STREAM_LONG;
  size_t settled = c->used - 4;
  if (c->capacity > settled && !c->in[c->capacity - 1]) return MW_STREAM_LONG;
  uint32_t window = 0;
  for (size_t i = settled; i < c->used; i++) window = window << 8 | (i < c->capacity ? c->in[i] : 0);
  uint32_t low = window - c->code;
  return mw_roundest(low, c->range) - low == c->code ? MW_OK : MW_STREAM_DAMAGED;
}

#endif
