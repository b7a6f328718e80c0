// Reads plain records, of which most archives are full: twelve leads in order at 100 Hz, all in one file of format 16 and
// in mV. What is different in any way, or wrong, is left to reading.py, whose numbers these are, bit for bit.

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <new>
#include <string>

namespace {

constexpr int LEADS = 12;
constexpr int64_t SAMPLES = 1000;
constexpr size_t LARGEST_HEADER = 1 << 14, LARGEST_SIGNAL_FILE = 1 << 20, LONGEST_LINE = 1000;
constexpr int MOST_DIGITS = 9;
constexpr int64_t MOST_DECIMALS = 1000000;
constexpr uint16_t INVALID = 0x8000;
constexpr const char* NAMES[LEADS] = {"I", "II", "III", "AVR", "AVL", "AVF", "V1", "V2", "V3", "V4", "V5", "V6"};

struct Header {
    int64_t length, offset;
    std::string file;
    double gain[LEADS], baseline[LEADS];
    uint16_t checksum[LEADS];
};

struct Record {
    std::string header, data;
    bool cropped, checksums_agree, flat_lead;
};

// A regular file's bytes; false where there is none, where there are more than `most`, or where they cannot be read.
bool load(const std::string& path, size_t most, std::string& content) {
    struct stat status;
    // Opening a pipe may block and opening a device may act on it, so look before; and after, to be sure.
    if (stat(path.c_str(), &status) || !S_ISREG(status.st_mode) || size_t(status.st_size) > most) return false;
    content.resize(size_t(status.st_size));
    const int file = open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (file < 0) return false;
    bool good = !fstat(file, &status) && S_ISREG(status.st_mode) && size_t(status.st_size) == content.size();
    for (size_t have = 0; good && have < content.size();) {
        const ssize_t count = read(file, &content[have], content.size() - have);
        good = count > 0;
        have += good ? size_t(count) : 0;
    }
    close(file);
    return good;
}

bool is_blank(char c) { return c == ' ' || c == '\t'; }
bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_printable(char c) { return c >= ' ' && c <= '~'; }

// A line without the blanks around it, taken apart from left to right; what does not fit makes it `failed` for good.
class Line {
  public:
    Line(const char* begin, const char* end) : at_(begin), end_(end) {
        while (at_ < end_ && is_blank(*at_)) at_++;
        while (at_ < end_ && is_blank(end_[-1])) end_--;
    }
    bool failed() const { return failed_; }
    size_t length() const { return size_t(end_ - at_); }
    bool starts_with(char c) const { return at_ < end_ && *at_ == c; }

    bool skip(const char* text) {
        const size_t count = std::strlen(text);
        const bool found = length() >= count && !std::memcmp(at_, text, count);
        at_ += found ? count : 0;
        return found;
    }
    void expect(const char* text) { failed_ |= !skip(text); }
    void blanks() {
        failed_ |= at_ == end_ || !is_blank(*at_);
        while (at_ < end_ && is_blank(*at_)) at_++;
    }
    std::string word() {
        const char* begin = at_;
        while (at_ < end_ && !is_blank(*at_)) at_++;
        failed_ |= at_ == begin;
        return {begin, at_};
    }
    int64_t digits() {
        const char* begin = at_;
        int64_t value = 0;
        for (; at_ < end_ && is_digit(*at_) && at_ - begin < MOST_DIGITS; at_++) value = 10 * value + (*at_ - '0');
        failed_ |= at_ == begin || (at_ < end_ && is_digit(*at_));
        return value;
    }
    int64_t integer() {
        const bool negative = skip("-");
        if (!negative) skip("+");
        return negative ? -digits() : digits();
    }
    // Numerator and denominator stay below 2^53, so that their quotient is rounded once, as it should be.
    double number() {
        int64_t numerator = digits(), denominator = 1;
        if (skip("."))
            for (; at_ < end_ && is_digit(*at_) && denominator < MOST_DECIMALS; at_++, denominator *= 10)
                numerator = 10 * numerator + (*at_ - '0');
        failed_ |= at_ < end_ && is_digit(*at_);
        return double(numerator) / double(denominator);
    }
    bool is_rest(const char* capitals) {
        const bool same = length() == std::strlen(capitals);
        return same && std::equal(at_, end_, capitals, [](char c, char capital) {
                   return c == capital || (c >= 'a' && c <= 'z' && c - 'a' + 'A' == capital);
               });
    }

  private:
    const char *at_, *end_;
    bool failed_ = false;
};

bool parse_record(Line line, Header& header) {
    const std::string name = line.word();
    line.blanks();
    line.expect("12");
    line.blanks();
    line.expect("100");
    line.blanks();
    header.length = line.digits();
    if (line.length()) line.blanks();
    return !line.failed() && name.find('/') == std::string::npos && header.length >= SAMPLES;
}

bool parse_signal(Line line, int lead, Header& header) {
    const std::string file = line.word();
    line.blanks();
    line.expect("16");
    line.skip("x1");
    const int64_t offset = line.skip("+") ? line.digits() : 0;
    line.blanks();
    header.gain[lead] = line.number();
    const bool has_baseline = line.skip("(");
    const int64_t baseline = has_baseline ? line.integer() : 0;
    if (has_baseline) line.expect(")");
    line.expect("/mV");
    line.blanks();
    line.digits();  // the converter's resolution
    line.blanks();
    const int64_t zero = line.integer();
    line.blanks();
    line.integer();  // the first sample
    line.blanks();
    header.checksum[lead] = uint16_t(line.integer());
    line.blanks();
    line.digits();  // the block size
    line.blanks();
    header.baseline[lead] = double(has_baseline ? baseline : zero);
    if (lead == 0) {
        header.file = file;
        header.offset = offset;
    }
    return !line.failed() && line.is_rest(NAMES[lead]) && header.gain[lead] > 0 && file == header.file &&
           offset == header.offset;
}

bool parse(const std::string& text, Header& header) {
    int lines = 0;
    for (size_t begin = 0, end; begin < text.size(); begin = end + 1) {
        end = std::min(text.find('\n', begin), text.size());
        const bool carriage_return = begin < end && end < text.size() && text[end - 1] == '\r';
        const char *first = text.data() + begin, *last = text.data() + end - carriage_return;
        if (!std::all_of(first, last, [](char c) { return is_printable(c) || c == '\t'; })) return false;
        const Line line(first, last);
        if (line.length() == 0 || line.starts_with('#')) continue;
        if (line.length() > LONGEST_LINE || lines > LEADS) return false;
        if (!(lines ? parse_signal(line, lines - 1, header) : parse_record(line, header))) return false;
        lines++;
    }
    return lines == 1 + LEADS && header.file[0] != '.' && header.file.find_first_of("/\\") == std::string::npos;
}

// The first SAMPLES, (SAMPLES, LEADS) in mV; false where one is marked as invalid.
bool decode(const Header& header, Record& record, double* signal) {
    const auto* bytes = reinterpret_cast<const unsigned char*>(record.data.data()) + header.offset;
    const auto sample = [bytes](int64_t t, int lead) {
        const unsigned char* at = bytes + 2 * (t * LEADS + lead);
        return uint16_t(at[0] | at[1] << 8);
    };
    uint16_t sum[LEADS] = {}, change[LEADS] = {};
    bool valid = true;
    for (int64_t t = 0; t < SAMPLES; t++)
        for (int lead = 0; lead < LEADS; lead++) {
            const uint16_t digital = sample(t, lead);
            valid &= digital != INVALID;
            change[lead] |= uint16_t(digital ^ sample(0, lead));
            signal[t * LEADS + lead] = (double(int16_t(digital)) - header.baseline[lead]) / header.gain[lead];
        }
    for (int64_t t = 0; t < header.length; t++)
        for (int lead = 0; lead < LEADS; lead++) sum[lead] = uint16_t(sum[lead] + sample(t, lead));
    record.cropped = header.length > SAMPLES;
    record.checksums_agree = std::equal(sum, sum + LEADS, header.checksum);
    record.flat_lead = std::count(change, change + LEADS, 0) > 0;
    return valid;
}

bool read_record(const std::string& path, Record& record, double* signal) {
    Header header;
    if (!load(path, LARGEST_HEADER, record.header) || !parse(record.header, header)) return false;
    const size_t folder = path.rfind('/') + 1;  // 0 where there is no slash
    if (!load(path.substr(0, folder) + header.file, LARGEST_SIGNAL_FILE, record.data)) return false;
    const int64_t needed = header.offset + header.length * LEADS * int64_t(sizeof(int16_t));
    return needed <= int64_t(record.data.size()) && decode(header, record, signal);
}

PyObject* read_plain(PyObject*, PyObject* arguments) {
    PyObject *path_object, *signal_object;
    if (!PyArg_ParseTuple(arguments, "O&O", PyUnicode_FSConverter, &path_object, &signal_object)) return nullptr;
    const std::string path = PyBytes_AsString(path_object);
    Py_DECREF(path_object);
    Py_buffer signal;
    if (PyObject_GetBuffer(signal_object, &signal, PyBUF_WRITABLE) < 0) return nullptr;
    Record record;
    bool plain = false, enough_memory = true;
    if (signal.len == SAMPLES * LEADS * Py_ssize_t(sizeof(double))) {
        Py_BEGIN_ALLOW_THREADS
        try {
            plain = read_record(path, record, static_cast<double*>(signal.buf));
        } catch (const std::bad_alloc&) {
            enough_memory = false;
        }
        Py_END_ALLOW_THREADS
    } else {
        PyErr_SetString(PyExc_ValueError, "signal must be (1000, 12) float64");
    }
    PyBuffer_Release(&signal);
    if (PyErr_Occurred()) return nullptr;
    if (!enough_memory) return PyErr_NoMemory();
    if (!plain) Py_RETURN_NONE;
    return Py_BuildValue("y#y#NNN", record.header.data(), Py_ssize_t(record.header.size()), record.data.data(),
                         Py_ssize_t(record.data.size()), PyBool_FromLong(record.cropped),
                         PyBool_FromLong(record.checksums_agree), PyBool_FromLong(record.flat_lead));
}

PyMethodDef METHODS[] = {
    {"read", read_plain, METH_VARARGS,
     "read(header, signal) -> None for a record that is not plain, else the bytes of its header and of its signal file, "
     "and whether it is cropped, its checksums agree and a lead is flat. Fills signal, (1000, 12) float64, in mV."},
    {},
};

PyModuleDef MODULE = {PyModuleDef_HEAD_INIT, "_plain", "Reads plain records.", 0, METHODS, {}, {}, {}, {}};

}  // namespace

PyMODINIT_FUNC PyInit__plain() { return PyModuleDef_Init(&MODULE); }
