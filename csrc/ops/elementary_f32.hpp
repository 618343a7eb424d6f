// Constants and minimax polynomials of the elementary functions in single precision.
//
// Method and bounds: elementary.hpp. The polynomials are minimax fits (Remez exchange with 60 digits), each coefficient
// then rounded to float; the error given is the fit's, before that rounding. Arguments beyond the limits below have
// overflowed, underflowed or saturated.
#pragma once

#include <cstdint>

#include "ops/elementary_core.hpp"

namespace gradkern::ops {

template <>
struct elementary_constants<float> {
  static constexpr int mantissa_bits = 23;
  static constexpr std::int32_t exponent_bias = 127;
  static constexpr float round_magic = 0x1.8p23f;  // adding it rounds to an integer, kept in the low bits
  static constexpr float log2_e = 0x1.715476p+0f;
  // ln2_hi has trailing zeros, so that k * ln2_hi is exact for every exponent k.
  static constexpr float ln2_hi = 0x1.62e4p-1f;
  static constexpr float ln2_lo = 0x1.7f7d1cp-20f;
  static constexpr float sqrt_half = 0x1.6a09e6p-1f;
  static constexpr float two_over_sqrt_pi = 0x1.20dd76p+0f;
  static constexpr float two_over_sqrt_pi_lo = -0x1.f7ac92p-25f;
  static constexpr float one_over_sqrt_two = 0x1.6a09e6p-1f;
  static constexpr float one_over_sqrt_two_lo = 0x1.9fcef4p-27f;
  static constexpr float one_over_sqrt_two_pi = 0x1.988454p-2f;
  static constexpr float one_over_sqrt_two_pi_lo = -0x1.857936p-27f;
  static constexpr float tail_constant = 0x1.3a9156p+0f;
  static constexpr float tail_constant_lo = -0x1.4ee4eep-25f;
  static constexpr float exp_highest = 89.0f;
  static constexpr float exp_lowest = -107.0f;
  static constexpr float expm1_lowest = -20.0f;
  static constexpr float tanh_highest = 10.0f;
  static constexpr float erf_curvature = -0x1.812746p-2f;
  static constexpr float erfc_split = 0.625f;
  static constexpr float tail_center = 4.25f;
  static constexpr float erfc_highest = 10.2f;
  static constexpr float normal_highest = 14.4f;

  // exp(r) = 1 + r + (r^2/2) (1 + r p(r)) on |r| <= ln2/2; error 2^-31.3 of r.
  template <class V>
  static GRADKERN_HD V exp_polynomial(V x) {
    return horner(x, 0x1.555556p-2f, 0x1.5554f2p-4f, 0x1.1110a2p-6f, 0x1.6d40eap-9f, 0x1.a18b4cp-12f);
  }

  // log((1+s)/(1-s)) = 2s + s z p(z), z = s^2, on sqrt(1/2) .. sqrt(2); error 2^-30.2 relative.
  template <class V>
  static GRADKERN_HD V log_polynomial(V x) {
    return horner(x, 0x1.55557ap-1f, 0x1.995ebap-2f, 0x1.31e31p-2f);
  }

  // erf(x) = x (2/sqrt(pi) + z p(z)), z = x^2, on |x| <= 0.625; error 2^-38.6 relative.
  template <class V>
  static GRADKERN_HD V erf_polynomial(V x) {
    return horner(x, -0x1.812746p-2f, 0x1.ce2f1cp-4f, -0x1.b82b94p-6f, 0x1.56337ap-8f, -0x1.bb3e5cp-11f,
                  0x1.ac6ee6p-14f);
  }

  // (1 + 2x) exp(x^2) erfc(x) = tail_constant + q p(q), q = (4.25-x)/(x+3), on 0.625 .. 10.2; error 2^-29.2 relative.
  template <class V>
  static GRADKERN_HD V tail_polynomial(V x) {
    return horner(x, 0x1.e37802p-4f, 0x1.fcda16p-11f, -0x1.2f71b8p-5f, -0x1.0ea176p-5f, -0x1.22e0a6p-6f,
                  -0x1.9bbd0ap-8f, -0x1.2c25bap-10f, 0x1.9e8c6p-13f, 0x1.c26ae4p-14f);
  }
};

}  // namespace gradkern::ops
