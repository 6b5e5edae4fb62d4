/* The head trainer's loops, written once for registers of LANES floats. The file that includes this defines LANES (1, 4, 8), TARGET
   (a function attribute, or nothing), ROWS and NEURONS (what a tile of the forward pass holds), HIGH (neurons of a tile of the
   update). All give the same bits: lanes are stripes of a sum, or results that have nothing to do with each other. */
#include <string.h>

#include "mw_head_kernels.h"
#include "mw_math.h"

#define PARTS (MW_STRIPES / LANES)
#define INLINE TARGET static inline __attribute__((always_inline))

#if LANES == 1
typedef float lanes;
#else
typedef float lanes __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef float quad_of __attribute__((vector_size(16), aligned(4), may_alias));
#endif

/* The first steps of the tree, from 16 stripes to 4. */
INLINE void fold(const lanes *s, float *quad) {
#if LANES == 8
  const lanes eight = s[0] + s[1];
  float both[8];
  *(lanes *)both = eight;
  *(quad_of *)quad = *(const quad_of *)both + *(const quad_of *)(both + 4);
#elif LANES == 4
  *(quad_of *)quad = (s[0] + s[2]) + (s[1] + s[3]);
#else
  for (int k = 0; k < 4; k++) quad[k] = (s[k] + s[k + 8]) + (s[k + 4] + s[k + 12]);
#endif
}

/* Sums of `rows` rows of x with `neurons` rows of w, four partial sums each. */
INLINE void dots(const float *x, size_t stride, const float *w, size_t wide, float *quads, size_t quad_stride, const int rows,
                 const int neurons) {
  lanes sums[ROWS][NEURONS][PARTS];
#pragma GCC unroll 16
  for (int r = 0; r < rows; r++)
#pragma GCC unroll 16
    for (int j = 0; j < neurons; j++)
#pragma GCC unroll 16
      for (int p = 0; p < PARTS; p++) sums[r][j][p] = (lanes){0};
  for (size_t i = 0; i < wide; i += MW_STRIPES)
#pragma GCC unroll 16
    for (int p = 0; p < PARTS; p++) {
      lanes in[ROWS];
#pragma GCC unroll 16
      for (int r = 0; r < rows; r++) in[r] = *(const lanes *)(x + (size_t)r * stride + i + (size_t)(p * LANES));
#pragma GCC unroll 16
      for (int j = 0; j < neurons; j++) {
        const lanes weight = *(const lanes *)(w + (size_t)j * wide + i + (size_t)(p * LANES));
#pragma GCC unroll 16
        for (int r = 0; r < rows; r++) {
          const lanes product = in[r] * weight;
          sums[r][j][p] = sums[r][j][p] + product;
        }
      }
    }
#pragma GCC unroll 16
  for (int r = 0; r < rows; r++)
#pragma GCC unroll 16
    for (int j = 0; j < neurons; j++) fold(sums[r][j], quads + (size_t)r * quad_stride + 4 * (size_t)j);
}

/* The last steps of the tree for all neurons of one row. */
INLINE void finish(const float *restrict quads, const float *restrict bias, float *restrict z, size_t neurons) {
  for (size_t j = 0; j < neurons; j++) {
    const float *q = quads + 4 * j;
    z[j] = ((q[0] + q[2]) + (q[1] + q[3])) + bias[j];
  }
}

INLINE void forward_rows(const mw_layer *l, size_t b, float *z, size_t z_stride, float *quads, const int rows) {
  const float *x = l->x + b * l->stride;
  size_t j = 0;
  for (; j + NEURONS <= l->neurons; j += NEURONS)
    dots(x, l->stride, l->w + j * l->wide, l->wide, quads + 4 * j, 4 * l->high, rows, NEURONS);
  for (; j < l->neurons; j++) dots(x, l->stride, l->w + j * l->wide, l->wide, quads + 4 * j, 4 * l->high, rows, 1);
  for (int r = 0; r < rows; r++) finish(quads + (size_t)r * 4 * l->high, l->bias, z + (b + (size_t)r) * z_stride, l->neurons);
}

TARGET static void forward(const mw_layer *l, size_t batch, float *z, size_t z_stride, float *quads) {
  size_t b = 0;
  for (; b + ROWS <= batch; b += ROWS) forward_rows(l, b, z, z_stride, quads, ROWS);
  for (; b < batch; b++) forward_rows(l, b, z, z_stride, quads, 1);
}

/* 16 entries of `many` rows of a result: sum over k of factor[k * factor_stride + row * factor_step] * from[k * from_stride ..]. */
INLINE void tile(const float *factor, size_t factor_stride, size_t factor_step, const float *from, size_t from_stride, size_t n,
                 float *out, size_t out_stride, const int many) {
  lanes sums[HIGH][PARTS];
#pragma GCC unroll 16
  for (int r = 0; r < many; r++)
#pragma GCC unroll 16
    for (int p = 0; p < PARTS; p++) sums[r][p] = (lanes){0};
  for (size_t k = 0; k < n; k++) {
    lanes in[PARTS];
#pragma GCC unroll 16
    for (int p = 0; p < PARTS; p++) in[p] = *(const lanes *)(from + k * from_stride + (size_t)(p * LANES));
#pragma GCC unroll 16
    for (int r = 0; r < many; r++) {
      const float f = factor[k * factor_stride + (size_t)r * factor_step];
#pragma GCC unroll 16
      for (int p = 0; p < PARTS; p++) {
        const lanes product = in[p] * f;
        sums[r][p] = sums[r][p] + product;
      }
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < many; r++)
#pragma GCC unroll 16
    for (int p = 0; p < PARTS; p++) *(lanes *)(out + (size_t)r * out_stride + (size_t)(p * LANES)) = sums[r][p];
}

TARGET static void backward(const mw_layer *l, size_t batch, float *below) {
  for (size_t i = 0; i < l->wide; i += MW_STRIPES) {
    size_t b = 0;
    for (; b + HIGH <= batch; b += HIGH)
      tile(l->delta + b * l->high, 1, l->high, l->w + i, l->wide, l->neurons, below + b * l->wide + i, l->wide, HIGH);
    for (; b < batch; b++) tile(l->delta + b * l->high, 1, 0, l->w + i, l->wide, l->neurons, below + b * l->wide + i, l->wide, 1);
  }
}

/* Move 16 entries. */
INLINE void move(const mw_mover *m, const float decay, const float *restrict d, float *restrict w, float *restrict one,
                 float *restrict two) {
  const float rate = m->rate, beta1 = m->beta1, beta2 = m->beta2, rest1 = m->rest1, rest2 = m->rest2, epsilon = m->epsilon;
  if (m->optimizer == MW_SGD)
    for (int k = 0; k < MW_STRIPES; k++) w[k] = w[k] - (rate * d[k] + decay * w[k]);
  else if (m->optimizer == MW_MOMENTUM)
    for (int k = 0; k < MW_STRIPES; k++) {
      one[k] = beta1 * one[k] + d[k];
      w[k] = w[k] - (rate * one[k] + decay * w[k]);
    }
  else
    for (int k = 0; k < MW_STRIPES; k++) {
      one[k] = beta1 * one[k] + rest1 * d[k];
      two[k] = beta2 * two[k] + rest2 * (d[k] * d[k]);
      w[k] = w[k] - (rate * (one[k] / (__builtin_sqrtf(two[k]) + epsilon)) + decay * w[k]);
    }
}

INLINE float *beside(float *slot, size_t at) { return slot ? slot + at : NULL; }

INLINE void update_neurons(const mw_layer *l, size_t batch, const mw_mover *m, size_t j, const int many) {
  float d[HIGH * MW_STRIPES];
  for (size_t i = 0; i < l->wide; i += MW_STRIPES) {
    tile(l->delta + j, l->high, 1, l->x + i, l->stride, batch, d, MW_STRIPES, many);
    for (int r = 0; r < many; r++) {
      const size_t at = (j + (size_t)r) * l->wide + i;
      move(m, m->decay, d + r * MW_STRIPES, l->w + at, beside(l->slots[0], at), beside(l->slots[1], at));
    }
  }
}

TARGET static void update(const mw_layer *l, size_t batch, const mw_mover *m) {
  static const float one = 1.0f;
  size_t j = 0;
  for (; j + HIGH <= l->neurons; j += HIGH) update_neurons(l, batch, m, j, HIGH);
  for (; j < l->neurons; j++) update_neurons(l, batch, m, j, 1);
  for (size_t i = 0; i < l->high; i += MW_STRIPES) {
    float d[MW_STRIPES];
    tile(&one, 0, 0, l->delta + i, l->high, batch, d, MW_STRIPES, 1);
    move(m, 0.0f, d, l->bias + i, beside(l->bias_slots[0], i), beside(l->bias_slots[1], i));
  }
}

TARGET static void activate(float *z, size_t n, int tanh) {
  if (tanh)
    for (size_t k = 0; k < n; k++) z[k] = mw_tanh(z[k]);
  else
    for (size_t k = 0; k < n; k++) z[k] = z[k] > 0.0f ? z[k] : 0.0f;
}

INLINE void slope_row(const float *restrict v, float *restrict d, size_t n, int tanh) {
  if (tanh)
    for (size_t k = 0; k < n; k++) d[k] = d[k] * (1.0f - v[k] * v[k]);
  else
    for (size_t k = 0; k < n; k++) d[k] = v[k] > 0.0f ? d[k] : 0.0f;
}

TARGET static void slope(const float *value, size_t value_stride, float *delta, size_t batch, size_t wide, int tanh) {
  for (size_t b = 0; b < batch; b++) slope_row(value + b * value_stride, delta + b * wide, wide, tanh);
}

TARGET static void exponentials(float *x, size_t n, float less) {
  for (size_t k = 0; k < n; k++) x[k] = mw_exp(x[k] - less);
}
