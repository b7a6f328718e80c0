// A residual sLSTM block: Beck et al., xLSTM (2024), eq. 8-18, then a gated feed-forward.

#pragma once

#include "layers.h"

namespace {

// N vectors of preactivations += hidden (depth) times recurrent (depth, columns).
template <int N>
INLINE void recur(int depth, size_t columns, const float* hidden, const float* recurrent, float* preactivation) {
    V sums[N];
#pragma GCC unroll 8
    for (int n = 0; n < N; n++) sums[n] = load(preactivation + n * WIDTH);
    for (int k = 0; k < depth; k++, recurrent += columns) {
        const V factor = set1(hidden[k]);
#pragma GCC unroll 8
        for (int n = 0; n < N; n++) sums[n] = fma(factor, load(recurrent + n * WIDTH), sums[n]);
    }
#pragma GCC unroll 8
    for (int n = 0; n < N; n++) store(preactivation + n * WIDTH, sums[n]);
}

// One step of one head. preactivation: (4, head), input, forget, cell input and output gate; hidden: the last output.
INLINE void slstm_step(int head, const float* recurrent, float* preactivation, const float* hidden, float* c_state,
                       float* n_state, float* m_state, float* out) {
    const int columns = 4 * head;
    int n = 0;
    for (; n + 8 * WIDTH <= columns; n += 8 * WIDTH) recur<8>(head, columns, hidden, recurrent + n, preactivation + n);
    for (; n < columns; n += 4 * WIDTH) recur<4>(head, columns, hidden, recurrent + n, preactivation + n);
    for (int i = 0; i < head; i += WIDTH) {
        const V input = load(preactivation + i), one = set1(1.0f);
        const V forget = log_sigmoid(load(preactivation + head + i)) + load(m_state + i);
        const V smaller = exponential(-absolute(input - forget));  // the larger of the two gates is 1
        const V input_gate = input < forget ? smaller : one, forget_gate = input < forget ? one : smaller;
        const V c = fma(forget_gate, load(c_state + i), input_gate * hyperbolic_tangent(load(preactivation + 2 * head + i)));
        const V normalizer = fma(forget_gate, load(n_state + i), input_gate);
        store(c_state + i, c);
        store(n_state + i, normalizer);
        store(m_state + i, maximum(forget, input));
        store(out + i, c / (normalizer * (exponential(-load(preactivation + 3 * head + i)) + 1.0f)));
    }
}

void slstm_block(const Dimensions& d, const SlstmBlock& b, const Workspace& w, float* x, size_t steps) {
    const int embedding = d.embedding, head = d.slstm_head();
    float* normed = w.norm + (TAPS - 1) * embedding;
    std::fill_n(w.norm, (TAPS - 1) * embedding, 0.0f);
    for (float* state : {w.hidden, w.slstm_c, w.slstm_n}) std::fill_n(state, embedding, 0.0f);
    std::fill_n(w.slstm_m, embedding, -INFINITY);
    for (size_t first = 0; first < steps; first += TILE, x += TILE * embedding) {
        const int rows = int(std::min<size_t>(TILE, steps - first)), padded = round_up(rows, ROWS);
        layer_norm(x, rows, embedding, b.norm, normed);
        convolve(w.norm, embedding, rows, embedding, b.conv, b.conv_bias, w.convolved);
        for (int h = 0; h < d.heads; h++) {
            float* out = w.wide + h * 4 * head;
            apply(b.input_forget[h], padded, w.convolved + h * head, embedding, out, 4 * embedding);
            apply(b.cell_output[h], padded, normed + h * head, embedding, out + 2 * head, 4 * embedding);
        }
        std::memmove(w.norm, w.norm + TILE * embedding, (TAPS - 1) * embedding * sizeof(float));

        // Two heads side by side: their recurrent weights fit the first cache, and one's latency hides the other's work.
        for (int pair = 0; pair < d.heads; pair += 2)
            for (int t = 0; t < rows; t++)
                for (int h = pair; h < std::min(pair + 2, d.heads); h++) {
                    const int at = h * head;
                    const float* hidden = t ? w.cell + (t - 1) * embedding + at : w.hidden + at;
                    slstm_step(head, b.recurrent + size_t(at) * 4 * head, w.wide + t * 4 * embedding + 4 * at, hidden,
                               w.slstm_c + at, w.slstm_n + at, w.slstm_m + at, w.cell + t * embedding + at);
                }
        std::memcpy(w.hidden, w.cell + (rows - 1) * embedding, embedding * sizeof(float));

        for (int t = 0; t < rows; t++)
            for (int at = 0; at < embedding; at += head) {
                const float* y = w.cell + t * embedding + at;
                float* sum = x + t * embedding + at;
                const Moments m = moments(y, head);
                for (int i = 0; i < head; i += WIDTH)
                    store(sum + i, load(sum + i) + normalized(y + i, m, b.group_norm + at + i));
            }

        layer_norm(x, rows, embedding, b.feedforward_norm, w.cell);
        apply(b.up, padded, w.cell, embedding, w.wide, 2 * d.feedforward);
        for (int t = 0; t < rows; t++) {
            float* gate = w.wide + t * 2 * d.feedforward;
            for (int i = 0; i < d.feedforward; i += WIDTH)
                store(gate + i, gelu(load(gate + i)) * load(gate + d.feedforward + i));
        }
        accumulate(b.down, padded, w.wide, 2 * d.feedforward, x, embedding);
    }
}

}  // namespace
