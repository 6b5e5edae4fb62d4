/* The kernels that both sides must compute alike: lattice, fingerprint, checksum, range coder.
 *
 * Every function returns a status and writes nothing when it refuses. Lengths stand beside every pointer, capacities
 * beside every output; nothing allocates. *at, where there is one, names the entry at fault. base, w, trained: float32;
 * residual: bfloat16 bits; q: Q in units of 2^exponent; index: strictly rising; value: whole steps, never zero.
 * Arrays of one call hold n entries of one tensor and are aligned; outputs may not overlap inputs unless said.
 *
 * What is no number, an infinity or a NaN of any bits, is refused by every kernel alike, wherever one looks:
 * 1. A round looks at all of w, trained and residual in the tensors that it goes over. Where d = (trained - w) + residual is no number,
 *    that is MW_TRAINED_NOT_FINITE if trained is none, else MW_DIFFERENCE_NOT_FINITE. Of an entry that it sends it also looks at w before
 *    and after, and so at base: MW_WEIGHT_NOT_FINITE. What is left over must fit: MW_RESIDUAL_NOT_FINITE.
 * 2. An update is looked at where it touches a tensor: the weight that comes of it must be a number, whatever w held before. What it
 *    does not touch keeps its bits.
 * 3. What takes a whole tensor (Q, storage, planes) looks at every entry: MW_WEIGHT_NOT_FINITE.
 * 4. Of verbatim tensors only the bits that come out are looked at, and of int32 any bits are a number.
 * 5. A sum that is a number but no code of int8 is MW_RANGE, not one of these.
 * Of several entries the first is named. Of one entry's faults the first of these is: its index, a value of zero, d, its range, the
 * weight, what is left over. */
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
  MW_LZ4,                     /* a packed plane that ends within a sequence, or has a match with offset 0 */
  MW_ROW,                     /* a row of a section table that is not in its one form, or of a codec or class not applied so */
  MW_UNIT,                    /* a section has another unit than its tensor */
  MW_VERBATIM_STEP,           /* a verbatim tensor's section has a step or a unit */
  MW_CROWDED,                 /* a section table counts more entries than the stream's bytes can hold */
  MW_FINGERPRINT,             /* what was applied gives another fingerprint */
  MW_CHANGED,                 /* the stream changed between two readings: the model is of no use any more */
  MW_SUBNORMALS,              /* the processor flushes subnormals to zero */
  MW_FUSED,                   /* this build fuses multiplications with additions */
  MW_HEAD,                    /* a head's settings are out of range */
  MW_FEATURE_NOT_FINITE,      /* a feature of a row */
  MW_LABEL,                   /* a row's label is no class, or its target no number */
  MW_DIVERGED,                /* training gave what is no number */
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
