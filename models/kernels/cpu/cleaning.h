// Filters and normalises a recording.

#pragma once

#include "instruction_set.h"

namespace {

// One way of a filter over samples `step` doubles apart, in place: direct form II, transposed. Sums in the order of
// scipy's lfilter and every product rounded: the notch has a pole at -1, so rounding errors stay.
template <int ORDER>
void pass(const Filter<ORDER>& f, double* x, size_t samples, ptrdiff_t step) {
    Quad state[ORDER][QUADS];
    for (int k = 0; k < ORDER; k++)
        for (int q = 0; q < QUADS; q++) state[k][q] = reinterpret_cast<Quad*>(x)[q] * f.at_rest[k];
    for (; samples; samples--, x += step)
#pragma GCC unroll 3
        for (int q = 0; q < QUADS; q++) {
            const Quad in = reinterpret_cast<Quad*>(x)[q], out = state[0][q] + f.numerator[0] * in;
#pragma GCC unroll 5
            for (int k = 1; k < ORDER; k++)
                state[k - 1][q] = state[k][q] + f.numerator[k] * in - f.denominator[k] * out;
            state[ORDER - 1][q] = f.numerator[ORDER] * in - f.denominator[ORDER] * out;
            reinterpret_cast<Quad*>(x)[q] = out;
        }
}

// A filter forwards and backwards, in place, as scipy's filtfilt: x has room for PADDING samples on either side, where
// the signal goes on turned about its ends.
template <int ORDER>
void filter_both_ways(const Filter<ORDER>& f, double* x, size_t samples) {
    constexpr ptrdiff_t PADDING = Filter<ORDER>::PADDING;
    double* last = x + (samples - 1) * LEADS;
    for (ptrdiff_t i = LEADS; i <= PADDING * LEADS; i += LEADS)
        for (int lead = 0; lead < LEADS; lead++) {
            x[lead - i] = 2 * x[lead] - x[lead + i];
            last[lead + i] = 2 * last[lead] - last[lead - i];
        }
    pass(f, x - PADDING * LEADS, samples + 2 * PADDING, LEADS);
    pass(f, last + PADDING * LEADS, samples + 2 * PADDING, -LEADS);
}

// `filtered` has room for the samples, which lie there filtered in the end, and for Cleaning::PADDING more on either side.
void clean(const Cleaning& c, const double* signal, size_t samples, double* filtered, float* cleaned) {
    std::memcpy(filtered, signal, samples * LEADS * sizeof(double));
    filter_both_ways(c.bandpass, filtered, samples);
    filter_both_ways(c.notch, filtered, samples);
    for (size_t i = 0; i < samples * LEADS; i++) cleaned[i] = (float(filtered[i]) - c.mean) / c.deviation;
}

}  // namespace
