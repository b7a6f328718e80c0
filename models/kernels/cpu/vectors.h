// A vector of WIDTH floats, and exp, log, tanh and the like of all its lanes at once.

#pragma once

#include "instruction_set.h"

namespace {

// WIDTH and PANEL_VECTORS are set by the file of the instruction set: the floats of a vector, and as many vectors of
// columns per register block as ROWS rows leave registers for.
constexpr int PANEL = PANEL_VECTORS * WIDTH;
typedef float V __attribute__((vector_size(4 * WIDTH), may_alias));
typedef int32_t I __attribute__((vector_size(4 * WIDTH), may_alias));

INLINE V load(const float* p) {
    V v;
    __builtin_memcpy(&v, p, sizeof v);
    return v;
}
INLINE void store(float* p, V v) { __builtin_memcpy(p, &v, sizeof v); }

// maximum(a, b) and minimum(a, b) are b where either is NaN, as on x86: a NaN in b stays visible.
// spread<i>(x): lane i of each group of four, in all four lanes.
#if WIDTH == 16
INLINE V set1(float x) { return _mm512_set1_ps(x); }
INLINE V fma(V a, V b, V c) { return _mm512_fmadd_ps(a, b, c); }
INLINE V maximum(V a, V b) { return _mm512_max_ps(a, b); }
INLINE V minimum(V a, V b) { return _mm512_min_ps(a, b); }
INLINE float sum(V x) { return _mm512_reduce_add_ps(x); }
template <int i> INLINE V spread(V x) { return _mm512_permute_ps(x, i * 0x55); }
#elif WIDTH == 8
INLINE V set1(float x) { return _mm256_set1_ps(x); }
INLINE V fma(V a, V b, V c) { return _mm256_fmadd_ps(a, b, c); }
INLINE V maximum(V a, V b) { return _mm256_max_ps(a, b); }
INLINE V minimum(V a, V b) { return _mm256_min_ps(a, b); }
INLINE float sum(V x) { return ((x[0] + x[4]) + (x[2] + x[6])) + ((x[1] + x[5]) + (x[3] + x[7])); }
template <int i> INLINE V spread(V x) { return _mm256_permute_ps(x, i * 0x55); }
#else
INLINE V set1(float x) { return V{x, x, x, x}; }
INLINE float sum(V x) { return (x[0] + x[2]) + (x[1] + x[3]); }
template <int i> INLINE V spread(V x) { return V{x[i], x[i], x[i], x[i]}; }
#if defined(__x86_64__)
INLINE V fma(V a, V b, V c) { return a * b + c; }
INLINE V maximum(V a, V b) { return _mm_max_ps(a, b); }
INLINE V minimum(V a, V b) { return _mm_min_ps(a, b); }
#else
#if defined(__aarch64__)
INLINE V fma(V a, V b, V c) { return (V)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b); }
#else
INLINE V fma(V a, V b, V c) { return a * b + c; }
#endif
INLINE V maximum(V a, V b) { return a > b ? a : b; }
INLINE V minimum(V a, V b) { return a < b ? a : b; }
#endif
#endif

INLINE V absolute(V x) { return (V)((I)x & 0x7fffffff); }

alignas(64) const int32_t KEEP[32] = {-1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1};

// The first `count` lanes of x, the others zero.
INLINE V first_lanes(V x, int count) {
    count = std::min(std::max(count, 0), WIDTH);
    I mask;
    __builtin_memcpy(&mask, KEEP + 16 - count, sizeof mask);
    return (V)((I)x & mask);
}

// exp to 1.5 units in the last place; below -87.33 (-inf too) about 1e-38 instead of less.
INLINE V exponential(V x) {
    x = maximum(set1(-87.33f), minimum(set1(88.37f), x));
    const V shift = set1(12582912.0f);  // 1.5 * 2^23: the sum's low bits are the nearest integer
    const V shifted = fma(x, set1(1.44269504f), shift), n = shifted - shift;
    V r = fma(n, set1(-0.693359375f), x);
    r = fma(n, set1(2.12194440e-4f), r);
    V p = set1(1.3813144760e-3f);
    p = fma(p, r, set1(8.3694187924e-3f));
    p = fma(p, r, set1(4.1668456048e-2f));
    p = fma(p, r, set1(1.6666515172e-1f));
    p = fma(p, r, set1(4.9999994040e-1f));
    p = fma(p, r * r, r) + 1.0f;
    return (V)((I)p + ((I)shifted << 23));
}
// log(1 + u) for u in [0, 1], by 2 atanh(u / (2 + u))
INLINE V log1p(V u) {
    const V s = u / (u + 2.0f), q = s * s;
    V p = set1(2.4432460964e-1f);
    p = fma(p, q, set1(2.1388065815e-1f));
    p = fma(p, q, set1(2.8621205687e-1f));
    p = fma(p, q, set1(3.9998671412e-1f));
    p = fma(p, q, set1(6.6666680574e-1f));
    p = fma(p, q, set1(2.0f));
    return p * s;
}
INLINE V log_sigmoid(V x) { return minimum(set1(0.0f), x) - log1p(exponential(-absolute(x))); }
INLINE V silu(V x) { return x / (exponential(-x) + 1.0f); }
INLINE V hyperbolic_tangent(V x) {
    x = maximum(set1(-9.0f), minimum(set1(9.0f), x));
    const V q = x * x;
    V p = set1(1.3354551243e-8f);
    p = fma(p, q, set1(2.0608997147e-5f));
    p = fma(p, q, set1(3.4955828451e-3f));
    p = fma(p, q, set1(1.3381020725e-1f));
    p = fma(p, q, set1(1.0f));
    V d = set1(7.7765116657e-7f);
    d = fma(d, q, set1(3.2856262987e-4f));
    d = fma(d, q, set1(2.5876961648e-2f));
    d = fma(d, q, set1(4.6714335680e-1f));
    d = fma(d, q, set1(1.0f));
    return p * x / d;
}
// x (1 + erf(x / sqrt 2)) / 2, the error function as an odd rational function to 2e-8
INLINE V gelu(V x) {
    const V y = maximum(set1(-5.5f), minimum(set1(5.5f), x)), q = y * y;
    V p = set1(4.5862314835e-8f);
    p = fma(p, q, set1(1.2603182768e-5f));
    p = fma(p, q, set1(3.2914755866e-4f));
    p = fma(p, q, set1(9.3029644340e-3f));
    p = fma(p, q, set1(6.6917784512e-2f));
    p = fma(p, q, set1(7.9788452387e-1f));
    V d = set1(1.1990284749e-6f);
    d = fma(d, q, set1(7.2167043982e-5f));
    d = fma(d, q, set1(1.8606460653e-3f));
    d = fma(d, q, set1(2.8416130692e-2f));
    d = fma(d, q, set1(2.5053539872e-1f));
    d = fma(d, q, set1(1.0f));
    return x * 0.5f * (p * y / d + 1.0f);
}

}  // namespace
