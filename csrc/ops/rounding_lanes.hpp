// Nearest-even rounding of whole vectors: the same bits as formats/encode.hpp, without branches.
//
// With a = |x| and b = 2^max(exponent(a), emin) of F, the quantum is q = b 2^-f (f fraction bits). Adding and
// subtracting b 2^(fraction bits of the lane - f) rounds a to a multiple of q; the sum's low bits are the integer a / q,
// and the pattern stored is that integer plus the binade's number above emin, times 2^f (a carry enters the next binade
// by itself). Each function rounds once at most; everything else here is exact.
#pragma once

#include "formats/format.hpp"
#include "ops/number.hpp"

namespace gradkern::ops {

// The layout of one lane.
template <class V>
struct Lane {
  using T = scalar_t<V>;
  using bits = int_t<T>;
  static constexpr int fraction_bits = sizeof(T) == 4 ? 23 : 52, bias = sizeof(T) == 4 ? 127 : 1023;
  static constexpr bits exponent_ones = bits(2 * bias + 1) << fraction_bits;
};

// What F's limits are in a lane.
template <class F, class V>
struct LaneLimits {
  using T = scalar_t<V>;
  using L = formats::Layout<F>;
  static constexpr T smallest_normal = static_cast<T>(formats::exp2i(L::min_exponent));
  static constexpr int max_exponent = F::has_inf ? F::bias : F::bias + 1;
  // has_inf: all fraction bits set; float8_e4m3fn: all but the last, whose pattern is NaN
  static constexpr T largest =
      static_cast<T>((2 - formats::exp2i((F::has_inf ? 0 : 1) - L::fraction_bits)) * formats::exp2i(max_exponent));
};

// The exponent field of 2^max(exponent(a), emin); a finite and not negative.
template <class F, class V>
GRADKERN_HD int_t<V> binade_bits(V a) {
  const V least = max(V(LaneLimits<F, V>::smallest_normal), a);
  return to_bits(least) & int_t<V>(Lane<V>::exponent_ones);
}

template <class F, class V>
inline constexpr int dropped_bits = Lane<V>::fraction_bits - formats::Layout<F>::fraction_bits;

// a + b 2^(dropped bits), which rounds.
template <class F, class V>
GRADKERN_HD V shifted(V a, int_t<V> binade) {
  using bits = typename Lane<V>::bits;
  return a + from_bits<V>(binade + int_t<V>(bits(dropped_bits<F, V>) << Lane<V>::fraction_bits));
}

// The sign of x on a value without one.
template <class V>
GRADKERN_HD V with_sign(V magnitude, V x) {
  return from_bits<V>(to_bits(magnitude) | (to_bits(x) & int_t<V>(sign_bit<V>)));
}

// a rounded to a multiple of its quantum, overflow not looked at: the result may be beyond F's largest.
template <class F, class V>
GRADKERN_HD V round_magnitude(V a, int_t<V> binade) {
  using I = int_t<V>;
  using bits = typename Lane<V>::bits;
  constexpr int dropped = dropped_bits<F, V>;
  if constexpr (dropped == 0) {
    return a;
  } else if constexpr (F::bias == Lane<V>::bias) {
    // The same exponents, so subnormals drop the same bits; the shifter would overflow near the top.
    const I x = to_bits(a);
    const I odd = (x >> dropped) & I(bits(1));
    const I half_less((bits(1) << (dropped - 1)) - 1);
    return from_bits<V>((x + half_less + odd) & I(~((bits(1) << dropped) - 1)));
  } else {
    const V shifter = from_bits<V>(binade + I(bits(dropped) << Lane<V>::fraction_bits));
    return (a + shifter) - shifter;
  }
}

// |error| / b * 2: the error in quanta of F is this times 2^(f - 1). b may be as small as 2^-126, so 1 / b alone may
// not fit.
template <class V>
GRADKERN_HD V error_per_binade(V error, int_t<V> binade) {
  using bits = typename Lane<V>::bits;
  const int_t<V> inverse = int_t<V>(bits(2 * Lane<V>::bias + 1) << Lane<V>::fraction_bits) - binade;
  return abs(error) * from_bits<V>(inverse);
}

// The pattern of a float32 lane rounded to r, a value of F, with the sign of x, sign-extended to the lane.
template <class F, class V>
GRADKERN_HD int_t<V> pattern_of_rounded(V a, int_t<V> binade, V r, V x) {
  using L = formats::Layout<F>;
  using I = int_t<V>;
  static_assert(sizeof(scalar_t<V>) == 4);
  if constexpr (F::bias == 127) {
    return to_bits(with_sign(r, x)) >> (8 * (4 - static_cast<int>(sizeof(typename F::container))));
  } else {
    constexpr std::int32_t shifter = std::int32_t(dropped_bits<F, V>) << 23;
    constexpr std::int32_t lowest = std::int32_t(127 + L::min_exponent) << L::fraction_bits;
    const I integer = to_bits(shifted<F>(a, binade)) - binade;
    const I above = binade >> dropped_bits<F, V>;
    const I magnitude = integer + above - I(shifter + lowest);
    return magnitude | ((to_bits(x) & I(sign_bit<V>)) >> (32 - L::bits));
  }
}

// The pattern of y, a finite value of F.
template <class F, class V>
GRADKERN_HD int_t<V> pattern_of_finite(V y) {
  const V a = abs(y);
  return pattern_of_rounded<F>(a, binade_bits<F>(a), a, y);
}

// The same for any y: infinity and NaN as F has them.
template <class F, class V>
GRADKERN_HD int_t<V> pattern_of(V y) {
  using L = formats::Layout<F>;
  using I = int_t<V>;
  constexpr int shift = F::container_shift;
  constexpr auto infinity = static_cast<std::int32_t>((F::has_inf ? L::infinity : L::quiet_nan) << shift);
  constexpr auto nan = static_cast<std::int32_t>(L::quiet_nan << shift);
  const V a = abs(y);
  const I sign = (to_bits(y) & I(sign_bit<V>)) >> (32 - L::bits - shift);
  const I special = select(y == y, I(infinity), I(nan)) | sign;
  return select(a < V(__builtin_inff()), pattern_of_finite<F>(y), special);
}

// The value of a pattern held in the low bits of each lane, as a float32; NaN stays NaN with its sign.
template <class F, class V>
GRADKERN_HD V value_of(int_t<V> pattern) {
  using L = formats::Layout<F>;
  using I = int_t<V>;
  constexpr int up = dropped_bits<F, V>;
  const I sign = (pattern << (32 - L::bits - F::container_shift)) & I(sign_bit<V>);
  if constexpr (F::bias == 127) {
    return from_bits<V>(pattern << (32 - L::bits - F::container_shift));
  } else {
    const I fields = (pattern & I(static_cast<std::int32_t>(L::sign - 1))) << up;
    // Subnormals: the fraction under the exponent of the smallest normal has one binade too many, which is exact to drop.
    const I base(std::int32_t(127 + L::min_exponent) << 23);
    const I tiny = to_bits(from_bits<V>(fields + base) - from_bits<V>(base));
    const I normal = fields + I(std::int32_t(127 - F::bias) << 23);
    const I largest(static_cast<std::int32_t>(L::max_finite) << up);
    const I infinity(static_cast<std::int32_t>(L::infinity) << up);
    const I nan(std::int32_t(0x7FC00000)), inf(std::int32_t(0x7F800000));
    const I special = F::has_inf ? select(fields == infinity, inf, nan) : nan;
    const I finite = select(fields < I(std::int32_t(1) << 23), tiny, normal);
    return from_bits<V>(select(fields > largest, special, finite) | sign);
  }
}

// Whether multiplying float32 values by this scale can be exact, both ways.
GRADKERN_HD bool fits_f32(double scale) {
  return scale >= 0x1p-126 && scale <= 0x1p126 && (to_bits(scale) & 0xFFFFFFFFFFFFF) == 0;
}

}  // namespace gradkern::ops
