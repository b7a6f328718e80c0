// The Python module `_kernel`: the parallel xLSTM and the cleaning before it on a CPU, for inference.
//
// One record at a time, one thread per call. A record runs through the network block by block, each block in tiles of TILE
// time steps, so that a tile's activations and the block's weights stay in the first two caches. Nothing depends on the
// other records of a batch, and the compiler neither contracts nor reorders arithmetic (-ffp-contract=off, no -ffast-math):
// a record's result is the same, bit for bit, whatever stands beside it.
//
// instruction_set.h  what is compiled for each instruction set: by baseline.cpp, avx2.cpp and avx512.cpp
// scoring.h          the whole network, over vectors.h, products.h, layers.h, slstm.h and mlstm.h
// cleaning.h         the filters; quality.h: what the filtered signal tells
// model.h            a network in memory, over network.h, packing.h and workspace.h

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <new>
#include <stdexcept>

#include "model.h"
#include "quality.h"

namespace {

const InstructionSet* const SETS[] = {  // the fastest first
#if defined(__x86_64__)
    &AVX512, &AVX2,
#endif
    &BASELINE,
};

constexpr const char* CAPSULE = "ecgbatch.models.kernels._kernel.network";
constexpr Py_ssize_t MOST_SAMPLES = 1 << 20;
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
    for (const InstructionSet* set : SETS) {
        if (!names || !set->supported()) continue;
        PyObject* name = PyUnicode_FromString(set->name);
        if (!name || PyList_Append(names, name) < 0) Py_CLEAR(names);
        Py_XDECREF(name);
    }
    return names;
}

// Null, with a Python error set, when this processor has no such instruction set.
const InstructionSet* find(const char* name) {
    for (const InstructionSet* set : SETS)
        if (!std::strcmp(set->name, name) && set->supported()) return set;
    PyErr_Format(PyExc_ValueError, "this processor has no %s", name);
    return nullptr;
}

void destroy(PyObject* capsule) { delete static_cast<Model*>(PyCapsule_GetPointer(capsule, CAPSULE)); }

PyObject* load(PyObject*, PyObject* arguments) {
    const char* name;
    Dimensions d;
    PyObject* object;
    if (!PyArg_ParseTuple(arguments, "siiiiiiiiiiO", &name, &d.inputs, &d.embedding, &d.inner, &d.heads, &d.levels, &d.blocks,
                          &d.feedforward, &d.classes, &d.span, &d.extremes, &object))
        return nullptr;
    if (std::min({d.inputs, d.embedding, d.inner, d.heads, d.levels, d.blocks, d.feedforward, d.classes}) < 1 ||
        std::max({d.inputs, d.embedding, d.inner, d.feedforward, d.classes}) > WIDEST || std::min(d.span, d.extremes) < 0 ||
        d.embedding % (LANES * d.heads) || d.inner % (LANES * d.heads) || d.feedforward % LANES || d.inputs % LEADS) {
        PyErr_SetString(PyExc_ValueError, "the compiled kernel does not support these dimensions");
        return nullptr;
    }
    View<float> parameters(object, PyBUF_SIMPLE);
    if (!parameters.numbers) return nullptr;
    const InstructionSet* set = find(name);
    if (!set) return nullptr;
    try {
        auto model =
            std::make_unique<Model>(*set, Packing(set->panel, d, parameters.numbers, size_t(parameters.count())));
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

bool score_all(Model& model, const float* signal, const float* metadata, float* probabilities, float* features,
               size_t batch, size_t samples) noexcept {
    try {
        model.score(signal, metadata, probabilities, features, batch, samples);
        return true;
    } catch (const std::bad_alloc&) {
        return false;
    }
}

PyObject* run(PyObject*, PyObject* arguments) {
    PyObject *capsule, *signal_object, *metadata_object, *output_object, *features_object;
    Py_ssize_t batch, samples;
    if (!PyArg_ParseTuple(arguments, "OOOOOnn", &capsule, &signal_object, &metadata_object, &output_object,
                          &features_object, &batch, &samples))
        return nullptr;
    auto* model = static_cast<Model*>(PyCapsule_GetPointer(capsule, CAPSULE));
    if (!model) return nullptr;
    View<float> signal(signal_object, PyBUF_SIMPLE);
    if (!signal.numbers) return nullptr;
    View<float> metadata(metadata_object, PyBUF_SIMPLE);
    if (!metadata.numbers) return nullptr;
    View<float> output(output_object, PyBUF_WRITABLE);
    if (!output.numbers) return nullptr;
    View<float> features(features_object, PyBUF_WRITABLE);
    if (!features.numbers) return nullptr;
    const Py_ssize_t width = model->network.d.pooled();
    if (batch < 0 || samples * LEADS < model->network.d.inputs || samples > MOST_SAMPLES ||
        metadata.count() != batch * METADATA || output.count() != batch * model->network.d.classes ||
        (features.count() && features.count() != batch * width) ||
        signal.count() % (samples * LEADS) || signal.count() / (samples * LEADS) != batch) {
        PyErr_SetString(PyExc_ValueError, "the buffers do not have the sizes that batch and samples say");
        return nullptr;
    }
    bool done;
    Py_BEGIN_ALLOW_THREADS
    done = score_all(*model, signal.numbers, metadata.numbers, output.numbers,
                     features.count() ? features.numbers : nullptr, size_t(batch), size_t(samples));
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
               float* cleaned, Quality* qualities) noexcept {
    try {
        const Doubles room((samples + 2 * Cleaning::PADDING) * LEADS);
        double* filtered = room.get() + Cleaning::PADDING * LEADS;
        for (size_t i = 0; i < batch; i++) {
            const size_t start = i * samples * LEADS;
            set.clean(cleaning, signals + start, samples, filtered, cleaned + start);
            qualities[i] = quality(filtered, samples);
        }
        return true;
    } catch (const std::bad_alloc&) {
        return false;
    }
}

PyObject* clean(PyObject*, PyObject* arguments) {
    const char* name;
    PyObject *bandpass, *notch, *signals_object, *output_object, *qualities_object;
    Py_ssize_t batch, samples;
    Cleaning cleaning;
    if (!PyArg_ParseTuple(arguments, "sOOffOOOnn", &name, &bandpass, &notch, &cleaning.mean, &cleaning.deviation,
                          &signals_object, &output_object, &qualities_object, &batch, &samples))
        return nullptr;
    const InstructionSet* set = find(name);
    if (!set || !read(bandpass, cleaning.bandpass) || !read(notch, cleaning.notch)) return nullptr;
    View<double> signals(signals_object, PyBUF_SIMPLE);
    if (!signals.numbers) return nullptr;
    View<float> output(output_object, PyBUF_WRITABLE);
    if (!output.numbers) return nullptr;
    View<double> qualities(qualities_object, PyBUF_WRITABLE);
    if (!qualities.numbers) return nullptr;
    if (samples <= Cleaning::PADDING) {
        PyErr_Format(PyExc_ValueError, "a signal must have more than %d samples, the padding of the filters",
                     Cleaning::PADDING);
        return nullptr;
    }
    if (batch < 0 || samples > MOST_SAMPLES || signals.count() % (samples * LEADS) ||
        signals.count() / (samples * LEADS) != batch || output.count() != signals.count() ||
        qualities.buffer.len != batch * Py_ssize_t(sizeof(Quality))) {
        PyErr_SetString(PyExc_ValueError, "the buffers do not have the sizes that batch and samples say");
        return nullptr;
    }
    bool done;
    Py_BEGIN_ALLOW_THREADS
    done = clean_all(*set, cleaning, signals.numbers, size_t(batch), size_t(samples), output.numbers,
                     reinterpret_cast<Quality*>(qualities.numbers));
    Py_END_ALLOW_THREADS
    if (!done) return PyErr_NoMemory();
    Py_RETURN_NONE;
}

PyMethodDef METHODS[] = {
    {"instructions", instructions, METH_NOARGS, "instructions() -> names of the usable instruction sets, fastest first"},
    {"load", load, METH_VARARGS,
     "load(instructions, inputs, embedding, inner, heads, levels, blocks, feedforward, classes, span, extremes, "
     "parameters) -> network"},
    {"run", run, METH_VARARGS, "run(network, signal, metadata, probabilities, features, batch, samples): fills probabilities and, if it has room for "
     "any, features"},
    {"clean", clean, METH_VARARGS,
     "clean(instructions, bandpass, notch, mean, deviation, signals, cleaned, qualities, batch, samples): fills cleaned and "
     "qualities, amplitude and limb residual of each record"},
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
