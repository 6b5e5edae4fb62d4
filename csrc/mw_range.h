/* The binary range coder: bits with adaptive probabilities, and raw bits, to bytes and back. Integers only.
 *
 * Carry range coder with a 32-bit range. The stream is one number V in [low, low + range), written without trailing zero bytes
 * where the reader can add them; see docs/format/coder.md. One coder serves both directions: mw_code takes the bit to write, or
 * ignores it and returns the bit read. `reading` is a constant wherever these are called, and the coder a local copy that lives in
 * registers: no function here may take its address and not be inlined. */
#ifndef MW_RANGE_H
#define MW_RANGE_H

#include <string.h>

#include "mw.h"

#if defined(__GNUC__)
#define MW_INLINE static inline __attribute__((always_inline))
#define MW_APART __attribute__((noinline))
#define MW_LIKELY(x) __builtin_expect(!!(x), 1)
#else
#define MW_INLINE static inline
#define MW_APART
#define MW_LIKELY(x) (x)
#endif

#define MW_RANGE_TOP (1u << 24)
#define MW_VIRTUAL_BYTES 4 /* zeros that a reader may add past the end */

/* The probability of a 1, out of 2^16, as the mean of a fast and a slow estimate. The first updates move by large parts: a stream of
   one update is so short that learning fast saves a tenth of its bytes. (The wire format speaks of the estimates of a 0, which are
   65536 less these: the rounding is the same, and a 0, the usual bit, takes fewer operations.) */
typedef struct mw_bit {
  uint16_t fast, slow;
  uint8_t fast_shift, slow_shift; /* how far the next update moves them */
  uint16_t seen;                  /* updates so far, up to MW_SEEN_MAX */
} mw_bit;

#define MW_FAST_SHIFT 5
#define MW_SLOW_SHIFT 8
#define MW_SEEN_MAX ((1 << MW_SLOW_SHIFT) - 3) /* from here on the slow estimate moves by 1/256 */

typedef struct mw_coder {
  uint64_t low;    /* writing: the 32-bit window; above it the bits settled but for a carry, and the carry */
  uint64_t ahead;  /* reading: bits behind the window, the first highest */
  uint32_t range;
  uint32_t code;   /* reading: V - low within the window */
  uint32_t bits;   /* how many bits are settled in low, or stand in ahead */
  mw_status status; /* the first failure; later calls go on harmlessly */
  uint8_t *out;
  const uint8_t *in;
  size_t capacity; /* of out, or length of in */
  size_t used;     /* bytes written, or taken from in and the zeros behind it */
} mw_coder;

MW_INLINE void mw_coder_fail(mw_coder *c, mw_status status) {
  if (!c->status) c->status = status;
}

MW_INLINE uint64_t mw_big_endian(uint64_t x) {
#if defined(__GNUC__)
  return __builtin_bswap64(x);
#else
  uint64_t y = 0;
  for (int i = 0; i < 8; i++, x >>= 8) y = y << 8 | (x & 0xff);
  return y;
#endif
}

MW_INLINE uint32_t mw_leading_zeros(uint32_t x) { /* x > 0 */
#if defined(__GNUC__)
  return (uint32_t)__builtin_clz(x);
#else
  uint32_t n = 0;
  for (; !(x >> 31); x <<= 1) n++;
  return n;
#endif
}

static inline void mw_coder_write(mw_coder *c, uint8_t *out, size_t capacity) {
  *c = (mw_coder){.range = 0xffffffffu, .out = out, .capacity = capacity};
}

/* Fill up ahead. Past the end of the input there are zeros; whether too many were used is asked by mw_coder_overrun. */
MW_INLINE void mw_look_ahead(mw_coder *c) {
  const uint32_t bytes = (63 - c->bits) >> 3;
  uint64_t more = 0;
  if (MW_LIKELY(c->capacity >= 8 && c->used <= c->capacity - 8)) {
    memcpy(&more, c->in + c->used, sizeof more);
    more = mw_big_endian(more);
  } else {
    for (uint32_t i = 0; i < 8; i++) more = more << 8 | (c->used + i < c->capacity ? c->in[c->used + i] : 0);
  }
  c->ahead |= more >> c->bits;
  c->bits += bytes * 8;
  /* What lies below the last whole byte is seen again with the next: it may stay where it is. */
  c->used += bytes;
}

/* The bytes that were needed so far, with the virtual ones. */
MW_INLINE size_t mw_coder_used(const mw_coder *c) { return c->used - c->bits / 8; }

/* Keep in mind when the stream was too short for what was read from it. */
MW_INLINE void mw_coder_overrun(mw_coder *c) {
  if (mw_coder_used(c) > c->capacity + MW_VIRTUAL_BYTES) mw_coder_fail(c, MW_STREAM_SHORT);
}

static inline void mw_coder_read(mw_coder *c, const uint8_t *in, size_t length) {
  *c = (mw_coder){.range = 0xffffffffu, .in = in, .capacity = length};
  mw_look_ahead(c);
  c->code = (uint32_t)(c->ahead >> 32);
  c->ahead <<= 32;
  c->bits -= 32;
  if (c->code == c->range) mw_coder_fail(c, MW_STREAM_DAMAGED);
}

/* Write the settled bits out, and let a carry run back through the bytes before them. */
MW_INLINE void mw_settle(mw_coder *c) {
  const uint32_t top = (uint32_t)(c->low >> 32), count = c->bits >> 3;
  if (top >> c->bits)
    for (size_t at = c->used; at && !++c->out[--at];) continue;
  if (c->capacity - c->used >= count)
    for (uint32_t i = count; i--;) c->out[c->used++] = (uint8_t)(top >> i * 8);
  else
    mw_coder_fail(c, MW_NO_ROOM);
  c->low &= 0xffffffffu;
  c->bits = 0;
}

/* Move on by whole bytes until the range has its top byte again; a byte or two at a time. */
MW_INLINE void mw_move_on(mw_coder *c, const int reading) {
  const uint32_t by = mw_leading_zeros(c->range) & 24;
  c->range <<= by;
  if (reading) {
    c->code = (uint32_t)(((uint64_t)c->code << 32 | c->ahead >> 32) << by >> 32);
    c->ahead <<= by;
    c->bits -= by;
    if (c->bits < 16) mw_look_ahead(c);
  } else {
    c->low <<= by;
    c->bits += by;
    if (c->bits >= 16) mw_settle(c);
  }
}

/* How far the slow estimate moves after so many updates: floor(log2(seen + 3)). In mw_sections.c. */
extern const uint8_t mw_shift_after[MW_SEEN_MAX + 1];

MW_INLINE void mw_grow(mw_bit *p) {
  if (MW_LIKELY(p->seen == MW_SEEN_MAX)) return;
  p->seen++;
  p->slow_shift = mw_shift_after[p->seen];
  p->fast_shift = p->slow_shift < MW_FAST_SHIFT ? p->slow_shift : MW_FAST_SHIFT;
}

/* A probability of so many ones of 2^16, believed as if seen so often. */
static inline mw_bit mw_bit_at(uint16_t ones, uint32_t seen) {
  mw_bit p = {ones, ones, 1, 1, 0};
  while (p.seen < seen) mw_grow(&p);
  return p;
}

MW_INLINE uint32_t mw_bound(const mw_coder *c, const mw_bit *p) { return (c->range >> 16) * ((0x20000u - p->fast - p->slow) >> 1); }

MW_INLINE void mw_learn(mw_bit *p, const uint32_t bit) {
  const uint32_t f = p->fast, s = p->slow;
  p->fast = (uint16_t)(bit ? f + ((0x10000u - f) >> p->fast_shift) : f - (f >> p->fast_shift));
  p->slow = (uint16_t)(bit ? s + ((0x10000u - s) >> p->slow_shift) : s - (s >> p->slow_shift));
  mw_grow(p);
}

/* A bit that is 0 most of the time: branches, which are guessed, keep the next bit from waiting for this one. */
MW_INLINE uint32_t mw_code_rare(mw_coder *c, mw_bit *p, uint32_t bit, const int reading) {
  const uint32_t bound = mw_bound(c, p);
  if (reading) bit = c->code >= bound;
  if (MW_LIKELY(!bit)) {
    c->range = bound;
    mw_learn(p, 0);
    if (MW_LIKELY(bound >= MW_RANGE_TOP)) return 0;
    mw_move_on(c, reading);
    return 0;
  }
  if (reading)
    c->code -= bound;
  else
    c->low += bound;
  c->range -= bound;
  mw_learn(p, 1);
  /* Counted out magnitudes and lengths are long runs of ones that are all but certain: most of them move nothing on. */
  if (c->range < MW_RANGE_TOP) mw_move_on(c, reading);
  return 1;
}

/* A bit that is as often one as the other: nothing to guess, so no branch. */
MW_INLINE uint32_t mw_code_even(mw_coder *c, mw_bit *p, uint32_t bit, const int reading) {
  const uint32_t bound = mw_bound(c, p);
  if (reading) bit = c->code >= bound;
  const uint32_t ones = 0u - bit, up = bound & ones;
  if (reading)
    c->code -= up;
  else
    c->low += up;
  c->range = (bound & ~ones) | ((c->range - bound) & ones);
  mw_learn(p, bit);
  mw_move_on(c, reading);
  return bit;
}

/* count raw bits, the highest first. */
MW_INLINE uint32_t mw_code_raw(mw_coder *c, uint32_t bits, uint32_t count, const int reading) {
  uint32_t got = 0;
  while (count--) {
    uint32_t bit = bits >> count & 1;
    c->range >>= 1;
    if (reading) bit = c->code >= c->range;
    const uint32_t up = c->range & (0u - bit);
    if (reading) {
      c->code -= up;
      /* Halving an odd range leaves its last value unused: no encoder writes it. */
      if (c->code >= c->range) {
        mw_coder_overrun(c);
        mw_coder_fail(c, MW_STREAM_DAMAGED);
      }
    } else {
      c->low += up;
    }
    got = got << 1 | bit;
    mw_move_on(c, reading);
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
  c->low = (c->low & ~(uint64_t)0xffffffffu) + mw_roundest((uint32_t)c->low, c->range);
  mw_settle(c);
  uint32_t rest = (uint32_t)c->low;
  for (; rest; rest <<= 8)
    if (c->used < c->capacity)
      c->out[c->used++] = (uint8_t)(rest >> 24);
    else
      mw_coder_fail(c, MW_NO_ROOM);
  if (c->status) return c->status;
  *length = c->used;
  return MW_OK;
}

/* MW_OK when the bytes read are exactly what an encoder writes for what was read. */
static inline mw_status mw_coder_end(const mw_coder *c) {
  if (c->status) return c->status;
  const size_t used = mw_coder_used(c);
  if (used > c->capacity + MW_VIRTUAL_BYTES) return MW_STREAM_SHORT;
  if (used < c->capacity) return MW_STREAM_LONG;
  const size_t settled = used - 4;
  if (c->capacity > settled && !c->in[c->capacity - 1]) return MW_STREAM_LONG;
  uint32_t window = 0;
  for (size_t i = settled; i < used; i++) window = window << 8 | (i < c->capacity ? c->in[i] : 0);
  uint32_t low = window - c->code;
  return mw_roundest(low, c->range) - low == c->code ? MW_OK : MW_STREAM_DAMAGED;
}

#endif
