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

/* Round a finite float32 to bfloat16, half to even. The result is infinite (0x7f80 | sign) near FLT_MAX. Not for a NaN: the largest
   (0x7fff8000 on) carry into the sign, and come out as zeros. */
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

/* Storage types by their number on the wire. A tensor is held as float32 whose values its storage type has exactly; int32 alone
   is held as it is stored. */
enum { MW_FLOAT32 = 1, MW_FLOAT16 = 2, MW_BFLOAT16 = 3, MW_INT8 = 4, MW_INT32 = 5 };
#define MW_INT8_MAX 127 /* and -127: narrow range, so that a code and its opposite both exist */
/* From this magnitude on rounding to float16 gives an infinity: 65520. */
#define MW_F16_OVERFLOW 0x477ff000u

/* a where the condition (0 or 1) holds, else b: by masks, because gcc turns some conditional expressions back into branches, and
   then does not vectorise the loop around them. */
static inline uint32_t mw_select(uint32_t condition, uint32_t a, uint32_t b) { return b ^ ((a ^ b) & (0u - condition)); }

/* Round a finite float32 to float16, half to even, subnormals included; infinite from MW_F16_OVERFLOW on. Without a branch, so that
   a loop over it vectorises. The one sum is a single rounding to nearest of normal numbers, which no mode but another rounding
   (mw_check_rounding) and no fusing changes: the same bits on every processor. */
static inline uint16_t mw_to_f16(float f) {
  const uint32_t u = mw_bits(f), m = u & MW_MAGNITUDE;
  const uint32_t normal = (m - 0x38000000u + 0xfffu + (m >> 13 & 1)) >> 13; /* the exponent's bias is 15 instead of 127 */
  /* Below 2^-14: multiples of 2^-24, which is the last bit of numbers from 0.5 on. */
  const uint32_t subnormal = mw_bits(mw_float(m) + 0.5f) - 0x3f000000u;
  const uint32_t h = mw_select(m >= MW_F16_OVERFLOW, 0x7c00u, mw_select(m >= 0x38800000u, normal, subnormal));
  return (uint16_t)((u >> 16 & 0x8000u) | h);
}

static inline float mw_from_f16(uint16_t h) {
  const uint32_t sign = (uint32_t)(h & 0x8000u) << 16, m = h & 0x7fffu;
  /* A subnormal's product is exact and a normal float32: no mode of the processor changes it. */
  const uint32_t small = mw_bits((float)(int32_t)m * 0x1p-24f), large = (m << 13) + mw_select(m >= 0x7c00u, 0x70000000u, 0x38000000u);
  return mw_float(sign | mw_select(m < 0x400u, small, large));
}

/* What becomes of a sum when it is stored: the nearest value of the storage type, half to even. No finite number where there is none,
   of a sum that is none itself and beyond the type's end; for int8 that is a code beyond +-127 (its sums are whole: its unit is 1). */
static inline float mw_stored(float sum, uint8_t dtype) {
  if (dtype == MW_FLOAT16) return mw_from_f16(mw_to_f16(sum));
  if (dtype == MW_BFLOAT16) return mw_finite(sum) ? mw_from_bf16(mw_to_bf16(sum)) : sum;
  if (dtype == MW_INT8 && (mw_bits(sum) & MW_MAGNITUDE) > 0x42fe0000u) return mw_float(MW_EXPONENT_BITS);
  return sum;
}

/* The lattice's formula for a tensor of any storage type; what it gives is finite or refused with mw_stored_fault. */
static inline float mw_weight_as(float base, int32_t q, float unit, uint8_t dtype) {
  return q ? mw_stored(base + (float)q * unit, dtype) : base;
}

/* Say why mw_stored gave no finite number: only of a sum that is one can it be the codes of int8 that end too soon. */
static inline mw_status mw_stored_fault(float sum, uint8_t dtype) {
  return dtype == MW_INT8 && mw_finite(sum) ? MW_RANGE : MW_WEIGHT_NOT_FINITE;
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
