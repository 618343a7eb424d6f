// Vectors that change width between memory and registers: float32 lanes to float64 and back, float32 or int32 lanes to
// narrower elements in memory. Exact, but for narrow to float32 and narrow_f16, which round to nearest even.
//
// AVX-512 conversions are the zero-masked forms with every lane set, the same instructions: g++ 12 warns of the others.
// load_lanes and store_lanes move the low bits of N elements; a stored lane must be a sign-extended element.
#pragma once

#include "simd/vec.hpp"

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace gradkern::simd {
namespace {

#if defined(GRADKERN_SIMD_AVX512) || defined(GRADKERN_SIMD_AVX2)
inline constexpr bool has_f16 = true;  // F16C
#else
inline constexpr bool has_f16 = false;
#endif

using vec_i32 = vec<std::int32_t, vector_bytes / 4>;

// Asks for the next page: hardware prefetchers stop at the end of one.
GRADKERN_HD void prefetch_page(const void* p) {
  __builtin_prefetch(reinterpret_cast<const void*>(reinterpret_cast<std::uintptr_t>(p) + 4096));
}

// v, and memory is asked for what lies at p, for the second cache: here and now. Compilers would gather fetches, which
// then take twice as long.
template <class T, int N>
GRADKERN_HD vec<T, N> fetch_after(vec<T, N> v, const char* p) {
#if defined(GRADKERN_SIMD_AVX512)
  asm("prefetcht1 %1" : "+v"(v.v) : "m"(*p));
#else
  __builtin_prefetch(p, 0, 2);
#endif
  return v;
}

// Loads a vector of float64 from float64 or float32 values.
GRADKERN_HD vec_f64 widen(const double* p) { return vec_f64::load(p); }
GRADKERN_HD vec_f64 widen(const float* p) {
#if defined(GRADKERN_SIMD_AVX512)
  return vec_f64::wrap(_mm512_maskz_cvtps_pd(0xFF, _mm256_loadu_ps(p)));
#elif defined(GRADKERN_SIMD_AVX2)
  return vec_f64::wrap(_mm256_cvtps_pd(_mm_loadu_ps(p)));
#elif defined(__SSE2__)
  return vec_f64::wrap(_mm_cvtps_pd(_mm_loadl_pi(_mm_setzero_ps(), (const __m64*)p)));
#else
  return vec_f64::wrap(vec_f64::native{p[0], p[1]});
#endif
}

// So many: a whole register, or half of one.
template <int lanes, class T>
GRADKERN_HD vec<double, lanes> widen(const T* p) {
  if constexpr (lanes == vector_bytes / 8) return widen(p);
#if defined(GRADKERN_SIMD_AVX512)
  else if constexpr (sizeof(T) == 8)
    return vec<double, lanes>::load(p);
  else
    return vec<double, lanes>::wrap(_mm256_cvtps_pd(_mm_loadu_ps(p)));
#endif
}

// Stores float64 lanes, to float32 with one rounding.
GRADKERN_HD void narrow(double* p, vec_f64 v) { v.store(p); }

GRADKERN_HD vec_i32 load_lanes(const std::uint32_t* p) {
  vec_i32 r;
  __builtin_memcpy(&r.v, p, sizeof r.v);
  return r;
}
GRADKERN_HD void store_lanes(std::uint32_t* p, vec_i32 v) { __builtin_memcpy(p, &v.v, sizeof v.v); }

#if defined(GRADKERN_SIMD_AVX512)

GRADKERN_HD void narrow(float* p, vec_f64 v) { _mm256_storeu_ps(p, _mm512_maskz_cvtpd_ps(0xFF, (__m512d)v.v)); }
GRADKERN_HD vec_i32 load_lanes(const std::uint16_t* p) {
  return vec_i32::wrap(_mm512_maskz_cvtepu16_epi32(0xFFFF, _mm256_loadu_si256((const __m256i*)p)));
}
GRADKERN_HD vec_i32 load_lanes(const std::uint8_t* p) {
  return vec_i32::wrap(_mm512_maskz_cvtepu8_epi32(0xFFFF, _mm_loadu_si128((const __m128i*)p)));
}
GRADKERN_HD void store_lanes(std::uint16_t* p, vec_i32 v) {
  _mm256_storeu_si256((__m256i*)p, _mm512_maskz_cvtepi32_epi16(0xFFFF, (__m512i)v.v));
}
GRADKERN_HD void store_lanes(std::uint8_t* p, vec_i32 v) {
  _mm_storeu_si128((__m128i*)p, _mm512_maskz_cvtepi32_epi8(0xFFFF, (__m512i)v.v));
}
GRADKERN_HD vec_f32 widen_f16(const std::uint16_t* p) {
  return vec_f32::wrap(_mm512_maskz_cvtph_ps(0xFFFF, _mm256_loadu_si256((const __m256i*)p)));
}
GRADKERN_HD void narrow_f16(std::uint16_t* p, vec_f32 v) {
  _mm256_storeu_si256((__m256i*)p, _mm512_maskz_cvtps_ph(0xFFFF, (__m512)v.v, _MM_FROUND_TO_NEAREST_INT));
}

#elif defined(GRADKERN_SIMD_AVX2)

GRADKERN_HD void narrow(float* p, vec_f64 v) { _mm_storeu_ps(p, _mm256_cvtpd_ps((__m256d)v.v)); }
GRADKERN_HD vec_i32 load_lanes(const std::uint16_t* p) {
  return vec_i32::wrap(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)p)));
}
GRADKERN_HD vec_i32 load_lanes(const std::uint8_t* p) {
  return vec_i32::wrap(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i*)p)));
}
GRADKERN_HD __m128i pack_16(vec_i32 v) {
  return _mm_packs_epi32(_mm256_castsi256_si128((__m256i)v.v), _mm256_extracti128_si256((__m256i)v.v, 1));
}
GRADKERN_HD void store_lanes(std::uint16_t* p, vec_i32 v) { _mm_storeu_si128((__m128i*)p, pack_16(v)); }
GRADKERN_HD void store_lanes(std::uint8_t* p, vec_i32 v) {
  const __m128i words = pack_16(v);
  _mm_storel_epi64((__m128i*)p, _mm_packs_epi16(words, words));
}
GRADKERN_HD vec_f32 widen_f16(const std::uint16_t* p) {
  return vec_f32::wrap(_mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)p)));
}
GRADKERN_HD void narrow_f16(std::uint16_t* p, vec_f32 v) {
  _mm_storeu_si128((__m128i*)p, _mm256_cvtps_ph((__m256)v.v, _MM_FROUND_TO_NEAREST_INT));
}

#elif defined(__SSE2__)

GRADKERN_HD void narrow(float* p, vec_f64 v) { _mm_storel_pi((__m64*)p, _mm_cvtpd_ps((__m128d)v.v)); }
GRADKERN_HD vec_i32 load_lanes(const std::uint16_t* p) {
  return vec_i32::wrap(_mm_unpacklo_epi16(_mm_loadl_epi64((const __m128i*)p), _mm_setzero_si128()));
}
GRADKERN_HD vec_i32 load_lanes(const std::uint8_t* p) {
  std::int32_t four;
  __builtin_memcpy(&four, p, 4);
  const __m128i zero = _mm_setzero_si128();
  return vec_i32::wrap(_mm_unpacklo_epi16(_mm_unpacklo_epi8(_mm_cvtsi32_si128(four), zero), zero));
}
GRADKERN_HD void store_lanes(std::uint16_t* p, vec_i32 v) {
  _mm_storel_epi64((__m128i*)p, _mm_packs_epi32((__m128i)v.v, (__m128i)v.v));
}
GRADKERN_HD void store_lanes(std::uint8_t* p, vec_i32 v) {
  const __m128i words = _mm_packs_epi32((__m128i)v.v, (__m128i)v.v);
  const std::int32_t four = _mm_cvtsi128_si32(_mm_packs_epi16(words, words));
  __builtin_memcpy(p, &four, 4);
}

#else

// Four lanes, by the compiler's own conversions.
typedef float pair_f32 __attribute__((vector_size(8)));
typedef std::uint16_t words4 __attribute__((vector_size(8)));
typedef std::uint8_t bytes4 __attribute__((vector_size(4)));

GRADKERN_HD void narrow(float* p, vec_f64 v) {
  const pair_f32 narrow = __builtin_convertvector(v.v, pair_f32);
  __builtin_memcpy(p, &narrow, sizeof narrow);
}
GRADKERN_HD vec_i32 load_lanes(const std::uint16_t* p) {
  words4 words;
  __builtin_memcpy(&words, p, sizeof words);
  return vec_i32::wrap(__builtin_convertvector(words, vec_i32::native));
}
GRADKERN_HD vec_i32 load_lanes(const std::uint8_t* p) {
  bytes4 bytes;
  __builtin_memcpy(&bytes, p, sizeof bytes);
  return vec_i32::wrap(__builtin_convertvector(bytes, vec_i32::native));
}
GRADKERN_HD void store_lanes(std::uint16_t* p, vec_i32 v) {
  const words4 words = __builtin_convertvector(v.v, words4);
  __builtin_memcpy(p, &words, sizeof words);
}
GRADKERN_HD void store_lanes(std::uint8_t* p, vec_i32 v) {
  const bytes4 bytes = __builtin_convertvector(v.v, bytes4);
  __builtin_memcpy(p, &bytes, sizeof bytes);
}

#endif

#if !defined(GRADKERN_SIMD_AVX512) && !defined(GRADKERN_SIMD_AVX2)
// Never called, see has_f16; not deleted, as clang resolves the calls that are discarded.
GRADKERN_HD vec_f32 widen_f16(const std::uint16_t*) { __builtin_unreachable(); }
GRADKERN_HD void narrow_f16(std::uint16_t*, vec_f32) { __builtin_unreachable(); }
#endif

}  // namespace
}  // namespace gradkern::simd
