// vec<T, N>: N lanes of T over GNU vector types, with the primitives of ops/number.hpp.
//
// Compiled once per instruction set. Everything lives in an anonymous namespace, so that instantiations are local to
// their object and two instruction sets never share a function. fma, max, min and what is partial are intrinsics: compilers
// lower the rest well.
#pragma once

#include <cstdint>
#include <type_traits>

#include "ops/number.hpp"

#if defined(GRADKERN_SIMD_AVX512) || defined(GRADKERN_SIMD_AVX2)
#include <immintrin.h>
#elif defined(GRADKERN_SIMD_NEON)
#include <arm_neon.h>
#endif

namespace gradkern::simd {
namespace {

#if defined(GRADKERN_SIMD_AVX512)
inline constexpr int vector_bytes = 64;
#elif defined(GRADKERN_SIMD_AVX2)
inline constexpr int vector_bytes = 32;
#else
inline constexpr int vector_bytes = 16;
#endif

#if defined(GRADKERN_SIMD_AVX512) || defined(GRADKERN_SIMD_AVX2) || defined(GRADKERN_SIMD_NEON)
inline constexpr bool has_fma = true;
#else
inline constexpr bool has_fma = false;  // fma is a call
#endif

template <class T, int N>
struct vec {
  typedef T native __attribute__((vector_size(N * sizeof(T))));
  native v;

  vec() = default;
  template <class Native>
  static GRADKERN_HD vec wrap(Native n) {
    vec r;
    r.v = (native)n;
    return r;
  }
  // Not s + {} of numbers, which turns -0.0 into +0.0; of integers it is, for compilers do not see through a long loop.
  GRADKERN_HD vec(T s) {
    if constexpr (std::is_integral_v<T>) {
      v = s + native{};
    } else {
      for (int i = 0; i < N; ++i) v[i] = s;
    }
  }

  static GRADKERN_HD vec load(const T* p) {
    vec r;
    __builtin_memcpy(&r.v, p, sizeof r.v);
    return r;
  }
  GRADKERN_HD void store(T* p) const { __builtin_memcpy(p, &v, sizeof v); }

  // The first lanes, at most N; others are zero, or stay as they are in memory.
  static GRADKERN_HD vec load_partial(const T* p, std::int64_t count) {
#if defined(GRADKERN_SIMD_AVX512)
    if constexpr (N * sizeof(T) == 64 && sizeof(T) == 2) return wrap(_mm512_maskz_loadu_epi16(first_lanes(count), p));
    if constexpr (N * sizeof(T) == 64 && sizeof(T) == 4) return wrap(_mm512_maskz_loadu_epi32(first_lanes(count), p));
    if constexpr (N * sizeof(T) == 64 && sizeof(T) == 8) return wrap(_mm512_maskz_loadu_epi64(first_lanes(count), p));
#elif defined(GRADKERN_SIMD_AVX2)
    if constexpr (N * sizeof(T) == 32 && sizeof(T) == 4)
      return wrap(_mm256_maskload_epi32(reinterpret_cast<const int*>(p), first_lanes(count)));
    if constexpr (N * sizeof(T) == 32 && sizeof(T) == 8)
      return wrap(_mm256_maskload_epi64(reinterpret_cast<const long long*>(p), first_lanes(count)));
#endif
    vec r(T(0));
    __builtin_memcpy(&r.v, p, static_cast<unsigned long>(count) * sizeof(T));
    return r;
  }
  GRADKERN_HD void store_partial(T* p, std::int64_t count) const {
#if defined(GRADKERN_SIMD_AVX512)
    if constexpr (N * sizeof(T) == 64 && sizeof(T) == 2)
      return _mm512_mask_storeu_epi16(p, first_lanes(count), (__m512i)v);
    if constexpr (N * sizeof(T) == 64 && sizeof(T) == 4)
      return _mm512_mask_storeu_epi32(p, first_lanes(count), (__m512i)v);
    if constexpr (N * sizeof(T) == 64 && sizeof(T) == 8)
      return _mm512_mask_storeu_epi64(p, first_lanes(count), (__m512i)v);
#elif defined(GRADKERN_SIMD_AVX2)
    if constexpr (N * sizeof(T) == 32 && sizeof(T) == 4)
      return _mm256_maskstore_epi32(reinterpret_cast<int*>(p), first_lanes(count), (__m256i)v);
    if constexpr (N * sizeof(T) == 32 && sizeof(T) == 8)
      return _mm256_maskstore_epi64(reinterpret_cast<long long*>(p), first_lanes(count), (__m256i)v);
#endif
    __builtin_memcpy(p, &v, static_cast<unsigned long>(count) * sizeof(T));
  }

  friend GRADKERN_HD vec operator+(vec a, vec b) { return wrap(a.v + b.v); }
  friend GRADKERN_HD vec operator-(vec a, vec b) { return wrap(a.v - b.v); }
  friend GRADKERN_HD vec operator*(vec a, vec b) { return wrap(a.v * b.v); }
  friend GRADKERN_HD vec operator/(vec a, vec b) { return wrap(a.v / b.v); }
  friend GRADKERN_HD vec operator-(vec a) { return wrap(-a.v); }
  friend GRADKERN_HD vec operator&(vec a, vec b) { return wrap(a.v & b.v); }
  friend GRADKERN_HD vec operator|(vec a, vec b) { return wrap(a.v | b.v); }
  friend GRADKERN_HD vec operator^(vec a, vec b) { return wrap(a.v ^ b.v); }
  friend GRADKERN_HD vec operator~(vec a) { return wrap(~a.v); }
  friend GRADKERN_HD vec operator<<(vec a, int s) { return wrap(a.v << s); }
  friend GRADKERN_HD vec operator>>(vec a, int s) { return wrap(a.v >> s); }

  // a > b ? a : b, which is what the x86 instructions do too; g++ 12 compares and blends where b is a constant.
  friend GRADKERN_HD vec max(vec a, vec b) {
#if defined(GRADKERN_SIMD_AVX512)
    if constexpr (std::is_same_v<T, float> && N == 16)
      return wrap(_mm512_maskz_max_ps(0xFFFF, (__m512)a.v, (__m512)b.v));
    if constexpr (std::is_same_v<T, double> && N == 8)
      return wrap(_mm512_maskz_max_pd(0xFF, (__m512d)a.v, (__m512d)b.v));
    if constexpr (std::is_same_v<T, std::uint16_t> && N == 32)
      return wrap(_mm512_max_epu16((__m512i)a.v, (__m512i)b.v));
#elif defined(GRADKERN_SIMD_AVX2)
    if constexpr (std::is_same_v<T, float> && N == 8) return wrap(_mm256_max_ps((__m256)a.v, (__m256)b.v));
    if constexpr (std::is_same_v<T, double> && N == 4) return wrap(_mm256_max_pd((__m256d)a.v, (__m256d)b.v));
    if constexpr (std::is_same_v<T, std::uint16_t> && N == 16)
      return wrap(_mm256_max_epu16((__m256i)a.v, (__m256i)b.v));
#endif
    return wrap(a.v > b.v ? a.v : b.v);
  }
  // a < b ? a : b.
  friend GRADKERN_HD vec min(vec a, vec b) {
#if defined(GRADKERN_SIMD_AVX512)
    if constexpr (std::is_same_v<T, float> && N == 16)
      return wrap(_mm512_maskz_min_ps(0xFFFF, (__m512)a.v, (__m512)b.v));
    if constexpr (std::is_same_v<T, double> && N == 8)
      return wrap(_mm512_maskz_min_pd(0xFF, (__m512d)a.v, (__m512d)b.v));
    if constexpr (std::is_same_v<T, std::uint16_t> && N == 32)
      return wrap(_mm512_min_epu16((__m512i)a.v, (__m512i)b.v));
#elif defined(GRADKERN_SIMD_AVX2)
    if constexpr (std::is_same_v<T, float> && N == 8) return wrap(_mm256_min_ps((__m256)a.v, (__m256)b.v));
    if constexpr (std::is_same_v<T, double> && N == 4) return wrap(_mm256_min_pd((__m256d)a.v, (__m256d)b.v));
    if constexpr (std::is_same_v<T, std::uint16_t> && N == 16)
      return wrap(_mm256_min_epu16((__m256i)a.v, (__m256i)b.v));
#endif
    return wrap(a.v < b.v ? a.v : b.v);
  }

  friend GRADKERN_HD auto operator<(vec a, vec b) { return mask::wrap(a.v < b.v); }
  friend GRADKERN_HD auto operator<=(vec a, vec b) { return mask::wrap(a.v <= b.v); }
  friend GRADKERN_HD auto operator>(vec a, vec b) { return mask::wrap(a.v > b.v); }
  friend GRADKERN_HD auto operator>=(vec a, vec b) { return mask::wrap(a.v >= b.v); }
  friend GRADKERN_HD auto operator==(vec a, vec b) { return mask::wrap(a.v == b.v); }
  friend GRADKERN_HD auto operator!=(vec a, vec b) { return mask::wrap(a.v != b.v); }

 private:
#if defined(GRADKERN_SIMD_AVX512)
  using lane_mask =
      std::conditional_t<N == 32, std::uint32_t, std::conditional_t<N == 16, std::uint16_t, std::uint8_t>>;
  static GRADKERN_HD lane_mask first_lanes(std::int64_t count) {
    return static_cast<lane_mask>((std::uint64_t(1) << count) - 1);
  }
#elif defined(GRADKERN_SIMD_AVX2)
  static GRADKERN_HD __m256i first_lanes(std::int64_t count) {
    if constexpr (sizeof(T) == 8) return _mm256_cmpgt_epi64(_mm256_set1_epi64x(count), _mm256_setr_epi64x(0, 1, 2, 3));
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  }
#endif
  using mask_integer = std::conditional_t<sizeof(T) == 4, std::int32_t, std::int64_t>;
  using mask = vec<mask_integer, N>;
};

template <int N>
GRADKERN_HD vec<std::int32_t, N> to_bits(vec<float, N> v) {
  return vec<std::int32_t, N>::wrap(v.v);
}
template <int N>
GRADKERN_HD vec<std::int64_t, N> to_bits(vec<double, N> v) {
  return vec<std::int64_t, N>::wrap(v.v);
}

template <class T, class M, int N>
GRADKERN_HD vec<T, N> select(vec<M, N> mask, vec<T, N> a, vec<T, N> b) {
  static_assert(sizeof(T) == sizeof(M));
  return vec<T, N>::wrap(mask.v ? a.v : b.v);
}

template <int N>
GRADKERN_HD vec<float, N> fma(vec<float, N> a, vec<float, N> b, vec<float, N> c) {
#if defined(GRADKERN_SIMD_AVX512)
  if constexpr (N == 16) return vec<float, N>::wrap(_mm512_fmadd_ps((__m512)a.v, (__m512)b.v, (__m512)c.v));
#endif
#if defined(GRADKERN_SIMD_AVX512) || defined(GRADKERN_SIMD_AVX2)
  if constexpr (N == 8) return vec<float, N>::wrap(_mm256_fmadd_ps((__m256)a.v, (__m256)b.v, (__m256)c.v));
#elif defined(GRADKERN_SIMD_NEON)
  if constexpr (N == 4) return vec<float, N>::wrap(vfmaq_f32((float32x4_t)c.v, (float32x4_t)a.v, (float32x4_t)b.v));
#endif
  vec<float, N> r;
  for (int i = 0; i < N; ++i) r.v[i] = __builtin_fmaf(a.v[i], b.v[i], c.v[i]);
  return r;
}

template <int N>
GRADKERN_HD vec<double, N> fma(vec<double, N> a, vec<double, N> b, vec<double, N> c) {
#if defined(GRADKERN_SIMD_AVX512)
  if constexpr (N == 8) return vec<double, N>::wrap(_mm512_fmadd_pd((__m512d)a.v, (__m512d)b.v, (__m512d)c.v));
#endif
#if defined(GRADKERN_SIMD_AVX512) || defined(GRADKERN_SIMD_AVX2)
  if constexpr (N == 4) return vec<double, N>::wrap(_mm256_fmadd_pd((__m256d)a.v, (__m256d)b.v, (__m256d)c.v));
#elif defined(GRADKERN_SIMD_NEON)
  if constexpr (N == 2) return vec<double, N>::wrap(vfmaq_f64((float64x2_t)c.v, (float64x2_t)a.v, (float64x2_t)b.v));
#endif
  vec<double, N> r;
  for (int i = 0; i < N; ++i) r.v[i] = __builtin_fma(a.v[i], b.v[i], c.v[i]);
  return r;
}

// op over all lanes, by halves.
template <class T, int N, class Op>
GRADKERN_HD T reduce(vec<T, N> v, Op op) {
  if constexpr (N == 1) {
    return v.v[0];
  } else {
    vec<T, N / 2> low, high;
    __builtin_memcpy(&low, &v, sizeof low);
    __builtin_memcpy(&high, reinterpret_cast<const char*>(&v) + sizeof low, sizeof high);
    return reduce(op(low, high), op);
  }
}

// The native width of this instruction set.
using vec_f32 = vec<float, vector_bytes / 4>;
using vec_f64 = vec<double, vector_bytes / 8>;

}  // namespace
}  // namespace gradkern::simd

namespace gradkern::ops {

template <int N>
struct number<simd::vec<float, N>> {
  using scalar = float;
  using integer = simd::vec<std::int32_t, N>;
  using mask = simd::vec<std::int32_t, N>;
};

template <int N>
struct number<simd::vec<double, N>> {
  using scalar = double;
  using integer = simd::vec<std::int64_t, N>;
  using mask = simd::vec<std::int64_t, N>;
};

}  // namespace gradkern::ops
