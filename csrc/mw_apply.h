/* A whole update to a whole model in one call, while its stream is read. */
#ifndef MW_APPLY_H
#define MW_APPLY_H

#include "mw_model.h"

/* One row of a section table as it stands on the wire, little-endian. docs/format/container.md, "Section table". */
typedef struct mw_row {
  uint16_t tensor;
  uint8_t codec;    /* 1: range-coded */
  uint8_t mantissa; /* step: mantissa * 2^shift */
  uint8_t shift;
  int8_t exponent;
  uint16_t reserved;
  uint32_t count;
} mw_row;

/* Classes of tensors by their number on the wire. */
enum { MW_KIND_LATTICE = 0, MW_KIND_VERBATIM = 1, MW_KIND_EXACT = 2 };

#define MW_ROW_BYTES 12
#define MW_CODEC_RANGE 1
#define MW_BUCKETS 256
#define MW_ENTRIES_PER_BYTE 16000 /* the cheapest decision takes a 2000th of a bit */

typedef struct mw_update {
  const uint8_t *table;
  size_t rows;
  const uint8_t *stream;
  size_t length;
  int snapshot; /* of all Q against the base, instead of what is added to them */
  const uint16_t *codes;   /* NULL, or of each entry of the model, by its global index: a bucket, and MW_BUCKETS more for minus */
  const uint32_t *factors; /* a tensor: what a unit of its Q counts; of tensors that do not count 0 */
  uint32_t *sums;          /* MW_BUCKETS of them, that grow by +-factor * dQ, mod 2^32. After a fault they mean nothing */
} mw_update;

/* Where a fault is: the entry `at` of a tensor of `size` entries. */
typedef struct mw_place {
  size_t tensor, at, size;
} mw_place;

/* Told now and then how many bytes of the stream won't be looked at again in this reading. */
typedef void (*mw_progress)(void *context, size_t read);

/* MW_OK when every row is a range-coded section in its one form and the tensors rise: what can be said without the model. */
mw_status mw_check_table(const uint8_t *table, size_t rows, int snapshot);

/* Apply the update to q and w, and move the fingerprint in lanes on; expect, unless NULL, is what it then has to be.
 *
 * Entries are written as they are decoded, so that a model's size takes no memory. On any fault what was written is taken back by
 * reading the stream again, with the same integers and the opposite sign: every bit of q and w is as it was. Of several faults the
 * table's comes first, then the stream's, then the first entry's, then the fingerprint's. A snapshot on a model that has moved is
 * read once before anything is written. tensors[t].exponent is the unit after the update. Scratch for the widest tensor that
 * has a section: mw_scratch entries. MW_CHANGED alone leaves the model in no state at all: someone wrote to the stream meanwhile. */
mw_status mw_apply_stream(const mw_tensor *tensors, size_t count, const mw_update *update, const uint64_t *expect, uint64_t lanes[2],
                          uint16_t *scratch, size_t scratch_length, mw_place *place, mw_progress progress, void *context);

#endif
