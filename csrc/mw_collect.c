/* What stands out of a trained model: a bar guessed from a sample, one pass over the arrays, and the k-th of what was kept. */
#include "mw_scan.h"

#define SAMPLE (1 << 14) /* entries from which the bar is guessed */
#define NEAR 16          /* neighbours taken together: one cache line of float32 */
#define BUCKET_SHIFT 17  /* a magnitude's exponent and six bits of its fraction: the bar is guessed to 1.6 % */
#define BUCKETS (1 << (31 - BUCKET_SHIFT))

/* Codes of int8 are all sent where they change: no step is chosen for them. */
static int looked_at(const mw_tensor *t) { return t->kind == 0 && t->dtype != MW_INT8 && t->n; }

/* How many of `expected` out of a sample to aim at: four deviations of a count, and a quarter on top because neighbours are alike.
   Too low a bar costs a little, too high a one a second pass. */
static size_t rank_of(size_t expected) {
  size_t root = 0;
  while ((root + 1) * (root + 1) <= expected) root++;
  return expected + expected / 4 + 4 * (root + 1) + 1;
}

/* Return a magnitude that somewhat more than k of all entries reach, judged by a sample; 1, which all but zeros reach, when it
   can't tell. A fixed choice of entries, so that nothing hangs on chance. */
static uint32_t guess(const mw_tensor *tensors, size_t count, size_t k) {
  uint16_t buckets[BUCKETS];
  size_t total = 0, seen = 0, next = 0, before = 0;
  for (size_t t = 0; t < count; t++)
    if (looked_at(tensors + t)) total += tensors[t].n;
  const size_t stride = NEAR * (total / SAMPLE > 1 ? total / SAMPLE : 1);
  memset(buckets, 0, sizeof buckets);
  for (size_t t = 0; t < count; t++) {
    const mw_tensor *x = tensors + t;
    if (!looked_at(x)) continue;
    for (; next + NEAR <= before + x->n; next += stride) {
      const size_t from = next < before ? 0 : next - before;
      if (x->n < NEAR) break;
      if (x->n - from > stride + NEAR) {
        __builtin_prefetch(x->w + from + stride);
        __builtin_prefetch(x->trained + from + stride);
        __builtin_prefetch(x->residual + from + stride);
      }
      for (size_t i = from; i < from + NEAR; i++) {
        const uint32_t magnitude = mw_bits(mw_difference(x->w[i], x->trained[i], x->residual[i])) & MW_MAGNITUDE;
        buckets[magnitude >> BUCKET_SHIFT]++;
      }
      seen += NEAR;
    }
    before += x->n;
  }
  const size_t rank = rank_of((size_t)((double)k / (double)(total ? total : 1) * (double)seen));
  if (rank >= seen) return 1;
  size_t bucket = BUCKETS, reached = 0;
  while (reached < rank) reached += buckets[--bucket];
  const uint32_t bar = (uint32_t)bucket << BUCKET_SHIFT;
  return bar ? bar : 1;
}

static uint32_t lower(uint32_t bar) { return bar < MW_BF16_OVERFLOW ? bar : MW_BF16_OVERFLOW; }

/* Drop what does not reach the new bar. */
static void raise_bar(mw_pass *pass, uint32_t bar, uint32_t *index, int32_t *d, size_t *ends) {
  size_t kept = 0;
  for (size_t t = 0, from = 0; t <= pass->tensor; t++) {
    const size_t to = t < pass->tensor ? ends[t] : pass->found;
    for (size_t i = from; i < to; i++) {
      index[kept] = index[i];
      d[kept] = d[i];
      kept += ((uint32_t)d[i] & MW_MAGNITUDE) >= bar;
    }
    if (t < pass->tensor) ends[t] = kept;
    from = to;
  }
  pass->bar = bar;
  pass->found = kept;
}

/* Make room for another block: what lies below a step that the k largest so far lead to can't be sent. The 64th covers what is cut
   off the step's mantissa. */
static int make_room(mw_pass *pass, size_t k, uint32_t *index, int32_t *d, size_t capacity, size_t *ends) {
  float edge;
  if (pass->found < k || mw_kth_magnitude(d, pass->found, k, &edge)) return 0;
  const uint32_t bar = lower(mw_bits(edge - edge / 64));
  if (bar > pass->bar) raise_bar(pass, bar, index, d, ends);
  return capacity - pass->found >= MW_STRETCH + (capacity - k) / 8;
}

mw_status mw_collect(const mw_tensor *tensors, size_t count, size_t k, mw_pass *pass, uint32_t *index, int32_t *d, size_t capacity,
                     size_t *ends, float *edge, mw_fault *fault) {
  const mw_kernels *kernels = mw_kernels_in_use();
  size_t total = 0;
  *edge = 0;
  if (!k || capacity < 2 * MW_STRETCH) return MW_SHAPE;
  for (size_t t = 0; t < count; t++) total += looked_at(tensors + t) ? tensors[t].n : 0;
  const int far = total > MW_FAR;
  if (!pass->bar) pass->bar = lower(guess(tensors, count, k));
  mw_chunk *c = &pass->chunk[0];
  for (;;) {
    for (; pass->tensor < count; pass->tensor++, pass->entry = 0) {
      const mw_tensor *x = tensors + pass->tensor;
      if (x->n > UINT32_MAX) return MW_SHAPE;
      while (looked_at(x) && pass->entry < x->n) {
        const size_t start = pass->entry, rest = x->n - start, length = rest < MW_STRETCH ? rest : MW_STRETCH;
        if (capacity - pass->found < MW_STRETCH && !make_room(pass, k, index, d, capacity, ends)) {
          kernels->settle();
          return MW_NO_ROOM;
        }
        float found[MW_STRETCH];
        const size_t n = kernels->scan(x->w + start, x->trained + start, x->residual + start, length, rest, pass->bar, (uint32_t)start,
                                       c->left, index + pass->found, found);
        for (size_t i = 0; i < n; i++) {
          if (!mw_finite(found[i])) {
            kernels->settle();
            fault->tensor = pass->tensor;
            return mw_difference_fault(x->trained, index[pass->found + i], &fault->index);
          }
          d[pass->found + i] = (int32_t)mw_bits(found[i]);
        }
        kernels->put(x->left + start, c->left, length, far);
        pass->found += n;
        pass->entry += length;
      }
      ends[pass->tensor] = pass->found;
    }
    if (pass->found >= k || pass->bar == 1) break;
    /* The sample misled: once more with four times the rank, and then with everything. */
    pass->bar = pass->widened++ ? 1 : lower(guess(tensors, count, k > SIZE_MAX / 4 ? k : 4 * k));
    pass->tensor = pass->entry = pass->found = 0;
  }
  kernels->settle();
  return pass->found >= k ? mw_kth_magnitude(d, pass->found, k, edge) : MW_OK;
}

/* Radix selection over a range of magnitudes that shrinks: each round counts the entries of 4096 equal parts of it and goes on
   in the part that holds the k-th. Counts do not depend on an order, so neither does the result. */
#define PARTS 4096

mw_status mw_kth_magnitude(const int32_t *d, size_t n, size_t k, float *edge) {
  if (!k || k > n || n > UINT32_MAX) return MW_SHAPE;
  uint32_t counts[PARTS];
  int32_t least = INT32_MAX, most = 0;
  for (size_t i = 0; i < n; i++) {
    const int32_t magnitude = d[i] & (int32_t)MW_MAGNITUDE;
    least = magnitude < least ? magnitude : least;
    most = magnitude > most ? magnitude : most;
  }
  uint32_t low = (uint32_t)least, high = (uint32_t)most;
  for (;;) {
    const uint32_t span = high - low;
    unsigned shift = 0;
    while (span >> shift >= PARTS) shift++;
    memset(counts, 0, sizeof counts);
    for (size_t i = 0; i < n; i++) {
      uint32_t above = ((uint32_t)d[i] & MW_MAGNITUDE) - low;
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
