// What the network is made of, as every instruction set computes it: sizes, and weights that point into packed memory.

#pragma once

#include <vector>

constexpr int LEADS = 12;
constexpr int METADATA = 2, METADATA_FEATURES = 32, HIDDEN_1 = 256, HIDDEN_2 = 128;
constexpr int TAPS = 4;        // of the causal convolutions
constexpr int PROJECTION = 4;  // block size of the headwise q, k and v
constexpr int TILE = 48;       // time steps; a multiple of ROWS and of every vector width
constexpr int ROWS = 6;        // rows of a register block of the matrix product
constexpr int LANES = 16;      // every feature count is a multiple of it, hence of every vector width
constexpr float EPSILON = 1e-5f;
constexpr float CELL_EPSILON = 1e-6f;

constexpr int round_up(int n, int multiple) { return (n + multiple - 1) / multiple * multiple; }

struct Dimensions {
    int inputs;  // of a time step: all leads of a patch of samples
    int embedding, inner, heads, levels, blocks, feedforward;  // `blocks` of each kind per level
    int classes;  // that there are probabilities of
    int span;     // time steps that a maximum is taken of, 0: all
    int extremes; // samples that the largest and the smallest value of a lead are taken of, 0: not at all
    int slstm_head() const { return embedding / heads; }
    int mlstm_head() const { return inner / heads; }
    int gates() const { return round_up(2 * heads, LANES); }
    int pooled() const { return 2 * embedding + METADATA_FEATURES + (extremes ? 2 * LEADS : 0); }
};

// weight: panels of columns, each panel (inputs, panel columns), the last one may be narrower.
struct Linear {
    int inputs, outputs;
    const float* weight;
    const float* bias;
};

struct SlstmBlock {
    const float *norm, *conv, *conv_bias;
    std::vector<Linear> input_forget, cell_output;  // per head; from the convolved and from the plain input
    const float* recurrent;                         // (heads, in, gates, out)
    const float *group_norm, *feedforward_norm;
    Linear up, down;
};

struct MlstmBlock {
    const float* norm;
    Linear up;
    const float *conv, *conv_bias;
    const float *q, *k, *v;  // (PROJECTION inputs, features)
    Linear gates_convolved, gates_plain;  // the input gates, then the forget gates
    const float *out_norm, *skip;
    Linear down;
};

struct Level {
    std::vector<SlstmBlock> slstm;
    std::vector<MlstmBlock> mlstm;
    const float *slstm_norm, *mlstm_norm;
};

struct Network {
    Dimensions d;
    Linear embedding;
    const float *embedding_norm, *embedding_norm_bias;
    std::vector<Level> levels;
    Linear metadata, classifier_1, classifier_2, classifier_3;
};
