// Constants and minimax polynomials of the elementary functions in double precision.
//
// Method and bounds: elementary.hpp. The polynomials are minimax fits (Remez exchange with 60 digits), each coefficient
// then rounded to double; the error given is the fit's, before that rounding. Arguments beyond the limits below have
// overflowed, underflowed or saturated.
#pragma once

#include <cstdint>

#include "ops/elementary_core.hpp"

namespace gradkern::ops {

template <>
struct elementary_constants<double> {
  static constexpr int mantissa_bits = 52;
  static constexpr std::int64_t exponent_bias = 1023;
  static constexpr double round_magic = 0x1.8p52;  // adding it rounds to an integer, kept in the low bits
  static constexpr double log2_e = 0x1.71547652b82fep+0;
  // ln2_hi has trailing zeros, so that k * ln2_hi is exact for every exponent k.
  static constexpr double ln2_hi = 0x1.62e42fefa38p-1;
  static constexpr double ln2_lo = 0x1.ef35793c7673p-45;
  static constexpr double sqrt_half = 0x1.6a09e667f3bcdp-1;
  static constexpr double two_over_sqrt_pi = 0x1.20dd750429b6dp+0;
  static constexpr double two_over_sqrt_pi_lo = 0x1.1ae3a914fed8p-56;
  static constexpr double one_over_sqrt_two = 0x1.6a09e667f3bcdp-1;
  static constexpr double one_over_sqrt_two_lo = -0x1.bdd3413b26456p-55;
  static constexpr double one_over_sqrt_two_pi = 0x1.9884533d43651p-2;
  static constexpr double one_over_sqrt_two_pi_lo = -0x1.cbc0d30ebfd15p-56;
  static constexpr double tail_constant = 0x1.3a9155546e37dp+0;
  static constexpr double tail_constant_lo = -0x1.c2087744bf5dbp-56;
  static constexpr double exp_highest = 710.0;
  static constexpr double exp_lowest = -748.0;
  static constexpr double expm1_lowest = -40.0;
  static constexpr double tanh_highest = 20.0;
  static constexpr double erf_curvature = -0x1.812746b0379e7p-2;
  static constexpr double erfc_split = 0.625;
  static constexpr double tail_center = 4.25;
  static constexpr double erfc_highest = 27.3;
  static constexpr double normal_highest = 38.6;

  // exp(r) = 1 + r + (r^2/2) (1 + r p(r)) on |r| <= ln2/2; error 2^-61.7 of r.
  template <class V>
  static GRADKERN_HD V exp_polynomial(V x) {
    return horner(x, 0x1.5555555555559p-2, 0x1.5555555555559p-4, 0x1.111111110f6e1p-6, 0x1.6c16c16c1499ep-9,
                  0x1.a01a01afd45e5p-12, 0x1.a01a01afabcaap-15, 0x1.71ddf8783a50ep-18, 0x1.27e4c7302f4a6p-21,
                  0x1.af5e8671ed746p-25, 0x1.1f939897291ecp-28);
  }

  // log((1+s)/(1-s)) = 2s + s z p(z), z = s^2, on sqrt(1/2) .. sqrt(2); error 2^-59.5 relative.
  template <class V>
  static GRADKERN_HD V log_polynomial(V x) {
    return horner(x, 0x1.5555555555592p-1, 0x1.999999997fd71p-2, 0x1.24924941f5f68p-2, 0x1.c71c5204f5407p-3,
                  0x1.74663fe36a1fdp-3, 0x1.39a19fcc9c661p-3, 0x1.2f0680b8ba968p-3);
  }

  // erf(x) = x (2/sqrt(pi) + z p(z)), z = x^2, on |x| <= 0.625; error 2^-65.7 relative.
  template <class V>
  static GRADKERN_HD V erf_polynomial(V x) {
    return horner(x, -0x1.812746b0379e7p-2, 0x1.ce2f21a042ba6p-4, -0x1.b82ce3128631dp-6, 0x1.565bcd0d93297p-8,
                  -0x1.c02db3ad80c38p-11, 0x1.f9a313467cdffp-14, -0x1.f4cf5b8f0a4c5p-17, 0x1.b99b8670de5cdp-20,
                  -0x1.5adbe3474501ep-23, 0x1.aa73170af9a3cp-27);
  }

  // (1 + 2x) exp(x^2) erfc(x) = tail_constant + q p(q), q = (4.25-x)/(x+3), on 0.625 .. 27.3; error 2^-59.6 relative.
  template <class V>
  static GRADKERN_HD V tail_polynomial(V x) {
    return horner(x, 0x1.e377fa5c547f8p-4, 0x1.fce8d8bb6c6d1p-11, -0x1.2f6fee4ef8a16p-5, -0x1.0ea6a58141bf8p-5,
                  -0x1.22fc967ca6a36p-6, -0x1.9a69c0553d30cp-8, -0x1.29b82af29de89p-10, 0x1.2841a41da9785p-13,
                  0x1.239389a6edac4p-13, 0x1.1e7adcd1e767ep-16, -0x1.7f434606aeb8ep-17, -0x1.d77df517a945ap-19,
                  0x1.05683d4309cd1p-20, 0x1.114382f3daf41p-21, -0x1.c22b97a590a12p-24, -0x1.2ef0140938afcp-24,
                  0x1.0ad4b0855d50cp-26, 0x1.3b7ec2ac04612p-27, -0x1.6f69b6688e271p-29, -0x1.c9807730a7869p-31,
                  0x1.69a3f2840bd9bp-32);
  }
};

}  // namespace gradkern::ops
