// Products with operands anywhere in memory, for kernels whose route depends on strides and alignment.
#pragma once

#include <cstring>

#include "tensors.hpp"

namespace gradkern::test {

// How a matrix lies in memory: its strides, in elements, and where its first entry stands in its buffer.
struct Placement {
  bool transposed;
  std::int64_t gap;    // elements between entries along the contiguous direction, 0 for none
  std::int64_t extra;  // elements after each row (or column)
  std::int64_t offset;
};

template <class Bytes>
struct PlacedMatrix {
  Bytes buffer;
  executor::Operand operand;
};

template <class Bytes>
PlacedMatrix<Bytes> place(const Tensor& t, std::int64_t rows, std::int64_t columns, const Placement& p) {
  const auto bytes = static_cast<std::size_t>(formats::container_bytes(t.format));
  const std::int64_t step = 1 + p.gap, line = (p.transposed ? rows : columns) * step + p.extra;
  const std::int64_t row = p.transposed ? step : line, column = p.transposed ? line : step;
  const auto at = [&](std::int64_t i, std::int64_t j) {
    return static_cast<std::size_t>(p.offset + i * row + j * column) * bytes;
  };
  // Exactly as long as it must be: what is read beyond the last entry is another's, and sanitizers see it. Between
  // entries there are NaNs.
  const std::size_t size = rows && columns ? at(rows - 1, columns - 1) + bytes : 0;
  PlacedMatrix<Bytes> m{Bytes(size, 0xFF), {t.format, nullptr, row, column}};
  for (std::int64_t i = 0; i < rows; ++i)
    for (std::int64_t j = 0; j < columns; ++j)
      std::memcpy(m.buffer.data() + at(i, j), t.bytes.data() + static_cast<std::size_t>(i * columns + j) * bytes,
                  bytes);
  m.operand.data = m.buffer.data() + (size ? static_cast<std::size_t>(p.offset) * bytes : 0);
  return m;
}

struct ProductCase {
  std::int64_t m, n, k;
  FormatId a_format, b_format, operands, accumulate;
  Placement a_at, b_at;
  std::int64_t bias_rows;  // 0: none; 1: one for every row; m: one for each
  bool continued;
  std::uint64_t seed, special_period;
  int unit = 0, instruction_k = 0;
  int exponent = 0;  // of every value, in addition
};

// The bits of wide: of e, for operands placed as the case says, or contiguous.
class Product {
 public:
  explicit Product(const ProductCase& c) : c_(c) {
    a_ = make(c.a_format, c.m * c.k, 1);
    b_ = make(c.b_format, c.k * c.n, 2);
    bias_ = make(c.a_format, c.bias_rows * c.n, 3);
    start_ = make(c.accumulate, c.continued ? c.m * c.n : 0, 4);
  }

  // Bytes: what operands lie in. device: memory of the executor's own that holds wide, from the entry `wide_offset` on;
  // null for the host's.
  template <class Bytes = std::vector<std::uint8_t>>
  std::vector<std::uint8_t> computed(const executor::Executor& e, bool placed, std::int64_t wide_offset = 0,
                                     void* device = nullptr) const {
    const bool narrow = executor::wide_format(c_.accumulate) == FormatId::float32;
    const std::size_t bytes = narrow ? 4 : 8, size = static_cast<std::size_t>(c_.m * c_.n);
    const auto a = place<Bytes>(a_, c_.m, c_.k, placed ? c_.a_at : Placement{});
    const auto b = place<Bytes>(b_, c_.k, c_.n, placed ? c_.b_at : Placement{});
    executor::ProductArgs args{}, before{};
    args.m = c_.m;
    args.n = c_.n;
    args.k = c_.k;
    args.a = a.operand;
    args.b = b.operand;
    args.operands = c_.operands;
    args.accumulate = c_.accumulate;
    args.unit = c_.unit;
    args.instruction_k = c_.instruction_k;
    args.bias_format = c_.a_format;
    args.bias = c_.bias_rows ? bias_.data() : nullptr;
    args.bias_row = c_.bias_rows > 1 ? c_.n : 0;
    const auto offset = static_cast<std::size_t>(wide_offset) * bytes;
    std::vector<std::uint8_t> wide(offset + size * bytes, 0xAB);
    if (c_.continued) {
      args.continued = &before;
      for (std::size_t i = 0; i < size; ++i) {
        const double x = start_.values[i];
        const auto single = static_cast<float>(x);
        std::memcpy(wide.data() + offset + i * bytes, narrow ? static_cast<const void*>(&single) : &x, bytes);
      }
    }
    args.wide = wide.data() + offset;
    if (device) args.wide = std::memcpy(static_cast<std::uint8_t*>(device) + offset, args.wide, size * bytes);
    e.products(e, &args, 1);
    if (device) std::memcpy(wide.data() + offset, args.wide, size * bytes);
    wide.erase(wide.begin(), wide.begin() + static_cast<std::ptrdiff_t>(offset));
    return wide;
  }

 private:
  Tensor make(FormatId format, std::int64_t size, std::uint64_t stream) const {
    auto values = random_values(c_.seed * 8 + stream, size, c_.exponent - 6, c_.exponent + 2);
    if (c_.special_period) sprinkle(values, format, c_.seed * 8 + stream + 4, c_.special_period);
    return tensor(format, values);
  }

  ProductCase c_;
  Tensor a_, b_, bias_, start_;
};

inline std::string text_of(const ProductCase& c) {
  return name_of(c.a_format) + " x " + name_of(c.b_format) + " as " + name_of(c.operands) + " in " +
         name_of(c.accumulate) + " (" + std::to_string(c.m) + ", " + std::to_string(c.n) + ", " + std::to_string(c.k) +
         ") a" + (c.a_at.transposed ? "^T" : "") + " b" + (c.b_at.transposed ? "^T" : "") + " seed " +
         std::to_string(c.seed);
}

}  // namespace gradkern::test
