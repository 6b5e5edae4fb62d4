/* The head trainer's dense loops, which have one implementation for each width of register: mw_head_lanes.h is their text. */
#ifndef MW_HEAD_KERNELS_H
#define MW_HEAD_KERNELS_H

#include "mw_head.h"

#define MW_STRIPES 16

/* Layers in the workspace: inputs and neurons are padded with zeros to whole stripes; a row of features has a stride of an odd
   number of cache lines, or the rows of a batch would share the few places of one line in the nearest cache. */
typedef struct mw_layer {
  size_t inputs, neurons;               /* as the caller sees them */
  size_t wide, high;                    /* padded */
  size_t stride;                        /* of x, from row to row */
  float *x;                             /* what comes in: batch rows */
  float *w, *bias;                      /* [neurons][wide], [high] */
  float *slots[2], *bias_slots[2];
  float *delta;                         /* the loss by what comes out, batch rows of high */
} mw_layer;

/* One step's way of turning a gradient into a move. */
typedef struct mw_mover {
  uint8_t optimizer;
  float rate, decay; /* decay: rate times the recipe's, 0 for biases */
  float beta1, beta2, rest1, rest2, epsilon;
} mw_mover;

typedef struct mw_head_kernels {
  /* z[b][j] = sum of x * w + bias; z has rows of layer->high, zeros past the last neuron. quads: 8 * high. */
  void (*forward)(const mw_layer *layer, size_t batch, float *z, size_t z_stride, float *quads);
  /* below[b][i] = sum over neurons of delta * w: the loss by what came in, rows of layer->wide. */
  void (*backward)(const mw_layer *layer, size_t batch, float *below);
  /* Gradients of the weights and biases, and the move, tile by tile. */
  void (*update)(const mw_layer *layer, size_t batch, const mw_mover *mover);
  void (*activate)(float *z, size_t n, int tanh);
  /* delta *= the activation's slope, from the activation's own value. */
  void (*slope)(const float *value, size_t value_stride, float *delta, size_t batch, size_t wide, int tanh);
  void (*exponentials)(float *x, size_t n, float less); /* x = exp(x - less) */
} mw_head_kernels;

extern const mw_head_kernels mw_head_generic;
extern const mw_head_kernels mw_head_avx2; /* x86-64 alone */

#endif
