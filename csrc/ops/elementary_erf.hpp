// erf, erfc and the normal distribution, for float, double and their vectors. Error bound of each: 1 ulp.
//
// |x| < 5/8: erf(x) = x (2/sqrt(pi) + z p(z)), z = x^2; p of degree 5 (float), 9 (double).
// beyond:    erfc(x) = exp(-x^2) / (1 + 2x) f(q), q = (4.25 - x)/(x + 3); f of degree 9 (float), 21 (double).
//            f varies between 1.15 and 1.29 only (Shepherd and Laframboise 1981), so that its polynomial hardly rounds.
// normal_cdf(z) = erfc(-z/sqrt(2)) / 2 and normal_pdf(z) = exp(-z^2/2) / sqrt(2 pi).
//
// x^2, z^2 and z/sqrt(2) are double words, so the tails keep their relative accuracy down to the subnormals.
#pragma once

#include "ops/elementary_core.hpp"
#include "ops/elementary_f32.hpp"
#include "ops/elementary_f64.hpp"

namespace gradkern::ops {

// scale erf(x) for |x| <= erfc_split, given scale x. The low word of x enters to first order, with exp(-z) ~ 1 - 0.85
// z.
template <class V>
GRADKERN_HD double_word<V> erf_near_zero(double_word<V> x, double_word<V> scaled_x) {
  using C = constants_t<V>;
  const double_word<V> z = two_product(x.hi, x.hi);
  const double_word<V> leading = two_product(scaled_x.hi, V(C::two_over_sqrt_pi));
  const V curvature = fma(z.lo, V(C::erf_curvature), V(C::two_over_sqrt_pi_lo));
  const V correction = fma(z.hi, C::erf_polynomial(z.hi), curvature);
  const V slope = fma(z.hi, V(scalar_t<V>(-0.96)), V(C::two_over_sqrt_pi));
  const V low = fma(scaled_x.lo, slope, leading.lo);
  return fast_two_sum(leading.hi, fma(scaled_x.hi, correction, low));
}

// (1 + 2x) exp(x^2) erfc(x) for x >= erfc_split.
template <class V>
GRADKERN_HD double_word<V> erfc_flattened(V x) {
  using C = constants_t<V>;
  const V q = (V(C::tail_center) - x) / (x + V(3));
  const double_word<V> f = fast_two_sum(V(C::tail_constant), q * C::tail_polynomial(q));
  return {f.hi, f.lo + V(C::tail_constant_lo)};
}

// 2^shift erfc(x) for x >= erfc_split, given minus_square = -x^2.
template <class V>
GRADKERN_HD V erfc_tail(double_word<V> x, double_word<V> minus_square, int shift) {
  const scaled_exp<V> e = exp_double_word(minus_square);
  const double_word<V> sum = fast_two_sum(x.hi + x.hi, V(1));
  const double_word<V> divisor = {sum.hi, sum.lo + (x.lo + x.lo)};
  const double_word<V> erfcx = multiply(erfc_flattened(x.hi), reciprocal(divisor));
  return scale(to_single(multiply(e.mantissa, erfcx)), e.exponent + int_t<V>(shift));
}

template <class V>
GRADKERN_HD V erfc_tail(V x) {
  const double_word<V> square = two_product(x, x);
  return erfc_tail(double_word<V>{x, V(0)}, double_word<V>{-square.hi, -square.lo}, 0);
}

template <class V>
GRADKERN_HD V erf(V x) {
  using C = constants_t<V>;
  const V magnitude = at_most(abs(x), V(C::erfc_highest));
  // Scaled, so that the products keep their low words where erf(x) is subnormal.
  const double_word<V> scaled = {V(0x1p64f) * magnitude, V(0)};
  const V near_zero = V(0x1p-64f) * to_single(erf_near_zero(double_word<V>{magnitude, V(0)}, scaled));
  const V beyond = V(1) - erfc_tail(magnitude);
  const V result = select(magnitude < V(C::erfc_split), near_zero, beyond);
  return select(x != x, x, copysign(result, x));
}

template <class V>
GRADKERN_HD V erfc(V x) {
  using C = constants_t<V>;
  const V magnitude = at_most(abs(x), V(C::erfc_highest));
  const double_word<V> signed_x = {copysign(magnitude, x), V(0)};
  const double_word<V> small = erf_near_zero(signed_x, signed_x);
  const double_word<V> complement = fast_two_sum(V(1), -small.hi);
  const V near_zero = complement.hi + (complement.lo - small.lo);
  const V tail = erfc_tail(magnitude);
  const V beyond = select(x > V(0), tail, V(2) - tail);
  return select(x != x, x, select(magnitude < V(C::erfc_split), near_zero, beyond));
}

template <class V>
GRADKERN_HD V normal_cdf(V z) {
  using C = constants_t<V>;
  const V half = V(scalar_t<V>(0.5));
  const V magnitude = at_most(abs(z), V(C::normal_highest));
  const double_word<V> product = two_product(magnitude, V(C::one_over_sqrt_two));
  const double_word<V> x = {product.hi, fma(magnitude, V(C::one_over_sqrt_two_lo), product.lo)};
  const double_word<V> square = two_product(magnitude, magnitude);

  const double_word<V> small = erf_near_zero(x, x);
  const V small_hi = copysign(small.hi, z);
  const V small_lo = select(z < V(0), -small.lo, small.lo);
  const double_word<V> sum = fast_two_sum(V(1), small_hi);
  const V near_zero = half * (sum.hi + (sum.lo + small_lo));

  const V tail = erfc_tail(x, double_word<V>{-half * square.hi, -half * square.lo}, -1);
  const V beyond = select(z < V(0), tail, V(1) - tail);
  return select(z != z, z, select(x.hi < V(C::erfc_split), near_zero, beyond));
}

template <class V>
GRADKERN_HD V normal_pdf(V z) {
  using C = constants_t<V>;
  const V half = V(scalar_t<V>(0.5));
  const V magnitude = at_most(abs(z), V(C::normal_highest));
  const double_word<V> square = two_product(magnitude, magnitude);
  const scaled_exp<V> e = exp_double_word(double_word<V>{-half * square.hi, -half * square.lo});
  const double_word<V> factor = {V(C::one_over_sqrt_two_pi), V(C::one_over_sqrt_two_pi_lo)};
  return select(z != z, z, scale(to_single(multiply(e.mantissa, factor)), e.exponent));
}

}  // namespace gradkern::ops
