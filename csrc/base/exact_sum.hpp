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

  // Numbers of one sign whose sum it is, to be rounded once by whoever adds them; infinite where float64 ends.
  std::vector<double> parts() const {
    Words words = carried(words_);
    const double sign = words.back() < 0 ? -1 : 1;
    if (sign < 0) {
      for (std::size_t i = 0; i < words.size(); ++i) words[i] = -words_[i];
      words = carried(words);
    }
    std::vector<double> list;
    for (std::size_t i = 0; i < words.size(); ++i)
      if (words[i]) list.push_back(sign * std::ldexp(static_cast<double>(words[i]), 32 * static_cast<int>(i) - 1074));
    return list;
  }

 private:
  using Words = std::array<std::int64_t, 67>;

  // The same number, all but the highest word in [0, 2^32).
  static Words carried(Words words) {
    for (std::size_t i = 0; i + 1 < words.size(); ++i) {
      const std::int64_t carry = words[i] >> 32;
      words[i] -= carry * (std::int64_t(1) << 32);
      words[i + 1] += carry;
    }
    return words;
  }

  Words words_{};
};

}  // namespace gradkern::base
