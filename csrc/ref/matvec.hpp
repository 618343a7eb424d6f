// Matrix times vector the obvious way: truth for every executor.
#pragma once

#include <cstdint>
#include <vector>

#include "ops/matvec.hpp"

namespace gradkern::ref {

inline std::vector<double> matvec(std::int64_t rows, std::int64_t columns, const std::vector<double>& w,
                                  const std::vector<double>& x, bool transposed) {
  std::vector<double> y(static_cast<std::size_t>(transposed ? columns : rows));
  for (std::int64_t i = 0; i < rows; ++i) {
    double lane[ops::matvec_lanes] = {};
    for (std::int64_t j = 0; j < columns; ++j) {
      const double entry = w[static_cast<std::size_t>(i * columns + j)];
      double& sum = transposed ? y[static_cast<std::size_t>(j)] : lane[j % ops::matvec_lanes];
      sum = ops::fma(entry, x[static_cast<std::size_t>(transposed ? i : j)], sum);
    }
    if (!transposed) y[static_cast<std::size_t>(i)] = ops::fold(lane);
  }
  return y;
}

}  // namespace gradkern::ref
