// The headers of the WFDB records of which most archives are full: all signals in format 16, and the twelve leads among
// them. What is different, or wrong, in any way is left to formats/wfdb_header.py, whose values these are.

#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

namespace header {

constexpr int LEADS = 12;
constexpr int MOST_SIGNALS = 64;
constexpr size_t LONGEST_LINE = 1000;
constexpr int MOST_DIGITS = 9;
constexpr int64_t MOST_DECIMALS = 1000000;
constexpr const char* NAMES[LEADS] = {"i", "ii", "iii", "avr", "avl", "avf", "v1", "v2", "v3", "v4", "v5", "v6"};

constexpr int NO_LEAD = -1, ELECTRODE = -2;

struct Signal {
    size_t file, place;  // which file, and which of its signals
    double gain, baseline, per_millivolt;
    uint16_t checksum;
    int lead;  // NO_LEAD for one that is none of the twelve
};

struct File {
    std::string name;
    int64_t offset;
    size_t signals;
};

struct Header {
    double rate = 0;
    int64_t length = 0;  // 0 where the files must tell
    std::vector<File> files;
    std::vector<Signal> signals;
    const Signal* leads[LEADS] = {};
};

inline bool is_blank(char c) { return c == ' ' || c == '\t'; }
inline bool is_digit(char c) { return c >= '0' && c <= '9'; }
inline char lower(char c) { return c >= 'A' && c <= 'Z' ? char(c - 'A' + 'a') : c; }

inline std::string lower(std::string text) {
    std::transform(text.begin(), text.end(), text.begin(), [](char c) { return lower(c); });
    return text;
}

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
    std::string rest() const { return {at_, end_}; }

    bool skip(char c) {
        const bool found = starts_with(c);
        at_ += found ? 1 : 0;
        return found;
    }
    void expect(char c) { failed_ |= !skip(c); }
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
        const bool negative = skip('-');
        if (!negative) skip('+');
        return negative ? -digits() : digits();
    }
    // Numerator and denominator stay below 2^53, so that their quotient is rounded once, as it should be.
    double number() {
        int64_t numerator = digits(), denominator = 1;
        if (skip('.'))
            for (; at_ < end_ && is_digit(*at_) && denominator < MOST_DECIMALS; at_++, denominator *= 10)
                numerator = 10 * numerator + (*at_ - '0');
        failed_ |= at_ < end_ && is_digit(*at_);
        return double(numerator) / double(denominator);
    }

  private:
    const char *at_, *end_;
    bool failed_ = false;
};

// Which of the twelve leads a signal's name means, as leads.py knows them; ELECTRODE for one that tells of an EEG.
inline int lead_of(const std::string& name) {
    std::vector<std::string> words(1);
    for (const char c : name)
        if (!is_blank(c) && c != '_')
            words.back() += lower(c);
        else if (!words.back().empty())
            words.emplace_back();
    if (words.back().empty()) words.pop_back();
    const auto is_prefix = [](const std::string& w) { return w == "mdc" || w == "ecg" || w == "ekg" || w == "lead"; };
    while (words.size() > 1 && is_prefix(words[0])) words.erase(words.begin());
    if (words.size() != 1) return NO_LEAD;
    std::string& word = words[0];
    const bool is_limb = word.size() > 1 && word[0] == 'd', is_chest = word.size() > 1 && word[0] == 'c';
    if ((is_limb || is_chest) && std::all_of(word.begin() + 1, word.end(), is_digit)) {
        const bool beyond = word[1] == '0' || (is_limb && word[1] > '3');
        if (word.size() > 2 || beyond) return ELECTRODE;
    }
    if (word == "cz") return ELECTRODE;
    if (is_limb) word = word == "d1" ? "i" : word == "d2" ? "ii" : word == "d3" ? "iii" : word.substr(1);
    if (is_chest && word.size() == 2) word[0] = 'v';
    const int lead = int(std::find(NAMES, NAMES + LEADS, word) - NAMES);
    return lead < (is_limb ? 3 : LEADS) ? lead : NO_LEAD;
}

inline bool parse_record(Line line, Header& header, size_t& signals) {
    const std::string name = line.word();
    line.blanks();
    signals = size_t(line.digits());
    line.blanks();
    header.rate = line.number();
    if (line.length()) {
        line.blanks();
        header.length = line.digits();
    }
    if (line.length()) line.blanks();
    return !line.failed() && name.find('/') == std::string::npos && signals >= LEADS && signals <= MOST_SIGNALS;
}

inline double per_millivolt(const std::string& units) {
    return units == "mv" ? 1 : units == "uv" ? 1e3 : units == "v" ? 1e-3 : 0;
}

inline bool parse_signal(Line line, Header& header) {
    const std::string name = line.word();
    line.blanks();
    line.expect('1');
    line.expect('6');
    if (line.skip('x')) line.expect('1');
    const int64_t offset = line.skip('+') ? line.digits() : 0;
    line.blanks();
    Signal signal{};
    signal.gain = line.number();
    const bool has_baseline = line.skip('(');
    const int64_t baseline = has_baseline ? line.integer() : 0;
    if (has_baseline) line.expect(')');
    signal.per_millivolt = line.skip('/') ? per_millivolt(lower(line.word())) : 1;
    line.blanks();
    line.digits();  // the converter's resolution
    line.blanks();
    const int64_t zero = line.integer();
    line.blanks();
    line.integer();  // the first sample
    line.blanks();
    signal.checksum = uint16_t(line.integer());
    line.blanks();
    line.digits();  // the block size
    line.blanks();
    signal.baseline = double(has_baseline ? baseline : zero);
    signal.lead = lead_of(line.rest());
    auto& files = header.files;
    const auto same = [&name](const File& file) { return file.name == name; };
    signal.file = size_t(std::find_if(files.begin(), files.end(), same) - files.begin());
    if (signal.file == files.size()) files.push_back({name, offset, 0});
    signal.place = files[signal.file].signals++;
    header.signals.push_back(signal);
    return !line.failed() && signal.lead != ELECTRODE && signal.gain > 0 && signal.per_millivolt > 0 &&
           offset == files[signal.file].offset && name[0] != '.' && name.find_first_of("/\\") == std::string::npos;
}

inline bool parse(const std::string& text, Header& header) {
    size_t lines = 0, signals = 0;
    for (size_t begin = 0, end; begin < text.size(); begin = end + 1) {
        end = std::min(text.find('\n', begin), text.size());
        const bool carriage_return = begin < end && end < text.size() && text[end - 1] == '\r';
        const char *first = text.data() + begin, *last = text.data() + end - carriage_return;
        if (!std::all_of(first, last, [](char c) { return (c >= ' ' && c <= '~') || c == '\t'; })) return false;
        const Line line(first, last);
        if (line.length() == 0 || line.starts_with('#')) continue;
        if (line.length() > LONGEST_LINE || lines > MOST_SIGNALS) return false;
        if (!(lines ? parse_signal(line, header) : parse_record(line, header, signals))) return false;
        lines++;
    }
    if (lines != 1 + signals || !signals) return false;
    for (const Signal& signal : header.signals)
        if (signal.lead >= 0 && !header.leads[signal.lead]) header.leads[signal.lead] = &signal;
    return std::all_of(header.leads, header.leads + LEADS, [](const Signal* signal) { return signal != nullptr; });
}

}  // namespace header
