// How many magnitudes of a block lie in each binade, without a table.
//
// A byte per entry codes how many binades it lies below the largest. Eight binades at a time are counted by comparing
// bytes and subtracting the masks, from the largest down: half of what is left falls to each, so a few stragglers soon
// remain, and those are visited one by one. On Zen 3 that is 0.3 cycles an entry where incrementing a table takes 2.
#pragma once

#include "cpu/kernels.hpp"
#include "ops/statistics.hpp"
#include "simd/lanes.hpp"

namespace gradkern::cpu {
namespace {

inline constexpr int counted_together = 8;
inline constexpr std::int64_t stragglers = 64;  // few enough to be visited one by one
inline constexpr int deepest = 255;             // codes nothing less deep

// counts[j] = number of bytes equal to code(depth + j); n is a multiple of simd::vector_bytes, a block's at most.
template <class Code>
GRADKERN_HD void count_depths(const std::uint8_t* codes, std::int64_t n, int depth, Code code,
                              std::int64_t (&counts)[counted_together]) {
  using simd::bytes;
  bytes counters[counted_together], wanted[counted_together];
  for (int j = 0; j < counted_together; ++j) {
    counters[j] = bytes(0);
    wanted[j] = bytes(code(depth + j));
  }
  for (std::int64_t i = 0; i < n; i += simd::vector_bytes) {
    const bytes c = bytes::load(codes + i);
#pragma GCC unroll 8
    for (int j = 0; j < counted_together; ++j) counters[j].v -= (bytes::native)(c.v == wanted[j].v);
  }
  for (int j = 0; j < counted_together; ++j) counts[j] = simd::sum_of(counters[j]);
}

// visit(i) for every byte i in low .. high. Where few are expected: positions are gathered without branches, as those
// would be mispredicted.
template <class Visit>
GRADKERN_HD void visit_between(const std::uint8_t* codes, std::int64_t n, std::uint8_t low, std::uint8_t high,
                               Visit visit) {
  using simd::bytes;
  const bytes base(low), span(static_cast<std::uint8_t>(high - low));
  std::uint16_t positions[ops::statistics_block + 2];
  int gathered = 0;
  for (std::int64_t i = 0; i < n; i += simd::vector_bytes) {
    const bytes above = bytes::load(codes + i) - base;
    std::uint64_t found = simd::bits_of(bytes::wrap(simd::min(above, span).v == above.v));
    for (int k = 0; k < 2; ++k) {
      positions[gathered] = static_cast<std::uint16_t>(i + __builtin_ctzll(found | std::uint64_t(1) << 63));
      gathered += found != 0;
      found &= found - 1;
    }
    for (; found; found &= found - 1) positions[gathered++] = static_cast<std::uint16_t>(i + __builtin_ctzll(found));
  }
  for (int k = 0; k < gathered; ++k) visit(positions[k]);
}

// add(depth, count): count entries lie depth binades below the largest, `bottom` at most. code(depth) is monotonic;
// nonzero: entries that are not zero, which have other codes than 0 .. bottom, unless bottom is `deepest` or more.
// straggler(i) adds entry i by itself.
template <class Code, class Add, class Straggler>
GRADKERN_HD void count_binades(const std::uint8_t* codes, std::int64_t n, std::int64_t nonzero, int bottom, Code code,
                               Add add, Straggler straggler) {
  int depth = 0;
  for (; nonzero > stragglers && depth + counted_together <= deepest; depth += counted_together) {
    std::int64_t counts[counted_together];
    count_depths(codes, n, depth, code, counts);
    for (int j = 0; j < counted_together && depth + j <= bottom; ++j) {
      if (counts[j] == 0) continue;
      add(depth + j, counts[j]);
      nonzero -= counts[j];
    }
  }
  if (nonzero == 0) return;
  const std::uint8_t first = code(depth), last = code(bottom < deepest ? bottom : deepest);
  visit_between(codes, n, first < last ? first : last, first < last ? last : first, straggler);
}

}  // namespace
}  // namespace gradkern::cpu
