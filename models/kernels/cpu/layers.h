// Layer normalisation and the causal convolution.

#pragma once

#include "products.h"

namespace {

struct Moments {
    V mean, scale;
};
// Mean and 1 / sqrt(variance + epsilon) of n values.
INLINE Moments moments(const float* x, int n) {
    V total = set1(0.0f);
    for (int i = 0; i < n; i += WIDTH) total += load(x + i);
    const V mean = set1(sum(total) / float(n));
    V squares = set1(0.0f);
    for (int i = 0; i < n; i += WIDTH) {
        const V centred = load(x + i) - mean;
        squares = fma(centred, centred, squares);
    }
    return {mean, set1(1.0f / std::sqrt(sum(squares) / float(n) + EPSILON))};
}
INLINE V normalized(const float* x, const Moments& m, const float* weight) {
    return (load(x) - m.mean) * m.scale * load(weight);
}
void layer_norm(const float* x, int rows, int n, const float* weight, float* out) {
    for (int r = 0; r < rows; r++, x += n, out += n) {
        const Moments m = moments(x, n);
        for (int i = 0; i < n; i += WIDTH) store(out + i, normalized(x + i, m, weight + i));
    }
}

// out[t] = SiLU(bias + sum over taps of weight[tap] x[t - TAPS + 1 + tap]); x begins TAPS - 1 rows before the tile.
void convolve(const float* x, size_t stride, int rows, int n, const float* weight, const float* bias, float* out) {
    for (int r = 0; r < rows; r++, x += stride, out += n)
        for (int i = 0; i < n; i += WIDTH) {
            V total = load(bias + i);
            for (int tap = 0; tap < TAPS; tap++) total = fma(load(weight + tap * n + i), load(x + tap * stride + i), total);
            store(out + i, silu(total));
        }
}

}  // namespace
