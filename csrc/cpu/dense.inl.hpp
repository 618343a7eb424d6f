// A register tile of wide[i, j] = chain of step(a[i, k], b[k, j]), k ascending; lanes run over j, never over k.
#pragma once

#include "cpu/kernels.hpp"
#include "ops/dense.hpp"
#include "simd/vec.hpp"

namespace gradkern::cpu {
namespace {

template <class V>
GRADKERN_HD void store_wide(V value, double* wide, std::int64_t count) {
  using T = ops::scalar_t<V>;
  constexpr std::int64_t lanes = sizeof(V) / sizeof(T);
  T lane[lanes];
  ops::canonical_nan(value).store(lane);
  for (std::int64_t l = 0; l < (count < lanes ? count : lanes); ++l) wide[l] = lane[l];
}

template <class Acc, class V, int Rows, int Vectors>
GRADKERN_HD void product_tile(const Panel<ops::scalar_t<V>>& p, std::int64_t row, std::int64_t column) {
  using T = ops::scalar_t<V>;
  constexpr std::int64_t lanes = sizeof(V) / sizeof(T);
  V sum[Rows][Vectors];
  for (int r = 0; r < Rows; ++r)
    for (int c = 0; c < Vectors; ++c) sum[r][c] = V(T(0));
  const T* a = p.a + row * p.k;
  const T* b = p.b + column;
  for (std::int64_t k = 0; k < p.k; ++k, b += p.padded) {
    V right[Vectors];
    for (int c = 0; c < Vectors; ++c) right[c] = V::load(b + c * lanes);
    for (int r = 0; r < Rows; ++r) {
      const V left(a[r * p.k + k]);
      for (int c = 0; c < Vectors; ++c) sum[r][c] = ops::step<Acc>(left, right[c], sum[r][c]);
    }
  }
  for (int r = 0; r < Rows; ++r) {
    for (int c = 0; c < Vectors; ++c) {
      const std::int64_t first = column + c * lanes;
      if (first >= p.n) break;
      V result = sum[r][c];
      if (p.bias) result = ops::step<Acc>(V(T(1)), V::load(p.bias + first), result);
      store_wide(result, p.wide + (row + r) * p.n + first, p.n - first);
    }
  }
}

template <class Acc, class V, int Rows, int Vectors>
void product(const Panel<ops::scalar_t<V>>& p) {
  constexpr std::int64_t step = Vectors * static_cast<std::int64_t>(sizeof(V) / sizeof(ops::scalar_t<V>));
  static_assert(column_padding % step == 0);
  for (std::int64_t column = p.column_begin; column < p.column_end; column += step) {
    std::int64_t row = p.row_begin;
    for (; row + Rows <= p.row_end; row += Rows) product_tile<Acc, V, Rows, Vectors>(p, row, column);
    for (; row < p.row_end; ++row) product_tile<Acc, V, 1, Vectors>(p, row, column);
  }
}

}  // namespace
}  // namespace gradkern::cpu
