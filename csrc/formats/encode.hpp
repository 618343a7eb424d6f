// encode<F>(x, mode, random): x (a double, so every source up to float64 is exact) rounded ONCE to format F.
//
// With q = 2^(max(exponent(x), emin) - p + 1), the quantum of x in F, the result is m * q where m is x / q rounded to
// an integer: nearest_even, toward_zero, or stochastic (up with probability equal to the fraction, from 64 random
// bits). Then overflow: |m * q| above the largest finite becomes inf (NaN where F has no inf), or under `saturate` the
// largest finite value; an infinite x stays infinite (NaN where F has no inf) in both. Then `flush` turns results below
// the smallest normal into zeros of the same sign. NaN gives F's quiet NaN with the sign of x.
#pragma once

#include "base/bits.hpp"
#include "formats/format.hpp"

namespace gradkern::formats {

enum class Rounding : int { nearest_even, toward_zero, stochastic };
enum class Overflow : int { ieee, saturate };
enum class Subnormals : int { keep, flush };

struct Mode {
  Rounding rounding = Rounding::nearest_even;
  Overflow overflow = Overflow::ieee;
  Subnormals subnormals = Subnormals::keep;
  std::uint64_t seed = 0;
};

// What one rounding did. `exact` and `inexact` are normal results; the rest are the events of the arithmetic contract.
enum class Event : int { exact, inexact, overflow, subnormal, flushed, nan, inf };
inline constexpr int event_count = 7;

template <class F>
struct Encoded {
  typename F::container bits;
  Event event;
  bool changed;  // the stored value differs from x (never set for NaN)
};

// Counter-based random bits: the finaliser of SplitMix64 (Steele, Lea, Flood 2014) over seed and index.
GRADKERN_HD std::uint64_t random_bits(std::uint64_t seed, std::uint64_t index) {
  std::uint64_t z = seed * 0xD1342543DE82EF95u + (index + 1) * 0x9E3779B97F4A7C15u;
  for (int round = 0; round < 2; ++round) {
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    z ^= z >> 31;
  }
  return z;
}

// significand * 2^-shift rounded to an integer; shift >= 0 may exceed 63.
GRADKERN_HD std::uint64_t shift_right_rounded(std::uint64_t significand, int shift, Rounding rounding,
                                              std::uint64_t random) {
  if (shift == 0) return significand;
  const std::uint64_t kept = shift < 64 ? significand >> shift : 0;
  if (rounding == Rounding::toward_zero) return kept;
  if (rounding == Rounding::nearest_even) {
    if (shift > 63) return kept;  // significand < 2^53: below one half
    const std::uint64_t half = std::uint64_t(1) << (shift - 1);
    const std::uint64_t rest = significand & (2 * half - 1);
    return kept + (rest > half || (rest == half && (kept & 1)));
  }
  if (shift > 64) return kept + (random < (shift < 128 ? significand >> (shift - 64) : 0));
  const std::uint64_t rest = shift < 64 ? significand & ((std::uint64_t(1) << shift) - 1) : significand;
  return kept + ((random >> (64 - shift)) < rest);
}

// The random bits of one element of a tensor whose own are the key; 0 where rounding draws none.
GRADKERN_HD std::uint64_t draw_by_key(const Mode& mode, std::uint64_t key, std::int64_t index) {
  return mode.rounding == Rounding::stochastic ? random_bits(key, static_cast<std::uint64_t>(index)) : 0;
}
// The same, stream being the tensor's number.
GRADKERN_HD std::uint64_t draw(const Mode& mode, std::uint64_t stream, std::int64_t index) {
  if (mode.rounding != Rounding::stochastic) return 0;
  return draw_by_key(mode, random_bits(mode.seed, stream), index);
}

// What a value with the sign of x and a magnitude beyond F's range becomes.
template <class F>
GRADKERN_HD Encoded<F> overflowed(double x, const Mode& mode) {
  using L = Layout<F>;
  const std::uint64_t sign = (base::bit_cast<std::uint64_t>(x) >> 63) << (L::bits - 1);
  const bool clamp = mode.overflow == Overflow::saturate || mode.rounding == Rounding::toward_zero;
  const std::uint64_t result = sign | (clamp ? L::max_finite : F::has_inf ? L::infinity : L::quiet_nan);
  return {static_cast<typename F::container>(result << F::container_shift), Event::overflow, true};
}

template <class F>
GRADKERN_HD Encoded<F> encode(double x, const Mode& mode, std::uint64_t random = 0) {
  using L = Layout<F>;
  using container = typename F::container;
  const std::uint64_t bits = base::bit_cast<std::uint64_t>(x);
  const std::uint64_t magnitude = bits & 0x7FFFFFFFFFFFFFFFu;
  const std::uint64_t sign = (bits >> 63) << (L::bits - 1);
  const auto stored = [](std::uint64_t b) { return static_cast<container>(b << F::container_shift); };

  if (magnitude >= 0x7FF0000000000000u) {
    const bool nan = magnitude > 0x7FF0000000000000u;
    const std::uint64_t special = nan || !F::has_inf ? L::quiet_nan : L::infinity;
    return {stored(sign | special), nan ? Event::nan : Event::inf, false};
  }
  if (magnitude == 0) return {stored(sign), Event::exact, false};

  // x = significand * 2^(exponent - 52), exponent being that of the leading bit only for normal doubles.
  const int biased = static_cast<int>(magnitude >> 52);
  const std::uint64_t fraction = magnitude & 0xFFFFFFFFFFFFFu;
  const std::uint64_t significand = biased ? fraction | 0x10000000000000u : fraction;
  const int exponent = biased ? biased - 1023 : -1022;
  const int quantum_exponent = exponent > L::min_exponent ? exponent : L::min_exponent;
  const int shift = (quantum_exponent - L::fraction_bits) - (exponent - 52);
  const std::uint64_t rounded = shift_right_rounded(significand, shift, mode.rounding, random);
  const bool exact = shift < 64 && (rounded << shift) == significand;

  // Adding the integer to the exponent field carries into the next binade by itself.
  std::uint64_t result = (std::uint64_t(quantum_exponent - L::min_exponent) << L::fraction_bits) + rounded;
  if (result > L::max_finite) return overflowed<F>(x, mode);
  if (result < L::smallest_normal) {
    if (result == 0 || mode.subnormals == Subnormals::flush) return {stored(sign), Event::flushed, true};
    return {stored(sign | result), Event::subnormal, !exact};
  }
  return {stored(sign | result), exact ? Event::exact : Event::inexact, !exact};
}

}  // namespace gradkern::formats
