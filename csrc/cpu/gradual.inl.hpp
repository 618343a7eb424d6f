// float32's step in float64 lanes: fl_32(x * w + a) for values of float32, where a float32 fma would be slow.
//
// Many processors take a hundred cycles for an fma whose operand or result is subnormal. In float64 x * w is exact and
// nothing is subnormal: x * w + a is rounded to odd, then to float32 (Boldo and Melquiond 2008: the second rounding is
// innocuous). One rounding, the bits of the fma.
#pragma once

#include "ops/dense.hpp"
#include "simd/truncation.hpp"

namespace gradkern::simd {
namespace {

// x * w + a rounded to odd; x * w is exact.
GRADKERN_HD vec_f64 fma_to_odd(vec_f64 x, vec_f64 w, vec_f64 a) {
#if defined(GRADKERN_SIMD_AVX512)
  // Rounded down and up: the same where exact, else neighbours, one of which is odd.
  constexpr int quietly = _MM_FROUND_NO_EXC;
  const __m512d p = (__m512d)x.v, q = (__m512d)w.v, r = (__m512d)a.v;
  const __m512d down = _mm512_fmadd_round_pd(p, q, r, _MM_FROUND_TO_NEG_INF | quietly);
  const __m512d up = _mm512_fmadd_round_pd(p, q, r, _MM_FROUND_TO_POS_INF | quietly);
  const __mmask8 down_is_odd = _mm512_test_epi64_mask(_mm512_castpd_si512(down), _mm512_set1_epi64(1));
  return vec_f64::wrap(_mm512_mask_mov_pd(up, down_is_odd, down));
#else
  return ops::add_to_odd(x * w, a);
#endif
}

// The nearest float32, ties to even, subnormals kept.
GRADKERN_HD vec_f64 round_to_f32(vec_f64 v) {
  typedef float narrow __attribute__((vector_size(vector_bytes / 2)));
  return vec_f64::wrap(__builtin_convertvector(__builtin_convertvector(v.v, narrow), vec_f64::native));
}

}  // namespace
}  // namespace gradkern::simd

namespace gradkern::ops {

template <>
GRADKERN_HD simd::vec_f64 step<formats::float32>(simd::vec_f64 x, simd::vec_f64 w, simd::vec_f64 a) {
  return simd::round_to_f32(simd::fma_to_odd(x, w, a));
}

}  // namespace gradkern::ops
