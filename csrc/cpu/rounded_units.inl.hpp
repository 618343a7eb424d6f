// Products on units that round after each operation, by any processor, bit for bit as mma/cpu_units.hpp: lanes run over
// the outputs of a row. amx and pairs run where this thread flushes subnormals, which its fma then does as they do.
#pragma once

#include <type_traits>

#include "cpu/dense.inl.hpp"
#include "mma/model.hpp"
#include "simd/truncation.hpp"

namespace gradkern::cpu {
namespace {

// The accumulator of a product that is rounded, then added, each to float16.
struct separate_half {
  using container = std::uint16_t;
};

}  // namespace
}  // namespace gradkern::cpu

namespace gradkern::ops {

template <>
GRADKERN_HD simd::vec_f32 step<cpu::separate_half>(simd::vec_f32 x, simd::vec_f32 w, simd::vec_f32 a) {
  return simd::round_to_f16(simd::round_to_f16(x * w) + a);
}

}  // namespace gradkern::ops

namespace gradkern::cpu {
namespace {

using mma::Form;

#if defined(GRADKERN_SIMD_AVX512) || defined(GRADKERN_SIMD_AVX2)
GRADKERN_HD vec_f32 fused_flushed(vec_f32 a, vec_f32 b, vec_f32 c) { return fma(a, b, c); }
GRADKERN_HD vec_f32 add_flushed(vec_f32 a, vec_f32 b) { return a + b; }

// From one to the other this thread flushes subnormals. No guard: its object would need the C++ runtime's unwinding.
GRADKERN_HD unsigned start_flushing() {
  const unsigned before = _mm_getcsr();
  _mm_setcsr(0x9FC0);
  return before;
}
GRADKERN_HD void stop_flushing(unsigned before) { _mm_setcsr(before); }
#else
GRADKERN_HD vec_f32 fused_flushed(vec_f32 a, vec_f32 b, vec_f32 c) {
  for (int i = 0; i < simd::vector_bytes / 4; ++i)
    c.v[i] = mma::fused_flushed(static_cast<double>(a.v[i]), static_cast<double>(b.v[i]), static_cast<double>(c.v[i]));
  return c;
}
GRADKERN_HD vec_f32 add_flushed(vec_f32 a, vec_f32 b) {
  for (int i = 0; i < simd::vector_bytes / 4; ++i) a.v[i] = mma::add_flushed(a.v[i], b.v[i]);
  return a;
}

GRADKERN_HD unsigned start_flushing() { return 0; }
GRADKERN_HD void stop_flushing(unsigned) {}
#endif

inline constexpr int flushed_rows = 2, flushed_vectors = 2;
inline constexpr int flushed_panel = flushed_vectors * simd::vector_bytes / 4;

// One instruction for a tile of outputs: of `k` products, rows of a 32 apart.
template <Form form>
GRADKERN_HD void flushed_instruction(const float* a, const float* b, int k,
                                     vec_f32 (&c)[flushed_rows][flushed_vectors]) {
  constexpr int lanes = simd::vector_bytes / 4;
  if constexpr (form == Form::pairs) {
    for (int i = 0; i < k; i += 2)
      for (int r = 0; r < flushed_rows; ++r)
        for (int v = 0; v < flushed_vectors; ++v)
          for (int part = i + 1; part >= i; --part)
            c[r][v] = fused_flushed(simd::broadcast(a + r * 32 + part),
                                    vec_f32::load(b + part * flushed_panel + v * lanes), c[r][v]);
  } else {
    vec_f32 sums[2][flushed_rows][flushed_vectors];
    for (auto& parity : sums)
      for (auto& row : parity)
        for (auto& sum : row) sum = vec_f32(0.0f);
    for (int i = 0; i < 32; i += 2) {
#pragma GCC unroll 2
      for (int part = 0; part < 2; ++part)
#pragma GCC unroll 2
        for (int r = 0; r < flushed_rows; ++r)
#pragma GCC unroll 2
          for (int v = 0; v < flushed_vectors; ++v)
            sums[part][r][v] =
                fused_flushed(simd::broadcast(a + r * 32 + i + part),
                              vec_f32::load(b + (i + part) * flushed_panel + v * lanes), sums[part][r][v]);
    }
    for (int r = 0; r < flushed_rows; ++r)
      for (int v = 0; v < flushed_vectors; ++v)
        c[r][v] = add_flushed(c[r][v], add_flushed(sums[0][r][v], sums[1][r][v]));
  }
}

// Not inlined: nothing of it moves out of the time in which subnormals are flushed.
template <Form form>
__attribute__((noinline)) void flushed_tile(const float* a, const float* b, std::int64_t depth, float* c) {
  constexpr int lanes = simd::vector_bytes / 4;
  vec_f32 sums[flushed_rows][flushed_vectors];
  for (int r = 0; r < flushed_rows; ++r)
    for (int v = 0; v < flushed_vectors; ++v) sums[r][v] = vec_f32::load(c + r * flushed_panel + v * lanes);
  for (std::int64_t k = 0; k < depth; k += 32) {
    const int count = depth - k < 32 ? static_cast<int>(depth - k) : 32;
    flushed_instruction<form>(a + k * flushed_rows, b + k * flushed_panel, count, sums);
  }
  for (int r = 0; r < flushed_rows; ++r)
    for (int v = 0; v < flushed_vectors; ++v) sums[r][v].store(c + r * flushed_panel + v * lanes);
}

// Rows of a in blocks of 32 products, row after row; what is missing is zero.
inline void pack_rows(const UnitProduct& u, std::int64_t row, std::int64_t rows, std::int64_t k0, std::int64_t depth,
                      std::int64_t padded, float* to) {
  for (std::int64_t k = 0; k < padded; k += 32)
    for (std::int64_t r = 0; r < flushed_rows; ++r)
      for (std::int64_t i = k; i < k + 32; ++i)
        *to++ = r < rows && i < depth ? u.a[(row + r) * u.a_row + (k0 + i) * u.a_step] : 0.0f;
}

template <Form form>
void flushed_product(const UnitProduct& u, const ProductRange& range, float* scratch) {
  float *const b = scratch, *const a = scratch + small_blocks.depth * flushed_panel;
  for (std::int64_t j = range.column_begin; j < range.column_end; j += flushed_panel) {
    const std::int64_t columns = range.column_end - j < flushed_panel ? range.column_end - j : flushed_panel;
    for (std::int64_t k0 = 0; k0 < u.k; k0 += small_blocks.depth) {
      const std::int64_t depth = u.k - k0 < small_blocks.depth ? u.k - k0 : small_blocks.depth;
      const std::int64_t padded = (depth + 31) / 32 * 32;
      const float* source = u.b + k0 * u.b_step + j * u.b_column;
      if (u.b_column == 1) {
        copy_rows<vec_f32, flushed_panel>(source, u.b_step, depth, columns, b);
      } else {
        copy_columns<float, flushed_panel>(source, u.b_column, depth, columns, b);
      }
      for (std::int64_t i = depth * flushed_panel; i < padded * flushed_panel; ++i) b[i] = 0;
      for (std::int64_t i = range.row_begin; i < range.row_end; i += flushed_rows) {
        const std::int64_t rows = range.row_end - i < flushed_rows ? range.row_end - i : flushed_rows;
        pack_rows(u, i, rows, k0, depth, padded, a);
        float tile[flushed_rows * flushed_panel] = {};
        for (std::int64_t r = 0; r < rows; ++r)
          for (std::int64_t v = 0; v < columns; ++v) tile[r * flushed_panel + v] = u.c[(i + r) * u.n + j + v];
        const unsigned before = start_flushing();
        flushed_tile<form>(a, b, form == Form::amx ? padded : (depth + 1) / 2 * 2, tile);
        stop_flushing(before);
        for (std::int64_t r = 0; r < rows; ++r)
          for (std::int64_t v = 0; v < columns; ++v) u.c[(i + r) * u.n + j + v] = tile[r * flushed_panel + v];
      }
    }
  }
}

// body(c, at) for each vector of the outputs of a range; `at` is where it stands in its row.
template <class Body>
GRADKERN_HD void for_outputs(const ProductRange& range, Body body) {
  constexpr std::int64_t lanes = simd::vector_bytes / 4;
  for (std::int64_t i = range.row_begin; i < range.row_end; ++i)
    for (std::int64_t j = range.column_begin; j < range.column_end; j += lanes)
      body(i, j, range.column_end - j < lanes ? range.column_end - j : lanes);
}

// The last rounding of the sums, the bias, and one NaN.
inline void finish(const UnitProduct& u, const ProductRange& range) {
  const vec_f32 nan = vec_f32(base::bit_cast<float>(mma::Hardware::nan(mma::Output::truncated)));
  const bool half = u.instruction.accumulate == formats::FormatId::float16;
  for_outputs(range, [&](std::int64_t i, std::int64_t j, std::int64_t count) {
    float* c = u.c + i * u.n + j;
    vec_f32 d = vec_f32::load_partial(c, count);
    if (u.instruction.form == Form::rounded_float) d = simd::round_to_f16(d);
    if (u.bias) d = d + vec_f32::load_partial(u.bias + i * u.bias_row + j, count);
    if (u.bias && half) d = simd::round_to_f16(d);
    select(d == d, d, nan).store_partial(c, count);
  });
}

template <class Acc, int rows>
void product_on_float_lanes(const UnitProduct& u, const ProductRange& range, float* scratch) {
  const ProductLanes<float> p{u.a, u.a_row, u.a_step, u.b, u.b_step, u.b_column, nullptr, 0, u.c, u.n, u.k, true};
  product<Acc, vec_f32, rows, 2>(p, range, {small_blocks, scratch});
}

template <int rows>
void rounded_unit_product(const UnitProduct& u, const ProductRange& range, char* scratch) {
  auto* const floats = reinterpret_cast<float*>(scratch);
  if (!u.continued)
    for_outputs(range, [&](std::int64_t i, std::int64_t j, std::int64_t count) {
      vec_f32(0.0f).store_partial(u.c + i * u.n + j, count);
    });
  if (u.k > 0) {
    switch (u.instruction.form) {
      case Form::amx:
        flushed_product<Form::amx>(u, range, floats);
        break;
      case Form::pairs:
        flushed_product<Form::pairs>(u, range, floats);
        break;
      case Form::separate_half:
        product_on_float_lanes<separate_half, 4>(u, range, floats);
        break;
      default:
        product_on_float_lanes<formats::float32, rows>(u, range, floats);
    }
  }
  finish(u, range);
}

}  // namespace
}  // namespace gradkern::cpu
