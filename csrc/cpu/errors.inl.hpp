// Squares of stored * scale - truth, and of truth: in float64, in the lanes, blocks and chunks of ops/rounding.hpp.
#pragma once

#include <cmath>

#include "cpu/block.inl.hpp"

namespace gradkern::cpu {
namespace {

inline constexpr int error_lanes = ops::rounding_lanes, error_vectors = error_lanes / (simd::vector_bytes / 8);

// Squares that float64 holds without scaling. x: whole groups of lanes.
GRADKERN_HD bool all_medium(const double* x, std::int64_t count) {
  constexpr int width = simd::vector_bytes / 8;
  vec_f64 most(0.0), least(1.0);
  for (std::int64_t i = 0; i < count; i += width) {
    const vec_f64 a = ops::abs(vec_f64::load(x + i));
    most = select(a <= most, most, a);  // a NaN stays
    least = min(select(a == vec_f64(0.0), vec_f64(1.0), a), least);
  }
  bool medium = true;
  for (int j = 0; j < width; ++j) medium &= most.v[j] <= 0x1p500 && least.v[j] >= 0x1p-480;
  return medium;
}

GRADKERN_HD void add_squares(const double* x, std::int64_t count, ops::SquareLanes& sum) {
  constexpr int width = simd::vector_bytes / 8;
  std::int64_t whole = count / error_lanes * error_lanes;
  if (!all_medium(x, whole)) whole = 0;
  vec_f64 medium[error_vectors];
  for (int v = 0; v < error_vectors; ++v) medium[v] = vec_f64::load(sum.medium + v * width);
  for (std::int64_t i = 0; i < whole; i += error_lanes) {
#pragma GCC unroll 8
    for (int v = 0; v < error_vectors; ++v) {
      const vec_f64 entry = vec_f64::load(x + i + v * width);
      medium[v] = medium[v] + entry * entry;
    }
  }
  for (int v = 0; v < error_vectors; ++v) medium[v].store(sum.medium + v * width);
  for (std::int64_t i = whole; i < count; ++i) sum.add(i, x[i]);
}

// Vectors of entries as float64: of float64 itself, or of what is decoded to float32.
template <class T>
GRADKERN_HD void subtract(const T* stored, const double* truth, std::int64_t count, const executor::ErrorArgs& args,
                          double* difference, executor::ErrorSums& sums) {
  constexpr int width = simd::vector_bytes / 8;
  const double infinity = __builtin_inf();
  const std::int64_t whole = args.scale == 0 ? 0 : count / width * width;
  auto finite = vec_f64(0.0) == vec_f64(0.0), near = finite;
  for (std::int64_t i = 0; i < whole; i += width) {
    const vec_f64 v = simd::widen(stored + i), d = v * vec_f64(args.scale) - vec_f64::load(truth + i);
    finite = finite & (ops::abs(v) < vec_f64(infinity));
    near = near & (ops::abs(d) < vec_f64(infinity));
    d.store(difference + i);
  }
  for (int j = 0; j < width; ++j) {
    sums.nonfinite |= finite.v[j] == 0;
    sums.infinite |= near.v[j] == 0;
  }
  for (std::int64_t i = whole; i < count; ++i) {
    const double v = static_cast<double>(stored[i]);
    difference[i] = (args.scale != 0 ? v * args.scale : std::ldexp(v, args.power)) - truth[i];
    sums.nonfinite |= !(std::abs(v) < infinity);
    sums.infinite |= !(std::abs(difference[i]) < infinity);
  }
}

void errors(const executor::ErrorArgs& args, std::int64_t begin, std::int64_t end, executor::ErrorSums& sums) {
  alignas(64) double difference[ops::rounding_block];
  alignas(64) float lanes[ops::rounding_block];
  for (std::int64_t first = begin; first < end; first += ops::rounding_block) {
    const std::int64_t count = end - first < ops::rounding_block ? end - first : ops::rounding_block;
    if (args.format == formats::FormatId::float64) {
      subtract(static_cast<const double*>(args.stored) + first, args.truth + first, count, args, difference, sums);
    } else {
      widen(args.format, args.stored, first, first + count, lanes);
      subtract(lanes, args.truth + first, count, args, difference, sums);
    }
    ops::SquareLanes error, truth;
    add_squares(difference, count, error);
    add_squares(args.truth + first, count, truth);
    sums.error.merge(error.total());
    sums.truth.merge(truth.total());
  }
}

}  // namespace
}  // namespace gradkern::cpu
