// What the filtered signal tells of a recording: `records.quality` defines the same in Python.

#pragma once

#include <algorithm>
#include <cmath>
#include <functional>
#include <vector>

#include "network.h"

struct Quality {
    double amplitude, limb_residual;
};

constexpr double TAIL = 0.005;   // share of the samples on either side that the amplitude leaves out
constexpr double SILENT = 1e-6;  // mV; leads of a smaller range have no amplitude, limb leads of less contradict nothing
constexpr int LEAD_I = 0, LEAD_II = 1, LEAD_III = 2;

// Two leads of a sample: as wide as every processor's vectors.
typedef double Pair __attribute__((vector_size(16), may_alias, aligned(8)));
constexpr int PAIRS = LEADS / 2;

// Values that at least `count` samples of a lead are not below (`high`), and that as many are not above (`low`): of as many
// pieces of the signal the least maximum and the greatest minimum.
struct Bounds {
    Bounds(const double* signal, size_t samples, size_t count) {
        const size_t piece = samples / count;
        for (size_t first = 0; first < count * piece; first += piece) {
            Pair greatest[PAIRS], least[PAIRS];
            for (int p = 0; p < PAIRS; p++) greatest[p] = least[p] = leads(signal, first)[p];
            for (size_t t = first + 1; t < first + piece; t++)
                for (int p = 0; p < PAIRS; p++) {
                    const Pair x = leads(signal, t)[p];
                    greatest[p] = x > greatest[p] ? x : greatest[p];
                    least[p] = x < least[p] ? x : least[p];
                }
            for (int p = 0; p < PAIRS; p++) {
                high[p] = first && high[p] < greatest[p] ? high[p] : greatest[p];
                low[p] = first && low[p] > least[p] ? low[p] : least[p];
            }
        }
    }
    bool within(const Pair* x) const {
        auto beyond = (x[0] >= high[0]) | (x[0] <= low[0]);
        for (int p = 1; p < PAIRS; p++) beyond |= (x[p] >= high[p]) | (x[p] <= low[p]);
        return !(beyond[0] | beyond[1]);
    }
    static const Pair* leads(const double* signal, size_t t) {
        return reinterpret_cast<const Pair*>(signal + t * LEADS);
    }
    Pair high[PAIRS], low[PAIRS];
};

// Of the values at the end of a distribution, the one that leaves out a share of `left_out` values, counted from the
// outermost; between two values by its distance from them, as numpy's percentile.
template <typename Outer>
double percentile(std::vector<double>& values, double left_out, Outer outer) {
    const size_t at = size_t(left_out);
    if (values.size() < at + 2) return values.empty() ? 0.0 : values.back();  // not a number is beyond no bound
    std::nth_element(values.begin(), values.begin() + at + 1, values.end(), outer);
    const double next = values[at + 1], value = *std::min_element(values.begin(), values.begin() + at + 1,
                                                                  [&](double a, double b) { return outer(b, a); });
    return value + (left_out - double(at)) * (next - value);
}

// Of a filtered signal (samples, LEADS) in mV, two samples at least. Throws std::bad_alloc.
inline Quality quality(const double* signal, size_t samples) {
    const double left_out = TAIL * double(samples - 1);
    const Bounds bounds(signal, samples, size_t(left_out) + 2);
    std::vector<double> highest[LEADS], lowest[LEADS];
    double contradiction = 0.0, limbs = 0.0;
    for (size_t t = 0; t < samples; t++) {
        const double* x = signal + t * LEADS;
        const double one = x[LEAD_I], two = x[LEAD_II], three = x[LEAD_III], sum = one + three - two;
        contradiction += sum * sum;
        limbs += one * one + two * two + three * three;
        if (bounds.within(Bounds::leads(signal, t))) continue;
        for (int lead = 0; lead < LEADS; lead++) {
            if (x[lead] >= bounds.high[lead / 2][lead % 2]) highest[lead].push_back(x[lead]);
            if (x[lead] <= bounds.low[lead / 2][lead % 2]) lowest[lead].push_back(x[lead]);
        }
    }
    double ranges[LEADS];
    for (int lead = 0; lead < LEADS; lead++)
        ranges[lead] = percentile(highest[lead], left_out, std::greater<>()) - percentile(lowest[lead], left_out, std::less<>());
    std::sort(ranges, ranges + LEADS);
    const int silent_leads = int(std::count_if(ranges, ranges + LEADS, [](double range) { return range < SILENT; }));
    const int upper = std::min((silent_leads + LEADS) / 2, LEADS - 1);
    const bool silent = limbs < 3.0 * double(samples) * SILENT * SILENT;
    return {(ranges[(silent_leads + LEADS - 1) / 2] + ranges[upper]) / 2, silent ? 0.0 : std::sqrt(3.0 * contradiction / limbs)};
}
