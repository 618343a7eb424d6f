// Squares of N rows of N lanes, transposed: in registers, in log2(N) rounds of interleaving row i with row i + N / 2; on
// the way from memory, by gathering 16 bytes of every fourth row (of float32) into a vector, so that what is left to
// transpose are squares of 16-byte rows, which never leave their lane.
#pragma once

#include "simd/vec.hpp"

namespace gradkern::simd {
namespace {

template <class T, int N>
GRADKERN_HD void transpose(vec<T, N> (&rows)[N]) {
  static_assert(N == 4 || N == 8 || N == 16);
  for (int round = 1; round < N; round *= 2) {
    vec<T, N> next[N];
    for (int i = 0; i < N / 2; ++i) {
      const auto a = rows[i].v, b = rows[i + N / 2].v;
      if constexpr (N == 4) {
        next[2 * i] = vec<T, N>::wrap(__builtin_shufflevector(a, b, 0, 4, 1, 5));
        next[2 * i + 1] = vec<T, N>::wrap(__builtin_shufflevector(a, b, 2, 6, 3, 7));
      } else if constexpr (N == 16) {
        next[2 * i] =
            vec<T, N>::wrap(__builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23));
        next[2 * i + 1] = vec<T, N>::wrap(
            __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31));
      } else {
        next[2 * i] = vec<T, N>::wrap(__builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11));
        next[2 * i + 1] = vec<T, N>::wrap(__builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15));
      }
    }
    for (int i = 0; i < N; ++i) rows[i] = next[i];
  }
}

// 16 bytes from each of p, p + step, ...
template <class T, int N>
GRADKERN_HD vec<T, N> load_quarters(const T* p, std::int64_t step) {
  constexpr int bytes = N * static_cast<int>(sizeof(T));
#if defined(GRADKERN_SIMD_AVX512) || defined(GRADKERN_SIMD_AVX2)
  const auto part = [&](int i) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p + i * step)); };
  if constexpr (bytes >= 32) {
    const __m256i low = _mm256_inserti128_si256(_mm256_castsi128_si256(part(0)), part(1), 1);
    if constexpr (bytes == 32) return vec<T, N>::wrap(low);
#if defined(GRADKERN_SIMD_AVX512)
    if constexpr (bytes == 64) {
      const __m512i three = _mm512_inserti32x4(_mm512_zextsi256_si512(low), part(2), 2);
      return vec<T, N>::wrap(_mm512_inserti32x4(three, part(3), 3));
    }
#endif
  }
#endif
  vec<T, N> v;
  for (int i = 0; i < bytes / 16; ++i) __builtin_memcpy(reinterpret_cast<char*>(&v.v) + 16 * i, p + i * step, 16);
  return v;
}

// Each 16 bytes of a beside those of b, their first halves or their second.
template <class T, int N>
GRADKERN_HD vec<T, N> interleave_low(vec<T, N> a, vec<T, N> b) {
  if constexpr (N * sizeof(T) == 16 && N == 2) return vec<T, N>::wrap(__builtin_shufflevector(a.v, b.v, 0, 2));
  if constexpr (N == 4 && sizeof(T) == 4) return vec<T, N>::wrap(__builtin_shufflevector(a.v, b.v, 0, 4, 1, 5));
  if constexpr (N == 4 && sizeof(T) == 8) return vec<T, N>::wrap(__builtin_shufflevector(a.v, b.v, 0, 4, 2, 6));
  if constexpr (N == 8 && sizeof(T) == 4)
    return vec<T, N>::wrap(__builtin_shufflevector(a.v, b.v, 0, 8, 1, 9, 4, 12, 5, 13));
  if constexpr (N == 8 && sizeof(T) == 8)
    return vec<T, N>::wrap(__builtin_shufflevector(a.v, b.v, 0, 8, 2, 10, 4, 12, 6, 14));
  if constexpr (N == 16)
    return vec<T, N>::wrap(__builtin_shufflevector(a.v, b.v, 0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29));
}
template <class T, int N>
GRADKERN_HD vec<T, N> interleave_high(vec<T, N> a, vec<T, N> b) {
  if constexpr (N * sizeof(T) == 16 && N == 2) return vec<T, N>::wrap(__builtin_shufflevector(a.v, b.v, 1, 3));
  if constexpr (N == 4 && sizeof(T) == 4) return vec<T, N>::wrap(__builtin_shufflevector(a.v, b.v, 2, 6, 3, 7));
  if constexpr (N == 4 && sizeof(T) == 8) return vec<T, N>::wrap(__builtin_shufflevector(a.v, b.v, 1, 5, 3, 7));
  if constexpr (N == 8 && sizeof(T) == 4)
    return vec<T, N>::wrap(__builtin_shufflevector(a.v, b.v, 2, 10, 3, 11, 6, 14, 7, 15));
  if constexpr (N == 8 && sizeof(T) == 8)
    return vec<T, N>::wrap(__builtin_shufflevector(a.v, b.v, 1, 9, 3, 11, 5, 13, 7, 15));
  if constexpr (N == 16)
    return vec<T, N>::wrap(
        __builtin_shufflevector(a.v, b.v, 2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31));
}

// columns[k] holds entry k of each of N rows, which lie `row` apart.
template <class T, int N>
GRADKERN_HD void load_transposed(const T* p, std::int64_t row, vec<T, N> (&columns)[N]) {
  constexpr int side = 16 / static_cast<int>(sizeof(T));
  static_assert(side == 2 || side == 4);
#pragma GCC unroll 8
  for (int k = 0; k < N; k += side) {
    const auto rows = [&](int i) { return load_quarters<T, N>(p + i * row + k, side * row); };
    if constexpr (side == 2) {
      const auto a = rows(0), b = rows(1);
      columns[k] = interleave_low(a, b);
      columns[k + 1] = interleave_high(a, b);
    } else {
      using Pairs = vec<double, N / 2>;
      const auto pairs = [](vec<T, N> v) { return Pairs::wrap(v.v); };
      const auto a = rows(0), b = rows(1), c = rows(2), d = rows(3);
      const Pairs first = pairs(interleave_low(a, b)), second = pairs(interleave_low(c, d));
      const Pairs third = pairs(interleave_high(a, b)), fourth = pairs(interleave_high(c, d));
      columns[k] = vec<T, N>::wrap(interleave_low(first, second).v);
      columns[k + 1] = vec<T, N>::wrap(interleave_high(first, second).v);
      columns[k + 2] = vec<T, N>::wrap(interleave_low(third, fourth).v);
      columns[k + 3] = vec<T, N>::wrap(interleave_high(third, fourth).v);
    }
  }
}

}  // namespace
}  // namespace gradkern::simd
