// Dot products of 16-bit integers, and magnitudes as float64 without a conversion: registers of 512 bits with VNNI, which
// is asked for here and nowhere else, so that an object for AVX-512 runs on processors that have no more.
#pragma once

#include "simd/looked.hpp"

#if defined(GRADKERN_SIMD_AVX512)

namespace gradkern::simd {
namespace {

using quad_f64 = vec<double, 4>;

// sum + a b, two products to a lane.
GRADKERN_HD words add_dot(words sum, halves a, halves b) {
  asm("vpdpwssd %2, %1, %0" : "+v"(sum.v) : "v"(a.v), "v"(b.v));
  return sum;
}

// Of a table the lanes that the low five bits of each index say.
GRADKERN_HD halves pick(halves table, halves index) {
  return halves::wrap(_mm512_maskz_permutexvar_epi16(0xFFFFFFFF, (__m512i)index.v, (__m512i)table.v));
}

// Lanes of v where those of `sign` are negative, else 0.
GRADKERN_HD halves where_negative(halves sign, halves v) {
  return halves::wrap(_mm512_maskz_mov_epi16(_mm512_movepi16_mask((__m512i)sign.v), (__m512i)v.v));
}

// Of lanes without a sign.
GRADKERN_HD std::int64_t sum_unsigned(words v) {
  const __m512i pairs = (__m512i)v.v, low = _mm512_and_si512(pairs, _mm512_set1_epi64(0xFFFFFFFF));
  return _mm512_reduce_add_epi64(_mm512_add_epi64(low, _mm512_srli_epi64(pairs, 32)));
}

// |x| 2^128 of one number from every 64 bits of `packed`, if it is normal: a field of `bits` bits at bit `at`, of which the
// upper eight are the exponent of float32.
template <int at, int bits>
GRADKERN_HD quad_f64 magnitudes_up(__m256i packed) {
  constexpr int up = 60 - bits - at;
  const __m256i moved =
      up > 0 ? _mm256_slli_epi64(packed, up > 0 ? up : 0) : _mm256_srli_epi64(packed, up > 0 ? 0 : -up);
  const __m256i field = _mm256_set1_epi64x(((1LL << bits) - 1) << (60 - bits)),
                more = _mm256_set1_epi64x(0x400LL << 52);
  return quad_f64::wrap(_mm256_ternarylogic_epi64(moved, field, more, 0xEA));
}

}  // namespace
}  // namespace gradkern::simd

#endif
