/* The kernels that both sides must compute alike: lattice, fingerprint, checksum, range coder.
 *
 * Every function returns a status and writes nothing when it refuses. Lengths stand beside every pointer, capacities
 * beside every output; nothing allocates. *at, where there is one, names the entry at fault. base, w, trained: float32;
 * residual: bfloat16 bits; q: Q in units of 2^exponent; index: strictly rising; value: whole steps, never zero.
 * Arrays of one call hold n entries of one tensor and are aligned; outputs may not overlap inputs unless said. */
#ifndef MW_H
#define MW_H

#include <stddef.h>
#include <stdint.h>

typedef enum mw_status {
  MW_OK = 0,
  MW_ROUNDING,                /* the processor does not round to nearest even */
  MW_UNKNOWN_KERNEL,          /* no kernel of that name, or not for this processor */
  MW_EXPONENT,                /* the unit's exponent is out of range */
  MW_STEP,                    /* not m * 2^j with odd m <= 255 and j <= 22 */
  MW_THRESHOLD,               /* negative or not a number */
  MW_INDEX,                   /* outside the tensor, or not rising */
  MW_VALUE,                   /* a value is zero */
  MW_RANGE,                   /* an entry would leave +-2^22 units */
  MW_TRAINED_NOT_FINITE,      /* a trained weight */
  MW_DIFFERENCE_NOT_FINITE,   /* trained - w + residual */
  MW_WEIGHT_NOT_FINITE,       /* a weight, before or after */
  MW_RESIDUAL_NOT_FINITE,     /* what is left over does not fit a bfloat16 */
  MW_OFF_LATTICE,             /* a weight that no Q gives from this base */
  MW_SHAPE,                   /* rows, columns or count cannot be a section's */
  MW_STREAM_SHORT,            /* the coded bytes end before the sections do */
  MW_STREAM_LONG,             /* the coded bytes go on after the sections */
  MW_STREAM_DAMAGED,          /* bytes that no encoder writes */
  MW_NO_ROOM,                 /* an output or the scratch is too small: the caller's fault */
  MW_NOT_STORED,              /* a held weight that its storage type does not have */
  MW_PLANES,                  /* the bits that say which entries changed, and their number, do not agree */
  MW_ROW,                     /* a row of a section table that is not in its one form, or of a codec or class not applied so */
  MW_UNIT,                    /* a section has another unit than its tensor */
  MW_VERBATIM_STEP,           /* a verbatim tensor's section has a step or a unit */
  MW_CROWDED,                 /* a section table counts more entries than the stream's bytes can hold */
  MW_FINGERPRINT,             /* what was applied gives another fingerprint */
  MW_CHANGED,                 /* the stream changed between two readings: the model is of no use any more */
  MW_STATUS_END
} mw_status;

#define MW_Q_MAX (1 << 22)
#define MW_EXPONENT_MIN (-96)
#define MW_EXPONENT_MAX 100
#define MW_STEP_MANTISSA_MAX 255
#define MW_STEP_SHIFT_MAX 22

/* Which implementation runs. Call mw_choose once, at import, before anything else. "" means the best for this processor. */
mw_status mw_choose(const char *name);
const char *mw_chosen(void);
const char *mw_kernel_name(size_t i); /* the names that this build holds; NULL past the last */

mw_status mw_check_rounding(void);
uint32_t mw_crc32c(const uint8_t *data, size_t length); /* Castagnoli, initial and final value all ones */

/* out = (trained - w) + residual. */
mw_status mw_differences(const float *w, const float *trained, const uint16_t *residual, size_t n, float *out, size_t *at);

/* One pass over the whole tensor: left = d rounded to bfloat16, where d = (trained - w) + residual, and the entries with
   |d| >= least, never those with d = 0, go to index and d, in order. *huge tells that some |d| is too large for a bfloat16: then
   left is of no use. MW_NO_ROOM when more than capacity entries stand out. What a refusal leaves in the outputs means nothing. */
mw_status mw_collect(const float *w, const float *trained, const uint16_t *residual, size_t n, float least, uint16_t *left, uint32_t *index,
                     float *d, size_t capacity, size_t *count, int *huge, size_t *at);

/* The k-th largest magnitude of n collected ones, 1 <= k <= n. */
mw_status mw_kth_magnitude(const float *d, size_t n, size_t k, float *edge);

/* What mw_snap gives, from entries that were collected with least <= threshold. sent and value hold as many as index; sent may
   be index. */
mw_status mw_quantise(const int32_t *q, size_t n, const uint32_t *index, const float *d, size_t candidates, int exponent, int64_t step,
                      float threshold, uint32_t *sent, int32_t *value, size_t *count, size_t *clamped, size_t *at);

/* What mw_adopt does, when left already holds what mw_collect wrote: the entries that were sent, in place on w, q and left.
   old_w and old_left hold count entries each, for what has to be put back when an entry is refused. */
mw_status mw_adopt_sent(const float *base, float *w, const float *trained, const uint16_t *residual, int32_t *q, size_t n,
                        const uint32_t *index, const int32_t *value, size_t count, int exponent, int64_t step, uint16_t *left,
                        float *old_w, uint16_t *old_left, size_t *at);

/* Write what of d = (trained - w) + residual is worth sending: entries with |d| >= threshold become
   sign(d) * max(1, rint(|d| / (step * 2^exponent))), cut to whole steps that keep Q inside its range. *clamped counts the cut
   ones; those cut to zero are left out. index and value hold capacity entries each; n of them are always enough. */
mw_status mw_snap(const float *w, const float *trained, const uint16_t *residual, const int32_t *q, size_t n, int exponent, int64_t step,
                  float threshold, uint32_t *index, int32_t *value, size_t capacity, size_t *count, size_t *clamped, size_t *at);

/* Take over what was sent: Q += value * step, w = base + Q * u, residual = d - (w' - w). In place on w, residual and q. */
mw_status mw_adopt(const float *base, float *w, const float *trained, uint16_t *residual, int32_t *q, size_t n, const uint32_t *index,
                   const int32_t *value, size_t count, int exponent, int64_t step, size_t *at);

mw_status mw_check_lattice(const float *base, const int32_t *q, size_t n, const uint32_t *index, const int32_t *value, size_t count,
                           int exponent, int64_t step, size_t *at);
mw_status mw_apply_lattice(const float *base, float *w, int32_t *q, size_t n, const uint32_t *index, const int32_t *value, size_t count,
                           int exponent, int64_t step, size_t *at);

/* Verbatim tensors: base and w are the bit patterns of float32; q = bits(w) - bits(base) mod 2^32. */
mw_status mw_check_verbatim(const uint32_t *base, const int32_t *q, size_t n, const uint32_t *index, const int32_t *value, size_t count,
                            size_t *at);
mw_status mw_apply_verbatim(const uint32_t *base, uint32_t *w, int32_t *q, size_t n, const uint32_t *index, const int32_t *value,
                            size_t count, size_t *at);

/* The whole tensor from Q, and Q from the whole tensor. w may be base in the first, never in the second. */
mw_status mw_weights_from_q(const float *base, const int32_t *q, size_t n, int exponent, float *w, size_t *at);
mw_status mw_q_from_weights(const float *base, const float *w, size_t n, int exponent, int32_t *q, size_t *at);

/* lanes[k] = sum of q[i] * r(start + i, k) mod 2^64; the second form takes what an update adds to it. */
void mw_fingerprint(const int32_t *q, size_t n, uint64_t start, int verbatim, uint64_t lanes[2]);
mw_status mw_fingerprint_sparse(const uint32_t *index, const int32_t *value, size_t count, int64_t step, uint64_t start, int verbatim,
                                uint64_t lanes[2]);

#endif
