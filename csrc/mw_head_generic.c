/* The head trainer's loops in registers of four where the compiler has them for every processor of the build (SSE2, 64-bit NEON),
   else plain: on 32-bit ARM registers of four are NEON's, which flushes subnormals. */
#include "mw_exact.h"

#if defined(__x86_64__) || defined(__aarch64__)
#define LANES 4
#else
#define LANES 1
#endif
#define TARGET
#define ROWS 1
#define NEURONS 3
#define HIGH 3
#include "mw_head_lanes.h"

const mw_head_kernels mw_head_generic = {forward, backward, update, activate, slope, exponentials};
