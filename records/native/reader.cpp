// Reads the WFDB records of which most archives are full: the twelve leads in format 16, at any rate, in any order, in one
// file or several, also MATLAB v4 files. What is different in any way, or wrong, is left to formats/wfdb.py and finishing.py,
// whose numbers these are, bit for bit.

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmath>
#include <cstdlib>
#include <new>

#include "header.h"
#include "leads.h"
#include "resampling.h"

namespace {

using header::File;
using header::Header;
using header::LEADS;
using header::Signal;

constexpr int64_t RATE = 100, SECONDS = 10, SAMPLES = RATE * SECONDS;
constexpr size_t LARGEST_HEADER = 1 << 14, LARGEST_SIGNAL_FILE = 4000000;
constexpr int16_t INVALID = INT16_MIN;
constexpr double CLIPPED_MILLIVOLTS = 2, HELD_SECONDS = 0.02;
constexpr int64_t HELD_SAMPLES = 5;
constexpr size_t MOST_KEPT = 200000;

struct Fraction {
    int64_t numerator, denominator;
};

struct Record {
    std::string text;  // of the header
    Header header;
    std::vector<std::string>& data;  // of each file
    int64_t length, frames;
    bool cropped, checksums_agree, flat_lead, clipped;
};

// Memory that a thread keeps from record to record, since new pages cost more than what is written to them.
struct Workspace {
    std::vector<std::string> data;
    std::vector<int16_t> digital;
    std::vector<double> decoded;

    void give_back_what_is_large() {
        if (digital.capacity() > MOST_KEPT) digital = {};
        if (decoded.capacity() > MOST_KEPT) decoded = {};
        for (std::string& content : data)
            if (content.capacity() > MOST_KEPT) content = {};
        if (data.size() > 2) data.resize(2);
    }
};

// Whether an open file lies in the folder `inside`, links followed: Linux tells it in one call.
bool lies_in(const std::string& inside, int file, const std::string& path) {
    char real[PATH_MAX];
    const ssize_t length = readlink(("/proc/self/fd/" + std::to_string(file)).c_str(), real, sizeof real - 1);
    if (length < 0 && !realpath(path.c_str(), real)) return false;
    if (length >= 0) real[length] = 0;
    return !std::strncmp(real, inside.c_str(), inside.size());
}

// Whether a file belongs to an SQLite database in use: whoever opened and closed it would take away this process's locks.
bool is_open_database(const std::string& path) {
    struct stat status;
    char target[PATH_MAX];
    const bool is_link = !lstat(path.c_str(), &status) && S_ISLNK(status.st_mode);
    if (is_link && !realpath(path.c_str(), target)) return true;
    const std::string real = is_link ? target : path;
    const std::string end = real.size() < 4 ? real : real.substr(real.size() - 4);
    return end == "-wal" || end == "-shm" || !access((real + "-wal").c_str(), F_OK);
}

// A regular file's bytes; false where there is none, where there are more than `most`, where they cannot be read, or where
// links lead out of the folder `inside` (empty: anywhere).
bool load(const std::string& path, size_t most, const std::string& inside, std::string& content) {
    struct stat status;
    // Opening a pipe may block and opening a device may act on it, so look before; and after, to be sure.
    if (stat(path.c_str(), &status) || !S_ISREG(status.st_mode) || size_t(status.st_size) > most) return false;
    if (is_open_database(path)) return false;
    const int file = open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (file < 0) return false;
    content.resize(size_t(status.st_size));
    bool good = !fstat(file, &status) && S_ISREG(status.st_mode) && size_t(status.st_size) == content.size();
    good = good && (inside.empty() || lies_in(inside, file, path));
    for (size_t have = 0; good && have < content.size();) {
        const ssize_t count = read(file, &content[have], content.size() - have);
        good = count > 0;
        have += good ? size_t(count) : 0;
    }
    close(file);
    return good;
}

int64_t little_endian(const std::string& data, size_t at) {
    uint32_t value = 0;
    for (size_t byte = 4; byte-- > 0;) value = value << 8 | uint8_t(data[at + byte]);
    return int32_t(value);
}

bool is_matlab_4(const File& file, const std::string& data) {
    constexpr int64_t INT16 = 30;
    return data.size() >= 20 && little_endian(data, 0) == INT16 && little_endian(data, 4) == int64_t(file.signals) &&
           little_endian(data, 8) > 0 && little_endian(data, 12) == 0 && little_endian(data, 16) + 20 == file.offset;
}

bool is_what_it_should_be(const File& file, const std::string& data) {
    const auto begins = [&data](const char* text) { return data.compare(0, std::strlen(text), text) == 0; };
    if (begins("MATLAB 5.0") || begins("MATLAB 7.3") || begins("version https://git-lfs")) return false;
    const bool is_named_mat = file.name.size() >= 4 && header::lower(file.name.substr(file.name.size() - 4)) == ".mat";
    return !is_named_mat || is_matlab_4(file, data);
}

bool load_files(const std::string& folder, const std::string& inside, Record& record) {
    const auto& files = record.header.files;
    if (record.data.size() < files.size()) record.data.resize(files.size());
    int64_t shortest = INT64_MAX;
    for (size_t i = 0; i < files.size(); i++) {
        if (!load(folder + files[i].name, LARGEST_SIGNAL_FILE, inside, record.data[i])) return false;
        if (!is_what_it_should_be(files[i], record.data[i])) return false;
        const int64_t bytes = int64_t(record.data[i].size()) - files[i].offset;
        shortest = std::min(shortest, bytes / (2 * int64_t(files[i].signals)));
    }
    record.length = record.header.length ? record.header.length : shortest;
    return shortest >= record.length && record.length > 0;
}

int16_t sample(const char* at) {
    return int16_t(uint16_t(uint8_t(at[0]) | uint8_t(at[1]) << 8));
}

// Where the samples of a lead begin, and how many bytes there are from one to the next.
struct Place {
    const char* at;
    size_t step;

    Place(const Record& record, int lead) {
        const Signal& signal = *record.header.leads[lead];
        const File& file = record.header.files[signal.file];
        at = record.data[signal.file].data() + file.offset + 2 * signal.place;
        step = 2 * file.signals;
    }
};

// Whether the samples lie in memory as they are wanted.
bool is_in_order(const Record& record) {
    const uint16_t one = 1;
    const bool is_little_endian = *reinterpret_cast<const uint8_t*>(&one) == 1;
    const auto& header = record.header;
    bool in_order = is_little_endian && header.files.size() == 1 && header.signals.size() == LEADS;
    for (size_t lead = 0; lead < LEADS; lead++) in_order &= header.leads[lead]->place == lead;
    return in_order;
}

// The digital samples of the twelve leads, (frames, LEADS).
void gather(const Record& record, std::vector<int16_t>& digital) {
    digital.resize(size_t(record.frames * LEADS));
    if (is_in_order(record)) {
        std::memcpy(digital.data(), Place(record, 0).at, 2 * digital.size());
        return;
    }
    for (int lead = 0; lead < LEADS; lead++) {
        const Place place(record, lead);
        for (int64_t t = 0; t < record.frames; t++)
            digital[size_t(t * LEADS + lead)] = sample(place.at + size_t(t) * place.step);
    }
}

// Whether a lead's samples, of which the first ones add up to `sum`, agree with the header's checksum.
bool checksum_agrees(const Record& record, int lead, uint16_t sum) {
    const Place place(record, lead);
    for (int64_t t = record.frames; t < record.length; t++)
        sum = uint16_t(sum + uint16_t(sample(place.at + size_t(t) * place.step)));
    return sum == record.header.leads[lead]->checksum;
}

// Whether a lead stays at this value for so many samples, far enough from zero, as quality.py says.
bool is_held(const std::vector<int16_t>& digital, int lead, int16_t value, double millivolts, int64_t held) {
    if (std::abs(millivolts) < CLIPPED_MILLIVOLTS) return false;
    int64_t run = 0;
    for (size_t at = size_t(lead); at < digital.size() && run < held; at += LEADS) run = digital[at] == value ? run + 1 : 0;
    return run == held;
}

bool is_zero(const double* millivolts) {
    return std::all_of(millivolts, millivolts + LEADS, [](double value) { return value == 0; });
}

leads::Scale scale_of(const Record& record) {
    leads::Scale scale;
    for (int lead = 0; lead < LEADS; lead++) {
        const Signal& signal = *record.header.leads[lead];
        scale.baseline[lead] = signal.baseline;
        scale.gain[lead] = signal.gain;
        scale.per_millivolt[lead] = signal.per_millivolt;
        scale.all_in_millivolts &= signal.per_millivolt == 1;
    }
    return scale;
}

// (frames, LEADS) in mV; false for a record that is not sound.
bool decode(const Fraction& rate, Record& record, std::vector<int16_t>& digital, double* millivolts) {
    gather(record, digital);
    const leads::Scale scale = scale_of(record);
    const leads::Extent found = leads::measure(digital);
    leads::to_millivolts(digital, scale, millivolts);
    record.checksums_agree = true;
    record.flat_lead = record.clipped = false;
    const double held_frames = HELD_SECONDS * double(rate.numerator) / double(rate.denominator);
    const int64_t held = std::max(HELD_SAMPLES, int64_t(std::ceil(held_frames)));
    bool all_flat = true;
    for (int lead = 0; lead < LEADS; lead++) {
        const int16_t lowest = found.lowest[lead], highest = found.highest[lead];
        if (lowest == INVALID) return false;
        const double low = scale.millivolts(lowest, lead), high = scale.millivolts(highest, lead);
        record.checksums_agree = record.checksums_agree && checksum_agrees(record, lead, found.sum[lead]);
        record.flat_lead |= lowest == highest;
        all_flat &= lowest == highest;
        if (high - low >= CLIPPED_MILLIVOLTS)
            record.clipped |= is_held(digital, lead, highest, high, held) || is_held(digital, lead, lowest, low, held);
    }
    return !all_flat && !is_zero(millivolts) && !is_zero(millivolts + (record.frames - 1) * LEADS);
}

// A Python object that is given back at the end of its scope.
class Object {
  public:
    explicit Object(PyObject* object) : object_(object) {}
    Object(const Object&) = delete;
    ~Object() { Py_XDECREF(object_); }
    operator PyObject*() const { return object_; }

  private:
    PyObject* object_;
};

class Buffer {
  public:
    Buffer(PyObject* object, int flags) : good_(PyObject_GetBuffer(object, &view_, flags) == 0) {}
    Buffer(const Buffer&) = delete;
    ~Buffer() {
        if (good_) PyBuffer_Release(&view_);
    }
    bool good() const { return good_; }
    int64_t doubles() const { return view_.len / int64_t(sizeof(double)); }
    double* data() const { return static_cast<double*>(view_.buf); }

  private:
    Py_buffer view_{};
    bool good_;
};

// Runs work that needs no Python object; false, with an exception set, where there is not enough memory.
template <typename Work> bool without_python(const Work& work) {
    bool enough_memory = true;
    Py_BEGIN_ALLOW_THREADS
    try {
        work();
    } catch (const std::bad_alloc&) {
        enough_memory = false;
    }
    Py_END_ALLOW_THREADS
    if (!enough_memory) PyErr_NoMemory();
    return enough_memory;
}

PyObject* as_python(const Record& record, int64_t samples) {
    const size_t count = record.header.files.size();
    PyObject* files = PyTuple_New(Py_ssize_t(count) + 1);
    for (size_t i = 0; files && i <= count; i++) {
        const std::string& content = i ? record.data[i - 1] : record.text;
        PyObject* bytes = PyBytes_FromStringAndSize(content.data(), Py_ssize_t(content.size()));
        if (!bytes || PyTuple_SetItem(files, Py_ssize_t(i), bytes)) {
            Py_DECREF(files);
            return nullptr;
        }
    }
    if (!files) return nullptr;
    return Py_BuildValue("NLLdNNNN", files, static_cast<long long>(samples), static_cast<long long>(record.frames),
                         record.header.rate, PyBool_FromLong(record.cropped), PyBool_FromLong(!record.checksums_agree),
                         PyBool_FromLong(record.flat_lead), PyBool_FromLong(record.clipped));
}

PyObject* read_record(PyObject*, PyObject* arguments) {
    PyObject *path_object, *inside_object, *filter_for, *signal_object;
    if (!PyArg_ParseTuple(arguments, "O&O&OO", PyUnicode_FSConverter, &path_object, PyUnicode_FSConverter, &inside_object,
                          &filter_for, &signal_object))
        return nullptr;
    const Object path_bytes(path_object), inside_bytes(inside_object);
    const std::string path = PyBytes_AsString(path_bytes), inside = PyBytes_AsString(inside_bytes);
    const Buffer signal(signal_object, PyBUF_WRITABLE);
    if (!signal.good()) return nullptr;
    if (signal.doubles() != SAMPLES * LEADS) {
        PyErr_SetString(PyExc_ValueError, "signal must be (1000, 12) float64");
        return nullptr;
    }
    static thread_local Workspace workspace;
    Record record{{}, {}, workspace.data, 0, 0, false, false, false, false};
    bool good = false;
    if (!without_python([&] {
            good = load(path, LARGEST_HEADER, inside, record.text) && header::parse(record.text, record.header);
        }))
        return nullptr;
    if (!good) Py_RETURN_NONE;
    const Object filter_object(PyObject_CallFunction(filter_for, "d", record.header.rate));
    if (!filter_object) return nullptr;
    if (filter_object == Py_None) Py_RETURN_NONE;
    long long numerator, denominator, up, down;
    PyObject* taps_object;
    if (!PyArg_ParseTuple(filter_object, "LLLLO", &numerator, &denominator, &up, &down, &taps_object)) return nullptr;
    const Buffer taps(taps_object, PyBUF_SIMPLE);
    if (!taps.good()) return nullptr;
    const Fraction rate{numerator, denominator};
    int64_t samples = 0;
    const auto read_signals = [&] {
        const size_t folder = path.rfind('/') + 1;  // 0 where there is no slash
        good = load_files(path.substr(0, folder), inside, record);
        if (!good) return;
        const int64_t wanted = resampling::ceil_divide(SECONDS * rate.numerator, rate.denominator);
        record.frames = std::min(record.length, wanted);
        record.cropped = record.length > wanted;
        if (record.frames < 2) {
            good = false;
        } else if (rate.numerator == RATE * rate.denominator) {
            samples = record.frames;
            good = decode(rate, record, workspace.digital, signal.data());
        } else {
            const resampling::Filter filter{up, down, taps.data(), taps.doubles()};
            samples = std::min(SAMPLES, resampling::ceil_divide(record.frames * up, down));
            resampling::Padded padded(filter, record.frames, samples, workspace.decoded);
            good = decode(rate, record, workspace.digital, padded.signal());
            if (good) padded.resample(signal.data());
        }
    };
    if (!without_python(read_signals)) return nullptr;
    PyObject* found = good ? as_python(record, samples) : Py_NewRef(Py_None);
    workspace.give_back_what_is_large();
    return found;
}

PyObject* resample_signal(PyObject*, PyObject* arguments) {
    PyObject *signal_object, *taps_object, *resampled_object;
    long long up, down;
    if (!PyArg_ParseTuple(arguments, "OLLOO", &signal_object, &up, &down, &taps_object, &resampled_object)) return nullptr;
    const Buffer signal(signal_object, PyBUF_SIMPLE), taps(taps_object, PyBUF_SIMPLE);
    const Buffer resampled(resampled_object, PyBUF_WRITABLE);
    if (!signal.good() || !taps.good() || !resampled.good()) return nullptr;
    const int64_t count = signal.doubles() / LEADS, outputs = resampled.doubles() / LEADS;
    if (up < 1 || down < 1 || taps.doubles() % 2 == 0 || count < 2 || count > INT64_MAX / up || outputs < 1 ||
        outputs > resampling::ceil_divide(count * up, down)) {
        PyErr_SetString(PyExc_ValueError, "no filter, no signal, or no room for what comes of it");
        return nullptr;
    }
    const resampling::Filter filter{up, down, taps.data(), taps.doubles()};
    const auto resample = [&] {
        std::vector<double> memory;
        resampling::Padded padded(filter, count, outputs, memory);
        std::copy(signal.data(), signal.data() + count * LEADS, padded.signal());
        padded.resample(resampled.data());
    };
    if (!without_python(resample)) return nullptr;
    Py_RETURN_NONE;
}

PyMethodDef METHODS[] = {
    {"read", read_record, METH_VARARGS,
     "read(header, inside, filter_for, signal) -> None for a record that is not of the common kind or not sound, else its "
     "files' contents, how many samples of signal, (1000, 12) float64, it filled in mV at 100 Hz, how many it decoded for "
     "that, at what rate, and whether the record is cropped, a checksum is wrong, a lead is flat and one is clipped. Links may not lead out "
     "of the folder inside, with / at its end; b'' allows it. filter_for(rate) gives numerator and denominator of the rate "
     "and up, down and taps of its filter, or None for a rate that is refused."},
    {"resample", resample_signal, METH_VARARGS,
     "resample(signal, up, down, taps, resampled): (n, 12) float64 to (outputs, 12)."},
    {},
};

PyModuleDef MODULE = {PyModuleDef_HEAD_INIT, "_reader", "Reads common WFDB records.", 0, METHODS, {}, {}, {}, {}};

}  // namespace

PyMODINIT_FUNC PyInit__reader() { return PyModuleDef_Init(&MODULE); }
