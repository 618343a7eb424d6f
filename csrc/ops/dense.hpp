// One step of a dot product, correctly rounded in the accumulation format: step(x, w, a) = fl_acc(x * w + a).
//
//   float32, float64   the hardware's (or libm's) fma, and float16 where lanes are float16
//   float16, bfloat16  in float64 lanes, the exact x * w + a, rounded once: TwoSum, rounding to odd in float64, then nearest even
//                      (Boldo and Melquiond 2008: with two spare bits or more the second rounding is innocuous)
// Operands narrower than float64 have products that are exact in float64. For float64 operands with a narrower
// accumulator exact_step splits the product in two (Dekker) and rounds the three-term sum to odd.
#pragma once

#include <type_traits>

#include "formats/format.hpp"
#include "ops/rounding.hpp"

namespace gradkern::ops {

// a - b on integers, modulo 2^bits: below the pattern of -0 there is no other.
template <class I>
GRADKERN_HD I wrapping_difference(I a, I b) {
  if constexpr (std::is_integral_v<I>) {
    using U = std::make_unsigned_t<I>;
    return static_cast<I>(static_cast<U>(a) - static_cast<U>(b));
  } else {
    return a - b;
  }
}

// high + low is the exact sum; returns it rounded to odd.
template <class V>
GRADKERN_HD V round_to_odd(V high, V low) {
  using I = int_t<V>;
  const I bits = to_bits(high);
  const I even_mask = (bits & I(std::int64_t(1))) ^ I(std::int64_t(1));
  const V outward = from_bits<V>(bits + even_mask);
  const V inward = from_bits<V>(wrapping_difference(bits, even_mask));
  const V away = select(high > V(0.0), low, -low);
  return select(away > V(0.0), outward, select(away < V(0.0), inward, high));
}

template <class V>
GRADKERN_HD V sum_error(V a, V b, V sum) {
  const V b_virtual = sum - a;
  return (a - (sum - b_virtual)) + (b - b_virtual);
}

template <class V>
GRADKERN_HD V add_to_odd(V a, V b) {
  const V sum = a + b;
  return round_to_odd(sum, sum_error(a, b, sum));
}

template <class Acc, class V>
GRADKERN_HD V step(V x, V w, V a) {
  if constexpr (sizeof(scalar_t<V>) == sizeof(typename Acc::container)) {
    return fma(x, w, a);
  } else {
    return round_to_nearest_even<Acc>(add_to_odd(x * w, a));
  }
}

// float64 operands, accumulator Acc narrower than float64 and held as a double.
template <class Acc>
GRADKERN_HD double exact_step(double x, double w, double a) {
  const bool finite_factors = x - x == 0 && w - w == 0;
  if (finite_factors && a - a != 0) return a;  // x * w may leave float64, and is finite all the same
  const double rounded_product = x * w;
  // Far below Acc only the sign and a sticky bit matter: the smallest double stands for a product that underflowed.
  const bool vanished = rounded_product == 0 && x != 0 && w != 0;
  const double product = vanished ? copysign(formats::exp2i(-1074), rounded_product) : rounded_product;
  const bool exact_error = !vanished && product - product == 0;
  const double product_error = exact_error ? fma(x, w, -product) : 0.0;
  // Boldo and Melquiond's emulation of fma: the low parts are summed to odd, then added to the high part to odd.
  const double low_sum = a + product_error;
  const double low_error = sum_error(a, product_error, low_sum);
  const double high = product + low_sum;
  const double high_error = sum_error(product, low_sum, high);
  if (high - high != 0) return round_to_nearest_even<Acc>(high);
  return round_to_nearest_even<Acc>(add_to_odd(high, add_to_odd(high_error, low_error)));
}

}  // namespace gradkern::ops
