// The product as written in the contract, one scalar step after another: the executable reference of every executor.
//
//   wide[i, j] = step(1, bias[i, j], step(a[i, k], b[k, j], ...)), k ascending from start[i, j], every value held as a double
#pragma once

#include <cstdint>
#include <vector>

#include "ops/dense.hpp"

namespace gradkern::ref {

// One step in Acc. Operands of float64 do not have exact products: they take the exact route.
template <class Acc>
double step(double x, double w, double sum, bool double_operands) {
  if constexpr (Acc::id == formats::FormatId::float64) {
    return ops::step<Acc>(x, w, sum);
  } else if (double_operands) {
    return ops::exact_step<Acc>(x, w, sum);
  } else if constexpr (Acc::id == formats::FormatId::float32) {
    return ops::step<Acc>(static_cast<float>(x), static_cast<float>(w), static_cast<float>(sum));
  } else {
    return ops::step<Acc>(x, w, sum);
  }
}

// a is (m, k) and b is (k, n), row-major, already rounded to the operand format; bias is (n,), (m, n) or empty; start is
// (m, n), or empty for +0.
template <class Acc>
std::vector<double> product(std::int64_t m, std::int64_t n, std::int64_t k, const std::vector<double>& a,
                            const std::vector<double>& b, const std::vector<double>& bias, bool double_operands,
                            const std::vector<double>& start = {}) {
  std::vector<double> wide;
  for (std::int64_t i = 0; i < m; ++i) {
    for (std::int64_t j = 0; j < n; ++j) {
      const auto entry = static_cast<std::size_t>(i * n + j);
      double sum = start.empty() ? 0 : start[entry];
      for (std::int64_t l = 0; l < k; ++l) {
        const double x = a[static_cast<std::size_t>(i * k + l)], w = b[static_cast<std::size_t>(l * n + j)];
        sum = step<Acc>(x, w, sum, double_operands);
      }
      if (!bias.empty()) sum = step<Acc>(1.0, bias[entry % bias.size()], sum, double_operands);
      wide.push_back(ops::canonical_nan(sum));
    }
  }
  return wide;
}

}  // namespace gradkern::ref
