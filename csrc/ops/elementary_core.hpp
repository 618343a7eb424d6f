// What the elementary functions share: Horner's rule, double-word arithmetic, and the argument reduction of exp.
//
// A double word is the unevaluated sum hi + lo with |lo| <= ulp(hi)/2 or so (Dekker 1971; Joldes, Muller, Popescu
// 2017). Carrying the last steps of each function in double words leaves one rounding, plus a little, in the result.
#pragma once

#include "base/platform.hpp"
#include "ops/number.hpp"

namespace gradkern::ops {

// The constants and polynomials of one precision: elementary_f32.hpp, elementary_f64.hpp.
template <class Scalar>
struct elementary_constants;
template <class V>
using constants_t = elementary_constants<scalar_t<V>>;

// c0 + x (c1 + x (c2 + ...)).
template <class V>
GRADKERN_HD V horner(V, scalar_t<V> c0) {
  return V(c0);
}
template <class V, class... Coefficients>
GRADKERN_HD V horner(V x, scalar_t<V> c0, Coefficients... rest) {
  return fma(x, horner(x, rest...), V(c0));
}

template <class V>
struct double_word {
  V hi, lo;
};

// a + b exactly, for |a| >= |b| or a = 0.
template <class V>
GRADKERN_HD double_word<V> fast_two_sum(V a, V b) {
  const V sum = a + b;
  return {sum, b - (sum - a)};
}

// a + b exactly.
template <class V>
GRADKERN_HD double_word<V> two_sum(V a, V b) {
  const V sum = a + b;
  const V b_part = sum - a;
  return {sum, (a - (sum - b_part)) + (b - b_part)};
}

// a * b exactly.
template <class V>
GRADKERN_HD double_word<V> two_product(V a, V b) {
  const V product = a * b;
  return {product, fma(a, b, -product)};
}

template <class V>
GRADKERN_HD double_word<V> multiply(double_word<V> a, double_word<V> b) {
  const double_word<V> p = two_product(a.hi, b.hi);
  return {p.hi, p.lo + fma(a.hi, b.lo, a.lo * b.hi)};
}

template <class V>
GRADKERN_HD double_word<V> reciprocal(double_word<V> d) {
  const V w = V(1) / d.hi;
  const V residual = fma(-w, d.lo, fma(-w, d.hi, V(1)));
  return {w, w * residual};
}

template <class V>
GRADKERN_HD V to_single(double_word<V> d) {
  return d.hi + d.lo;
}

// 2^k, for k in the range of the normal numbers.
template <class V>
GRADKERN_HD V power_of_two(int_t<V> k) {
  using C = constants_t<V>;
  return from_bits<V>((k + int_t<V>(C::exponent_bias)) << C::mantissa_bits);
}

// v 2^k, for k far beyond the range too. Two steps, of which only the second can round.
template <class V>
GRADKERN_HD V scale(V v, int_t<V> k) {
  const int_t<V> half = k >> 1;
  return v * power_of_two<V>(half) * power_of_two<V>(k - half);
}

// exp(x) = 2^exponent (1 + tail), with tail = exp(r) - 1, r = x - exponent ln2 (Cody and Waite), |r| <= ln2/2.
// tail = r + (r^2/2) (1 + r p(r)), of which r + r^2/2 is exact.
template <class V>
struct reduced_exp {
  double_word<V> tail;
  int_t<V> exponent;
};

template <class V>
GRADKERN_HD reduced_exp<V> reduce_exp(double_word<V> x) {
  using C = constants_t<V>;
  const V magic = V(C::round_magic);
  const V shifted = fma(x.hi, V(C::log2_e), magic);
  const V k = shifted - magic;
  const V leading = fma(-k, V(C::ln2_hi), x.hi);  // exact
  const double_word<V> r = two_sum(leading, fma(-k, V(C::ln2_lo), x.lo));

  const V half = V(scalar_t<V>(0.5)) * r.hi;
  const double_word<V> half_square = two_product(half, r.hi);
  const double_word<V> sum = fast_two_sum(r.hi, half_square.hi);
  const V cubic = fma(r.hi * half_square.hi, C::exp_polynomial(r.hi), half_square.lo);
  const V rest = sum.lo + (cubic + fma(r.lo, r.hi, r.lo));
  return {fast_two_sum(sum.hi, rest), to_bits(shifted) - to_bits(magic)};
}

// exp(x) = 2^exponent mantissa.
template <class V>
struct scaled_exp {
  double_word<V> mantissa;
  int_t<V> exponent;
};

template <class V>
GRADKERN_HD scaled_exp<V> exp_double_word(reduced_exp<V> e) {
  const double_word<V> sum = fast_two_sum(V(1), e.tail.hi);
  return {fast_two_sum(sum.hi, sum.lo + e.tail.lo), e.exponent};
}

template <class V>
GRADKERN_HD scaled_exp<V> exp_double_word(double_word<V> x) {
  return exp_double_word(reduce_exp(x));
}

// The lesser and the greater, giving the bound for NaN.
template <class V>
GRADKERN_HD V at_most(V x, V bound) {
  return select(x < bound, x, bound);
}
template <class V>
GRADKERN_HD V at_least(V x, V bound) {
  return select(x > bound, x, bound);
}

}  // namespace gradkern::ops
