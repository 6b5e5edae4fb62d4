/* Byte planes: what is split is joined again; anything else is joined or refused, with one outcome in every implementation.
   And storage types: what is stored is held and stored again to the bit, and sums are rounded to something that is.

   Input: type (1 byte), whether there is a parent, entries (2 bytes), a count to lie with (2 bytes); then parent, fresh, and bits and
   planes as they might come over the wire. */
#include "../mw_bits.h"
#include "../mw_planes.h"
#include "fuzz.h"

static const struct {
  uint8_t dtype;
  uint32_t width, infinity;
} TYPES[] = {{MW_FLOAT32, 4, 0x7f800000u}, {MW_FLOAT16, 2, 0x7c00u}, {MW_BFLOAT16, 2, 0x7f80u}, {MW_INT8, 1, 0}, {MW_INT32, 4, 0}, {0, 2, 0}};

static void storage(const uint8_t *stored, size_t n, uint8_t dtype, uint32_t width) {
  size_t at = 0;
  float *held = room(n, sizeof *held), *sums = room(n, sizeof *sums);
  uint8_t *again = room(n, width);
  if (!mw_from_storage(stored, n, dtype, held, &at)) {
    LAW(!mw_to_storage(held, n, dtype, again, &at) && same(again, stored, n, width));
    for (size_t i = 0; i < n; i++) sums[i] = held[i];
    const mw_status status = mw_round_stored(sums, n, dtype, held, &at);
    LAW(status ? dtype == MW_INT8 && at < n && sums[at] == -128.0f : same(held, sums, n, sizeof *held));
  } else {
    LAW(at < n);
  }
  for (size_t i = 0; i + 4 <= n * width; i += 4) { /* any float32 at all */
    float sum, result;
    memcpy(&sum, stored + i, sizeof sum);
    if (mw_round_stored(&sum, 1, dtype, &result, &at)) continue;
    if (dtype == MW_INT8 && result != (float)(int)result) continue;
    const mw_status status = mw_to_storage(&result, 1, dtype, again, &at);
    LAW(!status || (dtype == MW_INT8 && mw_bits(result) == 0x80000000u));
  }
  free(held), free(sums), free(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  input in = {data, size};
  const size_t type = take_u8(&in) % (sizeof TYPES / sizeof *TYPES);
  const int alone = take_u8(&in) & 1;
  const size_t n = take_u16(&in) % 1200, lie = take_u16(&in) % (n + 1), bytes = (n + 7) / 8;
  const uint32_t width = TYPES[type].width, infinity = TYPES[type].infinity;
  uint8_t *base = take_array(&in, n, width), *fresh = take_array(&in, n, width), *parent = alone ? NULL : base;
  uint8_t *bits = take_array(&in, bytes, 1), *wire = take_array(&in, lie, width);
  uint8_t *changed = room(bytes, 1), *planes = room(n, width), *joined = room(n, width);
  int32_t *d = room(n, sizeof *d);
  size_t count = 0, at = 0;
  const char *kernels[] = {"generic", ""};
  mw_status first = MW_OK;
  for (int k = 0; k < 2; k++) {
    LAW(!mw_choose(kernels[k]));
    if (!mw_split_planes(fresh, parent, n, width, infinity, changed, planes, n, &count, &at)) {
      LAW(count <= n);
      LAW(!mw_join_planes(changed, planes, n, count, parent, n, width, infinity, joined, &at) && same(joined, fresh, n, width));
    } else {
      LAW(at < n && infinity);
    }
    const mw_status status = mw_join_planes(bits, wire, lie, lie, parent, n, width, infinity, joined, &at);
    LAW(!k || status == first);
    first = status;
    if (!status) { /* what is joined is split to what it was joined from */
      LAW(!mw_split_planes(joined, parent, n, width, infinity, changed, planes, n, &count, &at));
      LAW(count == lie && same(changed, bits, bytes, 1));
      for (uint32_t p = 0; p < width; p++) LAW(same(planes + p * n, wire + p * lie, lie, 1));
    }
  }
  if (!mw_check_lz4(fresh, n * width)) LAW(n); /* exactly as long as it is said to be: a byte past the end is a fault */
  mw_ordered_differences(fresh, base, n, width, infinity, d);
  for (size_t i = 0; i < n; i++) LAW((d[i] == 0) == same(fresh + i * width, base + i * width, 1, width));
  if (TYPES[type].dtype >= MW_FLOAT16 && TYPES[type].dtype <= MW_INT8) storage(fresh, n, TYPES[type].dtype, width);
  free(base), free(fresh), free(bits), free(wire), free(changed), free(planes), free(joined), free(d);
  return 0;
}
