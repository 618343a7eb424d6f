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

  // What two have of the total, finite + more.
  struct Shares {
    double total, own, other;
    GRADKERN_HD Shares(double finite, double more) : total(finite + more), own(finite / total), other(more / total) {}
  };

  GRADKERN_HD void merge(const Moments& other) { merge(other, Shares(finite, other.finite)); }
  GRADKERN_HD void merge(const Moments& other, const Shares& share) {
    if (other.finite == 0) return;
    if (finite == 0) {
      *this = other;
      return;
    }
    l1 += other.l1;
    squares.merge(other.squares);
    deviations.merge(other.deviations);
    const double delta = (other.mean - mean) + (other.mean_rest - mean_rest);
    if (abs(delta) < __builtin_inf()) {
      deviations.add(delta, finite * share.other);
      move_mean(mean, mean_rest + delta * share.other);  // exact for constants
    } else {
      const double scaled = other.mean * 0x1p-600 - mean * 0x1p-600;
      deviations.big += scaled * scaled * (finite * share.other);
      move_mean(mean * share.own + other.mean * share.other, 0);
    }
    finite = share.total;
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

// The folded lanes of a block, and those of its deviations about a mean.
struct BlockSums {
  double sum, magnitude, square;
};
struct DeviationSums {
  double sum, square;
};

// The mean in one word and the squares about it, where they do not cancel.
struct Centre {
  double mean, about;
  bool cancels;

  GRADKERN_HD Centre(const BlockSums& s, double finite) : mean(s.sum / finite), about(s.square - s.sum * mean) {
    cancels = !(about * 64 >= s.square);
  }
};

// deviations(mean) of the scaled entries, for blocks that need them; constant: all entries are the same.
template <class About>
GRADKERN_HD Moments moments_of_sums(const BlockSums& s, std::int64_t finite, int range, bool constant,
                                    About deviations) {
  Moments m;
  if (finite == 0) return m;
  const double unscale = range == 0 ? 1 : range > 0 ? 0x1p600 : 0x1p-600;
  m.finite = static_cast<double>(finite);
  const Centre centre(s, m.finite);
  double rest = 0, about = centre.about;
  if (centre.cancels) {
    const DeviationSums d = deviations(centre.mean);
    rest = d.sum / m.finite;
    about = d.square - d.sum * rest;
    if (constant || about < 0) about = 0;
  }
  m.move_mean(centre.mean * unscale, rest * unscale);
  m.l1 = s.magnitude * unscale;
  m.squares = {range > 0 ? s.square : 0, range == 0 ? s.square : 0, range < 0 ? s.square : 0};
  m.deviations = {range > 0 ? about : 0, range == 0 ? about : 0, range < 0 ? about : 0};
  return m;
}

template <class About>
GRADKERN_HD Moments block_moments(Lanes& lanes, std::int64_t finite, int range, bool constant, About deviations) {
  if (finite == 0) return {};
  const BlockSums sums{fold(lanes.sum), fold(lanes.magnitude), fold(lanes.square)};
  return moments_of_sums(sums, finite, range, constant, [&](double mean) {
    Deviations d = deviations(mean);
    return DeviationSums{fold(d.sum), fold(d.square)};
  });
}

}  // namespace gradkern::ops
