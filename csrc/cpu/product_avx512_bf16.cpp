// VDPBF16PS: eight rows and two vectors of sums in registers, two products at a time.
#include <immintrin.h>

#include "cpu/bfloat.inl.hpp"

namespace gradkern::cpu {
namespace {

constexpr int rows_at_a_time = 8;

__m512bh pairs(__m512i words) { return (__m512bh)words; }

__attribute__((noinline)) void multiply_rows(const BfloatBlock& block, const std::uint32_t* a, bool starts,
                                             float* sums) {
  __m512 c[rows_at_a_time][2];
#pragma GCC unroll 8
  for (int r = 0; r < rows_at_a_time; ++r)
    for (int v = 0; v < 2; ++v)
      c[r][v] = starts ? _mm512_setzero_ps() : _mm512_loadu_ps(sums + r * bfloat_columns + v * 16);
  const std::int64_t words = (block.depth + 1) / 2;
  const std::uint32_t* b = block.b;
  for (std::int64_t first = 0; first < words; first += tile_side, a += tile_words) {
    const std::int64_t count = words - first < tile_side ? words - first : tile_side;
    for (std::int64_t i = 0; i < count; ++i, b += bfloat_columns) {
      const __m512i left = _mm512_loadu_si512(b), right = _mm512_loadu_si512(b + 16);
#pragma GCC unroll 8
      for (int r = 0; r < rows_at_a_time; ++r) {
        const __m512bh x = pairs(_mm512_set1_epi32(static_cast<int>(a[r * tile_side + i])));
        c[r][0] = _mm512_dpbf16_ps(c[r][0], x, pairs(left));
        c[r][1] = _mm512_dpbf16_ps(c[r][1], x, pairs(right));
      }
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < rows_at_a_time; ++r)
    for (int v = 0; v < 2; ++v) _mm512_storeu_ps(sums + r * bfloat_columns + v * 16, c[r][v]);
}

void multiply(const BfloatBlock& block, std::int64_t row_tile, std::int64_t rows, bool starts, float* sums) {
  for (std::int64_t r = 0; r < rows; r += rows_at_a_time)
    multiply_rows(block, block.tile(row_tile + r / tile_side, 0) + r % tile_side * tile_side, starts,
                  sums + r * bfloat_columns);
}

}  // namespace

void avx512_bf16_product(const BfloatProduct& p, const ProductRange& range, char* scratch) {
  bfloat_product(p, range, scratch, multiply);
}

}  // namespace gradkern::cpu
