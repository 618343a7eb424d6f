// How many magnitudes lie in each cell of each binade; what `fit` reads.
//
// Binade b holds 2^b <= |x| < 2^(b+1). It is cut at the significands where some format's rounding turns: a flush
// threshold is a power of two whose tie rounds to zero; with p significand bits the largest finite value rounds up from
// 2 - 2^-p, and a subnormal rounds up to the smallest normal from 2 - 2^(1-p), ties included. Cell 0 is the power of
// two itself, cell 1 lies above it, and cell c >= 2 begins at cell_edges[c].
#pragma once

#include "formats/format.hpp"
#include "ops/number.hpp"

namespace gradkern::ops {

inline constexpr int binade_min = -1074, binade_count = 2098;
inline constexpr double cell_edges[] = {1, 1, 2 - 0x1p-10, 2 - 0x1p-11, 2 - 0x1p-23, 2 - 0x1p-24};
inline constexpr int cell_count = 6;

// The cell of a significand 1 + fraction * 2^-52.
GRADKERN_HD int cell_of(std::uint64_t fraction) {
  constexpr std::uint64_t one = std::uint64_t(1) << 52;
  const auto from = [&](int bits) { return int(fraction >= one - (one >> bits)); };
  return int(fraction != 0) + from(10) + from(11) + from(23) + from(24);  // no branches to be mispredicted
}

// floor(log2 |x|) for finite non-zero x.
GRADKERN_HD int binade_of(double x) {
  const std::uint64_t magnitude = static_cast<std::uint64_t>(to_bits(x)) & 0x7FFFFFFFFFFFFFFFu;
  if (magnitude >> 52) return static_cast<int>(magnitude >> 52) - 1023;
  return binade_min + 63 - __builtin_clzll(magnitude);
}

// The fraction of |x| against the leading bit, at the top of 52 bits.
GRADKERN_HD std::uint64_t fraction_of(double x) {
  const std::uint64_t magnitude = static_cast<std::uint64_t>(to_bits(x)) & 0x7FFFFFFFFFFFFFFFu;
  constexpr std::uint64_t mask = (std::uint64_t(1) << 52) - 1;
  if (magnitude >> 52) return magnitude & mask;
  return (magnitude << (__builtin_clzll(magnitude) - 11)) & mask;
}

// Only the rows of binades [first, last) hold anything: the rest is neither cleared nor read.
struct Binades {
  int first = 0, last = 0;
  std::int64_t rows[binade_count][cell_count];

  GRADKERN_HD std::int64_t* row(int binade) { return rows[binade - binade_min]; }
  GRADKERN_HD const std::int64_t* row(int binade) const { return rows[binade - binade_min]; }

  // Makes the rows of [low, high) valid.
  GRADKERN_HD void cover(int low, int high) {
    if (first == last) first = last = low;
    for (; first > low;) clear(--first);
    for (; last < high;) clear(last++);
  }
  GRADKERN_HD void add(double x, std::int64_t times) {
    const int binade = binade_of(x);
    cover(binade, binade + 1);
    row(binade)[cell_of(fraction_of(x))] += times;
  }
  GRADKERN_HD void merge(const Binades& other) {
    if (other.first == other.last) return;
    cover(other.first, other.last);
    for (int b = other.first; b < other.last; ++b)
      for (int c = 0; c < cell_count; ++c) row(b)[c] += other.row(b)[c];
  }

 private:
  GRADKERN_HD void clear(int binade) {
    for (int c = 0; c < cell_count; ++c) row(binade)[c] = 0;
  }
};

}  // namespace gradkern::ops
