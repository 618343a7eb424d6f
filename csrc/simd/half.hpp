// Lanes of float16, as bits, with the processor's own fma: one rounding, subnormals kept.
#pragma once

#if defined(GRADKERN_SIMD_AVX512FP16)

#include "simd/vec.hpp"

namespace gradkern::simd {
namespace {

struct vec_f16 {
  using lanes = vec<std::uint16_t, vector_bytes / 2>;
  lanes bits;

  vec_f16() = default;
  GRADKERN_HD vec_f16(lanes b) : bits(b) {}
  GRADKERN_HD vec_f16(std::uint16_t splat) : bits(splat) {}
  GRADKERN_HD vec_f16(__m512h v) : bits(lanes::wrap(v)) {}
  GRADKERN_HD __m512h half() const { return (__m512h)bits.v; }

  static GRADKERN_HD vec_f16 load(const std::uint16_t* p) { return lanes::load(p); }
  static GRADKERN_HD vec_f16 load_partial(const std::uint16_t* p, std::int64_t count) {
    return lanes::load_partial(p, count);
  }
  GRADKERN_HD void store(std::uint16_t* p) const { bits.store(p); }
  GRADKERN_HD void store_partial(std::uint16_t* p, std::int64_t count) const { bits.store_partial(p, count); }
};

GRADKERN_HD vec_f16 fma(vec_f16 a, vec_f16 b, vec_f16 c) { return _mm512_fmadd_ph(a.half(), b.half(), c.half()); }

}  // namespace
}  // namespace gradkern::simd

namespace gradkern::ops {

template <>
struct number<simd::vec_f16> {
  using scalar = std::uint16_t;
};

template <>
inline constexpr std::uint16_t one<simd::vec_f16> = 0x3C00;

GRADKERN_HD simd::vec_f16 canonical_nan(simd::vec_f16 v) {
  const simd::vec_f16 quiet(std::uint16_t(0x7E00));
  const __mmask32 is_nan = _mm512_cmp_ph_mask(v.half(), v.half(), _CMP_UNORD_Q);
  return simd::vec_f16(
      simd::vec_f16::lanes::wrap(_mm512_mask_mov_epi16((__m512i)v.bits.v, is_nan, (__m512i)quiet.bits.v)));
}

}  // namespace gradkern::ops

#endif
