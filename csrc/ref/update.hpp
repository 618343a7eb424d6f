// One step of gradient descent, entry by entry, in chunks of 16384 whose counts merge in index
// order, as their 16 blocks do.
#pragma once

#include <cstdint>
#include <vector>

#include "ops/update.hpp"

namespace gradkern::ref {

inline constexpr std::int64_t update_block = 1024, update_chunk = 16384;

template <class F>
struct Updated {
  std::vector<typename F::container> stored;
  ops::UpdateCounts counts;
};

// weight holds values of F; stream: which tensor this is, for stochastic rounding.
template <class F>
Updated<F> update(const std::vector<double>& weight, const std::vector<double>& gradient, double rate,
                  const formats::Mode& mode, std::uint64_t stream) {
  Updated<F> result;
  ops::UpdateCounts chunk;
  ops::UpdateSums sums;
  for (std::size_t i = 0; i < weight.size(); ++i) {
    const auto index = static_cast<std::int64_t>(i);
    const std::uint64_t draw = formats::draw(mode, stream, index);
    result.stored.push_back(ops::update_entry<F>(weight[i], gradient[i], rate, mode, draw, index, chunk, sums));
    const bool last = i + 1 == weight.size();
    if ((i + 1) % update_block == 0 || last) {
      chunk.add(sums);
      sums = ops::UpdateSums();
    }
    if ((i + 1) % update_chunk == 0 || last) {
      result.counts.merge(chunk);
      chunk = ops::UpdateCounts();
    }
  }
  return result;
}

}  // namespace gradkern::ref
