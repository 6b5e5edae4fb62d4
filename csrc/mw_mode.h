/* How the processor treats the smallest floats. A runtime built with -ffast-math sets it, for its whole thread, to take them for zero;
   what must give the same bits everywhere sets it back while it works, and leaves it as it was. */
#ifndef MW_MODE_H
#define MW_MODE_H

#include <stdint.h>

#if defined(__x86_64__)
#include <xmmintrin.h>
#define MW_FLUSH 0x8040u /* MXCSR: FTZ and DAZ */
#elif defined(__aarch64__)
#define MW_FLUSH 0x1080003u /* FPCR: FZ, FZ16, and AH and FIZ of ARMv8.7 */
#elif defined(__arm__) && defined(__ARM_FP)
#define MW_FLUSH 0x1080000u /* FPSCR: FZ, FZ16 */
#endif

/* What stands around a change of the mode must not move across it: it is called, never inlined. */
#define MW_APART __attribute__((noinline))

/* Write the processor's word of control, all of it. */
static inline void mw_set_mode(uint64_t mode) {
#if defined(__x86_64__)
  _mm_setcsr((unsigned)mode);
#elif defined(__aarch64__)
  __asm__ volatile("msr fpcr, %0" : : "r"(mode) : "memory");
#elif defined(MW_FLUSH)
  __asm__ volatile("vmsr fpscr, %0" : : "r"((uint32_t)mode) : "memory");
#else
  (void)mode;
#endif
}

/* Let the smallest floats be kept, and return the mode as it was. */
static inline uint64_t mw_keep_subnormals(void) {
  uint64_t mode = 0;
#if defined(__x86_64__)
  mode = _mm_getcsr();
#elif defined(__aarch64__)
  __asm__ volatile("mrs %0, fpcr" : "=r"(mode) : : "memory");
#elif defined(MW_FLUSH)
  uint32_t word;
  __asm__ volatile("vmrs %0, fpscr" : "=r"(word) : : "memory");
  mode = word;
#endif
#ifdef MW_FLUSH
  if (mode & MW_FLUSH) mw_set_mode(mode & ~(uint64_t)MW_FLUSH);
#endif
  return mode;
}

#endif
