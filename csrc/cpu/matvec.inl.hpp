// A matrix times a few vectors, as ops/matvec.hpp says: each row is read once for all of them, and widened in registers.
//
// The next rows are asked for while these are read: a row of a thousand float32 is a page, where hardware prefetchers stop.
#pragma once

#include "cpu/block.inl.hpp"
#include "ops/matvec.hpp"

namespace gradkern::cpu {
namespace {

inline constexpr int matvec_width = simd::vector_bytes / 8;
inline constexpr int dot_rows = 8 / group_f64 > 0 ? 8 / group_f64 : 1;  // eight vectors of sums
inline constexpr int axpy_rows = 4;                                     // steps of a chain between load and store

template <class T>
GRADKERN_HD void prefetch_rows(const T* w, std::int64_t stride) {
  __builtin_prefetch(reinterpret_cast<const void*>(reinterpret_cast<std::uintptr_t>(w) +
                                                   static_cast<std::uintptr_t>(stride) * sizeof(T)));
}

// Goes on with the lanes of Rows rows over count entries of x, the first in lane 0.
template <int Rows, class T>
GRADKERN_HD void dot_block(const T* w, std::int64_t stride, const double* x, std::int64_t count,
                           double (*lanes)[ops::matvec_lanes]) {
  vec_f64 sum[Rows][group_f64];
  for (int r = 0; r < Rows; ++r)
    for (int g = 0; g < group_f64; ++g) sum[r][g] = vec_f64::load(lanes[r] + g * matvec_width);
  const std::int64_t whole = count / group * group;
  for (std::int64_t j = 0; j < whole; j += group) {
    vec_f64 right[group_f64];
    for (int g = 0; g < group_f64; ++g) right[g] = vec_f64::load(x + j + g * matvec_width);
#pragma GCC unroll 8
    for (int r = 0; r < Rows; ++r) {
      prefetch_rows(w + r * stride + j, Rows * stride);
#pragma GCC unroll 8
      for (int g = 0; g < group_f64; ++g)
        sum[r][g] = fma(simd::widen(w + r * stride + j + g * matvec_width), right[g], sum[r][g]);
    }
  }
  for (int r = 0; r < Rows; ++r) {
    for (int g = 0; g < group_f64; ++g) sum[r][g].store(lanes[r] + g * matvec_width);
    for (std::int64_t j = whole; j < count; ++j)
      lanes[r][j - whole] = ops::fma(static_cast<double>(w[r * stride + j]), x[j], lanes[r][j - whole]);
  }
}

// Goes on with the chains y[j] over Rows rows.
template <int Rows, class T>
GRADKERN_HD void axpy_block(const T* w, std::int64_t stride, const double* x, std::int64_t count, double* y) {
  vec_f64 left[Rows];
  for (int r = 0; r < Rows; ++r) left[r] = vec_f64(x[r]);
  const std::int64_t whole = count / group * group;
  for (std::int64_t j = 0; j < whole; j += group) {
    vec_f64 sum[group_f64];
    for (int g = 0; g < group_f64; ++g) sum[g] = vec_f64::load(y + j + g * matvec_width);
#pragma GCC unroll 8
    for (int r = 0; r < Rows; ++r) {
      prefetch_rows(w + r * stride + j, Rows * stride);
#pragma GCC unroll 8
      for (int g = 0; g < group_f64; ++g)
        sum[g] = fma(simd::widen(w + r * stride + j + g * matvec_width), left[r], sum[g]);
    }
    for (int g = 0; g < group_f64; ++g) sum[g].store(y + j + g * matvec_width);
  }
  for (std::int64_t j = whole; j < count; ++j)
    for (int r = 0; r < Rows; ++r) y[j] = ops::fma(static_cast<double>(w[r * stride + j]), x[r], y[j]);
}

// body(w, stride) with so many rows from `row`, entries from `first`: where they lie, or decoded.
template <int Rows, class Body>
GRADKERN_HD void with_rows(const executor::MatvecArgs& args, std::int64_t row, std::int64_t first, std::int64_t count,
                           Body body) {
  const std::int64_t start = row * args.columns + first;
  if (args.format == formats::FormatId::float64) {
    body(static_cast<const double*>(args.matrix) + start, args.columns);
  } else if (args.format == formats::FormatId::float32) {
    body(static_cast<const float*>(args.matrix) + start, args.columns);
  } else {
    alignas(64) float decoded[Rows][block_size];
    for (int r = 0; r < Rows; ++r) {
      const std::int64_t begin = start + r * args.columns;
      widen(args.format, args.matrix, begin, begin + count, decoded[r]);
    }
    body(decoded[0], block_size);
  }
}

template <int Rows>
void dot_tile(const executor::MatvecArgs& args, std::int64_t row) {
  double lanes[executor::matvec_vectors][Rows][ops::matvec_lanes] = {};
  for_blocks(0, args.columns, [&](std::int64_t first, std::int64_t count) {
    with_rows<Rows>(args, row, first, count, [&](const auto* w, std::int64_t stride) {
      for (std::int64_t v = 0; v < args.vectors; ++v)
        dot_block<Rows>(w, stride, args.x + v * args.columns + first, count, lanes[v]);
    });
  });
  for (std::int64_t v = 0; v < args.vectors; ++v)
    for (int r = 0; r < Rows; ++r) args.y[v * args.rows + row + r] = ops::fold(lanes[v][r]);
}

template <int Rows>
void axpy_tile(const executor::MatvecArgs& args, std::int64_t row, std::int64_t begin, std::int64_t end) {
  for_blocks(begin, end, [&](std::int64_t first, std::int64_t count) {
    with_rows<Rows>(args, row, first, count, [&](const auto* w, std::int64_t stride) {
      for (std::int64_t v = 0; v < args.vectors; ++v)
        axpy_block<Rows>(w, stride, args.x + v * args.rows + row, count, args.y + v * args.columns + first);
    });
  });
}

// Rows [begin, end) of y, or under `transposed` entries of y.
void matvec(const executor::MatvecArgs& args, std::int64_t begin, std::int64_t end) {
  if (!args.transposed) {
    std::int64_t row = begin;
    for (; row + dot_rows <= end; row += dot_rows) dot_tile<dot_rows>(args, row);
    for (; row < end; ++row) dot_tile<1>(args, row);
    return;
  }
  for (std::int64_t v = 0; v < args.vectors; ++v)
    for (std::int64_t j = begin; j < end; ++j) args.y[v * args.columns + j] = 0;
  std::int64_t row = 0;
  for (; row + axpy_rows <= args.rows; row += axpy_rows) axpy_tile<axpy_rows>(args, row, begin, end);
  for (; row < args.rows; ++row) axpy_tile<1>(args, row, begin, end);
}

}  // namespace
}  // namespace gradkern::cpu
