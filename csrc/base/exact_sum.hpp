// The sum of finite float64 numbers without any rounding: a fixed-point number of 2176 bits, its words added up apart
// (Neal 2015, "Fast exact summation using small and large superaccumulators", section 2).
#pragma once

#include <array>
#include <cmath>
#include <cstdint>
#include <vector>

#include "base/bits.hpp"

namespace gradkern::base {

class ExactSum {
 public:
  // Exact for 2^30 numbers at least.
  void add(double x) {
    const auto bits = bit_cast<std::uint64_t>(x);
    const auto field = static_cast<unsigned>(bits >> 52) & 0x7FF;
    std::uint64_t magnitude = bits & 0xFFFFFFFFFFFFFu;
    if (field) magnitude |= std::uint64_t(1) << 52;
    const unsigned place = field ? field - 1 : 0, word = place / 32;  // x = magnitude 2^(place - 1074)
    const std::uint64_t low = magnitude << place % 32, high = place % 32 ? magnitude >> (64 - place % 32) : 0;
    const std::int64_t sign = x < 0 ? -1 : 1;
    words_[word] += sign * static_cast<std::int64_t>(low & 0xFFFFFFFFu);
    words_[word + 1] += sign * static_cast<std::int64_t>(low >> 32);
    words_[word + 2] += sign * static_cast<std::int64_t>(high);
  }

  // Numbers whose sum it is, to be rounded once by whoever adds them; infinite where one is beyond float64.
  std::vector<double> parts() const {
    std::vector<double> list;
    for (std::size_t word = 0; word < words_.size(); ++word) {
      const std::int64_t high = words_[word] / (std::int64_t(1) << 32), low = words_[word] % (std::int64_t(1) << 32);
      const int place = 32 * static_cast<int>(word) - 1074;
      if (low) list.push_back(std::ldexp(static_cast<double>(low), place));
      if (high) list.push_back(std::ldexp(static_cast<double>(high), place + 32));
    }
    return list;
  }

 private:
  std::array<std::int64_t, 66> words_{};
};

}  // namespace gradkern::base
