// Weights from the order in which the folded ones are listed (models/folding.py) into panels for one instruction set.

#pragma once

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <vector>

#include "memory.h"
#include "network.h"

class Packing {
  public:
    // `panel` is how many columns stand together. Throws std::invalid_argument when the count does not fit.
    Packing(int panel, const Dimensions& d, const float* parameters, size_t count)
        : panel_(panel), d(d), next_(parameters), left_(count) {}

    Network network() {
        Network n;
        n.d = d;
        n.embedding = linear(d.embedding, d.inputs, true);
        n.embedding_norm = copy(d.embedding);
        n.embedding_norm_bias = copy(d.embedding);
        for (int i = 0; i < d.levels; i++) n.levels.push_back(level());
        n.metadata = linear(METADATA_FEATURES, METADATA, true);
        n.classifier_1 = linear(HIDDEN_1, d.pooled(), true);
        n.classifier_2 = linear(HIDDEN_2, HIDDEN_1, true);
        n.classifier_3 = linear(d.classes, HIDDEN_2, true);
        if (left_) throw std::invalid_argument("too many parameters");
        return n;
    }

    // What the network's weights lie in.
    std::vector<Floats> memory() && { return std::move(memory_); }

  private:
    const int panel_;
    const Dimensions d;
    const float* next_;
    size_t left_;
    std::vector<Floats> memory_;

    const float* read(size_t count) {
        if (count > left_) throw std::invalid_argument("too few parameters");
        const float* start = next_;
        next_ += count;
        left_ -= count;
        return start;
    }
    float* allocate(size_t count) {
        memory_.emplace_back(count);
        return memory_.back().get();
    }
    const float* copy(int count) {
        float* target = allocate(count);
        std::memcpy(target, read(count), count * sizeof(float));
        return target;
    }
    // From a weight (outputs, inputs); the outputs are padded with zeros to a multiple of LANES.
    Linear linear(int outputs, int inputs, bool bias) {
        const int padded = round_up(outputs, LANES);
        const float* source = read(size_t(outputs) * inputs);
        float *weight = allocate(size_t(padded) * inputs), *shift = allocate(padded), *next = weight;
        for (int first = 0; first < padded; first += panel_)
            for (int k = 0; k < inputs; k++)
                for (int n = first; n < std::min(first + panel_, padded); n++)
                    *next++ = n < outputs ? source[size_t(n) * inputs + k] : 0.0f;
        if (bias) std::memcpy(shift, read(outputs), outputs * sizeof(float));
        return {inputs, padded, weight, shift};
    }
    SlstmBlock slstm_block() {
        const int head = d.slstm_head();
        SlstmBlock b;
        b.norm = copy(d.embedding);
        b.conv = copy(TAPS * d.embedding);
        b.conv_bias = copy(d.embedding);
        for (int h = 0; h < d.heads; h++) {
            b.input_forget.push_back(linear(2 * head, head, true));
            b.cell_output.push_back(linear(2 * head, head, true));
        }
        b.recurrent = copy(4 * d.embedding * head);
        b.group_norm = copy(d.embedding);
        b.feedforward_norm = copy(d.embedding);
        b.up = linear(2 * d.feedforward, d.embedding, false);
        b.down = linear(d.embedding, d.feedforward, false);
        return b;
    }
    MlstmBlock mlstm_block() {
        MlstmBlock b;
        b.norm = copy(d.embedding);
        b.up = linear(2 * d.inner, d.embedding, false);
        b.conv = copy(TAPS * d.inner);
        b.conv_bias = copy(d.inner);
        b.q = copy(PROJECTION * d.inner);
        b.k = copy(PROJECTION * d.inner);
        b.v = copy(PROJECTION * d.inner);
        b.gates_convolved = linear(2 * d.heads, d.inner, true);
        b.gates_plain = linear(2 * d.heads, d.inner, false);
        b.out_norm = copy(d.inner);
        b.skip = copy(d.inner);
        b.down = linear(d.embedding, d.inner, false);
        return b;
    }
    Level level() {
        Level l;
        for (int i = 0; i < d.blocks; i++) l.slstm.push_back(slstm_block());
        l.slstm_norm = copy(d.embedding);
        for (int i = 0; i < d.blocks; i++) l.mlstm.push_back(mlstm_block());
        l.mlstm_norm = copy(d.embedding);
        return l;
    }
};
