/* The head trainer's loops in registers of eight for x86-64 with AVX2. No fused multiply-add: it would be other bits. */
#include "mw_exact.h"

#ifdef __x86_64__
#define LANES 8
#define TARGET __attribute__((target("avx2")))
#define ROWS 2
#define NEURONS 2
#define HIGH 4
#include "mw_head_lanes.h"

const mw_head_kernels mw_head_avx2 = {forward, backward, update, activate, slope, exponentials};
#endif
