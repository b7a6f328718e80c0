// Products of matrices, in blocks that stay in registers.

#pragma once

#include "vectors.h"

namespace {

// A left operand: element (row, k) at data[row * row_stride + k * k_stride].
struct Left {
    const float* data;
    size_t row_stride, k_stride;
};
// A right operand: element (k, column) at data[k * stride + column]; stride 0 says packed panels, as in Linear.
struct Right {
    const float* data;
    size_t stride;
};
// What the sums start from: element (row, column) at data[row * stride + column]; stride 0 repeats one row.
struct Start {
    const float* data;
    size_t stride;
};

// R rows and N vectors of columns of out = start + left right, summed over k in order.
template <int R, int N>
INLINE void register_block(int depth, Left left, Right right, Start start, float* out, size_t out_stride) {
    V sums[R][N];
#pragma GCC unroll 6
    for (int r = 0; r < R; r++)
#pragma GCC unroll 4
        for (int n = 0; n < N; n++) sums[r][n] = load(start.data + r * start.stride + n * WIDTH);
    const float *a = left.data, *b = right.data;
    for (int k = 0; k < depth; k++, a += left.k_stride, b += right.stride) {
        V columns[N];
#pragma GCC unroll 4
        for (int n = 0; n < N; n++) columns[n] = load(b + n * WIDTH);
#pragma GCC unroll 6
        for (int r = 0; r < R; r++) {
            const V factor = set1(a[r * left.row_stride]);
#pragma GCC unroll 4
            for (int n = 0; n < N; n++) sums[r][n] = fma(factor, columns[n], sums[r][n]);
        }
    }
#pragma GCC unroll 6
    for (int r = 0; r < R; r++)
#pragma GCC unroll 4
        for (int n = 0; n < N; n++) store(out + r * out_stride + n * WIDTH, sums[r][n]);
}

template <int R, int N>
void panel(int rows, int depth, Left left, Right right, Start start, float* out, size_t out_stride) {
    for (int r = 0; r < rows; r += R) {
        if (left.k_stride == 1)
            register_block<R, N>(depth, {left.data, left.row_stride, 1}, right, start, out, out_stride);
        else
            register_block<R, N>(depth, left, right, start, out, out_stride);
        left.data += R * left.row_stride;
        start.data += R * start.stride;
        out += R * out_stride;
    }
}

// out (rows, columns) = start + left (rows, depth) right (depth, columns). `rows` is a multiple of R, `columns` of WIDTH.
template <int R>
void multiply(int rows, int columns, int depth, Left left, Right right, Start start, float* out, size_t out_stride) {
    for (int n = 0; n < columns; n += PANEL) {
        const int vectors = std::min(PANEL, columns - n) / WIDTH;
        const Right part = right.stride ? Right{right.data + n, right.stride}
                                        : Right{right.data + size_t(n) * depth, size_t(vectors) * WIDTH};
        const Start from{start.data + n, start.stride};
        switch (vectors) {
            case 1: panel<R, 1>(rows, depth, left, part, from, out + n, out_stride); break;
            case 2: panel<R, 2>(rows, depth, left, part, from, out + n, out_stride); break;
#if PANEL_VECTORS == 4
            case 3: panel<R, 3>(rows, depth, left, part, from, out + n, out_stride); break;
            case 4: panel<R, 4>(rows, depth, left, part, from, out + n, out_stride); break;
#endif
        }
    }
}
void apply(const Linear& layer, int rows, const float* x, size_t stride, float* out, size_t out_stride) {
    multiply<ROWS>(rows, layer.outputs, layer.inputs, {x, stride, 1}, {layer.weight, 0}, {layer.bias, 0}, out,
                   out_stride);
}
void accumulate(const Linear& layer, int rows, const float* x, size_t stride, float* out, size_t out_stride) {
    multiply<ROWS>(rows, layer.outputs, layer.inputs, {x, stride, 1}, {layer.weight, 0}, {out, out_stride}, out,
                   out_stride);
}

}  // namespace
