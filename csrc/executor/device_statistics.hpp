// From the partial results that a device leaves of a tensor to its statistics.
#pragma once

#include <numeric>

#include "executor/device.hpp"
#include "ops/patterns.hpp"

namespace gradkern::executor {

// Counts and extrema of a tensor's chunks, the moments in index order, and the rows of its binades that hold anything.
template <class F>
void gather_chunks(const StatisticsChunk* parts, std::int64_t chunks, const std::int64_t* cells, std::int64_t size,
                   ops::Statistics& s) {
  using Range = BinadeRange<F>;
  s.reset();
  s.size = size;
  for (std::int64_t c = 0; c < chunks; ++c) {
    const StatisticsChunk& part = parts[c];
    s.nan += part.nan;
    s.pos_inf += part.pos_inf;
    s.neg_inf += part.neg_inf;
    s.zero += part.zero;
    s.negative += part.negative;
    if (s.first_nonfinite < 0) s.first_nonfinite = part.first_nonfinite;
    if (part.amax > s.amax) s.amax = part.amax;
    if (part.amin < s.amin) s.amin = part.amin;
    s.moments.merge(part.moments);
  }
  for (int binade = Range::first; binade < Range::last; ++binade) {
    const std::int64_t* row = cells + (binade - Range::first) * ops::cell_count;
    if (std::accumulate(row, row + ops::cell_count, std::int64_t(0)) == 0) continue;
    s.binades.cover(binade, binade + 1);
    for (int c = 0; c < ops::cell_count; ++c) s.binades.row(binade)[c] = row[c];
  }
  ops::count_subnormals(s, formats::Layout<F>::min_exponent);
}

// From how often each bit pattern occurs; first_nonfinite: the first entry that is not finite, where there is one.
template <class F>
void gather_patterns(const std::int64_t* counts, std::int64_t first_nonfinite, ops::Statistics& s) {
  s.reset();
  if constexpr (ops::counts_patterns<F>) ops::statistics_of_patterns<F>(counts, s);
  if (s.nan + s.pos_inf + s.neg_inf) s.first_nonfinite = first_nonfinite;
  ops::count_subnormals(s, formats::Layout<F>::min_exponent);
}

}  // namespace gradkern::executor
