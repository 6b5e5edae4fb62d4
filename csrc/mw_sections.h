/* Sparse sections of integers to one range-coded stream and back. docs/format/coder.md. */
#ifndef MW_SECTIONS_H
#define MW_SECTIONS_H

#include "mw_range.h"

#define MW_BLOCK 32  /* columns that share one flag */
#define MW_CLASSES 6 /* of density */
#define MW_ESCAPE 4  /* magnitudes up to this are counted out; larger ones continue as Exp-Golomb */
#define MW_LENGTHS 31
#define MW_TREE 6    /* leading bits below the first that are modelled; the rest is raw */

/* The adaptive probabilities of one stream. They live on from section to section. */
typedef struct mw_model {
  mw_bit any[MW_CLASSES * 4];                  /* by density of the block; left, above */
  mw_bit nonzero[MW_CLASSES * MW_CLASSES * 8]; /* by density of column and row; above, left, left of that */
  mw_bit sign[9];                              /* by last sign in the row and in the column: none, plus, minus */
  mw_bit more[MW_ESCAPE];
  mw_bit length[MW_LENGTHS];
  mw_bit digit[MW_LENGTHS][1 << MW_TREE];      /* by length and the bits before */
} mw_model;

typedef struct mw_stream {
  mw_coder coder;
  mw_model model;
} mw_stream;

/* Scratch, uint16 each: a state a column, then one a block, both filled up to whole 32. */
#define MW_WHOLE(n) (((size_t)(n) + MW_BLOCK - 1) / MW_BLOCK * MW_BLOCK)
static inline size_t mw_scratch(uint32_t columns) {
  if ((uint64_t)columns * 2 > SIZE_MAX / 2) return SIZE_MAX; /* more than there can be */
  return MW_WHOLE(columns) + MW_WHOLE(columns / MW_BLOCK + 1);
}

/* How far one section has come, so that it can be coded in pieces. Other sections of the stream wait until it is at its end. */
typedef struct mw_walk {
  uint16_t *scratch;
  size_t left;    /* entries to come */
  uint64_t zeros; /* entries that are zero, from where it stands to the section's end */
  uint32_t columns, blocks;
  uint32_t at;                   /* index of the block's first entry */
  uint32_t row_density, row_sign;
  uint32_t chunk, begun;         /* first of 32 blocks, and whether context is of them */
  uint32_t flag, some;           /* which of them it is; a bit a block that had an entry */
  uint32_t inside, above;        /* whether it stands inside that block, and whether the block had an entry in the row above */
  uint32_t next, nonzero, minus; /* column of the block that is next; a bit a column */
  uint16_t context[MW_BLOCK + 1];
} mw_walk;

/* Begin a section whose shape was checked (mw_check_shape). scratch stays the walk's until its end; count entries are to come. */
void mw_walk_begin(mw_walk *walk, uint32_t rows, uint32_t columns, size_t count, uint16_t *scratch);
mw_status mw_check_shape(uint32_t rows, uint32_t columns, size_t count, size_t scratch_length);

void mw_encode_begin(mw_stream *s, uint8_t *out, size_t capacity);
mw_status mw_encode_section(mw_stream *s, uint32_t rows, uint32_t columns, const uint32_t *index, const int32_t *value, size_t count,
                            uint16_t *scratch, size_t scratch_length, size_t *at);
/* Write n further entries of a section. They were checked: rising, inside, after those before, not zero. */
mw_status mw_encode_some(mw_stream *s, mw_walk *walk, const uint32_t *index, const int32_t *value, size_t n);
mw_status mw_encode_end(mw_stream *s, size_t *length);

void mw_decode_begin(mw_stream *s, const uint8_t *in, size_t length);
/* index and value hold count entries each, and are all written when the status is MW_OK. */
mw_status mw_decode_section(mw_stream *s, uint32_t rows, uint32_t columns, uint32_t *index, int32_t *value, size_t count,
                            uint16_t *scratch, size_t scratch_length);
/* Read up to room further entries; *got < room only at the section's end, and 0 when the status is not MW_OK. */
mw_status mw_decode_some(mw_stream *s, mw_walk *walk, uint32_t *index, int32_t *value, size_t room, size_t *got);
mw_status mw_decode_end(const mw_stream *s);

#endif
