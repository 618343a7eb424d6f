// Rounding toward zero in lanes, between float32 and int32 and inside float64, and rounding to float16 in float32 lanes.
#pragma once

#include "ops/rounding_lanes.hpp"
#include "simd/widths.hpp"

namespace gradkern::simd {
namespace {

// One value from memory in every lane; through integers, whose sum with zero is exact and seen by the compilers.
GRADKERN_HD vec_i32 broadcast(const std::int32_t* p) { return vec_i32::wrap(vec_i32::native{} + *p); }
GRADKERN_HD vec_f32 broadcast(const float* p) {
  return ops::from_bits<vec_f32>(vec_i32::wrap(vec_i32::native{} + ops::to_bits(*p)));
}
GRADKERN_HD vec_f64 broadcast(const double* p) {
  using I = ops::int_t<vec_f64>;
  return ops::from_bits<vec_f64>(I::wrap(I::native{} + ops::to_bits(*p)));
}

// The integer part of lanes below 2^31; what others become is not said.
GRADKERN_HD vec_i32 truncate(vec_f32 v) { return vec_i32::wrap(__builtin_convertvector(v.v, vec_i32::native)); }

// The integer rounded toward zero to 24 bits; above -2^31.
GRADKERN_HD vec_f32 to_f32_toward_zero(vec_i32 v) {
#if defined(GRADKERN_SIMD_AVX512)
  return vec_f32::wrap(_mm512_maskz_cvt_roundepi32_ps(0xFFFF, (__m512i)v.v, _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC));
#else
  // Without the bit below the last of 24 that count, rounding to nearest truncates.
  const vec_i32 sign = v >> 31, magnitude = (v ^ sign) - sign;
  const vec_i32 kept = magnitude & ~(magnitude >> 24);
  const auto rounded = vec_f32::wrap(__builtin_convertvector(kept.v, vec_f32::native));
  return ops::from_bits<vec_f32>(to_bits(rounded) | (sign << 31));
#endif
}

// v with the fraction dropped; below 2^51 or infinite.
GRADKERN_HD vec_f64 truncate(vec_f64 v) {
#if defined(GRADKERN_SIMD_AVX512)
  return vec_f64::wrap(_mm512_maskz_roundscale_pd(0xFF, (__m512d)v.v, _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC));
#elif defined(GRADKERN_SIMD_AVX2)
  return vec_f64::wrap(_mm256_round_pd((__m256d)v.v, _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC));
#else
  const vec_f64 magnitude = ops::abs(v), shifter(0x1p52);
  const vec_f64 nearest = (magnitude + shifter) - shifter;
  const vec_f64 below = nearest - select(nearest > magnitude, vec_f64(1.0), vec_f64(0.0));
  return ops::copysign(below, v);
#endif
}

// The nearest float16, ties to even, subnormals kept, infinite from 65520.
GRADKERN_HD vec_f32 round_to_f16(vec_f32 v) {
#if defined(GRADKERN_SIMD_AVX512)
  const __m256i half = _mm512_maskz_cvtps_ph(0xFFFF, (__m512)v.v, _MM_FROUND_TO_NEAREST_INT);
  return vec_f32::wrap(_mm512_maskz_cvtph_ps(0xFFFF, half));
#elif defined(GRADKERN_SIMD_AVX2)
  return vec_f32::wrap(_mm256_cvtph_ps(_mm256_cvtps_ph((__m256)v.v, _MM_FROUND_TO_NEAREST_INT)));
#else
  const vec_f32 magnitude = ops::abs(v), infinity(__builtin_inff());
  const vec_f32 finite = min(magnitude, vec_f32(65536.0f));
  const vec_f32 rounded = ops::round_magnitude<formats::float16>(finite, ops::binade_bits<formats::float16>(finite));
  return ops::with_sign(select(magnitude == magnitude, select(rounded > vec_f32(65504.0f), infinity, rounded), v), v);
#endif
}

// While it lives, this thread rounds to nearest even and keeps subnormals, whatever a library set before.
class NearestEven {
 public:
  NearestEven(const NearestEven&) = delete;
  NearestEven& operator=(const NearestEven&) = delete;
#if defined(__SSE2__)
  GRADKERN_HD NearestEven() : before_(_mm_getcsr()) { _mm_setcsr(0x1F80); }
  GRADKERN_HD ~NearestEven() { _mm_setcsr(before_); }

 private:
  unsigned before_;
#elif defined(__aarch64__)
  GRADKERN_HD NearestEven() {
    __asm__ volatile("mrs %0, fpcr" : "=r"(before_));
    __asm__ volatile("msr fpcr, %0" : : "r"(std::uint64_t(0)));
  }
  GRADKERN_HD ~NearestEven() { __asm__ volatile("msr fpcr, %0" : : "r"(before_)); }

 private:
  std::uint64_t before_;
#else
  NearestEven() = default;
#endif
};

}  // namespace
}  // namespace gradkern::simd
