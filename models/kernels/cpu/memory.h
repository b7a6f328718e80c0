// Aligned, zeroed numbers.

#pragma once

#include <cstddef>
#include <cstring>
#include <new>

// Throws std::bad_alloc.
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
