// Sums over finite entries that merge: count, mean, squares about the mean, squares, magnitudes.
//
// A block sums x, |x| and x^2 in 16 float64 lanes (entry i in lane i % 16), folded as lane j + lane j + 8, then 4, 2, 1.
// Its squares about the mean are Q - S^2 / n; where that would cancel more than 6 bits, d = x - S / n are summed, too:
// the mean is S / n + D / n in two words, the squares are those of d less D^2 / n. Blocks merge in index order as in
// Chan, Golub, LeVeque (1983). Squares that leave float64 are held scaled (Blue 1978).
#pragma once

#include "ops/rounding.hpp"

namespace gradkern::ops {

inline constexpr int statistics_lanes = 16;

struct Moments {
  double finite = 0, mean = 0, mean_rest = 0, l1 = 0;  // the mean is mean + mean_rest
  SquareSum deviations, squares;

  GRADKERN_HD void merge(const Moments& other) {
    if (other.finite == 0) return;
    if (finite == 0) {
      *this = other;
      return;
    }
    l1 += other.l1;
    squares.merge(other.squares);
    deviations.merge(other.deviations);
    const double total = finite + other.finite, share = other.finite / total;
    const double delta = (other.mean - mean) + (other.mean_rest - mean_rest);
    if (abs(delta) < __builtin_inf()) {
      deviations.add(delta, finite * share);
      move_mean(mean, mean_rest + delta * share);  // exact for constants
    } else {
      const double scaled = other.mean * 0x1p-600 - mean * 0x1p-600;
      deviations.big += scaled * scaled * (finite * share);
      move_mean(mean * (finite / total) + other.mean * share, 0);
    }
    finite = total;
  }

  // mean + rest, |rest| being small, as two words that do not overlap.
  GRADKERN_HD void move_mean(double start, double rest) {
    mean = start + rest;
    const double back = mean - start;
    mean_rest = (start - (mean - back)) + (rest - back);
    if (!(abs(mean_rest) < __builtin_inf())) mean_rest = 0;
  }
};

// One block's lanes; values are the entries times 2^(-600 * range), range being -1, 0 or 1.
struct Lanes {
  double sum[statistics_lanes] = {}, magnitude[statistics_lanes] = {}, square[statistics_lanes] = {};
};

GRADKERN_HD double fold(double* lane) {
  for (int width = statistics_lanes / 2; width > 0; width /= 2)
    for (int j = 0; j < width; ++j) lane[j] += lane[j + width];
  return lane[0];
}

// What an entry is multiplied by before it is squared, given the largest magnitude of its block.
GRADKERN_HD int range_of(double amax) { return amax > 0x1p500 ? 1 : amax != 0 && amax < 0x1p-400 ? -1 : 0; }
GRADKERN_HD double range_scale(int range) { return range == 0 ? 1 : range > 0 ? 0x1p-600 : 0x1p600; }

struct Deviations {
  double sum[statistics_lanes] = {}, square[statistics_lanes] = {};
};

// deviations(mean) of the scaled entries, for blocks that need them; constant: all entries are the same.
template <class About>
GRADKERN_HD Moments block_moments(Lanes& lanes, std::int64_t finite, int range, bool constant, About deviations) {
  Moments m;
  if (finite == 0) return m;
  const double sum = fold(lanes.sum), square = fold(lanes.square);
  const double unscale = range == 0 ? 1 : range > 0 ? 0x1p600 : 0x1p-600;
  m.finite = static_cast<double>(finite);
  double mean = sum / m.finite, rest = 0, about = square - sum * mean;
  if (!(about * 64 >= square)) {
    Deviations d = deviations(mean);
    const double moved = fold(d.sum);
    rest = moved / m.finite;
    about = fold(d.square) - moved * rest;
    if (constant || about < 0) about = 0;
  }
  m.move_mean(mean * unscale, rest * unscale);
  m.l1 = fold(lanes.magnitude) * unscale;
  (range == 0 ? m.squares.medium : range > 0 ? m.squares.big : m.squares.small) = square;
  (range == 0 ? m.deviations.medium : range > 0 ? m.deviations.big : m.deviations.small) = about;
  return m;
}

}  // namespace gradkern::ops
