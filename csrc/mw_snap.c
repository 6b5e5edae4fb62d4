/* The device's side of the lattice: what changed, what of it is worth sending, and taking over what was sent. The dense pass in
   portable C; what follows it costs time by the entries that stand out, and is the same for every processor. */
#define MW_TARGET
#include "mw_tiles.h"

/* Groups are looked at for whether anything in them stands out; those where something does are listed, without a branch, because
   which ones do is not to be predicted, and looked at again when a block of them is full. */
#define GROUP 16
#define BLOCK 32

/* Round the differences of one group to bfloat16 and return the largest magnitude. */
static inline uint32_t look(const float *w, const float *trained, const uint16_t *restrict residual, uint16_t *restrict left) {
  int32_t largest = 0;
  for (size_t i = 0; i < GROUP; i++) {
    const float d = mw_difference(w[i], trained[i], residual[i]);
    const int32_t magnitude = (int32_t)(mw_bits(d) & MW_MAGNITUDE);
    left[i] = mw_to_bf16(d);
    largest = magnitude > largest ? magnitude : largest;
  }
  return (uint32_t)largest;
}

static mw_status generic_collect(const float *w, const float *trained, const uint16_t *residual, size_t n, uint32_t bar, uint16_t *left,
                                 uint32_t *index, float *d, size_t capacity, size_t *count, int *huge, size_t *at) {
  const uint32_t alarm = bar < MW_BF16_OVERFLOW ? bar : MW_BF16_OVERFLOW;
  size_t found = 0, start = 0, again[BLOCK];
  while (n - start >= GROUP) {
    size_t listed = 0;
    uint32_t worst = 0;
    for (size_t g = 0; g < BLOCK && n - start >= GROUP; g++, start += GROUP) {
      ASK_AHEAD(w, trained, residual, start, n)
      const uint32_t largest = look(w + start, trained + start, residual + start, left + start);
      again[listed] = start;
      listed += largest >= alarm;
      worst = largest > worst ? largest : worst;
    }
    if (worst >= MW_BF16_OVERFLOW) {
      const size_t first = listed ? again[0] : start;
      mw_status status = mw_collect_rest(w, trained, residual, start, bar, left, index, d, capacity, first, found, &found, huge, at);
      if (status) return status;
      continue;
    }
    for (size_t g = 0; g < listed; g++) {
      const size_t from = again[g];
      if (capacity - found < GROUP) {
        mw_status status =
            mw_collect_rest(w, trained, residual, from + GROUP, bar, left, index, d, capacity, from, found, &found, huge, at);
        if (status) return status;
        continue;
      }
      for (size_t i = from; i < from + GROUP; i++) {
        const float x = mw_difference(w[i], trained[i], residual[i]);
        index[found] = (uint32_t)i;
        d[found] = x;
        found += (mw_bits(x) & MW_MAGNITUDE) >= bar;
      }
    }
  }
  return mw_collect_rest(w, trained, residual, n, bar, left, index, d, capacity, start, found, count, huge, at);
}

mw_status mw_collect_rest(const float *w, const float *trained, const uint16_t *residual, size_t n, uint32_t bar, uint16_t *left,
                          uint32_t *index, float *d, size_t capacity, size_t i, size_t found, size_t *count, int *huge, size_t *at) {
  for (; i < n; i++) {
    const float x = mw_difference(w[i], trained[i], residual[i]);
    const uint32_t magnitude = mw_bits(x) & MW_MAGNITUDE;
    if (magnitude >= MW_EXPONENT_BITS) return mw_difference_fault(trained, i, at);
    *huge |= magnitude >= MW_BF16_OVERFLOW;
    left[i] = mw_to_bf16(x);
    if (magnitude < bar) continue;
    if (found == capacity) return MW_NO_ROOM;
    index[found] = (uint32_t)i;
    d[found++] = x;
  }
  *count = found;
  return MW_OK;
}

static int always(void) { return 1; }

const mw_kernels mw_generic = {
    "generic",
    always,
    tiled_differences,
    generic_collect,
    tiled_snap,
    tiled_adopt,
    mw_generic_weights_from_q,
    mw_generic_q_from_weights,
    mw_generic_fingerprint,
    mw_generic_crc32c,
    mw_generic_split_planes,
    mw_generic_join_planes,
    mw_generic_narrow,
};

mw_status mw_quantise(const int32_t *q, size_t n, const uint32_t *index, const float *d, size_t candidates, int exponent, int64_t step,
                      float threshold, uint32_t *sent, int32_t *value, size_t *count, size_t *clamped, size_t *at) {
  mw_status status;
  *count = *clamped = *at = 0;
  if ((status = mw_check_unit(exponent)) || (status = mw_check_step(step))) return status;
  if (!(threshold >= 0)) return MW_THRESHOLD;
  const uint32_t least = mw_bits(threshold) & MW_MAGNITUDE;
  const float step_size = (float)step * mw_power(exponent);
  size_t found = 0, cut = 0, before = 0;
  for (size_t k = 0; k < candidates; k++) {
    const size_t i = index[k];
    const uint32_t magnitude = mw_bits(d[k]) & MW_MAGNITUDE;
    const size_t soon = candidates - k > MW_AHEAD ? index[k + MW_AHEAD] : n;
    if (soon < n) __builtin_prefetch(q + soon);
    *at = i;
    if (i >= n || (k && i <= before)) return MW_INDEX;
    if (magnitude >= MW_EXPONENT_BITS) return MW_DIFFERENCE_NOT_FINITE;
    /* Every candidate is worked out and written, and stays only when it counts: which ones do is not to be predicted. */
    const int counts = (magnitude >= least) & (magnitude != 0);
    int beyond;
    if (counts & !mw_in_range(q[i])) return MW_RANGE;
    const int64_t whole = mw_steps(d[k], q[i], step, step_size, &beyond);
    sent[found] = (uint32_t)i;
    value[found] = (int32_t)whole;
    found += (size_t)(counts & (whole != 0));
    cut += (size_t)(counts & beyond);
    before = i;
  }
  *count = found;
  *clamped = cut;
  return MW_OK;
}

mw_status mw_adopt_sent(const float *base, float *w, const float *trained, const uint16_t *residual, int32_t *q, size_t n,
                        const uint32_t *index, const int32_t *value, size_t count, int exponent, int64_t step, uint16_t *left,
                        float *old_w, uint16_t *old_left, size_t *at) {
  mw_status status = MW_OK, later = MW_OK;
  size_t later_at = 0, k = 0, done = 0;
  *at = 0;
  if ((status = mw_check_unit(exponent)) || (status = mw_check_step(step))) return status;
  const float unit = mw_power(exponent);
  /* One pass that writes as it checks, because each entry is a walk to memory of its own; what it wrote before a fault goes back. */
  for (; k < count; k++) {
    const size_t soon = count - k > MW_AHEAD ? index[k + MW_AHEAD] : n;
    if (soon < n) {
      __builtin_prefetch(base + soon);
      __builtin_prefetch(w + soon, 1);
      __builtin_prefetch(q + soon, 1);
      __builtin_prefetch(trained + soon);
      __builtin_prefetch(residual + soon);
      __builtin_prefetch(left + soon, 1);
    }
    if ((status = mw_check_entry(index, value, k, n, at))) break;
    const size_t i = index[k];
    const int64_t moved = q[i] + value[k] * step;
    if (!mw_in_range(moved)) {
      status = MW_RANGE;
      break;
    }
    const float weight = mw_weight(base[i], (int32_t)moved, unit);
    if (!mw_finite(weight)) {
      status = MW_WEIGHT_NOT_FINITE;
      break;
    }
    if (later) continue;
    const float d = mw_difference(w[i], trained[i], residual[i]), rest = mw_left_over(d, w[i], weight);
    if (!mw_fits_bf16(rest)) {
      /* Faults of the update come before those of the arrays, as in mw_adopt: look at the rest of it first. */
      later = mw_finite(d) ? MW_RESIDUAL_NOT_FINITE : mw_difference_fault(trained, i, at);
      later_at = i;
      continue;
    }
    old_w[done] = w[i];
    old_left[done++] = left[i];
    w[i] = weight;
    q[i] = (int32_t)moved;
    left[i] = mw_to_bf16(rest);
  }
  if (!status && !later) return MW_OK;
  if (!status) *at = later_at;
  while (done--) {
    const size_t i = index[done];
    w[i] = old_w[done];
    q[i] = (int32_t)(q[i] - value[done] * step);
    left[i] = old_left[done];
  }
  return status ? status : later;
}

/* Radix selection over a range of magnitudes that shrinks: each round counts the entries of 4096 equal parts of it and goes on
   in the part that holds the k-th. Counts do not depend on an order, so neither does the result. */
#define PARTS 4096

mw_status mw_kth_magnitude(const float *d, size_t n, size_t k, float *edge) {
  if (!k || k > n || n > UINT32_MAX) return MW_SHAPE;
  uint32_t low = UINT32_MAX, high = 0, counts[PARTS];
  for (size_t i = 0; i < n; i++) {
    uint32_t magnitude = mw_bits(d[i]) & MW_MAGNITUDE;
    low = magnitude < low ? magnitude : low;
    high = magnitude > high ? magnitude : high;
  }
  for (;;) {
    const uint32_t span = high - low;
    unsigned shift = 0;
    while (span >> shift >= PARTS) shift++;
    memset(counts, 0, sizeof counts);
    for (size_t i = 0; i < n; i++) {
      uint32_t above = (mw_bits(d[i]) & MW_MAGNITUDE) - low;
      if (above <= span) counts[above >> shift]++;
    }
    uint32_t part = span >> shift;
    while (counts[part] < k) k -= counts[part--];
    low += part << shift;
    if (!shift) break;
    const uint32_t last = low + ((uint32_t)1 << shift) - 1;
    high = last < high ? last : high;
  }
  *edge = mw_float(low);
  return MW_OK;
}
