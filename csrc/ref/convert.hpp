// Conversion as written in the contract: scale in float64, round once, and count what that lost, in chunks of 16384
// whose counts merge in index order, as their 16 blocks do.
#pragma once

#include <cstdint>
#include <vector>

#include "formats/encode.hpp"
#include "ops/rounding.hpp"

namespace gradkern::ref {

inline constexpr std::int64_t convert_block = 1024, convert_chunk = 16384;

template <class F>
struct Converted {
  std::vector<typename F::container> stored;
  ops::RoundingCounts counts;
};

// stream: which tensor this is, for stochastic rounding.
template <class F>
Converted<F> convert(const std::vector<double>& source, double scale, const formats::Mode& mode, std::uint64_t stream) {
  Converted<F> result;
  ops::RoundingCounts chunk;
  ops::RoundingSums sums;
  for (std::size_t i = 0; i < source.size(); ++i) {
    const double exact = source[i] * scale;
    const std::uint64_t draw = formats::draw(mode, stream, static_cast<std::int64_t>(i));
    const auto encoded = ops::encode_scaled<F>(source[i], exact, mode, draw);
    result.stored.push_back(encoded.bits);
    ops::record_rounding<F>(exact, encoded, static_cast<std::int64_t>(i), chunk, sums);
    const bool last = i + 1 == source.size();
    if ((i + 1) % convert_block == 0 || last) {
      chunk.add(sums);
      sums = ops::RoundingSums();
    }
    if ((i + 1) % convert_chunk == 0 || last) {
      result.counts.merge(chunk);
      chunk = ops::RoundingCounts();
    }
  }
  return result;
}

}  // namespace gradkern::ref
