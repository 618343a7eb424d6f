// Statistics of a tensor in one read: counts, extrema, moments (ops/moments.hpp) and binades (ops/binades.hpp).
//
// Counts, extrema and binades are integers and selections: exact in any order. Moments are merged block by block
// within a chunk and chunk by chunk, in index order: bits depend on neither threads nor instruction set. Large tensors
// of few bits are measured by pattern instead (ops/patterns.hpp).
#pragma once

#include <memory>

#include "ops/binades.hpp"
#include "ops/moments.hpp"

namespace gradkern::ops {

inline constexpr std::int64_t statistics_block = 2048, statistics_chunk = 8 * statistics_block;

// Formats whose large tensors are measured by pattern: those of 8 bits. Large is sixteen entries for each pattern that
// there is: below, going through the patterns would cost more than it saves.
template <class F>
inline constexpr bool counts_patterns = sizeof(typename F::container) == 1;

template <class F>
GRADKERN_HD bool measured_by_pattern(std::int64_t size) {
  if constexpr (counts_patterns<F>) return size >= std::int64_t(16) << (8 * sizeof(typename F::container));
  return false;
}

struct Statistics {
  std::int64_t size = 0, nan = 0, pos_inf = 0, neg_inf = 0, zero = 0, negative = 0, subnormal = 0;
  std::int64_t first_nonfinite = -1;
  double amax = 0, amin = __builtin_inf();  // amin: the smallest non-zero magnitude
  Moments moments;
  Binades binades;

  GRADKERN_HD void reset() {
    size = nan = pos_inf = neg_inf = zero = negative = subnormal = 0;
    first_nonfinite = -1;
    amax = 0;
    amin = __builtin_inf();
    moments = Moments();
    binades.first = binades.last = 0;
  }

  // Everything but the moments, which have an order.
  GRADKERN_HD void merge_counts(const Statistics& other) {
    size += other.size;
    nan += other.nan;
    pos_inf += other.pos_inf;
    neg_inf += other.neg_inf;
    zero += other.zero;
    negative += other.negative;
    subnormal += other.subnormal;
    if (other.first_nonfinite >= 0 && (first_nonfinite < 0 || other.first_nonfinite < first_nonfinite))
      first_nonfinite = other.first_nonfinite;
    if (other.amax > amax) amax = other.amax;
    if (other.amin < amin) amin = other.amin;
    binades.merge(other.binades);
  }
};

// Empty statistics on the heap. Most of their 100 KB is rows that are cleared when they are first used.
inline std::unique_ptr<Statistics> make_statistics() { return std::unique_ptr<Statistics>(new Statistics); }

// Counts an entry that occurs so many times; false for a non-finite one.
GRADKERN_HD bool count_entry(Statistics& s, double x, std::int64_t index, std::int64_t times = 1) {
  const double magnitude = abs(x);
  if (!(magnitude < __builtin_inf())) {
    (x != x ? s.nan : x > 0 ? s.pos_inf : s.neg_inf) += times;
    if (s.first_nonfinite < 0 || index < s.first_nonfinite) s.first_nonfinite = index;
    return false;
  }
  if (magnitude == 0) {
    s.zero += times;
    return true;
  }
  if (x < 0) s.negative += times;
  if (magnitude > s.amax) s.amax = magnitude;
  if (magnitude < s.amin) s.amin = magnitude;
  s.binades.add(x, times);
  return true;
}

// One block, entry by entry: the definition, and what runs where lanes cannot, on subnormals of float64 and sums beyond
// it. index is that of value(0); count is at most statistics_block.
template <class Value>
GRADKERN_HD void measure_block(Statistics& s, Moments& moments, Value value, std::int64_t index, std::int64_t count) {
  std::int64_t finite = 0;
  double largest = -__builtin_inf(), smallest = __builtin_inf();
  for (std::int64_t i = 0; i < count; ++i) {
    const double x = value(i);
    if (!count_entry(s, x, index + i)) continue;
    ++finite;
    if (x > largest) largest = x;
    if (x < smallest) smallest = x;
  }
  s.size += count;
  const int range = range_of(-smallest > largest ? -smallest : largest);
  const double scale = range_scale(range);
  Lanes lanes;
  const auto each = [&](auto add) {
    for (std::int64_t i = 0; i < count; ++i) {
      const double x = value(i) * scale;
      if (abs(x) < __builtin_inf()) add(i % statistics_lanes, x);
    }
  };
  each([&](std::int64_t lane, double x) {
    lanes.sum[lane] += x;
    lanes.magnitude[lane] += abs(x);
    lanes.square[lane] += x * x;
  });
  moments.merge(block_moments(lanes, finite, range, largest == smallest, [&](double mean) {
    Deviations d;
    each([&](std::int64_t lane, double x) {
      d.sum[lane] += x - mean;
      d.square[lane] += (x - mean) * (x - mean);
    });
    return d;
  }));
}

// Entries below the smallest normal 2^min_exponent, from the binades.
GRADKERN_HD void count_subnormals(Statistics& s, int min_exponent) {
  s.subnormal = 0;
  for (int b = s.binades.first; b < s.binades.last && b < min_exponent; ++b)
    for (int c = 0; c < cell_count; ++c) s.subnormal += s.binades.row(b)[c];
}

}  // namespace gradkern::ops
