#include "chain/summary.hpp"

namespace gradkern::chain {

Summary trimmed(const ops::Statistics& s) {
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

Summary summarise(const executor::Executor& e, const Source& tensor) {
  const executor::StatisticsArgs args{tensor.size, tensor.format, tensor.data};
  Summary summary;
  e.statistics(e, &args, 1, [&](std::int64_t, const ops::Statistics& s) { summary = trimmed(s); });
  return summary;
}

std::vector<Summary> summarise(const executor::Executor& e, const std::vector<Source>& tensors, const Source& next) {
  std::vector<executor::StatisticsArgs> args;
  executor::StatisticsArgs* largest = nullptr;
  args.reserve(tensors.size());
  for (const Source& t : tensors) {
    args.push_back({t.size, t.format, t.data});
    if (t.format == next.format && (!largest || t.size > largest->size)) largest = &args.back();
  }
  if (largest && next.data) largest->next = next.data;
  std::vector<Summary> summaries(tensors.size());
  e.statistics(e, args.data(), static_cast<std::int64_t>(args.size()),
               [&](std::int64_t i, const ops::Statistics& s) { summaries[static_cast<std::size_t>(i)] = trimmed(s); });
  return summaries;
}

}  // namespace gradkern::chain
