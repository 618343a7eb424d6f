// The two kinds of tensor a chain carries: stored ones, in a format, and reference ones, with an exponent beside them.
#pragma once

#include <cstdint>
#include <vector>

#include "base/buffer.hpp"
#include "base/uncleared.hpp"
#include "executor/kernels.hpp"

namespace gradkern::chain {

using executor::Executor;
using formats::FormatId;

inline std::size_t at(std::int64_t index) { return static_cast<std::size_t>(index); }

// Borrowed values in any format: an argument.
struct Source {
  FormatId format = FormatId::float64;
  const void* data = nullptr;
  std::int64_t size = 0;
};

struct Stored {
  FormatId format = FormatId::float64;
  std::int64_t size = 0;
  base::Buffer bytes;
  const void* given = nullptr;  // the argument itself, where rounding it to storage changes nothing
  void* place = nullptr;        // a part of a larger tensor, which these are the values of

  void resize(FormatId new_format, std::int64_t new_size) {
    format = new_format;
    size = new_size;
    given = nullptr;
    if (!place) bytes.resize(static_cast<std::size_t>(new_size * container_bytes(new_format)));
  }
  void borrow(const Source& source) {
    format = source.format;
    size = source.size;
    given = source.data;
    bytes.clear();
  }
  // A copy, of borrowed values too.
  void assign(const Stored& other) {
    resize(other.format, other.size);
    if (size) __builtin_memcpy(bytes.data(), other.data(), bytes.size());
  }
  // Values [begin, begin + count) of this tensor, which it must outlive.
  Stored part(std::int64_t begin, std::int64_t count) {
    Stored p;
    auto* values = const_cast<std::uint8_t*>(static_cast<const std::uint8_t*>(data()));  // borrowed: to be read only
    p.place = values + begin * container_bytes(format);
    p.resize(format, count);
    return p;
  }
  const void* data() const { return given ? given : place ? place : bytes.data(); }
  void* writable() { return place ? place : bytes.data(); }
  Source source() const { return {format, data(), size}; }
};

using Values = base::UnclearedVector<double>;

// values[i] * 2^exponent: neither overflows nor underflows at any depth.
struct Reference {
  Values values;
  std::int64_t exponent = 0;
};

Values decode_all(const Executor& executor, const Source& source);

}  // namespace gradkern::chain
