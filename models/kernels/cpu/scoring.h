// The whole network, from a record to its probabilities.

#pragma once

#include "mlstm.h"
#include "slstm.h"

namespace {

void embed(const Network& network, const Workspace& w, const float* signal, size_t steps) {
    const int embedding = network.d.embedding, inputs = network.d.inputs;
    for (size_t first = 0; first < steps; first += TILE) {
        const int rows = int(std::min<size_t>(TILE, steps - first));
        std::memcpy(w.signal, signal + first * inputs, rows * inputs * sizeof(float));
        float* x = w.slstm + first * embedding;
        apply(network.embedding, round_up(rows, ROWS), w.signal, inputs, x, embedding);
        for (int t = 0; t < rows; t++, x += embedding) {
            const Moments m = moments(x, embedding);
            for (int i = 0; i < embedding; i += WIDTH)
                store(x + i, maximum(set1(0.0f), normalized(x + i, m, network.embedding_norm + i) +
                                                     load(network.embedding_norm_bias + i)));
        }
    }
}

// The mean of the two normalised branches, in place of the sLSTM branch.
void fuse(const Level& level, const Workspace& w, int embedding, size_t steps) {
    for (size_t t = 0; t < steps; t++) {
        float *s = w.slstm + t * embedding, *m = w.mlstm + t * embedding;
        const Moments of_s = moments(s, embedding), of_m = moments(m, embedding);
        for (int i = 0; i < embedding; i += WIDTH)
            store(s + i, (normalized(s + i, of_s, level.slstm_norm + i) + normalized(m + i, of_m, level.mlstm_norm + i)) *
                             0.5f);
    }
}

// Mean over time; the sum tile by tile, for its rounding.
void pool_mean(const Workspace& w, int embedding, size_t steps) {
    for (int i = 0; i < embedding; i += WIDTH) {
        V total = set1(0.0f);
        for (size_t first = 0; first < steps; first += TILE) {
            V part = set1(0.0f);
            for (size_t t = first; t < std::min<size_t>(first + TILE, steps); t++) part += load(w.slstm + t * embedding + i);
            total += part;
        }
        store(w.pooled + i, total / float(steps));
    }
}

// The mean of the maxima of all spans, of which the last has what is left over as well.
void pool_maxima(const Workspace& w, int embedding, size_t steps, size_t span) {
    const size_t spans = span ? std::max<size_t>(1, steps / span) : 1;
    for (int i = 0; i < embedding; i += WIDTH) {
        V total = set1(0.0f);
        for (size_t s = 0; s < spans; s++) {
            V highest = set1(-INFINITY);
            for (size_t t = s * span; t < (s + 1 < spans ? (s + 1) * span : steps); t++)
                highest = maximum(highest, load(w.slstm + t * embedding + i));
            total += highest;
        }
        store(w.pooled + embedding + i, total / float(spans));
    }
}

// What each lead reaches: the mean of the largest values of all windows, the last of which has what is left over as well,
// and behind those of all leads the mean of the smallest.
void pool_extremes(const float* signal, size_t samples, size_t window, float* out) {
    const size_t windows = std::max<size_t>(1, samples / window);
    for (int lead = 0; lead < LEADS; lead++) {
        float up = 0.0f, down = 0.0f;
        for (size_t i = 0; i < windows; i++) {
            float highest = -INFINITY, lowest = INFINITY;
            for (size_t t = i * window; t < (i + 1 < windows ? (i + 1) * window : samples); t++) {
                highest = std::max(highest, signal[t * LEADS + lead]);
                lowest = std::min(lowest, signal[t * LEADS + lead]);
            }
            up += highest;
            down += lowest;
        }
        out[lead] = up / float(windows);
        out[LEADS + lead] = down / float(windows);
    }
}

void dense(const Linear& layer, const float* x, float* out, bool rectified) {
    multiply<1>(1, layer.outputs, layer.inputs, {x, 0, 1}, {layer.weight, 0}, {layer.bias, 0}, out, 0);
    for (int i = 0; rectified && i < layer.outputs; i += WIDTH) store(out + i, maximum(set1(0.0f), load(out + i)));
}

// `features`, the classifier's input, are given out unless null.
void score(const Network& network, const Workspace& w, const float* signal, const float* metadata, size_t steps,
           float* probabilities, float* features) {
    const Dimensions& d = network.d;
    embed(network, w, signal, steps);
    for (const Level& level : network.levels) {
        std::memcpy(w.mlstm, w.slstm, steps * d.embedding * sizeof(float));
        for (const auto& block : level.slstm) slstm_block(d, block, w, w.slstm, steps);
        for (const auto& block : level.mlstm) mlstm_block(d, block, w, w.mlstm, steps);
        fuse(level, w, d.embedding, steps);
    }
    pool_mean(w, d.embedding, steps);
    pool_maxima(w, d.embedding, steps, d.span);
    dense(network.metadata, metadata, w.pooled + 2 * d.embedding, true);
    if (d.extremes) {
        float* out = w.pooled + 2 * d.embedding + METADATA_FEATURES;
        pool_extremes(signal, steps * d.inputs / LEADS, d.extremes, out);
    }
    if (features) std::memcpy(features, w.pooled, d.pooled() * sizeof(float));
    dense(network.classifier_1, w.pooled, w.hidden_1, true);
    dense(network.classifier_2, w.hidden_1, w.hidden_2, true);
    dense(network.classifier_3, w.hidden_2, w.logits, false);
    for (int i = 0; i < d.classes; i += WIDTH) store(w.logits + i, set1(1.0f) / (exponential(-load(w.logits + i)) + 1.0f));
    std::memcpy(probabilities, w.logits, d.classes * sizeof(float));
}

}  // namespace
