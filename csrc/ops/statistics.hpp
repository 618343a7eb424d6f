// Statistics of a tensor in one read: counts, extrema, range-safe sums, and how many magnitudes lie in each binade.
//
// binade b holds 2^b <= |x| < 2^(b+1); `powers` counts those equal to 2^b. Every format's flush threshold is a power of
// two whose tie rounds to zero, so binades and powers together say exactly how many entries flush at any power-of-two
// scale. Sums run over 16 logical lanes within a fixed chunk and are combined in index order: bits do not depend on
// threads. Moments of chunks merge as in Chan, Golub, LeVeque (1983).
#pragma once

#include "ops/rounding.hpp"

namespace gradkern::ops {

inline constexpr int binade_min = -1074, binade_count = 2098;
inline constexpr int statistics_lanes = 16;
inline constexpr std::int64_t statistics_chunk = 16384;

struct Statistics {
  std::int64_t size = 0, nan = 0, pos_inf = 0, neg_inf = 0, zero = 0, negative = 0, subnormal = 0;
  std::int64_t first_nonfinite = -1;
  double amax = 0, amin = __builtin_inf();  // amin: the smallest non-zero magnitude
  double l1 = 0;
  SquareSum squares;
  double finite_count = 0, mean = 0, m2 = 0;  // over finite entries; m2 = sum of squared deviations
  std::int64_t binades[binade_count] = {}, powers[binade_count] = {};

  GRADKERN_HD void merge(const Statistics& other) {
    size += other.size;
    nan += other.nan;
    pos_inf += other.pos_inf;
    neg_inf += other.neg_inf;
    zero += other.zero;
    negative += other.negative;
    subnormal += other.subnormal;
    if (first_nonfinite < 0) first_nonfinite = other.first_nonfinite;
    if (other.amax > amax) amax = other.amax;
    if (other.amin < amin) amin = other.amin;
    l1 += other.l1;
    squares.merge(other.squares);
    const double total = finite_count + other.finite_count;
    if (other.finite_count > 0) {
      const double delta = other.mean - mean;
      m2 += other.m2 + delta * delta * (finite_count * other.finite_count / total);
      mean += delta * (other.finite_count / total);
      finite_count = total;
    }
    for (int b = 0; b < binade_count; ++b) {
      binades[b] += other.binades[b];
      powers[b] += other.powers[b];
    }
  }
};

// floor(log2 |x|) for finite non-zero x.
GRADKERN_HD int binade_of(double x) {
  const std::uint64_t magnitude = static_cast<std::uint64_t>(to_bits(x)) & 0x7FFFFFFFFFFFFFFFu;
  if (magnitude >> 52) return static_cast<int>(magnitude >> 52) - 1023;
  return -1074 + 63 - __builtin_clzll(magnitude);
}

// Adds one entry to the counts, extrema and binades; false for a non-finite one.
GRADKERN_HD bool count_entry(Statistics& s, double x, std::int64_t index, double smallest_normal) {
  if (!(abs(x) < __builtin_inf())) {
    ++(x != x ? s.nan : x > 0 ? s.pos_inf : s.neg_inf);
    if (s.first_nonfinite < 0) s.first_nonfinite = index;
    return false;
  }
  const double magnitude = abs(x);
  if (magnitude == 0) {
    ++s.zero;
    return true;
  }
  s.negative += x < 0;
  s.subnormal += magnitude < smallest_normal;
  if (magnitude > s.amax) s.amax = magnitude;
  if (magnitude < s.amin) s.amin = magnitude;
  const int binade = binade_of(x) - binade_min;
  ++s.binades[binade];
  s.powers[binade] += magnitude == formats::exp2i(binade + binade_min);
  return true;
}

// Adds up to statistics_chunk entries value(begin) .. value(end - 1) to s, which must be empty.
template <class Value>
GRADKERN_HD void measure_chunk(Statistics& s, Value value, std::int64_t begin, std::int64_t end,
                               double smallest_normal) {
  double sums[statistics_lanes] = {}, magnitudes[statistics_lanes] = {}, deviations[statistics_lanes] = {};
  SquareSum squares[statistics_lanes];
  std::int64_t finite = 0;
  for (std::int64_t i = begin; i < end; ++i) {
    const double x = value(i);
    if (!count_entry(s, x, i, smallest_normal)) continue;
    const int lane = static_cast<int>((i - begin) % statistics_lanes);
    ++finite;
    sums[lane] += x;
    magnitudes[lane] += abs(x);
    squares[lane].add(x);
  }
  double sum = 0;
  for (int lane = 0; lane < statistics_lanes; ++lane) {
    sum += sums[lane];
    s.l1 += magnitudes[lane];
    s.squares.merge(squares[lane]);
  }
  s.size = end - begin;
  s.finite_count = static_cast<double>(finite);
  s.mean = finite ? sum / s.finite_count : 0;
  for (std::int64_t i = begin; i < end; ++i) {
    const double x = value(i);
    if (!(abs(x) < __builtin_inf())) continue;
    const double deviation = x - s.mean;
    deviations[(i - begin) % statistics_lanes] += deviation * deviation;
  }
  for (int lane = 0; lane < statistics_lanes; ++lane) s.m2 += deviations[lane];
}

}  // namespace gradkern::ops
