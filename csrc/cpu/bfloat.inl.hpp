// Products of bfloat16 bits by blocks, as both instructions read them: a word holds two products that follow one another.
//
// a is packed in tiles of 16 rows and 16 words, b in panels of 32 columns, 16 words deep where a tile is; what is missing is
// zero. A block of a stays in L2 while the panels of b, in L1, go by. Between blocks of k the sums lie in c.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "base/bits.hpp"
#include "cpu/kernels.hpp"

namespace gradkern::cpu {
namespace {

inline constexpr std::int64_t tile_side = 16, tile_words = tile_side * tile_side, tile_depth = 2 * tile_side;

// A block of a, of so many tiles of rows and of k, and one panel of b.
struct BfloatBlock {
  std::uint32_t *a, *b;
  std::int64_t k0, depth, steps;  // of k: where it starts, how many, in tiles

  static std::uint32_t word(std::uint32_t low, std::uint32_t high) { return low | high << 16; }

  std::uint32_t* tile(std::int64_t row_tile, std::int64_t step) const {
    return a + (row_tile * steps + step) * tile_words;
  }

  void pack_a(const BfloatProduct& p, std::int64_t first, std::int64_t rows) const {
    const std::int64_t padded = (rows + tile_side - 1) / tile_side * tile_side;
    for (std::int64_t r = 0; r < padded; ++r) {
      const std::uint16_t* source = r < rows ? p.a + (first + r) * p.a_row + k0 * p.a_step : nullptr;
      for (std::int64_t s = 0; s < steps; ++s) {
        std::uint32_t* to = tile(r / tile_side, s) + r % tile_side * tile_side;
        const std::int64_t left = source ? depth - s * tile_depth : 0;
        if (left >= tile_depth && p.a_step == 1) {
          std::memcpy(to, source + s * tile_depth, 4 * tile_side);
          continue;
        }
        for (std::int64_t i = 0; i < tile_side; ++i) {
          const auto at = [&](std::int64_t k) -> std::uint32_t {
            return k < left ? source[(s * tile_depth + k) * p.a_step] : 0;
          };
          to[i] = word(at(2 * i), at(2 * i + 1));
        }
      }
    }
  }

  void pack_b(const BfloatProduct& p, std::int64_t first, std::int64_t columns) const {
    const std::uint16_t* source = p.b + k0 * p.b_step + first * p.b_column;
    const bool by_rows = p.b_column == 1, by_columns = p.b_step == 1;
    for (std::int64_t i = 0; i < steps * tile_side; ++i) {
      std::uint32_t* to = b + i * bfloat_columns;
      const std::uint16_t* pair = 2 * i < depth ? source + 2 * i * p.b_step : nullptr;
      const bool whole = columns == bfloat_columns && 2 * i + 1 < depth;
      if (whole && by_rows) {
        for (int j = 0; j < bfloat_columns; ++j) to[j] = word(pair[j], pair[j + p.b_step]);
      } else if (whole && by_columns) {
        for (int j = 0; j < bfloat_columns; ++j) std::memcpy(to + j, pair + j * p.b_column, 4);
      } else {
        for (std::int64_t j = 0; j < bfloat_columns; ++j) {
          const bool inside = pair && j < columns;
          to[j] = inside ? word(pair[j * p.b_column], 2 * i + 1 < depth ? pair[j * p.b_column + p.b_step] : 0) : 0;
        }
      }
    }
  }
};

// The sums of a tile: its rows and columns of c.
struct BfloatSums {
  const BfloatProduct& p;
  std::int64_t row, rows, column, columns;

  // copy(size) in bytes of a row; whole rows by moves of a size that is known.
  template <class Copy>
  void for_row(Copy copy) const {
    if (columns == bfloat_columns) return copy(std::integral_constant<std::size_t, 4 * bfloat_columns>{});
    copy(static_cast<std::size_t>(4 * columns));
  }

  void load(float* sums) const {
    for_row([&](auto size) {
      for (std::int64_t r = 0; r < rows; ++r)
        std::memcpy(sums + r * bfloat_columns, p.c + (row + r) * p.n + column, size);
    });
  }

  // After the last block the bias comes, rounded once, and any NaN becomes the canonical one.
  void store(bool ends, float* sums) const {
    const float nan = base::bit_cast<float>(0x7FFFFFFFu);
    if (ends && p.bias)
      for (std::int64_t r = 0; r < rows; ++r)
        for (std::int64_t j = 0; j < columns; ++j)
          sums[r * bfloat_columns + j] += p.bias[(row + r) * p.bias_row + column + j];
    if (ends)
      for (std::int64_t i = 0; i < 2 * tile_side * bfloat_columns; ++i) sums[i] = sums[i] == sums[i] ? sums[i] : nan;
    for_row([&](auto size) {
      for (std::int64_t r = 0; r < rows; ++r)
        std::memcpy(p.c + (row + r) * p.n + column, sums + r * bfloat_columns, size);
    });
  }
};

// multiply(block, tile of rows, rows, starts, sums): sums, or zeros where they start, += two tiles of rows times the panel.
// Rows and columns beyond the end hold whatever they held.
template <class Multiply>
void bfloat_product(const BfloatProduct& p, const ProductRange& range, char* scratch, Multiply multiply) {
  auto* const words = reinterpret_cast<std::uint32_t*>(scratch);
  alignas(64) float sums[2 * tile_side * bfloat_columns] = {};
  for (std::int64_t i = range.row_begin; i < range.row_end; i += bfloat_rows) {
    const std::int64_t i_end = range.row_end - i < bfloat_rows ? range.row_end : i + bfloat_rows;
    for (std::int64_t k0 = 0; k0 < p.k; k0 += bfloat_depth) {
      const std::int64_t depth = p.k - k0 < bfloat_depth ? p.k - k0 : bfloat_depth;
      const BfloatBlock block{words + bfloat_depth * bfloat_columns / 2, words, k0, depth,
                              (depth + tile_depth - 1) / tile_depth};
      block.pack_a(p, i, i_end - i);
      for (std::int64_t j = range.column_begin; j < range.column_end; j += bfloat_columns) {
        const std::int64_t columns = range.column_end - j < bfloat_columns ? range.column_end - j : bfloat_columns;
        block.pack_b(p, j, columns);
        for (std::int64_t row = i; row < i_end; row += 2 * tile_side) {
          const std::int64_t rows = i_end - row < 2 * tile_side ? i_end - row : 2 * tile_side;
          const BfloatSums part{p, row, rows, j, columns};
          const bool starts = k0 == 0 && !p.continued;
          if (!starts) part.load(sums);
          multiply(block, (row - i) / tile_side, rows, starts, sums);
          part.store(k0 + depth == p.k, sums);
        }
      }
    }
  }
}

}  // namespace
}  // namespace gradkern::cpu
