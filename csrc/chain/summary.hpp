// Statistics without the empty ends of its binades: what a record keeps for each of thousands of tensors.
#pragma once

#include <vector>

#include "ops/statistics.hpp"

namespace gradkern::chain {

struct Summary {
  std::int64_t size = 0, nan = 0, pos_inf = 0, neg_inf = 0, zero = 0, negative = 0, subnormal = 0, first_nonfinite = -1;
  double amax = 0, amin = 0, l1 = 0, finite_count = 0, mean = 0, m2 = 0;
  ops::SquareSum squares;
  int first_binade = 0;
  std::vector<std::int64_t> binades, powers;
};

inline Summary trim(const ops::Statistics& s) {
  int first = 0, last = ops::binade_count;
  while (last > 0 && s.binades[last - 1] == 0) --last;
  while (first < last && s.binades[first] == 0) ++first;
  return {s.size,
          s.nan,
          s.pos_inf,
          s.neg_inf,
          s.zero,
          s.negative,
          s.subnormal,
          s.first_nonfinite,
          s.amax,
          s.amin,
          s.l1,
          s.finite_count,
          s.mean,
          s.m2,
          s.squares,
          first + ops::binade_min,
          std::vector<std::int64_t>(s.binades + first, s.binades + last),
          std::vector<std::int64_t>(s.powers + first, s.powers + last)};
}

}  // namespace gradkern::chain
