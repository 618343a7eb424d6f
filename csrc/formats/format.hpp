// What a number is: the seven binary formats, as types, and the one visitor that turns an id into a type.
//
// A format has p significand bits (the hidden one included) and a smallest normal exponent emin; its finite values are
// m * 2^(e - p + 1) with |m| < 2^p, e >= emin. See IEEE 754-2019 section 3 and the OCP 8-bit floating point
// specification (OFP8, 2023). tfloat32 values live in a float32 container whose low 13 bits are zero.
#pragma once

#include <cstdint>
#include <type_traits>

#include "base/platform.hpp"

namespace gradkern::formats {

enum class FormatId : int { float64, float32, tfloat32, float16, bfloat16, float8_e4m3fn, float8_e5m2 };
inline constexpr int format_count = 7;

struct float64 {
  using container = std::uint64_t;
  static constexpr FormatId id = FormatId::float64;
  static constexpr const char* name = "float64";
  static constexpr int significand_bits = 53, exponent_bits = 11, bias = 1023;
  static constexpr bool has_inf = true;
  static constexpr int container_shift = 0;
};

struct float32 {
  using container = std::uint32_t;
  static constexpr FormatId id = FormatId::float32;
  static constexpr const char* name = "float32";
  static constexpr int significand_bits = 24, exponent_bits = 8, bias = 127;
  static constexpr bool has_inf = true;
  static constexpr int container_shift = 0;
};

struct tfloat32 {
  using container = std::uint32_t;
  static constexpr FormatId id = FormatId::tfloat32;
  static constexpr const char* name = "tfloat32";
  static constexpr int significand_bits = 11, exponent_bits = 8, bias = 127;
  static constexpr bool has_inf = true;
  static constexpr int container_shift = 13;
};

struct float16 {
  using container = std::uint16_t;
  static constexpr FormatId id = FormatId::float16;
  static constexpr const char* name = "float16";
  static constexpr int significand_bits = 11, exponent_bits = 5, bias = 15;
  static constexpr bool has_inf = true;
  static constexpr int container_shift = 0;
};

struct bfloat16 {
  using container = std::uint16_t;
  static constexpr FormatId id = FormatId::bfloat16;
  static constexpr const char* name = "bfloat16";
  static constexpr int significand_bits = 8, exponent_bits = 8, bias = 127;
  static constexpr bool has_inf = true;
  static constexpr int container_shift = 0;
};

struct float8_e4m3fn {
  using container = std::uint8_t;
  static constexpr FormatId id = FormatId::float8_e4m3fn;
  static constexpr const char* name = "float8_e4m3fn";
  static constexpr int significand_bits = 4, exponent_bits = 4, bias = 7;
  static constexpr bool has_inf = false;  // the all-ones pattern is the only NaN
  static constexpr int container_shift = 0;
};

struct float8_e5m2 {
  using container = std::uint8_t;
  static constexpr FormatId id = FormatId::float8_e5m2;
  static constexpr const char* name = "float8_e5m2";
  static constexpr int significand_bits = 3, exponent_bits = 5, bias = 15;
  static constexpr bool has_inf = true;
  static constexpr int container_shift = 0;
};

template <class... Formats>
struct FormatList {
  // Calls visitor(Format{}) for the format with this id; every branch must return the same type.
  template <class Visitor>
  static GRADKERN_HD auto visit(FormatId id, Visitor&& visitor) {
    return visit_first<Visitor, Formats...>(id, visitor);
  }

 private:
  template <class Visitor, class First, class... Rest>
  static GRADKERN_HD auto visit_first(FormatId id, Visitor& visitor) {
    if constexpr (sizeof...(Rest) == 0) {
      return visitor(First{});
    } else {
      if (id == First::id) return visitor(First{});
      return visit_first<Visitor, Rest...>(id, visitor);
    }
  }
};

using AllFormats = FormatList<float64, float32, tfloat32, float16, bfloat16, float8_e4m3fn, float8_e5m2>;

template <class Visitor>
GRADKERN_HD auto visit(FormatId id, Visitor&& visitor) {
  return AllFormats::visit(id, visitor);
}

// Of one stored value.
GRADKERN_HD std::int64_t container_bytes(FormatId id) {
  return visit(id, [](auto f) { return static_cast<std::int64_t>(sizeof(typename decltype(f)::container)); });
}

// What holds any value of F, infinity and NaN.
template <class F>
using holder = std::conditional_t<F::id == FormatId::float64, double, float>;

// 2^exponent as a double, for any exponent in [-1074, 1023].
GRADKERN_HD constexpr double exp2i(int exponent) {
  if (exponent >= -1022) return __builtin_bit_cast(double, static_cast<std::uint64_t>(exponent + 1023) << 52);
  return __builtin_bit_cast(double, std::uint64_t(1) << (exponent + 1074));
}

// What the bits of a format look like, all as compile-time facts.
template <class F>
struct Layout {
  static constexpr int bits = 1 + F::exponent_bits + F::significand_bits - 1;
  static constexpr int fraction_bits = F::significand_bits - 1;
  static constexpr int min_exponent = 1 - F::bias;
  static constexpr int min_quantum = min_exponent - fraction_bits;  // log2 of the smallest subnormal
  static constexpr std::uint64_t sign = std::uint64_t(1) << (bits - 1);
  static constexpr std::uint64_t exponent_ones = ((std::uint64_t(1) << F::exponent_bits) - 1) << fraction_bits;
  static constexpr std::uint64_t infinity = exponent_ones;  // meaningful where has_inf
  static constexpr std::uint64_t max_finite = F::has_inf ? exponent_ones - 1 : sign - 2;
  static constexpr std::uint64_t smallest_normal = std::uint64_t(1) << fraction_bits;
  static constexpr std::uint64_t quiet_nan =
      F::has_inf ? exponent_ones | (std::uint64_t(1) << (fraction_bits - 1)) : sign - 1;
};

}  // namespace gradkern::formats
