// Resampling as resampling.py does it, to the same bits: each lead's products are summed in the order of time.

#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "simd.h"

namespace resampling {

constexpr int LEADS = 12;

struct Filter {
    int64_t up, down;
    const double* taps;
    int64_t count;
};

inline int64_t ceil_divide(int64_t a, int64_t b) { return (a + b - 1) / b; }

constexpr int TOGETHER = 4;  // outputs, since the sums of one wait for each other
using Four = double __attribute__((vector_size(32), aligned(8)));

// Adds up, for each of TOGETHER outputs, `terms` samples of (., LEADS) with their weights.
EVERYWHERE void add_up_loop(const double* const* samples, const double* const* weights, int64_t terms, double* outputs) {
    constexpr int PARTS = LEADS / 4;
    Four sum[TOGETHER][PARTS] = {};
    const double *at[TOGETHER], *weight[TOGETHER];
    std::copy_n(samples, TOGETHER, at);
    std::copy_n(weights, TOGETHER, weight);
    for (int64_t term = 0; term < terms; term++)
        for (int output = 0; output < TOGETHER; output++)
            for (int part = 0; part < PARTS; part++)
                sum[output][part] += reinterpret_cast<const Four*>(at[output] + term * LEADS)[part] * weight[output][term];
    for (int output = 0; output < TOGETHER; output++)
        for (int part = 0; part < PARTS; part++)
            reinterpret_cast<Four*>(outputs + output * LEADS)[part] = sum[output][part];
}
BY_INSTRUCTIONS(add_up, (const double* const* samples, const double* const* weights, int64_t terms, double* outputs),
                (samples, weights, terms, outputs))

// The same where all outputs have the same weights, `step` samples apart, so that each sample is loaded once for all of
// them: `spread` holds the weights between (TOGETHER - 1) * step zeros on either side.
EVERYWHERE void add_up_together_loop(const double* samples, const double* spread, int64_t terms, int64_t step,
                                     double* outputs) {
    constexpr int PARTS = LEADS / 4;
    Four sum[TOGETHER][PARTS] = {};
    const int64_t ahead = (TOGETHER - 1) * step;
    for (int64_t at = 0; at < terms + ahead; at++, samples += LEADS)
        for (int output = 0; output < TOGETHER; output++)
            for (int part = 0; part < PARTS; part++)
                sum[output][part] += reinterpret_cast<const Four*>(samples)[part] * spread[ahead + at - output * step];
    for (int output = 0; output < TOGETHER; output++)
        for (int part = 0; part < PARTS; part++)
            reinterpret_cast<Four*>(outputs + output * LEADS)[part] = sum[output][part];
}
BY_INSTRUCTIONS(add_up_together,
                (const double* samples, const double* spread, int64_t terms, int64_t step, double* outputs),
                (samples, spread, terms, step, outputs))

// The filter's taps by the phase of an output between two samples, in the order in which they meet the samples.
inline std::vector<double> by_phase(const Filter& filter, int64_t terms) {
    std::vector<double> weights(size_t(filter.up * terms));
    for (int64_t phase = 0; phase < filter.up; phase++)
        for (int64_t term = 0; term < terms; term++) {
            const int64_t tap = phase + (terms - 1 - term) * filter.up;
            weights[size_t(phase * terms + term)] = tap < filter.count ? filter.taps[tap] : 0;
        }
    return weights;
}

// A signal of (count, LEADS) that is to be resampled, with room at both ends for what the filter needs there.
class Padded {
  public:
    // `memory` is what the signal lies in: kept from one signal to the next, it costs no new pages.
    Padded(const Filter& filter, int64_t count, int64_t outputs, std::vector<double>& memory)
        : filter_(filter), outputs_(outputs), count_(count), terms_(ceil_divide(filter.count, filter.up)) {
        const int64_t computed = ceil_divide(outputs, TOGETHER) * TOGETHER;
        const int64_t last = (filter.count / 2 + (computed - 1) * filter.down) / filter.up;
        right_ = std::max(int64_t(0), last + 1 - count);
        memory.resize(size_t((left() + count + right_) * LEADS));
        padded_ = memory.data();
    }
    double* signal() { return padded_ + left() * LEADS; }

    // To (outputs, LEADS); `count` must be 2 or more, and the signal be there.
    void resample(double* resampled) {
        continue_ends();
        const std::vector<double> weights = by_phase(filter_, terms_);
        std::vector<double> spread;
        if (filter_.up == 1) {
            const std::vector<double> zeros(size_t((TOGETHER - 1) * filter_.down));
            for (const std::vector<double>& part : {zeros, weights, zeros}) spread.insert(spread.end(), part.begin(), part.end());
        }
        for (int64_t first = 0; first < outputs_; first += TOGETHER) {
            double sums[TOGETHER * LEADS];
            if (filter_.up == 1)
                add_up_together(at(first), spread.data(), terms_, filter_.down, sums);
            else
                add_up_apart(first, weights, sums);
            std::copy(sums, sums + std::min<int64_t>(TOGETHER, outputs_ - first) * LEADS, resampled + first * LEADS);
        }
    }

  private:
    int64_t centre(int64_t output) const { return filter_.count / 2 + output * filter_.down; }
    const double* at(int64_t output) const { return padded_ + centre(output) / filter_.up * LEADS; }

    void add_up_apart(int64_t first, const std::vector<double>& weights, double* sums) const {
        const double *samples[TOGETHER], *own[TOGETHER];
        for (int64_t k = 0; k < TOGETHER; k++) {
            samples[k] = at(first + k);
            own[k] = &weights[size_t(centre(first + k) % filter_.up * terms_)];
        }
        add_up(samples, own, terms_, sums);
    }

    int64_t left() const { return terms_ - 1; }

    // Along the line between the first and the last sample.
    void continue_ends() {
        const double *begin = signal(), *end = begin + (count_ - 1) * LEADS;
        for (int lead = 0; lead < LEADS; lead++) {
            const double slope = (end[lead] - begin[lead]) / double(count_ - 1);
            for (int64_t t = 0; t < left(); t++) padded_[t * LEADS + lead] = begin[lead] + double(t - left()) * slope;
            for (int64_t t = 1; t <= right_; t++)
                padded_[(left() + count_ - 1 + t) * LEADS + lead] = end[lead] + double(t) * slope;
        }
    }

    const Filter& filter_;
    int64_t outputs_, count_, terms_, right_;
    double* padded_;
};

}  // namespace resampling
