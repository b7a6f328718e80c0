// The filters of a recording.

#pragma once

#include "network.h"

// Four leads of a sample; where vectors are narrower the compiler takes two for one.
typedef double Quad __attribute__((vector_size(32), may_alias));
constexpr int QUADS = LEADS / 4;

// A recursive filter: coefficients by rising delay, the denominator's first one 1, and the state (direct form II,
// transposed) that a constant input of 1 leaves as it is.
template <int ORDER>
struct Filter {
    static constexpr int PADDING = 3 * (ORDER + 1);  // samples on either side, as scipy's filtfilt has them
    double numerator[ORDER + 1], denominator[ORDER + 1], at_rest[ORDER];
};

// The filters of a record, then (x - mean) / deviation.
struct Cleaning {
    Filter<6> bandpass;
    Filter<2> notch;
    float mean, deviation;
    // The notch has no more room on either side than the band-pass.
    static constexpr int PADDING = Filter<6>::PADDING;
};
