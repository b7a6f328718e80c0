// The parallel xLSTM and the cleaning before it on a CPU, for inference: one record at a time, one thread per call.
//
// The file includes itself once per instruction set (baseline, AVX2, AVX-512). The first part, which follows, is
// shared: the filters, the network's dimensions, its packed weights and the workspace. The second part is the network
// itself, written once over a vector type V of WIDTH floats, and the cleaning. The third part is the Python module.
//
// A record runs through the network block by block, each block in tiles of TILE time steps, so that a tile's
// activations and the block's weights stay in the first two caches. Nothing depends on the other records of a batch,
// and the compiler neither contracts nor reorders arithmetic (-ffp-contract=off, no -ffast-math): a record's result is
// the same, bit for bit, whatever stands beside it.

#ifndef KERNEL_SET

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <mutex>
#include <new>
#include <stdexcept>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#define INLINE static inline __attribute__((always_inline))

namespace {

constexpr int LEADS = 12;
constexpr int CLASSES = 5;
constexpr int METADATA = 2, METADATA_FEATURES = 32, HIDDEN_1 = 256, HIDDEN_2 = 128;
constexpr int TAPS = 4;       // of the causal convolutions
constexpr int PROJECTION = 4;  // block size of the headwise q, k and v
constexpr int TILE = 48;      // time steps; a multiple of ROWS and of every vector width
constexpr int ROWS = 6;       // rows of a register block of the matrix product
constexpr int LANES = 16;     // every feature count is a multiple of it, hence of every vector width
constexpr float EPSILON = 1e-5f;
constexpr float CELL_EPSILON = 1e-6f;

constexpr int round_up(int n, int multiple) { return (n + multiple - 1) / multiple * multiple; }

// Aligned, zeroed numbers. Throws std::bad_alloc.
template <typename Number>
class Zeroed {
  public:
    explicit Zeroed(size_t count) : data_(static_cast<Number*>(::operator new(count * sizeof(Number), ALIGNMENT))) {
        std::memset(data_, 0, count * sizeof(Number));
    }
    Zeroed(Zeroed&& other) noexcept : data_(other.data_) { other.data_ = nullptr; }
    Zeroed(const Zeroed&) = delete;
    ~Zeroed() { ::operator delete(data_, ALIGNMENT); }
    Number* get() const { return data_; }

  private:
    static constexpr std::align_val_t ALIGNMENT{64};
    Number* data_;
};
using Floats = Zeroed<float>;
using Doubles = Zeroed<double>;

// A recursive filter: coefficients by rising delay, the denominator's first one 1, and the state (direct form II,
// transposed) that a constant input of 1 leaves as it is.
template <int ORDER>
struct Filter {
    static constexpr int PADDING = 3 * (ORDER + 1);  // samples on either side, as scipy's filtfilt has them
    double numerator[ORDER + 1], denominator[ORDER + 1], at_rest[ORDER];
};

// The filters of a record, then (x - mean) / deviation.
struct Cleaning {
    Filter<6> bandpass;
    Filter<2> notch;
    float mean, deviation;
    // The notch has no more room on either side than the band-pass.
    static constexpr int PADDING = Filter<6>::PADDING;
};

struct Dimensions {
    int inputs;  // of a time step: all leads of a patch of samples
    int embedding, inner, heads, levels, blocks, feedforward;  // `blocks` of each kind per level
    int slstm_head() const { return embedding / heads; }
    int mlstm_head() const { return inner / heads; }
    int gates() const { return round_up(2 * heads, LANES); }
    int pooled() const { return 2 * embedding + METADATA_FEATURES; }
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

// What one call works in. The tile buffers begin with the TAPS - 1 rows before the tile where a convolution needs them.
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
        logits = take(LANES);
        zeros = take(std::max<size_t>(TILE, head));
    }
};

struct Model;

struct InstructionSet {
    const char* name;
    int panel;  // columns of a packed weight panel
    bool (*supported)();
    void (*forward)(const Model&, const Workspace&, const float* signal, const float* metadata, size_t steps,
                    float* probabilities);
    void (*clean)(const Cleaning&, const double* signal, size_t samples, double* filtered, float* cleaned);
};

// The parameters, read in the order in which compiled.py lists them and packed for an instruction set.
struct Model {
    Model(const InstructionSet& set, const Dimensions& d, const float* parameters, size_t count)
        : set(set), d(d), next_(parameters), left_(count) {
        embedding = linear(d.embedding, d.inputs, true);
        embedding_norm = copy(d.embedding);
        embedding_norm_bias = copy(d.embedding);
        for (int i = 0; i < d.levels; i++) levels.push_back(level());
        metadata = linear(METADATA_FEATURES, METADATA, true);
        classifier_1 = linear(HIDDEN_1, d.pooled(), true);
        classifier_2 = linear(HIDDEN_2, HIDDEN_1, true);
        classifier_3 = linear(CLASSES, HIDDEN_2, true);
        if (left_) throw std::invalid_argument("too many parameters");
    }

    InstructionSet set;
    Dimensions d;
    Linear embedding;
    const float *embedding_norm, *embedding_norm_bias;
    std::vector<Level> levels;
    Linear metadata, classifier_1, classifier_2, classifier_3;

    // Workspaces are kept between calls; each concurrent call has its own.
    std::unique_ptr<Workspace> acquire(size_t steps) {
        {
            std::lock_guard<std::mutex> lock(mutex_);
            for (auto& candidate : idle_)
                if (candidate->capacity >= steps) {
                    std::unique_ptr<Workspace> found = std::move(candidate);
                    candidate = std::move(idle_.back());
                    idle_.pop_back();
                    return found;
                }
            idle_.clear();
        }
        return std::make_unique<Workspace>(d, steps);
    }
    void release(std::unique_ptr<Workspace> workspace) {
        std::lock_guard<std::mutex> lock(mutex_);
        idle_.push_back(std::move(workspace));
    }

  private:
    const float* next_;
    size_t left_;
    std::vector<Floats> memory_;
    std::mutex mutex_;
    std::vector<std::unique_ptr<Workspace>> idle_;

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
        for (int first = 0; first < padded; first += set.panel)
            for (int k = 0; k < inputs; k++)
                for (int n = first; n < std::min(first + set.panel, padded); n++)
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

}  // namespace

#define PRAGMA(text) _Pragma(#text)
#if defined(__clang__)
#define BEGIN_TARGET(features) PRAGMA(clang attribute push(__attribute__((target(features))), apply_to = function))
#define END_TARGET PRAGMA(clang attribute pop)
#else
#define BEGIN_TARGET(features) PRAGMA(GCC push_options) PRAGMA(GCC target(features))
#define END_TARGET PRAGMA(GCC pop_options)
#endif

// PANEL_VECTORS: as many vectors of columns per register block as ROWS rows leave registers for.
#define KERNEL_SET baseline
#define WIDTH 4
#if defined(__aarch64__)
#define PANEL_VECTORS 4
#else
#define PANEL_VECTORS 2
#endif
#include "kernel.cpp"

#if defined(__x86_64__)
#define KERNEL_SET avx2
#define WIDTH 8
#define PANEL_VECTORS 2
BEGIN_TARGET("avx2,fma")
#include "kernel.cpp"
END_TARGET

#define KERNEL_SET avx512
#define WIDTH 16
#define PANEL_VECTORS 4
BEGIN_TARGET("avx512f,avx512dq,avx2,fma")
#include "kernel.cpp"
END_TARGET
#endif

// ---- third part: the Python module ---------------------------------------------------------------------------------

namespace {

const InstructionSet SETS[] = {  // the fastest first
#if defined(__x86_64__)
    {"avx512", 64, [] { return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq"); },
     avx512::forward, avx512::clean},
    {"avx2", 16, [] { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }, avx2::forward,
     avx2::clean},
#endif
    {"baseline", baseline::PANEL, [] { return true; }, baseline::forward, baseline::clean},
};

constexpr const char* CAPSULE = "models._kernel.network";
constexpr Py_ssize_t MOST_STEPS = 1 << 20;
constexpr int WIDEST = 1 << 13;

// A buffer, released at the end of the scope. `numbers` is null, with a Python error set, when it can't be had.
template <typename Number>
struct View {
    View(PyObject* object, int flags) : held(PyObject_GetBuffer(object, &buffer, flags) == 0) {
        if (held) numbers = static_cast<Number*>(buffer.buf);
    }
    ~View() {
        if (held) PyBuffer_Release(&buffer);
    }
    Py_ssize_t count() const { return buffer.len / Py_ssize_t(sizeof(Number)); }
    Py_buffer buffer;
    bool held;
    Number* numbers = nullptr;
};

PyObject* instructions(PyObject*, PyObject*) {
    PyObject* names = PyList_New(0);
    for (const auto& set : SETS) {
        if (!names || !set.supported()) continue;
        PyObject* name = PyUnicode_FromString(set.name);
        if (!name || PyList_Append(names, name) < 0) Py_CLEAR(names);
        Py_XDECREF(name);
    }
    return names;
}

// Null, with a Python error set, when this processor has no such instruction set.
const InstructionSet* find(const char* name) {
    for (const auto& set : SETS)
        if (!std::strcmp(set.name, name) && set.supported()) return &set;
    PyErr_Format(PyExc_ValueError, "this processor has no %s", name);
    return nullptr;
}

void destroy(PyObject* capsule) { delete static_cast<Model*>(PyCapsule_GetPointer(capsule, CAPSULE)); }

PyObject* load(PyObject*, PyObject* arguments) {
    const char* name;
    Dimensions d;
    PyObject* object;
    if (!PyArg_ParseTuple(arguments, "siiiiiiiO", &name, &d.inputs, &d.embedding, &d.inner, &d.heads, &d.levels, &d.blocks,
                          &d.feedforward, &object))
        return nullptr;
    if (std::min({d.inputs, d.embedding, d.inner, d.heads, d.levels, d.blocks, d.feedforward}) < 1 ||
        std::max({d.inputs, d.embedding, d.inner, d.feedforward}) > WIDEST || d.embedding % (LANES * d.heads) ||
        d.inner % (LANES * d.heads) || d.feedforward % LANES) {
        PyErr_SetString(PyExc_ValueError, "the compiled kernel does not support these dimensions");
        return nullptr;
    }
    View<float> parameters(object, PyBUF_SIMPLE);
    if (!parameters.numbers) return nullptr;
    const InstructionSet* set = find(name);
    if (!set) return nullptr;
    try {
        auto model = std::make_unique<Model>(*set, d, parameters.numbers, size_t(parameters.count()));
        PyObject* capsule = PyCapsule_New(model.get(), CAPSULE, destroy);
        if (capsule) model.release();
        return capsule;
    } catch (const std::bad_alloc&) {
        return PyErr_NoMemory();
    } catch (const std::exception& error) {
        PyErr_SetString(PyExc_ValueError, error.what());
        return nullptr;
    }
}

bool score(Model& model, const float* signal, const float* metadata, float* probabilities, size_t batch,
           size_t steps) noexcept {
    try {
        auto workspace = model.acquire(steps);
        for (size_t i = 0; i < batch; i++)
            model.set.forward(model, *workspace, signal + i * steps * model.d.inputs, metadata + i * METADATA, steps,
                              probabilities + i * CLASSES);
        model.release(std::move(workspace));
        return true;
    } catch (const std::bad_alloc&) {
        return false;
    }
}

PyObject* run(PyObject*, PyObject* arguments) {
    PyObject *capsule, *signal_object, *metadata_object, *output_object;
    Py_ssize_t batch, steps;
    if (!PyArg_ParseTuple(arguments, "OOOOnn", &capsule, &signal_object, &metadata_object, &output_object, &batch,
                          &steps))
        return nullptr;
    auto* model = static_cast<Model*>(PyCapsule_GetPointer(capsule, CAPSULE));
    if (!model) return nullptr;
    View<float> signal(signal_object, PyBUF_SIMPLE);
    if (!signal.numbers) return nullptr;
    View<float> metadata(metadata_object, PyBUF_SIMPLE);
    if (!metadata.numbers) return nullptr;
    View<float> output(output_object, PyBUF_WRITABLE);
    if (!output.numbers) return nullptr;
    if (batch < 0 || steps < 1 || steps > MOST_STEPS || metadata.count() != batch * METADATA ||
        output.count() != batch * CLASSES || signal.count() % (steps * model->d.inputs) ||
        signal.count() / (steps * model->d.inputs) != batch) {
        PyErr_SetString(PyExc_ValueError, "the buffers do not have the sizes that batch and steps say");
        return nullptr;
    }
    bool done;
    Py_BEGIN_ALLOW_THREADS
    done = score(*model, signal.numbers, metadata.numbers, output.numbers, size_t(batch), size_t(steps));
    Py_END_ALLOW_THREADS
    if (!done) return PyErr_NoMemory();
    Py_RETURN_NONE;
}

// Reads a filter from a buffer of doubles: numerator, denominator, state at rest.
template <int ORDER>
bool read(PyObject* object, Filter<ORDER>& filter) {
    View<double> view(object, PyBUF_SIMPLE);
    if (!view.numbers) return false;
    if (view.buffer.len != sizeof filter) {
        PyErr_Format(PyExc_ValueError, "a filter of order %d has %d numbers", ORDER, int(sizeof filter / sizeof(double)));
        return false;
    }
    std::memcpy(&filter, view.numbers, sizeof filter);
    return true;
}

bool clean_all(const InstructionSet& set, const Cleaning& cleaning, const double* signals, size_t batch, size_t samples,
               float* cleaned) noexcept {
    try {
        const Doubles filtered((samples + 2 * Cleaning::PADDING) * LEADS);
        for (size_t i = 0; i < batch; i++)
            set.clean(cleaning, signals + i * samples * LEADS, samples, filtered.get(), cleaned + i * samples * LEADS);
        return true;
    } catch (const std::bad_alloc&) {
        return false;
    }
}

PyObject* clean(PyObject*, PyObject* arguments) {
    const char* name;
    PyObject *bandpass, *notch, *signals_object, *output_object;
    Py_ssize_t batch, samples;
    Cleaning cleaning;
    if (!PyArg_ParseTuple(arguments, "sOOffOOnn", &name, &bandpass, &notch, &cleaning.mean, &cleaning.deviation,
                          &signals_object, &output_object, &batch, &samples))
        return nullptr;
    const InstructionSet* set = find(name);
    if (!set || !read(bandpass, cleaning.bandpass) || !read(notch, cleaning.notch)) return nullptr;
    View<double> signals(signals_object, PyBUF_SIMPLE);
    if (!signals.numbers) return nullptr;
    View<float> output(output_object, PyBUF_WRITABLE);
    if (!output.numbers) return nullptr;
    if (samples <= Cleaning::PADDING) {
        PyErr_Format(PyExc_ValueError, "a signal must have more than %d samples, the padding of the filters",
                     Cleaning::PADDING);
        return nullptr;
    }
    if (batch < 0 || samples > MOST_STEPS || signals.count() % (samples * LEADS) ||
        signals.count() / (samples * LEADS) != batch || output.count() != signals.count()) {
        PyErr_SetString(PyExc_ValueError, "the buffers do not have the sizes that batch and samples say");
        return nullptr;
    }
    bool done;
    Py_BEGIN_ALLOW_THREADS
    done = clean_all(*set, cleaning, signals.numbers, size_t(batch), size_t(samples), output.numbers);
    Py_END_ALLOW_THREADS
    if (!done) return PyErr_NoMemory();
    Py_RETURN_NONE;
}

PyMethodDef METHODS[] = {
    {"instructions", instructions, METH_NOARGS, "instructions() -> names of the usable instruction sets, fastest first"},
    {"load", load, METH_VARARGS,
     "load(instructions, inputs, embedding, inner, heads, levels, blocks, feedforward, parameters) -> network"},
    {"run", run, METH_VARARGS, "run(network, signal, metadata, probabilities, batch, steps): fills probabilities"},
    {"clean", clean, METH_VARARGS,
     "clean(instructions, bandpass, notch, mean, deviation, signals, cleaned, batch, samples): fills cleaned"},
    {nullptr, nullptr, 0, nullptr},
};

PyModuleDef MODULE = {PyModuleDef_HEAD_INIT, "_kernel", "The parallel xLSTM, compiled.", 0, METHODS,
                      nullptr,               nullptr,   nullptr,                         nullptr};

}  // namespace

PyMODINIT_FUNC PyInit__kernel() {
#if defined(__x86_64__)
    __builtin_cpu_init();
#endif
    return PyModuleDef_Init(&MODULE);
}

#else  // ---- second part: the network, once per instruction set --------------------------------------------------------

namespace {
namespace KERNEL_SET {

constexpr int PANEL = PANEL_VECTORS * WIDTH;
typedef float V __attribute__((vector_size(4 * WIDTH), may_alias));
typedef int32_t I __attribute__((vector_size(4 * WIDTH), may_alias));

INLINE V load(const float* p) {
    V v;
    __builtin_memcpy(&v, p, sizeof v);
    return v;
}
INLINE void store(float* p, V v) { __builtin_memcpy(p, &v, sizeof v); }

// maximum(a, b) and minimum(a, b) are b where either is NaN, as on x86: a NaN in b stays visible.
// spread<i>(x): lane i of each group of four, in all four lanes.
#if WIDTH == 16
INLINE V set1(float x) { return _mm512_set1_ps(x); }
INLINE V fma(V a, V b, V c) { return _mm512_fmadd_ps(a, b, c); }
INLINE V maximum(V a, V b) { return _mm512_max_ps(a, b); }
INLINE V minimum(V a, V b) { return _mm512_min_ps(a, b); }
INLINE float sum(V x) { return _mm512_reduce_add_ps(x); }
template <int i> INLINE V spread(V x) { return _mm512_permute_ps(x, i * 0x55); }
#elif WIDTH == 8
INLINE V set1(float x) { return _mm256_set1_ps(x); }
INLINE V fma(V a, V b, V c) { return _mm256_fmadd_ps(a, b, c); }
INLINE V maximum(V a, V b) { return _mm256_max_ps(a, b); }
INLINE V minimum(V a, V b) { return _mm256_min_ps(a, b); }
INLINE float sum(V x) { return ((x[0] + x[4]) + (x[2] + x[6])) + ((x[1] + x[5]) + (x[3] + x[7])); }
template <int i> INLINE V spread(V x) { return _mm256_permute_ps(x, i * 0x55); }
#else
INLINE V set1(float x) { return V{x, x, x, x}; }
INLINE float sum(V x) { return (x[0] + x[2]) + (x[1] + x[3]); }
template <int i> INLINE V spread(V x) { return V{x[i], x[i], x[i], x[i]}; }
#if defined(__x86_64__)
INLINE V fma(V a, V b, V c) { return a * b + c; }
INLINE V maximum(V a, V b) { return _mm_max_ps(a, b); }
INLINE V minimum(V a, V b) { return _mm_min_ps(a, b); }
#else
#if defined(__aarch64__)
INLINE V fma(V a, V b, V c) { return (V)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b); }
#else
INLINE V fma(V a, V b, V c) { return a * b + c; }
#endif
INLINE V maximum(V a, V b) { return a > b ? a : b; }
INLINE V minimum(V a, V b) { return a < b ? a : b; }
#endif
#endif

INLINE V absolute(V x) { return (V)((I)x & 0x7fffffff); }

alignas(64) const int32_t KEEP[32] = {-1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1};

// The first `count` lanes of x, the others zero.
INLINE V first_lanes(V x, int count) {
    count = std::min(std::max(count, 0), WIDTH);
    I mask;
    __builtin_memcpy(&mask, KEEP + 16 - count, sizeof mask);
    return (V)((I)x & mask);
}

// exp to 1.5 units in the last place; below -87.33 (-inf too) about 1e-38 instead of less.
INLINE V exponential(V x) {
    x = maximum(set1(-87.33f), minimum(set1(88.37f), x));
    const V shift = set1(12582912.0f);  // 1.5 * 2^23: the sum's low bits are the nearest integer
    const V shifted = fma(x, set1(1.44269504f), shift), n = shifted - shift;
    V r = fma(n, set1(-0.693359375f), x);
    r = fma(n, set1(2.12194440e-4f), r);
    V p = set1(1.3813144760e-3f);
    p = fma(p, r, set1(8.3694187924e-3f));
    p = fma(p, r, set1(4.1668456048e-2f));
    p = fma(p, r, set1(1.6666515172e-1f));
    p = fma(p, r, set1(4.9999994040e-1f));
    p = fma(p, r * r, r) + 1.0f;
    return (V)((I)p + ((I)shifted << 23));
}
// log(1 + u) for u in [0, 1], by 2 atanh(u / (2 + u))
INLINE V log1p(V u) {
    const V s = u / (u + 2.0f), q = s * s;
    V p = set1(2.4432460964e-1f);
    p = fma(p, q, set1(2.1388065815e-1f));
    p = fma(p, q, set1(2.8621205687e-1f));
    p = fma(p, q, set1(3.9998671412e-1f));
    p = fma(p, q, set1(6.6666680574e-1f));
    p = fma(p, q, set1(2.0f));
    return p * s;
}
INLINE V log_sigmoid(V x) { return minimum(set1(0.0f), x) - log1p(exponential(-absolute(x))); }
INLINE V silu(V x) { return x / (exponential(-x) + 1.0f); }
INLINE V hyperbolic_tangent(V x) {
    x = maximum(set1(-9.0f), minimum(set1(9.0f), x));
    const V q = x * x;
    V p = set1(1.3354551243e-8f);
    p = fma(p, q, set1(2.0608997147e-5f));
    p = fma(p, q, set1(3.4955828451e-3f));
    p = fma(p, q, set1(1.3381020725e-1f));
    p = fma(p, q, set1(1.0f));
    V d = set1(7.7765116657e-7f);
    d = fma(d, q, set1(3.2856262987e-4f));
    d = fma(d, q, set1(2.5876961648e-2f));
    d = fma(d, q, set1(4.6714335680e-1f));
    d = fma(d, q, set1(1.0f));
    return p * x / d;
}
// x (1 + erf(x / sqrt 2)) / 2, the error function as an odd rational function to 2e-8
INLINE V gelu(V x) {
    const V y = maximum(set1(-5.5f), minimum(set1(5.5f), x)), q = y * y;
    V p = set1(4.5862314835e-8f);
    p = fma(p, q, set1(1.2603182768e-5f));
    p = fma(p, q, set1(3.2914755866e-4f));
    p = fma(p, q, set1(9.3029644340e-3f));
    p = fma(p, q, set1(6.6917784512e-2f));
    p = fma(p, q, set1(7.9788452387e-1f));
    V d = set1(1.1990284749e-6f);
    d = fma(d, q, set1(7.2167043982e-5f));
    d = fma(d, q, set1(1.8606460653e-3f));
    d = fma(d, q, set1(2.8416130692e-2f));
    d = fma(d, q, set1(2.5053539872e-1f));
    d = fma(d, q, set1(1.0f));
    return x * 0.5f * (p * y / d + 1.0f);
}

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
        for (int n = 0; n < N; n++) sums[r][n] = KERNEL_SET::load(start.data + r * start.stride + n * WIDTH);
    const float *a = left.data, *b = right.data;
    for (int k = 0; k < depth; k++, a += left.k_stride, b += right.stride) {
        V columns[N];
#pragma GCC unroll 4
        for (int n = 0; n < N; n++) columns[n] = KERNEL_SET::load(b + n * WIDTH);
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

struct Moments {
    V mean, scale;
};
// Mean and 1 / sqrt(variance + epsilon) of n values.
INLINE Moments moments(const float* x, int n) {
    V total = set1(0.0f);
    for (int i = 0; i < n; i += WIDTH) total += load(x + i);
    const V mean = set1(sum(total) / float(n));
    V squares = set1(0.0f);
    for (int i = 0; i < n; i += WIDTH) {
        const V centred = load(x + i) - mean;
        squares = fma(centred, centred, squares);
    }
    return {mean, set1(1.0f / std::sqrt(sum(squares) / float(n) + EPSILON))};
}
INLINE V normalized(const float* x, const Moments& m, const float* weight) {
    return (load(x) - m.mean) * m.scale * load(weight);
}
void layer_norm(const float* x, int rows, int n, const float* weight, float* out) {
    for (int r = 0; r < rows; r++, x += n, out += n) {
        const Moments m = moments(x, n);
        for (int i = 0; i < n; i += WIDTH) store(out + i, normalized(x + i, m, weight + i));
    }
}

// out[t] = SiLU(bias + sum over taps of weight[tap] x[t - TAPS + 1 + tap]); x begins TAPS - 1 rows before the tile.
void convolve(const float* x, size_t stride, int rows, int n, const float* weight, const float* bias, float* out) {
    for (int r = 0; r < rows; r++, x += stride, out += n)
        for (int i = 0; i < n; i += WIDTH) {
            V total = load(bias + i);
            for (int tap = 0; tap < TAPS; tap++) total = fma(load(weight + tap * n + i), load(x + tap * stride + i), total);
            store(out + i, silu(total));
        }
}

// N vectors of preactivations += hidden (depth) times recurrent (depth, columns).
template <int N>
INLINE void recur(int depth, size_t columns, const float* hidden, const float* recurrent, float* preactivation) {
    V sums[N];
#pragma GCC unroll 8
    for (int n = 0; n < N; n++) sums[n] = KERNEL_SET::load(preactivation + n * WIDTH);
    for (int k = 0; k < depth; k++, recurrent += columns) {
        const V factor = set1(hidden[k]);
#pragma GCC unroll 8
        for (int n = 0; n < N; n++) sums[n] = fma(factor, KERNEL_SET::load(recurrent + n * WIDTH), sums[n]);
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

void embed(const Model& model, const Workspace& w, const float* signal, size_t steps) {
    const int embedding = model.d.embedding, inputs = model.d.inputs;
    for (size_t first = 0; first < steps; first += TILE) {
        const int rows = int(std::min<size_t>(TILE, steps - first));
        std::memcpy(w.signal, signal + first * inputs, rows * inputs * sizeof(float));
        float* x = w.slstm + first * embedding;
        apply(model.embedding, round_up(rows, ROWS), w.signal, inputs, x, embedding);
        for (int t = 0; t < rows; t++, x += embedding) {
            const Moments m = moments(x, embedding);
            for (int i = 0; i < embedding; i += WIDTH)
                store(x + i, maximum(set1(0.0f), normalized(x + i, m, model.embedding_norm + i) +
                                                     load(model.embedding_norm_bias + i)));
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

// Mean and maximum over time; the sum tile by tile, for its rounding.
void pool(const Workspace& w, int embedding, size_t steps) {
    for (int i = 0; i < embedding; i += WIDTH) {
        V total = set1(0.0f), highest = set1(-INFINITY);
        for (size_t first = 0; first < steps; first += TILE) {
            V part = set1(0.0f);
            for (size_t t = first; t < std::min<size_t>(first + TILE, steps); t++) {
                const V x = load(w.slstm + t * embedding + i);
                part += x;
                highest = maximum(highest, x);
            }
            total += part;
        }
        store(w.pooled + i, total / float(steps));
        store(w.pooled + embedding + i, highest);
    }
}

void dense(const Linear& layer, const float* x, float* out, bool rectified) {
    multiply<1>(1, layer.outputs, layer.inputs, {x, 0, 1}, {layer.weight, 0}, {layer.bias, 0}, out, 0);
    for (int i = 0; rectified && i < layer.outputs; i += WIDTH) store(out + i, maximum(set1(0.0f), load(out + i)));
}

void forward(const Model& model, const Workspace& w, const float* signal, const float* metadata, size_t steps,
             float* probabilities) {
    const Dimensions& d = model.d;
    embed(model, w, signal, steps);
    for (const Level& level : model.levels) {
        std::memcpy(w.mlstm, w.slstm, steps * d.embedding * sizeof(float));
        for (const auto& block : level.slstm) slstm_block(d, block, w, w.slstm, steps);
        for (const auto& block : level.mlstm) mlstm_block(d, block, w, w.mlstm, steps);
        fuse(level, w, d.embedding, steps);
    }
    pool(w, d.embedding, steps);
    dense(model.metadata, metadata, w.pooled + 2 * d.embedding, true);
    dense(model.classifier_1, w.pooled, w.hidden_1, true);
    dense(model.classifier_2, w.hidden_1, w.hidden_2, true);
    dense(model.classifier_3, w.hidden_2, w.logits, false);
    for (int i = 0; i < LANES; i += WIDTH) store(w.logits + i, set1(1.0f) / (exponential(-load(w.logits + i)) + 1.0f));
    std::memcpy(probabilities, w.logits, CLASSES * sizeof(float));
}

// Four leads of a sample; where vectors are narrower the compiler takes two for one.
typedef double Quad __attribute__((vector_size(32), may_alias));
constexpr int QUADS = LEADS / 4;

// One way of a filter over samples `step` doubles apart, in place: direct form II, transposed. Sums in the order of
// scipy's lfilter and every product rounded: the notch has a pole at -1, so rounding errors stay.
template <int ORDER>
void pass(const Filter<ORDER>& f, double* x, size_t samples, ptrdiff_t step) {
    Quad state[ORDER][QUADS];
    for (int k = 0; k < ORDER; k++)
        for (int q = 0; q < QUADS; q++) state[k][q] = reinterpret_cast<Quad*>(x)[q] * f.at_rest[k];
    for (; samples; samples--, x += step)
#pragma GCC unroll 3
        for (int q = 0; q < QUADS; q++) {
            const Quad in = reinterpret_cast<Quad*>(x)[q], out = state[0][q] + f.numerator[0] * in;
#pragma GCC unroll 5
            for (int k = 1; k < ORDER; k++)
                state[k - 1][q] = state[k][q] + f.numerator[k] * in - f.denominator[k] * out;
            state[ORDER - 1][q] = f.numerator[ORDER] * in - f.denominator[ORDER] * out;
            reinterpret_cast<Quad*>(x)[q] = out;
        }
}

// A filter forwards and backwards, in place, as scipy's filtfilt: x has room for PADDING samples on either side, where
// the signal goes on turned about its ends.
template <int ORDER>
void filter_both_ways(const Filter<ORDER>& f, double* x, size_t samples) {
    constexpr ptrdiff_t PADDING = Filter<ORDER>::PADDING;
    double* last = x + (samples - 1) * LEADS;
    for (ptrdiff_t i = LEADS; i <= PADDING * LEADS; i += LEADS)
        for (int lead = 0; lead < LEADS; lead++) {
            x[lead - i] = 2 * x[lead] - x[lead + i];
            last[lead + i] = 2 * last[lead] - last[lead - i];
        }
    pass(f, x - PADDING * LEADS, samples + 2 * PADDING, LEADS);
    pass(f, last + PADDING * LEADS, samples + 2 * PADDING, -LEADS);
}

// `filtered` is room for the samples and Cleaning::PADDING more on either side.
void clean(const Cleaning& c, const double* signal, size_t samples, double* filtered, float* cleaned) {
    filtered += Cleaning::PADDING * LEADS;
    std::memcpy(filtered, signal, samples * LEADS * sizeof(double));
    filter_both_ways(c.bandpass, filtered, samples);
    filter_both_ways(c.notch, filtered, samples);
    for (size_t i = 0; i < samples * LEADS; i++) cleaned[i] = (float(filtered[i]) - c.mean) / c.deviation;
}

}  // namespace KERNEL_SET
}  // namespace

#undef KERNEL_SET
#undef WIDTH
#undef PANEL_VECTORS
#endif
