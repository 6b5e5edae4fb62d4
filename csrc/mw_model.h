/* A whole model in one call: the tensors as the model-wide kernels take them. */
#ifndef MW_MODEL_H
#define MW_MODEL_H

#include "mw.h"

/* One tensor of a model. Pointers that a call has no use for may be NULL. */
typedef struct mw_tensor {
  const float *base;        /* float32 of the stored values */
  float *w;                 /* float32 of the stored values */
  int32_t *q;
  const float *trained;     /* device side only, as are the next two */
  const uint16_t *residual; /* bfloat16 */
  uint16_t *left;
  size_t n;
  uint64_t start;           /* global index of entry 0, for the fingerprint */
  uint32_t rows, columns;   /* as the coder sees it */
  int exponent;             /* unit 2^exponent */
  uint8_t dtype;            /* 1 float32, 2 float16, 3 bfloat16, 4 int8, 5 int32: wire numbers */
  uint8_t kind;             /* 0 lattice, 1 verbatim, 2 exact */
} mw_tensor;

#endif
