/* The head trainer: softmax, linear and logistic heads with up to two hidden layers, trained on rows of features.
 *
 * The same start, rows and settings give the same bits on every processor. Every sum has one order: over the inputs of a layer 16
 * striped sums, then halves onto each other (8, 4, 2, 1); over the rows of a batch, the neurons of the layer above, and the losses,
 * one after the other from zero. docs/head-trainer.md has the formulas; the numpy twin is modelwire/_reference/head.py. */
#ifndef MW_HEAD_H
#define MW_HEAD_H

#include "mw.h"

#define MW_HEAD_LAYERS 3
#define MW_HEAD_FEATURES_MAX 65536
#define MW_HEAD_WIDTH_MAX 4096 /* neurons of a layer */
#define MW_HEAD_BATCH_MAX 4096

enum { MW_RELU = 1, MW_TANH = 2 };
enum { MW_SOFTMAX = 1, MW_MSE = 2, MW_LOGISTIC = 3 };
enum { MW_SGD = 1, MW_MOMENTUM = 2, MW_ADAM = 3 };
enum { MW_CONSTANT = 1, MW_LINEAR = 2, MW_STAIRS = 3 };

/* What is trained and how. A head without hidden layers has hidden[0] = hidden[1] = 0; hidden[1] needs hidden[0]. */
typedef struct mw_head {
  uint32_t features, hidden[2], outputs;
  uint8_t activation; /* of the hidden layers */
  uint8_t loss;
  uint8_t optimizer;
  uint8_t schedule;   /* constant; linear from rate to rate_end over steps; times factor after every `every` steps */
  uint32_t batch, steps, every;
  uint64_t seed;      /* of the order of the rows */
  float rate, rate_end, factor;
  float decay;        /* of the weights, not of the biases: w -= rate * decay * w */
  float beta1;        /* momentum, or Adam's first */
  float beta2, epsilon;
} mw_head;

/* n rows of features with their labels (softmax) or n * outputs targets (the others). */
typedef struct mw_rows {
  const void *features;
  uint8_t dtype;       /* 1 float32, 2 float16 bits, 4 int8 times scale: the wire's numbers */
  float scale;
  const uint32_t *labels;
  const float *targets;
  size_t n;
} mw_rows;

/* The processor rounds to nearest even, keeps subnormals, and this build does not fuse multiplications with additions. */
mw_status mw_check_arithmetic(void);

/* Entries of the weights: layer by layer the matrix [neurons][inputs], then the biases. 0 when the head cannot be. */
size_t mw_head_size(const mw_head *head);
/* Arrays of that size that the optimizer keeps beside the weights: 0, 1 or 2. */
size_t mw_head_slots(const mw_head *head);
/* Bytes that training or inference on n rows needs beside its arguments. 0 when the head or n cannot be. */
size_t mw_head_workspace(const mw_head *head, size_t n);

/* Take `count` steps from the step *step on, and move it. losses: one entry a step, the mean of its batch before the step; what a
   refusal leaves in it means nothing. slots: mw_head_slots arrays one after the other, zero at step 0. On a refusal weights, slots
   and *step are as before. *at: the row at fault, or the step that diverged: the first whose loss is no number, or the last when
   only its weights are none. */
mw_status mw_head_train(const mw_head *head, const mw_rows *rows, float *weights, float *slots, uint64_t *step, uint32_t count,
                        float *losses, uint8_t *workspace, size_t length, size_t *at);

/* Outputs [n][outputs] of the last layer, before softmax or logistic; what overflows is an infinity or the NaN 0x7fc00000.
   labels and targets are not looked at. */
mw_status mw_head_infer(const mw_head *head, const mw_rows *rows, const float *weights, float *out, uint8_t *workspace, size_t length,
                        size_t *at);

/* A fixed permutation of 0..n-1: Fisher-Yates from the end, driven by splitmix64 from seed and epoch. */
void mw_permutation(uint64_t seed, uint64_t epoch, uint32_t *order, size_t n);

#endif
