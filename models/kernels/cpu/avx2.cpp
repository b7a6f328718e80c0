// The network and the cleaning by AVX2 and FMA.

#if defined(__x86_64__)
#include "instruction_set.h"

#define WIDTH 8
#define PANEL_VECTORS 2
BEGIN_TARGET("avx2,fma")
#include "cleaning.h"
#include "scoring.h"
END_TARGET

const InstructionSet AVX2{"avx2", PANEL, [] { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }, score, clean};
#endif
