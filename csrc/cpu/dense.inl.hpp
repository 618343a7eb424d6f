// c[i, j] = chain of step(a[i, k], b[k, j]), k ascending, by register tiles; lanes run over j, never over k.
//
// Blocks as in Goto and van de Geijn (2008): a panel of b stays in L1 while the rows of a go by from L2. Between blocks
// of k the chain is stored and loaded again, in the lane type that holds it exactly.
#pragma once

#include <type_traits>

#include "cpu/pack.inl.hpp"
#include "ops/dense.hpp"
#include "simd/half.hpp"

namespace gradkern::cpu {
namespace {

// A block of k: which part of the chain this is.
struct Depth {
  std::int64_t count;
  bool first, last;
};

// Not inlined: beside anything else the compiler spills accumulators.
template <class Acc, class V, int Rows, int Vectors>
__attribute__((noinline)) void product_tile(const ops::scalar_t<V>* a, std::int64_t a_row, std::int64_t a_step,
                                            const ops::scalar_t<V>* b, std::int64_t b_step,
                                            const ops::scalar_t<V>* bias, std::int64_t bias_row, ops::scalar_t<V>* c,
                                            std::int64_t c_row, std::int64_t columns, Depth depth) {
  using T = ops::scalar_t<V>;
  constexpr std::int64_t lanes = sizeof(V) / sizeof(T);
  const bool whole = columns == lanes * Vectors;
  const auto lanes_in = [&](int v) { return columns - v * lanes < lanes ? columns - v * lanes : lanes; };
  const auto load = [&](const T* p, int v) {
    if (whole) return V::load(p + v * lanes);
    return V::load_partial(p + v * lanes, lanes_in(v));
  };
  V sum[Rows][Vectors];
#pragma GCC unroll 16
  for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; ++v) sum[r][v] = depth.first ? V(T(0)) : load(c + r * c_row, v);
  for (std::int64_t k = 0; k < depth.count; ++k, a += a_step, b += b_step) {
    V right[Vectors];
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; ++v) right[v] = V::load(b + v * lanes);
#pragma GCC unroll 16
    for (int r = 0; r < Rows; ++r) {
      const V left(a[r * a_row]);
#pragma GCC unroll 4
      for (int v = 0; v < Vectors; ++v) sum[r][v] = ops::step<Acc>(left, right[v], sum[r][v]);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; ++v) {
      V result = sum[r][v];
      if (depth.last) {
        if (bias) result = ops::step<Acc>(V(ops::one<V>), load(bias + r * bias_row, v), result);
        result = ops::canonical_nan(result);
      }
      if (whole) {
        result.store(c + r * c_row + v * lanes);
      } else {
        result.store_partial(c + r * c_row + v * lanes, lanes_in(v));
      }
    }
  }
}

// The tile of so many rows, at most Rows.
template <class Acc, class V, int Rows, int Vectors, class... Arguments>
GRADKERN_HD void product_rows(std::int64_t rows, Arguments... arguments) {
  if constexpr (Rows > 1) {
    if (rows < Rows) return product_rows<Acc, V, Rows - 1, Vectors>(rows, arguments...);
  }
  product_tile<Acc, V, Rows, Vectors>(arguments...);
}

// Rows [begin, end) cut into tiles, as even as can be, of which a block has some.
struct Tiles {
  std::int64_t begin, end, count;
  std::int64_t start(std::int64_t t) const { return begin + (end - begin) * t / count; }
};
struct TileRange {
  std::int64_t first, last;
};

// One block of columns and of k: what is packed, and how it is read.
template <class V, int Rows, int Vectors>
struct ProductBlock {
  using T = ops::scalar_t<V>;
  static constexpr int lanes = static_cast<int>(sizeof(V) / sizeof(T)), panel = Vectors * lanes;
  const ProductLanes<T>& p;
  const ProductRange& range;
  Tiles tiles;
  bool once;  // there is one block of rows: panels of b follow one another in the same place, which stays in L1
  T* packed_b;
  T* packed_a;
  std::int64_t j0, j_end, k0;
  Depth depth;

  std::int64_t columns(std::int64_t j) const { return j_end - j < panel ? j_end - j : panel; }
  const T* source(std::int64_t j) const { return p.b + k0 * p.b_step + j * p.b_column; }
  T* packed(std::int64_t j) const { return once ? packed_b : packed_b + (j - j0) * depth.count; }
  // Where packing b costs more than it saves: few rows read it, and it lies together.
  bool as_it_lies(std::int64_t j) const {
    constexpr std::int64_t near = 32 * 1024;  // bytes apart times rows
    const std::int64_t apart = p.b_step * static_cast<std::int64_t>(sizeof(T));
    return p.b_column == 1 && (range.row_end - range.row_begin) * apart <= near && columns(j) == panel;
  }
  // What lies a large power of two apart shares few sets of the cache.
  bool packs_a() const {
    const std::int64_t bytes = static_cast<std::int64_t>(sizeof(T));
    const bool far_apart = p.a_row == 1 ? p.a_step * bytes >= 1024 : p.a_row * bytes >= 4096;
    return far_apart && range.column_end - range.column_begin > 4 * panel;
  }

  void pack_b(std::int64_t j) const {
    if (p.b_column == 1) {
      copy_rows<V, panel>(source(j), p.b_step, depth.count, columns(j), packed(j));
    } else {
      copy_columns<T, panel>(source(j), p.b_column, depth.count, columns(j), packed(j));
    }
  }

  const T* rows_of_a(std::int64_t row) const { return p.a + row * p.a_row + k0 * p.a_step; }
  T* packed_tile(TileRange block, std::int64_t t) const {
    return packed_a + (tiles.start(t) - tiles.start(block.first)) * depth.count;
  }
  void pack_a(TileRange block) const {
    for (std::int64_t t = block.first; t < block.last; ++t) {
      const std::int64_t first = tiles.start(t), rows = tiles.start(t + 1) - first;
      copy_tile<T, Rows>(rows_of_a(first), p.a_row, p.a_step, rows, depth.count, packed_tile(block, t));
    }
  }

  template <class Acc>
  void multiply(TileRange block, bool a_is_packed) const {
    for (std::int64_t j = j0; j < j_end; j += panel) {
      const bool direct = as_it_lies(j);
      if (!direct && block.first == 0) pack_b(j);
      for (std::int64_t t = block.first; t < block.last; ++t) {
        const std::int64_t first = tiles.start(t), rows = tiles.start(t + 1) - first;
        const T* a = a_is_packed ? packed_tile(block, t) : rows_of_a(first);
        const auto run = [&](auto vectors) {
          product_rows<Acc, V, Rows, decltype(vectors)::value>(
              rows, a, a_is_packed ? 1 : p.a_row, a_is_packed ? rows : p.a_step, direct ? source(j) : packed(j),
              direct ? p.b_step : panel, p.bias ? p.bias + first * p.bias_row + j : nullptr, p.bias_row,
              p.c + first * p.n + j, p.n, columns(j), depth);
        };
        if (columns(j) > lanes) {
          run(std::integral_constant<int, Vectors>());
        } else {
          run(std::integral_constant<int, 1>());
        }
      }
    }
  }
};

template <class Acc, class V, int Rows, int Vectors>
void product(const ProductLanes<ops::scalar_t<V>>& p, const ProductRange& range,
             const ProductScratch<ops::scalar_t<V>>& scratch) {
  const Blocking blocks = scratch.blocking;
  const Tiles tiles{range.row_begin, range.row_end, (range.row_end - range.row_begin + Rows - 1) / Rows};
  const std::int64_t in_block = blocks.rows / Rows, row_blocks = (tiles.count + in_block - 1) / in_block;
  for (std::int64_t j0 = range.column_begin; j0 < range.column_end; j0 += blocks.columns) {
    const std::int64_t j_end = range.column_end < j0 + blocks.columns ? range.column_end : j0 + blocks.columns;
    std::int64_t k0 = 0;
    do {
      const std::int64_t count = p.k - k0 < blocks.depth ? p.k - k0 : blocks.depth;
      const ProductBlock<V, Rows, Vectors> block{p,
                                                 range,
                                                 tiles,
                                                 row_blocks == 1,
                                                 scratch.lanes,
                                                 scratch.lanes + blocks.depth * blocks.columns,
                                                 j0,
                                                 j_end,
                                                 k0,
                                                 {count, k0 == 0 && !p.continued, k0 + count == p.k}};
      const bool packs_a = block.packs_a();
      for (std::int64_t r = 0; r < row_blocks; ++r) {
        const TileRange some{tiles.count * r / row_blocks, tiles.count * (r + 1) / row_blocks};
        if (packs_a) block.pack_a(some);
        block.template multiply<Acc>(some, packs_a);
      }
      k0 += count;
    } while (k0 < p.k);
  }
}

}  // namespace
}  // namespace gradkern::cpu
