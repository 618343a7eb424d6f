// Panels of b: so many columns side by side, k after k, as the tile loop reads them; what a ragged one has
// beyond its columns is no result's.
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
      for (int j = 0; j < columns; j += lanes)
        V::load_partial(b + j, count - j < 0 ? 0 : count - j < lanes ? count - j : lanes).store(panel + j);
    }
  }
}

// A square of `side` columns, k after k.
template <class T, int side>
GRADKERN_HD void copy_square(const T* b, std::int64_t column, T* panel, int columns) {
  simd::vec<T, side> rows[side];
  if constexpr (sizeof(T) >= 4) {
    simd::load_transposed(b, column, rows);
  } else {
    for (int r = 0; r < side; ++r) rows[r] = simd::vec<T, side>::load(b + r * column);
    simd::transpose(rows);
  }
  for (int r = 0; r < side; ++r) rows[r].store(panel + r * columns);
}

// One that has fewer columns, of which the last then repeats, or fewer k.
template <class T, int side>
__attribute__((noinline)) void copy_edge(const T* b, std::int64_t column, std::int64_t count, std::int64_t depth,
                                         T* panel, int columns) {
  using Row = simd::vec<T, side>;
  Row rows[side];
  for (int r = 0; r < side; ++r) {
    const T* const row = b + (r < count ? r : count - 1) * column;
    rows[r] = depth < side ? Row::load_partial(row, depth) : Row::load(row);
  }
  if constexpr (side == 2) {
    const Row first = rows[0];
    rows[0] = simd::interleave_low(first, rows[1]);
    rows[1] = simd::interleave_high(first, rows[1]);
  } else {
    simd::transpose(rows);
  }
  for (int r = 0; r < side && r < depth; ++r) rows[r].store(panel + r * columns);
}

// Rows of memory are columns of the panel.
template <class T, int columns>
GRADKERN_HD void copy_columns(const T* b, std::int64_t column, std::int64_t depth, std::int64_t count, T* panel) {
  constexpr int lanes = simd::vector_bytes / static_cast<int>(sizeof(T));
  constexpr int side = sizeof(T) >= 4 && columns % lanes == 0 ? lanes : 32 / static_cast<int>(sizeof(T));
  std::int64_t k = 0;
  if (count == columns) {
    for (; k + side <= depth; k += side)
      for (int j = 0; j < columns; j += side)
        copy_square<T, side>(b + j * column + k, column, panel + k * columns + j, columns);
  }
  for (; k < depth; k += side)
    for (int j = 0; j < count; j += side)
      copy_edge<T, side>(b + j * column + k, column, count - j, depth - k, panel + k * columns + j, columns);
}

// Rows of a, a tile's beside one another, k after k. Whole vectors are stored: what they bring too much is overwritten by
// the next k, and the last k go one by one.
template <class T, int most_rows>
GRADKERN_HD void copy_tile(const T* a, std::int64_t a_row, std::int64_t a_step, std::int64_t rows, std::int64_t depth,
                           T* tile) {
  constexpr int side = 32 / static_cast<int>(sizeof(T)), squares = (most_rows + side - 1) / side;
  using Row = simd::vec<T, side>;
  std::int64_t k = 0;
  if (a_row == 1) {
    for (; k + side < depth; ++k)
      for (std::int64_t r = 0; r < rows; r += side) Row::load(a + k * a_step + r).store(tile + k * rows + r);
  } else if (a_step == 1) {
    for (; k + 2 * side <= depth; k += side) {
      Row square[squares][side];
      for (int s = 0; s < squares; ++s) {
        for (int r = 0; r < side; ++r) {
          const std::int64_t row = s * side + r;
          square[s][r] = Row::load(a + (row < rows ? row : 0) * a_row + k);
        }
        simd::transpose(square[s]);
      }
      for (int i = 0; i < side; ++i)
        for (int s = 0; s < squares; ++s)
          if (s * side < rows) square[s][i].store(tile + (k + i) * rows + s * side);
    }
  }
  for (; k < depth; ++k)
    for (std::int64_t r = 0; r < rows; ++r) tile[k * rows + r] = a[r * a_row + k * a_step];
}

}  // namespace
}  // namespace gradkern::cpu
