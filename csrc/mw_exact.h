/* Included first by a file whose float arithmetic must give the same bits on every processor: keeps the compiler from fusing a
   multiplication and an addition into one rounding, whatever the command line allows. mw_check_arithmetic proves it at run time. */
#ifndef MW_EXACT_H
#define MW_EXACT_H

#ifdef __clang__
#pragma STDC FP_CONTRACT OFF
#elif defined(__GNUC__)
#pragma GCC optimize("fp-contract=off") /* gcc does not read the standard's pragma */
#endif

#endif
