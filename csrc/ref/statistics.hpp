// Statistics the obvious way: long double sums, moments in two passes, binades by comparison. Its integers and extrema
// are the truth for every executor; its sums are what theirs approximate.
#pragma once

#include <cstdint>
#include <vector>

#include "ops/statistics.hpp"

namespace gradkern::ref {

struct Statistics {
  std::int64_t nan = 0, pos_inf = 0, neg_inf = 0, zero = 0, negative = 0, subnormal = 0, finite = 0;
  std::int64_t first_nonfinite = -1;
  double amax = 0, amin = __builtin_inf();
  long double l1 = 0, squares = 0, mean = 0, m2 = 0;
  std::vector<std::int64_t> cells = std::vector<std::int64_t>(ops::binade_count * ops::cell_count);
};

// The exponent e with 2^e <= magnitude < 2^(e + 1).
inline int binade(double magnitude) {
  int low = ops::binade_min, high = ops::binade_min + ops::binade_count;
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    (formats::exp2i(middle) <= magnitude ? low : high) = middle;
  }
  return low;
}

inline Statistics statistics(const std::vector<double>& values, double smallest_normal) {
  Statistics s;
  long double sum = 0;
  for (std::size_t i = 0; i < values.size(); ++i) {
    const double x = values[i], magnitude = x < 0 ? -x : x;
    s.nan += x != x;
    s.pos_inf += x == __builtin_inf();
    s.neg_inf += x == -__builtin_inf();
    if (x != x || magnitude == __builtin_inf()) {
      if (s.first_nonfinite < 0) s.first_nonfinite = static_cast<std::int64_t>(i);
      continue;
    }
    ++s.finite;
    s.zero += x == 0;
    s.negative += x < 0;
    s.subnormal += x != 0 && magnitude < smallest_normal;
    s.l1 += magnitude;
    s.squares += static_cast<long double>(x) * x;
    sum += x;
    if (x == 0) continue;
    if (magnitude > s.amax) s.amax = magnitude;
    if (magnitude < s.amin) s.amin = magnitude;
    const int exponent = binade(magnitude);
    const long double unit = formats::exp2i(exponent);
    int cell = ops::cell_count - 1;
    while (magnitude < ops::cell_edges[cell] * unit) --cell;
    if (cell == 1 && magnitude == unit) cell = 0;
    ++s.cells[static_cast<std::size_t>((exponent - ops::binade_min) * ops::cell_count + cell)];
  }
  s.mean = s.finite ? sum / s.finite : 0;
  for (const double x : values) {
    if (x - x == 0) s.m2 += (x - s.mean) * (x - s.mean);
  }
  return s;
}

}  // namespace gradkern::ref
