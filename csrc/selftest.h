/* What the parts of the self test share: a fixed stream of awkward numbers, a hash of all bits that come out, and laws. Each part
   has a stream and a hash of its own. */
#ifndef SELFTEST_H
#define SELFTEST_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

static uint64_t state, hash = 0xcbf29ce484222325u;

static inline uint32_t rnd(void) {
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return (uint32_t)(state >> 16);
}

/* FNV-1a. */
static inline void feed(const void *data, size_t length) {
  const uint8_t *bytes = data;
  for (size_t i = 0; i < length; i++) hash = (hash ^ bytes[i]) * 0x100000001b3u;
}

static inline void law(int holds, const char *what) {
  if (holds) return;
  printf("broken: %s\n", what);
  exit(1);
}

#endif
