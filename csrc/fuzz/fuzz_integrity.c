/* CRC-32C against its polynomial, bit by bit; the fingerprint against its laws: it adds over pieces, its sparse form is the dense
   one, and a verbatim tensor counts mod 2^32.

   Input: step (2 bytes), verbatim, start (32 bits), where to cut; then integers. The checksum is of the whole input. */
#include "../mw.h"
#include "fuzz.h"

static uint32_t slow_crc32c(const uint8_t *data, size_t length) {
  uint32_t crc = 0xffffffffu;
  for (size_t i = 0; i < length; i++) {
    crc ^= data[i];
    for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
  }
  return ~crc;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  uint8_t *exact = copy_of(data, size, 1);
  for (size_t from = 0; from < 4 && from <= size; from++) /* any alignment */
    LAW(mw_crc32c(exact + from, size - from) == slow_crc32c(data + from, size - from));
  free(exact);

  input in = {data, size};
  int64_t step = take_step(&in);
  const int verbatim = take_u8(&in) & 1;
  uint64_t start = take_u32(&in);
  size_t cut = take_u8(&in), n = in.left / 4;
  if (cut > n) cut = n;
  int32_t *q = take_array(&in, n, sizeof *q), *value = room(n, sizeof *value), *scaled = room(n, sizeof *scaled);
  uint32_t *index = room(n, sizeof *index);
  uint64_t whole[2], left[2], right[2], sparse[2];
  mw_fingerprint(q, n, start, verbatim, whole);
  mw_fingerprint(q, cut, start, verbatim, left);
  mw_fingerprint(q + cut, n - cut, start + cut, verbatim, right);
  for (int k = 0; k < 2; k++) {
    LAW(whole[k] == left[k] + right[k]);
    LAW(!verbatim || !(uint32_t)whole[k]);
  }
  size_t count = 0;
  int fits = 1;
  for (size_t i = 0; i < n; i++) {
    scaled[i] = 0;
    if (!q[i]) continue;
    index[count] = (uint32_t)i;
    value[count] = q[i];
    count++;
  }
  LAW(mw_fingerprint_sparse(index, value, count, 1, start, verbatim, sparse) == MW_OK);
  LAW(sparse[0] == whole[0] && sparse[1] == whole[1]);
  left[0] = left[1] = 7;
  if (mw_fingerprint_sparse(index, value, count, step, start, verbatim, left) != MW_OK) {
    LAW(left[0] == 7 && left[1] == 7);
  } else {
    for (size_t k = 0; k < count; k++) {
      int64_t product = value[k] * step;
      fits &= product >= INT32_MIN && product <= INT32_MAX;
      if (fits) scaled[index[k]] = (int32_t)product;
    }
    if (fits) {
      mw_fingerprint(scaled, n, start, verbatim, whole);
      LAW(left[0] == whole[0] && left[1] == whole[1]);
    }
  }
  free(q), free(value), free(scaled), free(index);
  return 0;
}
