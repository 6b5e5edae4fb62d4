/* The device's side of a round, a whole model at a time: what stands out of the trained weights, taking over what is sent, and
 * taking that back.
 *
 * Of every lattice tensor d = (trained - w) + residual. What is sent moves Q by whole steps and w with it; left is what remains,
 * rounded to bfloat16, and is written in full: as bf16(d) where nothing is sent. Verbatim tensors are taken over as they are;
 * tensors of other kinds are not looked at. Entries are named by tensor and index in *fault, the first one in that order. What a
 * refusal leaves in left, index and value means nothing. */
#ifndef MW_ROUND_H
#define MW_ROUND_H

#include "mw_model.h"

#define MW_STRETCH 512 /* entries that a pass takes at a time: all it has in hand of them stays in the nearest cache */

typedef struct mw_fault {
  size_t tensor, index;
} mw_fault;

/* How one tensor is sent. */
typedef struct mw_choice {
  int64_t step;    /* in units; 0: nothing of this tensor is sent, and it is not looked at */
  float threshold; /* least |d| that is sent, in weights; entries with d = 0 never are */
  size_t end;      /* written: how many entries were kept up to the end of this tensor */
  size_t clamped;  /* written: entries that the lattice's range cut */
} mw_choice;

/* What a block holds that stands out, and what is left of all of it. */
typedef struct mw_chunk {
  size_t tensor, start, length, count;
  uint32_t index[MW_STRETCH];
  float d[MW_STRETCH];
  uint16_t left[MW_STRETCH];
} mw_chunk;

/* Where a pass stands. Set all to zero for a first call. */
typedef struct mw_pass {
  size_t tensor, entry, found;
  uint32_t bar;      /* magnitude's bits: every entry that reaches it was collected */
  int widened;       /* how often the bar had to be lowered */
  uint64_t lanes[2]; /* what was sent adds this to the fingerprint */
  int which;         /* chunk that was filled last */
  mw_chunk chunk[2];
} mw_pass;

/* Collect every entry with |d| >= the bar, in order: index, and the bits of d. The bar is guessed from a sample, and raised when
   room runs short, so that at least the k largest differences are there; all that are not zero when there are fewer than k.
   *edge is the k-th largest magnitude, 0 when fewer than k differ from 0. ends[t]: how many were kept up to tensor t's end.
   MW_NO_ROOM: call again with more room and the same contents in it. index and d hold capacity entries, 2 * MW_STRETCH at least. */
mw_status mw_collect(const mw_tensor *tensors, size_t count, size_t k, mw_pass *pass, uint32_t *index, int32_t *d, size_t capacity,
                     size_t *ends, float *edge, mw_fault *fault);

/* Take over what mw_collect kept and the choices send: entries with |d| >= threshold become
   sign(d) * max(1, rint(|d| / (step * 2^exponent))) steps, cut to whole steps that keep Q inside its range; those cut to zero are
   not sent. index and value are compacted in place: value holds the bits of d before, whole steps after. left must be what
   mw_collect wrote. On a refusal w and q are as before. */
mw_status mw_adopt(const mw_tensor *tensors, size_t count, mw_choice *choices, const size_t *ends, uint32_t *index, int32_t *value,
                   size_t *found, uint64_t lanes[2], mw_fault *fault);

/* The same in one pass over the model, for choices that are known beforehand: pass->found entries go to index and value.
   MW_NO_ROOM: call again with more room. On any other refusal w and q are as before. */
mw_status mw_adopt_known(const mw_tensor *tensors, size_t count, mw_choice *choices, mw_pass *pass, uint32_t *index, int32_t *value,
                         size_t capacity, mw_fault *fault);

/* Take back what mw_adopt_known has adopted so far, when there is no more room to be had. */
void mw_abandon(const mw_tensor *tensors, size_t count, mw_choice *choices, const mw_pass *pass, const uint32_t *index, int32_t *value);

/* Take over the trained bits of the verbatim tensors; value is the difference of bits mod 2^32. MW_NO_ROOM and w and q as before
   when more entries than capacity changed. */
mw_status mw_adopt_verbatim(const mw_tensor *tensors, size_t count, uint32_t *index, int32_t *value, size_t capacity, size_t *ends,
                            uint64_t lanes[2], mw_fault *fault);

/* Take back what was adopted: w and q get their old bits, left of lattice tensors is bf16(d) again, and value holds the bits of d.
   choices give step and end; of verbatim tensors the step is 1. */
mw_status mw_retract(const mw_tensor *tensors, size_t count, const mw_choice *choices, const uint32_t *index, int32_t *value,
                     mw_fault *fault);

/* The k-th largest magnitude of n floats given by their bits, 1 <= k <= n. */
mw_status mw_kth_magnitude(const int32_t *d, size_t n, size_t k, float *edge);

#endif
