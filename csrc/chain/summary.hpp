// Statistics without the empty ends of their binades: what a record keeps for each of thousands of tensors.
#pragma once

#include <vector>

#include "chain/tensor.hpp"
#include "ops/statistics.hpp"

namespace gradkern::chain {

struct Summary {
  std::int64_t size = 0, nan = 0, pos_inf = 0, neg_inf = 0, zero = 0, negative = 0, subnormal = 0, first_nonfinite = -1;
  double amax = 0, amin = 0;
  ops::Moments moments;
  int first_binade = 0;
  std::vector<std::int64_t> cells;  // (binades, ops::cell_count)
};

Summary trimmed(const ops::Statistics& statistics);

Summary summarise(const executor::Executor& e, const Source& tensor);

// One summary per tensor; threads share the small ones out, and share the work of each large one. The largest of the
// format of `next` has that fetched from memory meanwhile.
std::vector<Summary> summarise(const executor::Executor& e, const std::vector<Source>& tensors,
                               const Source& next = {});

}  // namespace gradkern::chain
