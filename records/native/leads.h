// What is done to the digital samples of the twelve leads, (frames, LEADS).

#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "simd.h"

namespace leads {

constexpr int LEADS = 12;
constexpr int PAIR = 2 * LEADS;  // two frames fill whole vectors of 16-bit numbers

struct Scale {
    double baseline[LEADS], gain[LEADS], per_millivolt[LEADS];
    bool all_in_millivolts = true;

    double millivolts(int16_t digital, int lead) const {
        const double value = (double(digital) - baseline[lead]) / gain[lead];
        return all_in_millivolts ? value : value / per_millivolt[lead];
    }
};

struct Extent {
    int16_t lowest[LEADS], highest[LEADS];
    uint16_t sum[LEADS];  // modulo 2^16, as checksums are
};

EVERYWHERE void measure_pairs_loop(const int16_t* digital, int64_t pairs, int16_t* lowest, int16_t* highest, uint16_t* sum) {
    for (int64_t pair = 0; pair < pairs; pair++, digital += PAIR)
        for (int i = 0; i < PAIR; i++) {
            lowest[i] = std::min(lowest[i], digital[i]);
            highest[i] = std::max(highest[i], digital[i]);
            sum[i] = uint16_t(sum[i] + uint16_t(digital[i]));
        }
}
BY_INSTRUCTIONS(measure_pairs,
                (const int16_t* digital, int64_t pairs, int16_t* lowest, int16_t* highest, uint16_t* sum),
                (digital, pairs, lowest, highest, sum))

// There must be two frames at least.
inline Extent measure(const std::vector<int16_t>& digital) {
    int16_t lowest[PAIR], highest[PAIR];
    uint16_t sum[PAIR] = {};
    std::copy_n(digital.end() - PAIR, PAIR, lowest);  // with the last two, an odd number of frames is no matter
    std::copy_n(digital.end() - PAIR, PAIR, highest);
    const size_t pairs = digital.size() / PAIR;
    measure_pairs(digital.data(), int64_t(pairs), lowest, highest, sum);
    for (size_t rest = pairs * PAIR; rest < digital.size(); rest++)
        sum[rest % PAIR] = uint16_t(sum[rest % PAIR] + uint16_t(digital[rest]));
    Extent found;
    for (int lead = 0; lead < LEADS; lead++) {
        found.lowest[lead] = std::min(lowest[lead], lowest[lead + LEADS]);
        found.highest[lead] = std::max(highest[lead], highest[lead + LEADS]);
        found.sum[lead] = uint16_t(sum[lead] + sum[lead + LEADS]);
    }
    return found;
}

EVERYWHERE void scale_all_loop(const int16_t* digital, int64_t frames, const Scale& scale, double* millivolts) {
    double baseline[LEADS], gain[LEADS];
    std::copy_n(scale.baseline, LEADS, baseline);
    std::copy_n(scale.gain, LEADS, gain);
    for (int64_t t = 0; t < frames; t++, digital += LEADS, millivolts += LEADS)
        for (int lead = 0; lead < LEADS; lead++) millivolts[lead] = (double(digital[lead]) - baseline[lead]) / gain[lead];
}
BY_INSTRUCTIONS(scale_all, (const int16_t* digital, int64_t frames, const Scale& scale, double* millivolts),
                (digital, frames, scale, millivolts))

inline void to_millivolts(const std::vector<int16_t>& digital, const Scale& scale, double* millivolts) {
    const int64_t frames = int64_t(digital.size()) / LEADS;
    scale_all(digital.data(), frames, scale, millivolts);
    if (scale.all_in_millivolts) return;
    for (int64_t t = 0; t < frames; t++)
        for (int lead = 0; lead < LEADS; lead++) millivolts[t * LEADS + lead] /= scale.per_millivolt[lead];
}

}  // namespace leads
