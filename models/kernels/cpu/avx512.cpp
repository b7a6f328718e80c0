// The network and the cleaning by AVX-512.

#if defined(__x86_64__)
#include "instruction_set.h"

#define WIDTH 16
#define PANEL_VECTORS 4
BEGIN_TARGET("avx512f,avx512dq,avx2,fma")
#include "cleaning.h"
#include "scoring.h"
END_TARGET

const InstructionSet AVX512{"avx512", PANEL, [] { return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq"); }, score, clean};
#endif
