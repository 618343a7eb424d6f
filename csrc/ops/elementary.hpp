// The elementary functions, for float, double and their vectors, with the same bits in each:
// exp, expm1, log1p, tanh, sigmoid, sigmoid_derivative, tanh_derivative here; erf, erfc, normal_cdf, normal_pdf in
// elementary_erf.hpp. The polynomials are in elementary_f32.hpp and elementary_f64.hpp.
//
// exp      2^k exp(r), r = x - k ln2.                            polynomial degree 7 (float), 12 (double)
// expm1    (2^k - 1) + 2^k (exp(r) - 1)
// log1p    k ln2 + log(1 + f), by s = f/(2 + f).                 degree 7 (float), 15 (double) in s
// tanh     -m / (2 + m), m = expm1(-2|x|)
// sigmoid  1 / (1 + e) or e / (1 + e), e = exp(-|x|)
// sigmoid_derivative = e / (1 + e)^2, tanh_derivative(z) = 4 sigmoid_derivative(2z): nothing cancels.
//
// The last steps are taken in double words, so results round little more than once. A subnormal result rounds twice,
// 0.75 ulp. Error bound of every function: 1 ulp, for float (all 2^32 inputs) and double (sampled). A NaN argument is
// returned as it is.
#pragma once

#include <limits>

#include "ops/elementary_core.hpp"
#include "ops/elementary_erf.hpp"
#include "ops/elementary_f32.hpp"
#include "ops/elementary_f64.hpp"

namespace gradkern::ops {

template <class V>
GRADKERN_HD V exp(V x) {
  using C = constants_t<V>;
  const V bounded = at_least(at_most(x, V(C::exp_highest)), V(C::exp_lowest));
  const scaled_exp<V> e = exp_double_word(double_word<V>{bounded, V(0)});
  return select(x != x, x, scale(e.mantissa.hi, e.exponent));
}

// exp(x) - 1 for |exponent| <= 64 or so: 2^k - 1, then 2^k (exp(r) - 1).
template <class V>
GRADKERN_HD double_word<V> expm1_double_word(reduced_exp<V> e) {
  const V power = power_of_two<V>(e.exponent);
  const double_word<V> leading = two_sum(power, V(-1));
  const double_word<V> sum = two_sum(leading.hi, power * e.tail.hi);
  return fast_two_sum(sum.hi, sum.lo + fma(power, e.tail.lo, leading.lo));
}

template <class V>
GRADKERN_HD V expm1(V x) {
  using C = constants_t<V>;
  const V bounded = at_least(at_most(x, V(C::exp_highest)), V(C::expm1_lowest));
  const reduced_exp<V> e = reduce_exp(double_word<V>{bounded, V(0)});
  const scaled_exp<V> whole = exp_double_word(e);
  const V large = scale(whole.mantissa.hi, whole.exponent);  // where the 1 is far below the last place
  const int_t<V> highest = int_t<V>(64);
  const int_t<V> exponent = select(e.exponent < highest, e.exponent, highest);
  const V small = copysign(expm1_double_word(reduced_exp<V>{e.tail, exponent}).hi, x);
  return select(x != x, x, select(e.exponent < highest, small, large));
}

// log(u) = k ln2 + log(1 + f) with u = 1 + x rounded; the rounding error of u enters to first order.
// log(1 + f) = f - f^2/2 + s (f^2/2 + z p(z)), s = f/(2 + f), z = s^2.
template <class V>
GRADKERN_HD V log1p(V x) {
  using C = constants_t<V>;
  using limits = std::numeric_limits<scalar_t<V>>;
  const V bounded = select(x > V(-1), x, V(0));
  const double_word<V> u = two_sum(V(1), bounded);
  const int_t<V> exponent = (to_bits(u.hi) - to_bits(V(C::sqrt_half))) >> C::mantissa_bits;
  const V mantissa = from_bits<V>(to_bits(u.hi) - (exponent << C::mantissa_bits));
  const V magic = V(C::round_magic);
  const V k = from_bits<V>(to_bits(magic) + exponent) - magic;
  const auto unscaled = k == V(0);
  const V f = select(unscaled, bounded, mantissa - V(1));
  const V rounding = select(unscaled, V(0), u.lo / u.hi);

  const V s = f / (V(2) + f);
  const V z = s * s;
  const V half_f = V(scalar_t<V>(0.5)) * f;
  const double_word<V> half_square = two_product(half_f, f);
  const double_word<V> leading = fast_two_sum(f, -half_square.hi);
  const V rest = fma(s, fma(z, C::log_polynomial(z), half_square.hi), leading.lo - half_square.lo);
  const double_word<V> sum = fast_two_sum(k * V(C::ln2_hi), leading.hi);
  const V result = sum.hi + (sum.lo + (fma(k, V(C::ln2_lo), rounding) + rest));

  const V finite = select(x < V(limits::infinity()), copysign(result, x), x);
  return select(x > V(-1), finite,
                select(x == V(-1), V(-limits::infinity()), select(x < V(-1), V(limits::quiet_NaN()), x)));
}

// -expm1(-2|x|) / (2 + expm1(-2|x|)).
template <class V>
GRADKERN_HD V tanh(V x) {
  using C = constants_t<V>;
  const V bounded = at_most(abs(x), V(C::tanh_highest));
  const double_word<V> m = expm1_double_word(reduce_exp(double_word<V>{V(-2) * bounded, V(0)}));
  const double_word<V> sum = fast_two_sum(V(2), m.hi);
  const V result = to_single(multiply(m, reciprocal(double_word<V>{sum.hi, sum.lo + m.lo})));
  return select(x != x, x, copysign(result, x));
}

// 1 / (1 + e) for e = 2^exponent mantissa <= 1. Far below 1, e itself does not matter.
template <class V>
GRADKERN_HD double_word<V> reciprocal_of_one_plus(scaled_exp<V> e) {
  const int_t<V> floor = int_t<V>(-64);
  const V power = power_of_two<V>(select(e.exponent > floor, e.exponent, floor));
  const double_word<V> sum = fast_two_sum(V(1), power * e.mantissa.hi);
  return reciprocal(double_word<V>{sum.hi, fma(power, e.mantissa.lo, sum.lo)});
}

// e / (1 + e) or 1 / (1 + e), e = exp(-|x|).
template <class V>
GRADKERN_HD V sigmoid(V x) {
  using C = constants_t<V>;
  const V bounded = at_least(-abs(x), V(C::exp_lowest));
  const scaled_exp<V> e = exp_double_word(double_word<V>{bounded, V(0)});
  const double_word<V> w = reciprocal_of_one_plus(e);
  const V negative = scale(to_single(multiply(e.mantissa, w)), e.exponent);
  return select(x != x, x, select(x < V(0), negative, to_single(w)));
}

// 2^shift e / (1 + e)^2, e = exp(x), x <= 0.
template <class V>
GRADKERN_HD V logistic_density(V x, int shift) {
  using C = constants_t<V>;
  const scaled_exp<V> e = exp_double_word(double_word<V>{at_least(x, V(C::exp_lowest)), V(0)});
  const double_word<V> w = reciprocal_of_one_plus(e);
  return scale(to_single(multiply(e.mantissa, multiply(w, w))), e.exponent + int_t<V>(shift));
}

template <class V>
GRADKERN_HD V sigmoid_derivative(V z) {
  return select(z != z, z, logistic_density(-abs(z), 0));
}

template <class V>
GRADKERN_HD V tanh_derivative(V z) {
  return select(z != z, z, logistic_density(V(-2) * abs(z), 2));
}

// The function of this number.
inline constexpr int elementary_count = 11;

template <class V>
GRADKERN_HD V elementary(int function, V x) {
  switch (function) {
    case 0:
      return exp(x);
    case 1:
      return expm1(x);
    case 2:
      return log1p(x);
    case 3:
      return tanh(x);
    case 4:
      return sigmoid(x);
    case 5:
      return erf(x);
    case 6:
      return erfc(x);
    case 7:
      return normal_cdf(x);
    case 8:
      return normal_pdf(x);
    case 9:
      return sigmoid_derivative(x);
    default:
      return tanh_derivative(x);
  }
}

}  // namespace gradkern::ops
