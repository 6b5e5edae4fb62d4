/* The range encoder on any entries: it refuses what is no section and names the entry; what it takes comes back the same; in a
   buffer of exactly the right size it gives the same bytes, and in one that is a byte shorter it refuses.

   Input: rows, columns (8 bits, 16 bits), form; then entries: by form a gap and a short value, or 32 bits of each. */
#include "../mw_sections.h"
#include "fuzz.h"

#define ENTRIES (1 << 13)
#define CAPACITY (1 << 16)

static mw_status encode(uint32_t rows, uint32_t columns, const uint32_t *index, const int32_t *value, size_t count, uint8_t *out,
                        size_t capacity, size_t *length, size_t *at) {
  static mw_stream stream;
  uint16_t *scratch = room(mw_scratch(columns), sizeof *scratch);
  mw_encode_begin(&stream, out, capacity);
  mw_status status = mw_encode_section(&stream, rows, columns, index, value, count, scratch, mw_scratch(columns), at);
  if (!status || status == MW_NO_ROOM) status = mw_encode_end(&stream, length);
  free(scratch);
  return status;
}

/* The same in pieces, of entries that are good. */
static mw_status encode_pieces(uint32_t rows, uint32_t columns, const uint32_t *index, const int32_t *value, size_t count, uint8_t *out,
                               size_t capacity, size_t *length) {
  static mw_stream stream;
  uint16_t *scratch = room(mw_scratch(columns), sizeof *scratch);
  mw_walk walk;
  mw_encode_begin(&stream, out, capacity);
  mw_walk_begin(&walk, rows, columns, count, scratch);
  for (size_t k = 0, n; k < count; k += n) {
    n = 1 + index[k] % 50;
    if (n > count - k) n = count - k;
    uint32_t *some = copy_of(index + k, n, sizeof *some);
    int32_t *values = copy_of(value + k, n, sizeof *values);
    mw_encode_some(&stream, &walk, some, values, n);
    free(some), free(values);
  }
  free(scratch);
  return mw_encode_end(&stream, length);
}

static mw_status expected(uint64_t size, const uint32_t *index, const int32_t *value, size_t count, size_t *at) {
  if (count > size) return MW_SHAPE;
  for (size_t k = 0; k < count; k++) {
    *at = index[k];
    if (index[k] >= size || (k && index[k] <= index[k - 1])) return MW_INDEX;
    if (!value[k]) return MW_VALUE;
  }
  return MW_OK;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static uint8_t out[CAPACITY];
  static mw_stream stream;
  input in = {data, size};
  uint32_t rows = take_u8(&in), columns = take_u16(&in);
  uint8_t form = take_u8(&in);
  if (columns > ENTRIES) columns = ENTRIES;
  if (columns && rows > ENTRIES / columns) rows = ENTRIES / columns;
  size_t each = form & 1 ? 8 : 2, count = in.left / each;
  uint32_t *index = room(count, sizeof *index), next = 0;
  int32_t *value = room(count, sizeof *value);
  for (size_t k = 0; k < count; k++) {
    if (form & 1) {
      index[k] = take_u32(&in);
      value[k] = (int32_t)take_u32(&in);
    } else {
      index[k] = next + take_u8(&in);
      value[k] = (int8_t)take_u8(&in);
      next = index[k] + 1;
    }
  }
  size_t at = 0, at_fault = 0, length = 0, short_length;
  mw_status wanted = expected((uint64_t)rows * columns, index, value, count, &at_fault);
  mw_status status = encode(rows, columns, index, value, count, out, sizeof out, &length, &at);
  LAW(status == wanted);
  LAW(wanted != MW_INDEX && wanted != MW_VALUE ? 1 : at == at_fault);
  if (!status) {
    uint8_t *exact = room(length, 1);
    uint32_t *index2 = room(count, sizeof *index2);
    int32_t *value2 = room(count, sizeof *value2);
    uint16_t *scratch = room(mw_scratch(columns), sizeof *scratch);
    LAW(encode(rows, columns, index, value, count, exact, length, &short_length, &at) == MW_OK);
    LAW(short_length == length && same(exact, out, length, 1));
    if (length) LAW(encode(rows, columns, index, value, count, exact, length - 1, &short_length, &at) == MW_NO_ROOM);
    LAW(encode_pieces(rows, columns, index, value, count, exact, length, &short_length) == MW_OK && short_length == length);
    LAW(same(exact, out, length, 1));
    mw_decode_begin(&stream, exact, length);
    LAW(mw_decode_section(&stream, rows, columns, index2, value2, count, scratch, mw_scratch(columns)) == MW_OK);
    LAW(mw_decode_end(&stream) == MW_OK);
    LAW(same(index, index2, count, sizeof *index) && same(value, value2, count, sizeof *value));
    free(exact), free(index2), free(value2), free(scratch);
  }
  free(index), free(value);
  return 0;
}
