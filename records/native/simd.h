// Loops over the twelve leads by the fastest instructions that this processor has. None fuses products with sums, so all
// give the same bits.

#pragma once

// Defines `name(parameters)`, which calls `name##_loop`, compiled for several sets of instructions.
#if defined(__x86_64__)
#define BY_INSTRUCTIONS(name, parameters, arguments)                                                  \
    __attribute__((target("avx512f,avx512dq,avx512bw,avx512vl"))) inline void name##_avx512 parameters { \
        name##_loop arguments;                                                                        \
    }                                                                                                 \
    __attribute__((target("avx2"))) inline void name##_avx2 parameters { name##_loop arguments; }     \
    inline void name parameters {                                                                     \
        static const int best = instructions();                                                       \
        if (best == 2) return name##_avx512 arguments;                                                \
        if (best == 1) return name##_avx2 arguments;                                                  \
        name##_loop arguments;                                                                        \
    }
inline int instructions() {
    const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
    return avx512 ? 2 : __builtin_cpu_supports("avx2") ? 1 : 0;
}
#else
#define BY_INSTRUCTIONS(name, parameters, arguments) \
    inline void name parameters { name##_loop arguments; }
#endif
#define EVERYWHERE __attribute__((always_inline)) inline
