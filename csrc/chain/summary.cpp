#include "chain/summary.hpp"

#include "base/thread_pool.hpp"

namespace gradkern::chain {
namespace {

constexpr std::int64_t large = 4 * ops::statistics_chunk;  // worth the threads by itself

Summary trim(const ops::Statistics& s) {
  const auto& b = s.binades;
  const auto empty = [&](int binade) {
    for (int c = 0; c < ops::cell_count; ++c)
      if (b.row(binade)[c] != 0) return false;
    return true;
  };
  int first = b.first, last = b.last;
  while (first < last && empty(last - 1)) --last;
  while (first < last && empty(first)) ++first;
  Summary result{s.size, s.nan,  s.pos_inf, s.neg_inf, s.zero, s.negative, s.subnormal, s.first_nonfinite,
                 s.amax, s.amin, s.moments, 0,         {}};
  if (first == last) return result;
  result.first_binade = first;
  result.cells.assign(b.row(first), b.row(last - 1) + ops::cell_count);
  return result;
}

Summary summarise(const executor::Executor& e, const Source& tensor, ops::Statistics& scratch) {
  e.statistics(e, {tensor.size, tensor.format, tensor.data, &scratch});
  return trim(scratch);
}

}  // namespace

Summary summarise(const executor::Executor& e, const Source& tensor) {
  return summarise(e, tensor, *ops::make_statistics());
}

std::vector<Summary> summarise(const executor::Executor& e, const std::vector<Source>& tensors) {
  std::vector<Summary> summaries(tensors.size());
  std::vector<std::size_t> starts;  // of runs of small tensors that together are worth a thread
  std::int64_t gathered = large;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    if (tensors[i].size >= large) {
      summaries[i] = summarise(e, tensors[i]);
      continue;
    }
    if (gathered >= large) {
      starts.push_back(i);
      gathered = 0;
    }
    gathered += tensors[i].size + ops::statistics_block;  // a tensor has its cost even when empty
  }
  starts.push_back(tensors.size());
  base::parallel_for(static_cast<std::int64_t>(starts.size()) - 1, [&](std::int64_t run) {
    const auto r = static_cast<std::size_t>(run);
    const auto scratch = ops::make_statistics();
    for (std::size_t i = starts[r]; i < starts[r + 1]; ++i)
      if (tensors[i].size < large) summaries[i] = summarise(e, tensors[i], *scratch);
  });
  return summaries;
}

}  // namespace gradkern::chain
