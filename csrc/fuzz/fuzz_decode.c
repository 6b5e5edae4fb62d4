/* The range decoder on any bytes. It accepts a stream exactly when a writer gives the same bytes for what was read; whatever
   entries it gave, accepted or not, are well-formed and survive a round trip.

   Input: number of sections less one; for each rows, columns, count (16 bits each); the stream. */
#include "../mw_sections.h"
#include "fuzz.h"

#define SECTIONS 6
#define ENTRIES (1 << 12) /* of one section: a run stays in the milliseconds */

typedef struct section {
  uint32_t rows, columns;
  size_t count;
  uint32_t *index;
  int32_t *value;
} section;

static uint16_t *scratch_of(const section *s, size_t *length) {
  *length = mw_scratch(s->columns);
  return room(*length, sizeof(uint16_t));
}

static void refuse_shape(const section *s) {
  static mw_stream stream; /* neither input nor scratch is looked at before the shape */
  mw_decode_begin(&stream, NULL, 0);
  uint32_t huge = (s->rows << 16) | s->columns | 0x10000u;
  LAW(mw_decode_section(&stream, huge, huge, NULL, NULL, 1, NULL, 0) == MW_SHAPE);
  mw_status status = mw_decode_section(&stream, s->rows, s->columns, NULL, NULL, s->count, NULL, 0);
  LAW(status == (s->count > (uint64_t)s->rows * s->columns ? MW_SHAPE : MW_NO_ROOM));
}

static mw_status decode(const uint8_t *data, size_t length, section *sections, size_t n, mw_status *end) {
  static mw_stream stream;
  mw_status status = MW_OK;
  mw_decode_begin(&stream, data, length);
  for (size_t i = 0; i < n && !status; i++) {
    size_t scratch_length;
    uint16_t *scratch = scratch_of(&sections[i], &scratch_length);
    status = mw_decode_section(&stream, sections[i].rows, sections[i].columns, sections[i].index, sections[i].value, sections[i].count,
                               scratch, scratch_length);
    free(scratch);
  }
  *end = mw_decode_end(&stream);
  return status;
}

/* The same in pieces of any size; what a piece gives before a refusal is well-formed. */
static mw_status decode_pieces(const uint8_t *data, size_t length, section *sections, size_t n, uint32_t draw, mw_status *end) {
  static mw_stream stream;
  mw_status status = MW_OK;
  mw_decode_begin(&stream, data, length);
  for (size_t i = 0; i < n && !status; i++) {
    size_t scratch_length, got;
    uint16_t *scratch = scratch_of(&sections[i], &scratch_length);
    mw_walk walk;
    mw_walk_begin(&walk, sections[i].rows, sections[i].columns, sections[i].count, scratch);
    for (size_t k = 0; k < sections[i].count && !status; k += got) {
      size_t some = 1 + (draw = draw * 1664525u + 1013904223u) / 65536 % 70;
      if (some > sections[i].count - k) some = sections[i].count - k;
      uint32_t *index = room(some, sizeof *index);
      int32_t *value = room(some, sizeof *value);
      status = mw_decode_some(&stream, &walk, index, value, some, &got);
      LAW(got == (status ? 0 : some));
      memcpy(sections[i].index + k, index, got * sizeof *index);
      memcpy(sections[i].value + k, value, got * sizeof *value);
      free(index), free(value);
    }
    free(scratch);
  }
  *end = mw_decode_end(&stream);
  return status;
}

static uint8_t *encode(const section *sections, size_t n, size_t *length) {
  static mw_stream stream;
  size_t capacity = 64, at;
  for (size_t i = 0; i < n; i++) capacity += sections[i].count * 40 + (size_t)sections[i].rows * sections[i].columns * 2;
  uint8_t *out = room(capacity, 1);
  mw_encode_begin(&stream, out, capacity);
  for (size_t i = 0; i < n; i++) {
    size_t scratch_length;
    uint16_t *scratch = scratch_of(&sections[i], &scratch_length);
    LAW(mw_encode_section(&stream, sections[i].rows, sections[i].columns, sections[i].index, sections[i].value, sections[i].count, scratch,
                          scratch_length, &at) == MW_OK);
    free(scratch);
  }
  LAW(mw_encode_end(&stream, length) == MW_OK);
  return out;
}

static void well_formed(const section *s) {
  for (size_t k = 0; k < s->count; k++) {
    LAW(s->index[k] < (uint64_t)s->rows * s->columns);
    LAW(!k || s->index[k] > s->index[k - 1]);
    LAW(s->value[k]);
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  input in = {data, size};
  section read[SECTIONS], again[SECTIONS];
  size_t n = 1 + take_u8(&in) % SECTIONS;
  for (size_t i = 0; i < n; i++) {
    section s = {take_u16(&in), take_u16(&in), take_u16(&in), NULL, NULL};
    refuse_shape(&s);
    uint32_t most = s.columns ? ENTRIES / s.columns : ENTRIES;
    if (s.columns > ENTRIES) s.columns = ENTRIES, most = 1;
    if (s.rows > most) s.rows = most;
    if (s.count > (size_t)s.rows * s.columns) s.count = (size_t)s.rows * s.columns;
    s.index = room(s.count, sizeof *s.index), s.value = room(s.count, sizeof *s.value);
    read[i] = s;
    s.index = room(s.count, sizeof *s.index), s.value = room(s.count, sizeof *s.value);
    again[i] = s;
  }
  uint8_t *stream = copy_of(in.data, in.left, 1);
  mw_status end, end_of_pieces, whole = decode(stream, in.left, read, n, &end);
  mw_status pieces = decode_pieces(stream, in.left, again, n, (uint32_t)size * 2654435761u, &end_of_pieces);
  LAW((whole ? whole : end) == (pieces ? pieces : end_of_pieces));
  if (!whole) {
    for (size_t i = 0; i < n; i++) {
      well_formed(&read[i]);
      LAW(same(read[i].index, again[i].index, read[i].count, sizeof(uint32_t)));
      LAW(same(read[i].value, again[i].value, read[i].count, sizeof(int32_t)));
    }
    size_t length;
    uint8_t *written = encode(read, n, &length);
    LAW((end == MW_OK) == (length == in.left && same(written, stream, length, 1)));
    uint8_t *exact = copy_of(written, length, 1);
    LAW(decode(exact, length, again, n, &end) == MW_OK && end == MW_OK);
    for (size_t i = 0; i < n; i++) {
      LAW(same(read[i].index, again[i].index, read[i].count, sizeof(uint32_t)));
      LAW(same(read[i].value, again[i].value, read[i].count, sizeof(int32_t)));
    }
    free(written), free(exact);
  } else {
    LAW(end != MW_OK);
  }
  for (size_t i = 0; i < n; i++) free(read[i].index), free(read[i].value), free(again[i].index), free(again[i].value);
  free(stream);
  return 0;
}
