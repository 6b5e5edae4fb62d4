/* Applies an update while its stream is read, and takes it back when the stream turns out to be bad. */
#include "mw_apply.h"
#include "mw_bits.h"
#include "mw_fingerprint.h"
#include "mw_sections.h"

/* Entries decoded at a time. Two chunks are under way: while one is decoded, the cache lines of the other arrive. */
#define CHUNK 64
#define PROGRESS (1u << 18) /* entries between two calls of mw_progress */

typedef enum reading {
  WRITE, /* as it goes */
  LOOK,  /* as if every Q were 0; nothing is written */
  UNDO   /* the first entries, as many as were written */
} reading;

typedef struct chunk {
  const mw_tensor *tensor;
  size_t place; /* of the tensor */
  int64_t step;
  size_t n;
  uint32_t index[CHUNK];
  int32_t value[CHUNK];
} chunk;

/* One reading of a stream. */
typedef struct walk_through {
  reading mode;
  const mw_update *counted; /* where what is written is counted, too, or NULL */
  uint64_t lanes[2]; /* what the entries so far add to the fingerprint */
  uint64_t entries;  /* written, or to be taken back */
  mw_status fault;   /* of the first entry that has one; behind it nothing is written, but the stream is read to its end */
  mw_place place;
} walk_through;

static inline mw_row row_of(const uint8_t *table, size_t i) {
  mw_row row;
  memcpy(&row, table + i * MW_ROW_BYTES, sizeof row);
  return row;
}

mw_status mw_check_table(const uint8_t *table, size_t rows, int snapshot) {
  _Static_assert(sizeof(mw_row) == MW_ROW_BYTES, "a row lies in memory as it stands on the wire");
  int32_t last = -1;
  for (size_t i = 0; i < rows; i++) {
    const mw_row row = row_of(table, i);
    if (row.codec != MW_CODEC_RANGE || row.reserved || (int32_t)row.tensor <= last || !(row.mantissa & 1) ||
        row.shift > MW_STEP_SHIFT_MAX || mw_check_unit(row.exponent))
      return MW_ROW;
    /* An empty section says one thing alone: a snapshot's tensor is at its base, with a unit that is not the manifest's. */
    if (!row.count && (!snapshot || row.mantissa != 1 || row.shift)) return MW_ROW;
    last = row.tensor;
  }
  return MW_OK;
}

/* What only the model can tell of a table. */
static mw_status check_rows(const mw_tensor *tensors, size_t count, const mw_update *u, size_t scratch_length, mw_place *place) {
  uint64_t entries = 0;
  for (size_t i = 0; i < u->rows; i++) {
    const mw_row row = row_of(u->table, i);
    *place = (mw_place){row.tensor, 0, count};
    if (row.tensor >= count) return MW_INDEX;
    const mw_tensor *t = &tensors[row.tensor];
    *place = (mw_place){row.tensor, row.count, t->n};
    if (row.count > t->n) return MW_INDEX;
    if ((uint64_t)t->rows * t->columns != t->n || t->n > UINT32_MAX) return MW_SHAPE;
    if (scratch_length < mw_scratch(t->columns)) return MW_NO_ROOM;
    if (t->kind == MW_KIND_VERBATIM && (row.mantissa != 1 || row.shift || row.exponent)) return MW_VERBATIM_STEP;
    if (t->kind > MW_KIND_VERBATIM || (t->kind == MW_KIND_LATTICE && (t->dtype < MW_FLOAT32 || t->dtype > MW_INT8))) return MW_ROW;
    if (row.exponent != t->exponent) return MW_UNIT;
    entries += row.count;
  }
  return entries > MW_ENTRIES_PER_BYTE * ((uint64_t)u->length + MW_VIRTUAL_BYTES) ? MW_CROWDED : MW_OK;
}

/* Write, look at or take back the entries of one chunk. mode, verbatim and dtype are constants of each use. */
static inline void move(const chunk *c, walk_through *r, size_t n, const reading mode, const int verbatim, const uint8_t dtype) {
  const mw_tensor *t = c->tensor;
  const float unit = verbatim ? 0.0f : mw_power(t->exponent);
  uint64_t a = r->lanes[0], b = r->lanes[1];
  for (size_t k = 0; k < n; k++) {
    const size_t i = c->index[k];
    const int64_t moved = c->value[k] * c->step;
    mw_status fault = MW_OK;
    int32_t q = 0;
    float w = 0;
    if (i >= t->n) { /* no decoder gives this; no input whatever shall write outside an array */
      fault = MW_INDEX;
    } else if (verbatim) { /* bit patterns add mod 2^32 */
      const uint32_t before = mode == LOOK ? 0u : (uint32_t)t->q[i];
      const uint32_t after = mode == UNDO ? before - (uint32_t)moved : before + (uint32_t)moved;
      const uint32_t bits = mw_bits(t->base[i]) + after;
      w = mw_float(bits);
      memcpy(&q, &after, sizeof q);
      if (mode != UNDO && dtype != MW_INT32 && (!mw_finite_bits(bits) || mw_bits(mw_stored(w, dtype)) != bits)) fault = MW_WEIGHT_NOT_FINITE;
      if (mode != LOOK && !fault) memcpy(&t->w[i], &bits, sizeof bits); /* as bits: a float register may quiet a NaN of int32 */
    } else {
      const int64_t before = mode == LOOK ? 0 : t->q[i];
      const int64_t after = mode == UNDO ? before - moved : before + moved;
      if (mw_in_range(after)) {
        q = (int32_t)after;
        w = mw_weight_as(t->base[i], q, unit, dtype);
        if (mode != UNDO && !mw_finite(w)) fault = mw_stored_fault(mw_weight(t->base[i], q, unit), dtype);
        if (mode != LOOK && !fault) t->w[i] = w;
      } else {
        fault = MW_RANGE;
      }
    }
    if (fault) {
      r->fault = fault;
      r->place = (mw_place){c->place, i, t->n};
      n = k;
      break;
    }
    if (mode != LOOK) t->q[i] = q;
    mw_lanes_add(&a, &b, moved, t->start + i, verbatim);
  }
  r->lanes[0] = a;
  r->lanes[1] = b;
  r->entries += n;
}

static inline void move_as(const chunk *c, walk_through *r, size_t n, const reading mode) {
  const uint8_t dtype = c->tensor->dtype;
  if (c->tensor->kind == MW_KIND_VERBATIM)
    move(c, r, n, mode, 1, dtype);
  else if (dtype == MW_FLOAT32)
    move(c, r, n, mode, 0, MW_FLOAT32);
  else
    move(c, r, n, mode, 0, dtype);
}

/* Count the first n entries of a chunk in their buckets. */
static void count(const chunk *c, const mw_update *u, size_t n) {
  const uint16_t *codes = u->codes + c->tensor->start;
  const uint32_t factor = (uint32_t)c->step * u->factors[c->place]; /* all of it mod 2^32 */
  if (!factor) return;
  for (size_t k = 0; k < n; k++) {
    const uint32_t code = codes[c->index[k]], moved = (uint32_t)c->value[k] * factor;
    u->sums[code % MW_BUCKETS] += code & MW_BUCKETS ? 0 - moved : moved;
  }
}

static void settle(chunk *c, walk_through *r, uint64_t least) {
  size_t n = c->n;
  const uint64_t before = r->entries;
  c->n = 0;
  if (!n || r->fault) return;
  switch (r->mode) {
    case WRITE:
      move_as(c, r, n, WRITE);
      if (r->counted) count(c, r->counted, (size_t)(r->entries - before));
      break;
    case LOOK: move_as(c, r, n, LOOK); break;
    case UNDO:
      if (n > least - r->entries) n = (size_t)(least - r->entries);
      move_as(c, r, n, UNDO);
      break;
  }
}

static inline void fetch(const chunk *c) {
  const mw_tensor *t = c->tensor;
  for (size_t k = 0; k < c->n; k++) {
    const size_t i = c->index[k] < t->n ? c->index[k] : 0;
    __builtin_prefetch(t->base + i);
    __builtin_prefetch(t->q + i, 1);
    __builtin_prefetch(t->w + i, 1);
  }
}

/* Bytes that this reading is done with. The last few are looked at once more when the stream ends. */
static inline size_t behind(const mw_stream *s) {
  return s->coder.used > MW_VIRTUAL_BYTES ? s->coder.used - MW_VIRTUAL_BYTES : 0;
}

/* Read the stream once. undo: how many entries to take back; they are the first ones of the stream. */
static mw_status read_stream(const mw_tensor *tensors, const mw_update *u, walk_through *r, uint64_t undo, uint16_t *scratch,
                             mw_progress progress, void *context) {
  mw_stream stream;
  mw_walk walk;
  chunk chunks[2];
  chunk *now = &chunks[0], *before = &chunks[1];
  uint64_t seen = 0;
  mw_status status;
  before->n = now->n = 0;
  mw_decode_begin(&stream, u->stream, u->length);
  for (size_t i = 0; i < u->rows; i++) {
    const mw_row row = row_of(u->table, i);
    const mw_tensor *t = &tensors[row.tensor];
    size_t left = row.count;
    mw_walk_begin(&walk, t->rows, t->columns, row.count, scratch);
    while (left) {
      now->tensor = t;
      now->place = row.tensor;
      now->step = (int64_t)row.mantissa << row.shift;
      size_t got = 0;
      status = mw_decode_some(&stream, &walk, now->index, now->value, CHUNK, &got);
      if (status) return status;
      now->n = got;
      fetch(now);
      settle(before, r, undo);
      if (r->mode == UNDO && r->entries == undo) return MW_OK;
      chunk *done = before;
      before = now;
      now = done;
      left -= got;
      seen += got;
      if (progress && seen / PROGRESS != (seen - got) / PROGRESS) progress(context, behind(&stream));
    }
  }
  settle(before, r, undo);
  return r->mode == UNDO ? MW_OK : mw_decode_end(&stream);
}

/* Has no Q moved yet? */
static int at_base(const mw_tensor *tensors, size_t count) {
  for (size_t t = 0; t < count; t++) {
    const int32_t *q = tensors[t].q;
    size_t i = 0;
    for (; tensors[t].n - i >= 64; i += 64) {
      int32_t any = 0;
      for (size_t k = 0; k < 64; k++) any |= q[i + k];
      if (any) return 0;
    }
    for (; i < tensors[t].n; i++)
      if (q[i]) return 0;
  }
  return 1;
}

static void return_to_base(const mw_tensor *tensors, size_t count) {
  for (size_t t = 0; t < count; t++) {
    if (!tensors[t].n) continue;
    memset(tensors[t].q, 0, tensors[t].n * sizeof(int32_t));
    memcpy(tensors[t].w, tensors[t].base, tensors[t].n * sizeof(float));
  }
}

/* The verdict on one reading, once its stream has been judged. */
static mw_status judge(mw_status stream, const walk_through *r, const uint64_t from[2], const uint64_t *expect, mw_place *place) {
  *place = r->place;
  if (stream) return stream;
  if (r->fault) return r->fault;
  if (expect && (from[0] + r->lanes[0] != expect[0] || from[1] + r->lanes[1] != expect[1])) return MW_FINGERPRINT;
  return MW_OK;
}

mw_status mw_apply_stream(const mw_tensor *tensors, size_t count, const mw_update *update, const uint64_t *expect, uint64_t lanes[2],
                          uint16_t *scratch, size_t scratch_length, mw_place *place, mw_progress progress, void *context) {
  *place = (mw_place){0, 0, 0};
  mw_status status = mw_check_rounding();
  if (!status) status = mw_check_table(update->table, update->rows, update->snapshot);
  if (!status) status = check_rows(tensors, count, update, scratch_length, place);
  if (status) return status;
  const uint64_t from[2] = {update->snapshot ? 0 : lanes[0], update->snapshot ? 0 : lanes[1]};
  const int look_first = update->snapshot && !at_base(tensors, count);
  walk_through r = {.mode = WRITE, .counted = update->codes ? update : NULL};
  if (look_first) {
    walk_through look = {.mode = LOOK};
    status = judge(read_stream(tensors, update, &look, 0, scratch, progress, context), &look, from, expect, place);
    if (status) return status;
    return_to_base(tensors, count);
  }
  status = judge(read_stream(tensors, update, &r, 0, scratch, progress, context), &r, from, expect, place);
  if (!status) {
    lanes[0] = from[0] + r.lanes[0];
    lanes[1] = from[1] + r.lanes[1];
    return MW_OK;
  }
  if (look_first) return MW_CHANGED;
  walk_through undo = {.mode = UNDO};
  if (r.entries) read_stream(tensors, update, &undo, r.entries, scratch, progress, context);
  const int back = undo.entries == r.entries && undo.lanes[0] == r.lanes[0] && undo.lanes[1] == r.lanes[1];
  return back ? status : MW_CHANGED;
}
