// A residual mLSTM block: Beck et al., xLSTM (2024), eq. 19-27, a tile of time steps at once.

#pragma once

#include "layers.h"

namespace {

// Each four features through a 4 x 4 matrix of their own.
INLINE V project(V x, const float* weight, int n) {
    V total = spread<0>(x) * load(weight);
    total = fma(spread<1>(x), load(weight + n), total);
    total = fma(spread<2>(x), load(weight + 2 * n), total);
    return fma(spread<3>(x), load(weight + 3 * n), total);
}

// out (head, TILE) = x (rows, head) transposed
void transpose(const float* x, size_t stride, int rows, int head, float* out) {
    for (int t = 0; t < rows; t += 4)
        for (int i = 0; i < head; i += 4) {
#if defined(__x86_64__)
            const float* from = x + t * stride + i;
            __m128 r0 = _mm_loadu_ps(from), r1 = _mm_loadu_ps(from + stride), r2 = _mm_loadu_ps(from + 2 * stride),
                   r3 = _mm_loadu_ps(from + 3 * stride);
            _MM_TRANSPOSE4_PS(r0, r1, r2, r3);
            float* to = out + i * TILE + t;
            _mm_storeu_ps(to, r0);
            _mm_storeu_ps(to + TILE, r1);
            _mm_storeu_ps(to + 2 * TILE, r2);
            _mm_storeu_ps(to + 3 * TILE, r3);
#else
            for (int r = 0; r < 4; r++)
                for (int c = 0; c < 4; c++) out[(i + c) * TILE + t + r] = x[(t + r) * stride + i + c];
#endif
        }
}

// A tile of one head of the mLSTM cell: the quadratic form inside the tile, the carried state (matrix, normalizer,
// stabilizer) for what came before. With b the running sum of log forget gates in the tile, a[j] = input[j] - b[j] and
// M[t] = max(stabilizer, a[0..t]), step j reaches step t with weight exp(a[j] - M[t]) and the state with
// exp(stabilizer - M[t]); the stabilizer of step t is b[t] + M[t].
void mlstm_cell(const Dimensions& d, const Workspace& w, int h, int rows) {
    const int head = d.mlstm_head(), inner = d.inner, padded = round_up(rows, ROWS), stride = d.gates();
    const float *q = w.q + h * head, *k = w.k + h * head, *v = w.v + h * head;
    float *out = w.cell + h * head, *normalizer = w.normalizer + h * head;
    float* matrix = w.matrix + size_t(h) * round_up(head, ROWS) * head;

    alignas(64) float a[TILE], from_state[TILE], to_state[TILE], floor[TILE], peak[TILE];
    float forget = 0.0f, highest = w.stabilizer[h];
    for (int t = 0; t < rows; t++) {
        forget += w.gates[t * stride + d.heads + h];
        a[t] = w.gates[t * stride + h] - forget;
        highest = highest < a[t] ? a[t] : highest;
        peak[t] = highest;
        floor[t] = forget + highest;
    }
    for (int t = rows; t < TILE; t++) a[t] = peak[t] = floor[t] = 0.0f;
    const V before = set1(w.stabilizer[h]), last = set1(highest);
    for (int t = 0; t < TILE; t += WIDTH) {
        store(from_state + t, exponential(before - load(peak + t)));
        store(to_state + t, exponential(load(a + t) - last));
        store(floor + t, exponential(-load(floor + t)));
    }
    w.stabilizer[h] = forget + highest;

    transpose(k, inner, round_up(rows, 4), head, w.k_transposed);
    for (int t = 0; t < rows; t++) {
        const V from = set1(from_state[t]), to = set1(to_state[t]);
        for (int i = 0; i < head; i += WIDTH) {
            store(w.q_scaled + t * head + i, load(q + t * inner + i) * from);
            store(w.k_scaled + t * head + i, load(k + t * inner + i) * to);
        }
    }
    multiply<ROWS>(padded, head, head, {w.q_scaled, size_t(head), 1}, {matrix, size_t(head)}, {w.zeros, 0}, out, inner);

    for (int first = 0; first < rows; first += ROWS) {
        const int reach = round_up(first + ROWS, WIDTH), last_row = std::min(first + ROWS, rows);
        multiply<ROWS>(ROWS, reach, head, {q + first * inner, size_t(inner), 1}, {w.k_transposed, TILE}, {w.zeros, 0},
                       w.scores + first * TILE, TILE);
        for (int t = first; t < last_row; t++) {
            V total = set1(0.0f);
            for (int i = 0; i < head; i += WIDTH)
                total = fma(load(w.q_scaled + t * head + i), load(normalizer + i), total);
            const V top = set1(peak[t]);
            float* row = w.scores + t * TILE;
            for (int j = 0; j < reach; j += WIDTH) {
                const V weighted = first_lanes(load(row + j) * exponential(load(a + j) - top), t + 1 - j);
                store(row + j, weighted);
                total += weighted;
            }
            floor[t] = 1.0f / (std::max(std::fabs(sum(total)), floor[t]) + CELL_EPSILON);
        }
        multiply<ROWS>(ROWS, head, last_row, {w.scores + first * TILE, TILE, 1}, {v, size_t(inner)},
                       {out + first * inner, size_t(inner)}, out + first * inner, inner);
        for (int t = first; t < last_row; t++)
            for (int i = 0; i < head; i += WIDTH) store(out + t * inner + i, load(out + t * inner + i) * floor[t]);
    }

    const V decay = set1(from_state[rows - 1]);
    for (int i = 0; i < head * head; i += WIDTH) store(matrix + i, load(matrix + i) * decay);
    multiply<ROWS>(round_up(head, ROWS), head, rows, {w.k_scaled, 1, size_t(head)}, {v, size_t(inner)},
                   {matrix, size_t(head)}, matrix, head);
    for (int i = 0; i < head; i += WIDTH) {
        V total = load(normalizer + i) * decay;
        for (int t = 0; t < rows; t++) total += load(w.k_scaled + t * head + i);
        store(normalizer + i, total);
    }
}

void mlstm_block(const Dimensions& d, const MlstmBlock& b, const Workspace& w, float* x, size_t steps) {
    const int embedding = d.embedding, inner = d.inner, head = d.mlstm_head(), gates = d.gates();
    float* up = w.wide + (TAPS - 1) * 2 * inner;
    std::fill_n(w.wide, (TAPS - 1) * 2 * inner, 0.0f);
    std::fill_n(w.matrix, size_t(d.heads) * round_up(head, ROWS) * head, 0.0f);
    std::fill_n(w.normalizer, inner, 0.0f);
    std::fill_n(w.stabilizer, d.heads, -INFINITY);
    for (size_t first = 0; first < steps; first += TILE, x += TILE * embedding) {
        const int rows = int(std::min<size_t>(TILE, steps - first)), padded = round_up(rows, ROWS);
        layer_norm(x, rows, embedding, b.norm, w.norm);
        apply(b.up, padded, w.norm, embedding, up, 2 * inner);
        convolve(w.wide, 2 * inner, rows, inner, b.conv, b.conv_bias, w.convolved);
        apply(b.gates_convolved, padded, w.convolved, inner, w.gates, gates);
        accumulate(b.gates_plain, padded, up, 2 * inner, w.gates, gates);
        for (int t = 0; t < rows; t++) {
            for (int i = 0; i < inner; i += WIDTH) {
                const V convolved = load(w.convolved + t * inner + i);
                store(w.q + t * inner + i, project(convolved, b.q + i, inner));
                store(w.k + t * inner + i, project(convolved, b.k + i, inner));
                store(w.v + t * inner + i, project(load(up + t * 2 * inner + i), b.v + i, inner));
            }
            alignas(64) float log_forget[LANES];
            float* row = w.gates + t * gates;
            for (int h = 0; h < d.heads; h += LANES) {
                const int count = std::min(LANES, d.heads - h);
                std::memcpy(log_forget, row + d.heads + h, count * sizeof(float));
                for (int i = 0; i < LANES; i += WIDTH) store(log_forget + i, log_sigmoid(load(log_forget + i)));
                std::memcpy(row + d.heads + h, log_forget, count * sizeof(float));
            }
        }
        for (int h = 0; h < d.heads; h++) mlstm_cell(d, w, h, rows);
        for (int t = 0; t < rows; t++) {
            float* y = w.cell + t * inner;
            const float *convolved = w.convolved + t * inner, *z = up + t * 2 * inner + inner;
            for (int at = 0; at < inner; at += head) {
                const Moments m = moments(y + at, head);
                for (int i = at; i < at + head; i += WIDTH) {
                    const V skipped = fma(load(b.skip + i), load(convolved + i), normalized(y + i, m, b.out_norm + i));
                    store(y + i, skipped * silu(load(z + i)));
                }
            }
        }
        accumulate(b.down, padded, w.cell, inner, x, embedding);
        std::memmove(w.wide, w.wide + TILE * 2 * inner, (TAPS - 1) * 2 * inner * sizeof(float));
    }
}

}  // namespace
