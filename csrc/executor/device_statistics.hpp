// From the partial results that a device leaves of a tensor to its statistics.
#pragma once

#include <algorithm>

#include "executor/device.hpp"
#include "ops/patterns.hpp"

namespace gradkern::executor {

// Counts and extrema of a tensor's chunks, the moments in index order, and the binades between its extrema.
template <class F>
void gather_chunks(const StatisticsChunk* parts, std::int64_t chunks, const std::int64_t* cells, std::int64_t size,
                   ops::Statistics& s) {
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
  if (s.amax > 0) {
    const int first = ops::binade_of(s.amin), last = ops::binade_of(s.amax) + 1;
    s.binades.cover(first, last);
    const std::int64_t* row = cells + (first - BinadeRange<F>::first) * ops::cell_count;
    std::copy(row, row + (last - first) * ops::cell_count, s.binades.row(first));
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
