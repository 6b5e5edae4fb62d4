/* What the harnesses share: reading an input piece by piece, and arrays of exactly the size that a kernel is told, so that the
   address sanitiser sees the first byte past an end. Pieces past the end of the input are zeros. */
#ifndef FUZZ_H
#define FUZZ_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LAW(holds) /* a broken one is a report, like what the sanitisers find */ \
  do { \
    if (!(holds)) { \
      fprintf(stderr, "broken: %s (%s:%d)\n", #holds, __FILE__, __LINE__); \
      abort(); \
    } \
  } while (0)

typedef struct input {
  const uint8_t *data;
  size_t left;
} input;

static inline void take(input *in, void *out, size_t length) {
  size_t have = length < in->left ? length : in->left;
  if (length) memset(out, 0, length);
  if (have) memcpy(out, in->data, have);
  in->data += have;
  in->left -= have;
}

static inline uint8_t take_u8(input *in) {
  uint8_t x;
  take(in, &x, sizeof x);
  return x;
}

static inline uint16_t take_u16(input *in) {
  uint16_t x;
  take(in, &x, sizeof x);
  return x;
}

static inline uint32_t take_u32(input *in) {
  uint32_t x;
  take(in, &x, sizeof x);
  return x;
}

static inline void *room(size_t count, size_t size) {
  void *p = malloc(count * size);
  LAW(p || !(count * size));
  return p;
}

static inline void *take_array(input *in, size_t count, size_t size) {
  void *p = room(count, size);
  take(in, p, count * size);
  return p;
}

static inline void *copy_of(const void *from, size_t count, size_t size) {
  void *p = room(count, size);
  if (count) memcpy(p, from, count * size);
  return p;
}

static inline int same(const void *a, const void *b, size_t count, size_t size) { return !count || !memcmp(a, b, count * size); }

/* A step in its one form for most inputs, any number for the others. */
static inline int64_t take_step(input *in) {
  uint8_t m = take_u8(in), j = take_u8(in);
  if (j < 24) return (int64_t)(m | 1) << j;
  if (j == 0xff) return INT64_MAX;
  return j == 0xfe ? -(int64_t)m : m;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#endif
