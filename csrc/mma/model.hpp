// The scalar model of a matrix unit: raw bit patterns in, the raw bit pattern of one output out.
//
// A fused step adds L products and the accumulator c with one alignment:
//   E = max(EZ, exponents of what is not zero),  q = 2^(E - F)
//   d = output( sum of trunc(a_i b_i / q) + trunc(c / q) ) q
// where exponents are those of the operands' fields, added, never normalised; trunc drops bits of the magnitude; the
// sum is exact. Any zero result is +0, any NaN the canonical one.
#pragma once

#include "base/bits.hpp"
#include "formats/decode.hpp"
#include "formats/encode.hpp"
#include "mma/units.hpp"

namespace gradkern::mma {

inline constexpr int most_products = 32, most_k = 32;

// (-1)^negative * significand * 2^(exponent - fraction_bits), or infinite, or NaN.
struct Number {
  std::uint32_t significand;
  int exponent, fraction_bits;
  bool negative, infinite, nan;
};

// The rules of the hardware, one function each; a test overrides them one by one.
struct Hardware {
  // A subnormal keeps the exponent of its field; tfloat32 drops the low 13 bits of its word.
  static GRADKERN_HD Number decode(FormatId format, std::uint32_t bits) {
    return formats::visit(format, [&](auto f) {
      using F = decltype(f);
      using L = formats::Layout<F>;
      const std::uint64_t word = bits >> F::container_shift, magnitude = word & (L::sign - 1);
      const int field = static_cast<int>(magnitude >> L::fraction_bits);
      const std::uint64_t fraction = magnitude & (L::smallest_normal - 1);
      return Number{static_cast<std::uint32_t>(field ? fraction | L::smallest_normal : fraction),
                    (field ? field : 1) - F::bias,
                    L::fraction_bits,
                    (word & L::sign) != 0,
                    F::has_inf && magnitude == L::infinity,
                    magnitude > (F::has_inf ? L::infinity : L::max_finite)};
    });
  }

  static GRADKERN_HD bool is_zero(const Number& x) { return x.significand == 0; }

  // Exact, in [0, 4), not normalised.
  static GRADKERN_HD Number multiply(const Number& a, const Number& b) {
    const bool infinite = a.infinite || b.infinite, zero = is_zero(a) || is_zero(b);
    return {a.significand * b.significand,
            a.exponent + b.exponent,
            a.fraction_bits + b.fraction_bits,
            a.negative != b.negative,
            infinite,
            a.nan || b.nan || (infinite && zero)};
  }

  static GRADKERN_HD int common_exponent(const Step& step, const Number* terms, int count) {
    int largest = step.exponent_floor;
    for (int i = 0; i < count; ++i)
      if (!is_zero(terms[i]) && terms[i].exponent > largest) largest = terms[i].exponent;
    return largest;
  }

  // The term in quanta of 2^quantum, its magnitude truncated.
  static GRADKERN_HD std::int64_t align(const Number& x, int quantum) {
    const int shift = x.exponent - x.fraction_bits - quantum;
    const std::uint64_t magnitude = x.significand;
    const auto kept = static_cast<std::int64_t>(is_zero(x)    ? 0
                                                : shift >= 0  ? magnitude << shift
                                                : shift > -64 ? magnitude >> -shift
                                                              : 0);
    return x.negative ? -kept : kept;
  }

  static constexpr formats::Rounding float32_rounding = formats::Rounding::toward_zero;
  static constexpr formats::Rounding float16_rounding = formats::Rounding::nearest_even;
  static constexpr int truncated13_bits = 13;

  static GRADKERN_HD bool invalid(bool plus_infinity, bool minus_infinity) { return plus_infinity && minus_infinity; }
  static GRADKERN_HD std::uint32_t zero(bool) { return 0; }
  static GRADKERN_HD std::uint32_t infinity(Output output, bool negative) {
    return output == Output::half ? (negative ? 0xFC00u : 0x7C00u) : (negative ? 0xFF800000u : 0x7F800000u);
  }
  static GRADKERN_HD std::uint32_t overflow(Output output, bool negative) { return infinity(output, negative); }
  static GRADKERN_HD std::uint32_t nan(Output output) { return output == Output::half ? 0x7FFFu : 0x7FFFFFFFu; }
};

// sum * 2^quantum in the accumulator's format: rounded once, subnormals kept, Inf beyond the largest finite.
template <class Rules>
GRADKERN_HD std::uint32_t round_sum(Output output, std::int64_t sum, int quantum) {
  if (sum == 0) return Rules::zero(false);
  const bool half = output == Output::half, negative = sum < 0;
  const int field_bits = half ? 10 : 23, min_exponent = half ? -14 : -126;
  const int fraction_bits = output == Output::truncated13 ? Rules::truncated13_bits : field_bits;
  const std::uint64_t magnitude = static_cast<std::uint64_t>(negative ? -sum : sum);
  const int leading = 63 - __builtin_clzll(magnitude) + quantum;
  const int exponent = leading > min_exponent ? leading : min_exponent;
  const int shift = exponent - fraction_bits - quantum;
  const auto rounding = half ? Rules::float16_rounding : Rules::float32_rounding;
  const std::uint64_t kept =
      shift <= 0 ? magnitude << -shift : formats::shift_right_rounded(magnitude, shift, rounding, 0);
  if (kept == 0) return Rules::zero(negative);
  // Adding the integer to the exponent field carries into the next binade by itself.
  const std::uint64_t bits =
      (static_cast<std::uint64_t>(exponent - min_exponent) << field_bits) + (kept << (field_bits - fraction_bits));
  if (bits >= Rules::infinity(output, false)) return Rules::overflow(output, negative);
  return static_cast<std::uint32_t>(bits) | (negative ? (half ? 0x8000u : 0x80000000u) : 0u);
}

// One fused step: count products (at most L) and c.
template <class Rules = Hardware>
GRADKERN_HD std::uint32_t fused_step(const Step& step, FormatId a_format, const std::uint32_t* a, FormatId b_format,
                                     const std::uint32_t* b, int count, std::uint32_t c) {
  Number terms[most_products + 1];
  bool nan = false, infinite[2] = {false, false};
  for (int i = 0; i <= count; ++i) {
    terms[i] = i == count ? Rules::decode(step.output == Output::half ? FormatId::float16 : FormatId::float32, c)
                          : Rules::multiply(Rules::decode(a_format, a[i]), Rules::decode(b_format, b[i]));
    nan |= terms[i].nan;
    infinite[terms[i].negative] |= terms[i].infinite;
  }
  if (nan || Rules::invalid(infinite[0], infinite[1])) return Rules::nan(step.output);
  if (infinite[0] || infinite[1]) return Rules::infinity(step.output, !infinite[0]);

  const int quantum = Rules::common_exponent(step, terms, count + 1) - step.fraction_bits;
  std::int64_t sum = 0;
  for (int i = 0; i <= count; ++i) sum += Rules::align(terms[i], quantum);
  return round_sum<Rules>(step.output, sum, quantum);
}

// x + y of the accumulator's format, rounded to nearest, NaN canonical: what adds partial sums outside the unit.
GRADKERN_HD std::uint32_t add(FormatId accumulate, std::uint32_t x, std::uint32_t y) {
  if (accumulate == FormatId::float32) {
    const float sum = base::bit_cast<float>(x) + base::bit_cast<float>(y);
    return sum == sum ? base::bit_cast<std::uint32_t>(sum) : Hardware::nan(Output::truncated);
  }
  const auto half = [](std::uint32_t bits) {
    return formats::decode<formats::float16>(static_cast<std::uint16_t>(bits));
  };
  const double sum = half(x) + half(y);
  return sum == sum ? formats::encode<formats::float16>(sum, {}).bits : Hardware::nan(Output::half);
}

// The patterns of float8 operands as float16, which holds every one of them.
GRADKERN_HD std::uint32_t float8_as_float16(FormatId format, std::uint32_t bits) {
  const auto byte = static_cast<std::uint8_t>(bits);
  const double value = format == FormatId::float8_e5m2 ? formats::decode<formats::float8_e5m2>(byte)
                                                       : formats::decode<formats::float8_e4m3fn>(byte);
  return formats::encode<formats::float16>(value, {}).bits;
}

// One output of one instruction: d = c + sum of a[i] b[i], i < count <= instruction.k; the products that are missing
// are zero. Patterns stand in the low bits of each word.
template <class Rules = Hardware>
GRADKERN_HD std::uint32_t execute(const Instruction& instruction, const std::uint32_t* a, const std::uint32_t* b,
                                  int count, std::uint32_t c) {
  const Step& step = instruction.step;
  if (instruction.form == Form::chain) {
    for (int i = 0; i < count; i += step.products) {
      const int products = count - i < step.products ? count - i : step.products;
      c = fused_step<Rules>(step, instruction.a, a + i, instruction.b, b + i, products, c);
    }
    return c;
  }
  std::uint32_t d = 0;
  for (int half = 0; half < 2; ++half) {
    std::uint32_t x[most_k / 2], y[most_k / 2];
    int size = 0;
    for (int i = 0; i < count; ++i) {
      if (((i >> 1) & 1) != half) continue;
      x[size] = float8_as_float16(instruction.a, a[i]);
      y[size++] = float8_as_float16(instruction.b, b[i]);
    }
    d = fused_step<Rules>(step, FormatId::float16, x, FormatId::float16, y, size, d);
  }
  return add(instruction.accumulate, d, c);
}

// A whole dot product: instructions in ascending k, each going on from the accumulator of the one before.
template <class Rules = Hardware>
GRADKERN_HD std::uint32_t walk(const Instruction& instruction, const std::uint32_t* a, const std::uint32_t* b,
                               std::int64_t size, std::uint32_t c) {
  for (std::int64_t i = 0; i < size; i += instruction.k) {
    const int count = size - i < instruction.k ? static_cast<int>(size - i) : instruction.k;
    c = execute<Rules>(instruction, a + i, b + i, count, c);
  }
  return c;
}

}  // namespace gradkern::mma
