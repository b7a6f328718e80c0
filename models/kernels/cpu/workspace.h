// What one call works in. The tile buffers begin with the TAPS - 1 rows before the tile where a convolution needs them.

#pragma once

#include <algorithm>

#include "memory.h"
#include "network.h"

struct Workspace {
    Workspace(const Dimensions& d, size_t steps)
        : capacity(steps), memory(size(d, steps)), cursor(memory.get()) {
        carve(d, steps);
    }
    size_t capacity;
    float *slstm, *mlstm;                                  // (steps, embedding): the two branches
    float *signal, *norm, *convolved, *wide, *cell;        // tiles
    float *q, *k, *v, *gates;                              // tiles
    float *k_transposed, *q_scaled, *k_scaled, *scores;    // tile of one head
    float *matrix, *normalizer, *stabilizer;               // mLSTM state per head
    float *hidden, *slstm_c, *slstm_n, *slstm_m;           // sLSTM state
    float *pooled, *hidden_1, *hidden_2, *logits, *zeros;

  private:
    Floats memory;
    float* cursor;
    size_t needed = 0;

    static size_t size(const Dimensions& d, size_t steps) {
        Workspace counter;
        counter.carve(d, steps);
        return counter.needed;
    }
    Workspace() : capacity(0), memory(0), cursor(nullptr) {}

    float* take(size_t count) {
        count = (count + LANES - 1) / LANES * LANES;
        needed += count;
        if (!cursor) return nullptr;
        float* start = cursor;
        cursor += count;
        return start;
    }
    void carve(const Dimensions& d, size_t steps) {
        const size_t padded = (steps + TILE - 1) / TILE * TILE, embedding = d.embedding, inner = d.inner;
        const size_t history = TILE + TAPS - 1, head = d.mlstm_head();
        slstm = take(padded * embedding);
        mlstm = take(padded * embedding);
        signal = take(TILE * d.inputs);
        norm = take(history * embedding);
        convolved = take(TILE * inner);
        wide = take(history * std::max<size_t>(2 * inner, 2 * d.feedforward));
        cell = take(TILE * inner);
        q = take(TILE * inner);
        k = take(TILE * inner);
        v = take(TILE * inner);
        gates = take(TILE * d.gates());
        k_transposed = take(head * TILE);
        q_scaled = take(TILE * head);
        k_scaled = take(TILE * head + ROWS);
        scores = take(TILE * TILE);
        matrix = take(d.heads * round_up(head, ROWS) * head);
        normalizer = take(inner);
        stabilizer = take(d.heads);
        hidden = take(embedding);
        slstm_c = take(embedding);
        slstm_n = take(embedding);
        slstm_m = take(embedding);
        pooled = take(d.pooled());
        hidden_1 = take(HIDDEN_1);
        hidden_2 = take(HIDDEN_2);
        logits = take(d.classes);
        zeros = take(std::max<size_t>(TILE, head));
    }
};
