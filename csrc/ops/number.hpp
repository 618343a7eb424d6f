// The primitives that every formula in ops/ is written in, for the scalar types float and double.
//
// simd/vec.hpp gives the same names for vectors, so one formula serves both. A formula may use only
//   + - * /                   each rounded once (-ffp-contract=off)
//   fma(a, b, c)              rounded once
//   < <= > >= == !=           giving a mask (mask_t<V>); & and | on masks, never ~ (bool)
//   select(mask, a, b)        lane-wise a where mask else b (both sides are evaluated); also for integers
//   max(a, b)                 select(a > b, a, b)
//   to_bits(v), from_bits<V>  reinterpretation as a signed integer of the same width (int_t<V>)
//   + - & | ^ << >>           on int_t<V>; >> is arithmetic
//   abs(v), copysign(m, s)    bit operations, exact, NaN and -0 included
//   V(s)                      splat of a scalar_t<V>, -0.0 kept
#pragma once

#include <cstdint>

#include "base/bits.hpp"
#include "base/platform.hpp"

namespace gradkern::ops {

template <class V>
struct number;

template <>
struct number<float> {
  using scalar = float;
  using integer = std::int32_t;
  using mask = bool;
};

template <>
struct number<double> {
  using scalar = double;
  using integer = std::int64_t;
  using mask = bool;
};

template <class V>
using scalar_t = typename number<V>::scalar;
template <class V>
using int_t = typename number<V>::integer;
template <class V>
using mask_t = typename number<V>::mask;

// 1 as a scalar_t<V>, which may be bits.
template <class V>
inline constexpr scalar_t<V> one = 1;

GRADKERN_HD float fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
GRADKERN_HD double fma(double a, double b, double c) { return __builtin_fma(a, b, c); }

template <class T>
GRADKERN_HD T select(bool mask, T a, T b) {
  return mask ? a : b;
}

template <class T>
GRADKERN_HD T max(T a, T b) {
  return a > b ? a : b;
}

GRADKERN_HD std::int32_t to_bits(float v) { return base::bit_cast<std::int32_t>(v); }
GRADKERN_HD std::int64_t to_bits(double v) { return base::bit_cast<std::int64_t>(v); }

template <class V>
GRADKERN_HD V from_bits(int_t<V> b) {
  return base::bit_cast<V>(b);
}

template <class V>
inline constexpr int_t<scalar_t<V>> sign_bit = int_t<scalar_t<V>>(1) << (8 * sizeof(scalar_t<V>) - 1);

template <class V>
GRADKERN_HD V abs(V v) {
  return from_bits<V>(to_bits(v) & int_t<V>(~sign_bit<V>));
}

template <class V>
GRADKERN_HD V copysign(V magnitude, V sign) {
  return from_bits<V>((to_bits(magnitude) & int_t<V>(~sign_bit<V>)) | (to_bits(sign) & int_t<V>(sign_bit<V>)));
}

// v with every NaN made the positive quiet one: the sign of a NaN that an operation makes is the processor's choice.
template <class V>
GRADKERN_HD V canonical_nan(V v) {
  return select(v == v, v, V(static_cast<scalar_t<V>>(__builtin_nan(""))));
}

}  // namespace gradkern::ops
