// Test tensors in any format, random numbers that are the same everywhere, and every usable executor.
#pragma once

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "cpu/executors.hpp"
#include "executor/registry.hpp"
#include "formats/decode.hpp"
#include "formats/encode.hpp"

namespace gradkern::test {

using formats::FormatId;

inline constexpr FormatId all_formats[] = {FormatId::float64,    FormatId::float32,  FormatId::tfloat32,
                                           FormatId::float16,    FormatId::bfloat16, FormatId::float8_e4m3fn,
                                           FormatId::float8_e5m2};
inline constexpr FormatId storage_formats[] = {FormatId::float64,  FormatId::float32,       FormatId::float16,
                                               FormatId::bfloat16, FormatId::float8_e4m3fn, FormatId::float8_e5m2};

inline std::string name_of(FormatId format) {
  return formats::visit(format, [](auto f) { return std::string(decltype(f)::name); });
}

struct Tensor {
  FormatId format;
  std::vector<double> values;       // exactly what is stored
  std::vector<std::uint8_t> bytes;  // the stored bits

  const void* data() const { return bytes.data(); }
  std::int64_t size() const { return static_cast<std::int64_t>(values.size()); }
};

// values rounded to the format.
inline Tensor tensor(FormatId format, const std::vector<double>& values) {
  Tensor t{format, values, {}};
  formats::visit(format, [&](auto f) {
    using F = decltype(f);
    t.bytes.resize(values.size() * sizeof(typename F::container));
    for (std::size_t i = 0; i < values.size(); ++i) {
      const auto bits = formats::encode<F>(values[i], {}).bits;
      __builtin_memcpy(t.bytes.data() + i * sizeof bits, &bits, sizeof bits);
      t.values[i] = formats::decode<F>(bits);
    }
  });
  return t;
}

// Uniform in [0, 1).
inline double uniform(std::uint64_t seed, std::uint64_t index) {
  return static_cast<double>(formats::random_bits(seed, index) >> 11) * 0x1p-53;
}

// 53 random bits, a random sign, and an exponent uniform in [low, high].
inline double random_double(std::uint64_t seed, std::uint64_t index, int low, int high) {
  const std::uint64_t bits = formats::random_bits(seed, index);
  const double significand = 1 + static_cast<double>(bits >> 12) * 0x1p-52;
  const int exponent =
      low + static_cast<int>(formats::random_bits(~seed, index) % static_cast<unsigned>(high - low + 1));
  return std::ldexp(bits & 1 ? significand : -significand, exponent);
}

inline std::vector<double> random_values(std::uint64_t seed, std::int64_t size, int low, int high) {
  std::vector<double> values(static_cast<std::size_t>(size));
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = random_double(seed, i, low, high);
  return values;
}

// Zeros, infinities, NaN, and the edges of the format's range, both signs.
inline std::vector<double> special_values(FormatId format) {
  return formats::visit(format, [](auto f) {
    using F = decltype(f);
    using L = formats::Layout<F>;
    std::vector<double> list = {0, 1, std::numeric_limits<double>::infinity(), std::nan("")};
    for (std::uint64_t bits : {std::uint64_t(1), L::smallest_normal - 1, L::smallest_normal, L::max_finite})
      list.push_back(formats::decode<F>(static_cast<typename F::container>(bits << F::container_shift)));
    const std::size_t positive = list.size();
    for (std::size_t i = 0; i < positive; ++i) list.push_back(-list[i]);
    return list;
  });
}

// Replaces about one entry in `period` by a special value.
inline void sprinkle(std::vector<double>& values, FormatId format, std::uint64_t seed, std::uint64_t period) {
  const auto specials = special_values(format);
  for (std::size_t i = 0; i < values.size(); ++i) {
    const std::uint64_t draw = formats::random_bits(seed, i);
    if (draw % period == 0) values[i] = specials[(draw / period) % specials.size()];
  }
}

inline std::vector<executor::Executor> usable_executors() {
  cpu::register_executors();
  std::vector<executor::Executor> list;
  for (const auto& candidate : executor::candidates())
    if (candidate.usable) list.push_back(candidate.executor);
  return list;
}

// Every way of rounding.
inline std::vector<formats::Mode> modes() {
  using formats::Overflow;
  using formats::Rounding;
  using formats::Subnormals;
  std::vector<formats::Mode> list;
  for (const Rounding rounding : {Rounding::nearest_even, Rounding::toward_zero, Rounding::stochastic})
    for (const Overflow overflow : {Overflow::ieee, Overflow::saturate})
      for (const Subnormals subnormals : {Subnormals::keep, Subnormals::flush})
        list.push_back({rounding, overflow, subnormals, 42});
  return list;
}

}  // namespace gradkern::test
