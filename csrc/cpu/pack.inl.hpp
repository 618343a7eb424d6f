// Panels of b: so many columns side by side, k after k, as the tile loop reads them; ragged ones are padded with zeros.
#pragma once

#include "cpu/kernels.hpp"
#include "simd/transpose.hpp"

namespace gradkern::cpu {
namespace {

// Rows of memory are rows of the panel.
template <class V, int columns>
GRADKERN_HD void copy_rows(const ops::scalar_t<V>* b, std::int64_t step, std::int64_t depth, std::int64_t count,
                           ops::scalar_t<V>* panel) {
  using T = ops::scalar_t<V>;
  constexpr int lanes = static_cast<int>(sizeof(V) / sizeof(T));
  for (std::int64_t k = 0; k < depth; ++k, b += step, panel += columns) {
    if (count == columns) {
      for (int j = 0; j < columns; j += lanes) V::load(b + j).store(panel + j);
    } else {
      for (int j = 0; j < columns; ++j) panel[j] = j < count ? b[j] : T(0);
    }
  }
}

// Rows of memory are columns of the panel.
template <class T, int columns>
GRADKERN_HD void copy_columns(const T* b, std::int64_t column, std::int64_t depth, std::int64_t count, T* panel) {
  constexpr int side = 32 / static_cast<int>(sizeof(T));
  using Row = simd::vec<T, side>;
  std::int64_t whole = 0;
  if (count == columns) {
    whole = depth / side * side;
    for (std::int64_t k = 0; k < whole; k += side) {
      for (int j = 0; j < columns; j += side) {
        Row rows[side];
        for (int r = 0; r < side; ++r) rows[r] = Row::load(b + (j + r) * column + k);
        simd::transpose(rows);
        for (int r = 0; r < side; ++r) rows[r].store(panel + (k + r) * columns + j);
      }
    }
  }
  for (std::int64_t k = whole; k < depth; ++k)
    for (int j = 0; j < columns; ++j) panel[k * columns + j] = j < count ? b[j * column + k] : T(0);
}

}  // namespace
}  // namespace gradkern::cpu
