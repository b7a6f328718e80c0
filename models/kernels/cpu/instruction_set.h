// What is compiled once for each instruction set, and how.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "filters.h"
#include "network.h"
#include "workspace.h"

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#define INLINE static inline __attribute__((always_inline))

// Between BEGIN_TARGET and END_TARGET functions may use the instructions that are named.
#define PRAGMA(text) _Pragma(#text)
#if defined(__clang__)
#define BEGIN_TARGET(features) PRAGMA(clang attribute push(__attribute__((target(features))), apply_to = function))
#define END_TARGET PRAGMA(clang attribute pop)
#else
#define BEGIN_TARGET(features) PRAGMA(GCC push_options) PRAGMA(GCC target(features))
#define END_TARGET PRAGMA(GCC pop_options)
#endif

struct InstructionSet {
    const char* name;
    int panel;  // columns of a packed weight panel
    bool (*supported)();
    void (*score)(const Network&, const Workspace&, const float* signal, const float* metadata, size_t steps,
                  float* probabilities, float* features);
    void (*clean)(const Cleaning&, const double* signal, size_t samples, double* filtered, float* cleaned);
};

extern const InstructionSet BASELINE;
#if defined(__x86_64__)
extern const InstructionSet AVX2, AVX512;
#endif
