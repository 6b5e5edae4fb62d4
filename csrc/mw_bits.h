/* Float32 and bfloat16 as bits, the lattice's one formula, and the checks that several kernels share. */
#ifndef MW_BITS_H
#define MW_BITS_H

#include <float.h>
#include <string.h>

#include "mw.h"

#if !defined(__BYTE_ORDER__) || __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the kernels are written for little-endian machines"
#endif
#if defined(FLT_EVAL_METHOD) && FLT_EVAL_METHOD != 0
#error "float arithmetic must be float32: build with -msse2 -mfpmath=sse instead of x87"
#endif
#ifdef __FAST_MATH__
#error "-ffast-math and -Ofast change results: build without them"
#endif

#define MW_EXPONENT_BITS 0x7f800000u
#define MW_MAGNITUDE 0x7fffffffu
/* From this magnitude on rounding to bfloat16 gives an infinity. */
#define MW_BF16_OVERFLOW 0x7f7f8000u

static inline uint32_t mw_bits(float f) {
  uint32_t u;
  memcpy(&u, &f, sizeof u);
  return u;
}

static inline float mw_float(uint32_t u) {
  float f;
  memcpy(&f, &u, sizeof f);
  return f;
}

static inline int mw_finite_bits(uint32_t u) { return (u & MW_EXPONENT_BITS) != MW_EXPONENT_BITS; }
static inline int mw_finite(float f) { return mw_finite_bits(mw_bits(f)); }

/* 2^e for a normal result, -126 <= e <= 127. */
static inline float mw_power(int e) { return mw_float((uint32_t)(e + 127) << 23); }

static inline float mw_from_bf16(uint16_t b) { return mw_float((uint32_t)b << 16); }

/* Round a finite float32 to bfloat16, half to even. The result is infinite (0x7f80 | sign) near FLT_MAX. */
static inline uint16_t mw_to_bf16(float f) {
  uint32_t u = mw_bits(f);
  return (uint16_t)((u + 0x7fffu + ((u >> 16) & 1)) >> 16);
}

/* The lattice. q * u is exact and at least 2^-96 in magnitude, so fused multiply-add, flushed subnormals and x87 all give
   these bits; q == 0 must never add, or -0.0 and subnormals would be lost. */
static inline float mw_weight(float base, int32_t q, float unit) {
  float sum = base + (float)q * unit;
  return q ? sum : base;
}

static inline int mw_in_range(int64_t q) { return q >= -MW_Q_MAX && q <= MW_Q_MAX; }

/* rintf for 0 <= x <= 2^31 without the C library. From 2^23 on every float32 is whole already; below, a sum with 2^23 has no bits
   left for a fraction, and is rounded as the standard asks. */
static inline int64_t mw_rint(float x) {
  if (!(x < 8388608.0f)) return (int64_t)x;
  return (int64_t)(mw_bits(x + 8388608.0f) - 0x4b000000u);
}

/* What a device would move an entry by. */
static inline float mw_difference(float w, float trained, uint16_t residual) { return (trained - w) + mw_from_bf16(residual); }

/* What is left of d when w has moved to the new weight. */
static inline float mw_left_over(float d, float w, float weight) { return d - (weight - w); }

static inline int mw_fits_bf16(float x) { return (mw_bits(x) & MW_MAGNITUDE) < MW_BF16_OVERFLOW; }

/* Say why the difference of entry i is no number. */
static inline mw_status mw_difference_fault(const float *trained, size_t i, size_t *at) {
  *at = i;
  return mw_finite(trained[i]) ? MW_DIFFERENCE_NOT_FINITE : MW_TRAINED_NOT_FINITE;
}

/* Whole steps of one entry, cut to the range; *cut tells that it had to be. |q| is within range. */
static inline int64_t mw_steps(float d, int32_t q, int64_t step, float step_size, int *cut) {
  const int64_t minus = -(int64_t)(mw_bits(d) >> 31); /* -1 or 0; not branched on: a difference's sign is not to be predicted */
  float ratio = mw_float(mw_bits(d) & MW_MAGNITUDE) / step_size;
  int64_t whole = mw_rint(ratio < 2147483648.0f ? ratio : 2147483648.0f);
  int64_t room = MW_Q_MAX - ((q ^ minus) - minus);
  whole += whole < 1;
  *cut = whole * step > room;
  if (*cut) whole = room / step; /* a division only here: it takes longer than all the rest */
  return (whole ^ minus) - minus;
}

static inline mw_status mw_check_unit(int exponent) {
  return exponent >= MW_EXPONENT_MIN && exponent <= MW_EXPONENT_MAX ? MW_OK : MW_EXPONENT;
}

static inline mw_status mw_check_step(int64_t step) {
  if (step < 1 || step > (int64_t)MW_STEP_MANTISSA_MAX << MW_STEP_SHIFT_MAX) return MW_STEP;
  int shift = 0;
  for (; !(step & 1); step >>= 1) shift++;
  return step <= MW_STEP_MANTISSA_MAX && shift <= MW_STEP_SHIFT_MAX ? MW_OK : MW_STEP;
}

/* Sparse loops touch a new cache line an entry: they ask for it this many entries ahead, or wait for memory at each. */
#define MW_AHEAD 24

/* Entry k of a sparse list: inside the tensor, after its predecessor, not zero. */
static inline mw_status mw_check_entry(const uint32_t *index, const int32_t *value, size_t k, size_t n, size_t *at) {
  *at = index[k];
  if (index[k] >= n || (k && index[k] <= index[k - 1])) return MW_INDEX;
  return value[k] ? MW_OK : MW_VALUE;
}

#endif
