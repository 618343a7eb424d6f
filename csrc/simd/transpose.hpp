// A square of N rows of N lanes, transposed in log2(N) rounds of interleaving row i with row i + N / 2.
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

}  // namespace
}  // namespace gradkern::simd
