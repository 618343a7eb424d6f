// Squares of stored * scale - truth, and of truth: in float64, in the lanes, blocks and chunks of ops/rounding.hpp.
#pragma once

#include <cmath>

#include "cpu/block.inl.hpp"
#include "simd/lanes.hpp"

namespace gradkern::cpu {
namespace {

inline constexpr int error_lanes = ops::rounding_lanes, error_vectors = error_lanes / (simd::vector_bytes / 8);

// Squares in lanes, and whether float64 holds all of them without scaling.
struct MediumSquares {
  using V = vec_f64;
  using U = simd::vec<std::uint64_t, simd::vector_bytes / 8>;
  V sum[error_vectors];
  V most{0.0}, least{__builtin_inf()};  // one less than the least but for zeros, which are NaN then and passed over

  GRADKERN_HD MediumSquares() {
    for (V& s : sum) s = V(0.0);
  }
  GRADKERN_HD void add(int vector, V x) {
    const V a = ops::abs(x);
    most = max(a, most);
    least = min(V::wrap((U::wrap(a.v) - U(1)).v), least);
    sum[vector] = sum[vector] + x * x;
  }
  // A NaN is passed over in the extrema, and in no sum.
  GRADKERN_HD bool all_medium() const {
    bool medium = true;
    for (int v = 0; v < error_vectors; ++v)
      for (int j = 0; j < simd::vector_bytes / 8; ++j) medium &= sum[v].v[j] < __builtin_inf();
    const double top = simd::reduce(most, [](auto a, auto b) { return max(a, b); });
    const double low = simd::reduce(least, [](auto a, auto b) { return min(a, b); });
    return medium && top <= 0x1p500 && low >= 0x1p-480;
  }
};

// Whole groups of lanes by vectors where that is exact; the rest, and all else, one by one.
template <class Value>
GRADKERN_HD ops::SquareSum add_squares(const MediumSquares& found, std::int64_t whole, std::int64_t count,
                                       Value value) {
  constexpr int width = simd::vector_bytes / 8;
  ops::SquareLanes lanes;
  if (found.all_medium()) {
    for (int v = 0; v < error_vectors; ++v) found.sum[v].store(lanes.medium + v * width);
  } else {
    whole = 0;
  }
  for (std::int64_t i = whole; i < count; ++i) lanes.add(i, value(i));
  return lanes.total();
}

// One block of entries: of float64 itself, or of what is decoded to float32.
template <class T>
void add_errors(const T* stored, const double* truth, std::int64_t count, const executor::ErrorArgs& args,
                executor::ErrorSums& sums) {
  constexpr int width = simd::vector_bytes / 8;
  const std::int64_t whole = args.scale == 0 ? 0 : count / error_lanes * error_lanes;
  MediumSquares errors, truths;
  for (std::int64_t i = 0; i < whole; i += error_lanes) {
#pragma GCC unroll 8
    for (int v = 0; v < error_vectors; ++v) {
      const vec_f64 t = vec_f64::load(truth + i + v * width);
      errors.add(v, simd::widen(stored + i + v * width) * vec_f64(args.scale) - t);
      truths.add(v, t);
    }
  }
  const auto difference = [&](std::int64_t i) {
    const double v = static_cast<double>(stored[i]);
    const double d = (args.scale != 0 ? v * args.scale : std::ldexp(v, args.power)) - truth[i];
    sums.nonfinite |= !(std::abs(v) < __builtin_inf());
    sums.infinite |= !(std::abs(d) < __builtin_inf());
    return d;
  };
  sums.error.merge(add_squares(errors, whole, count, difference));
  sums.truth.merge(add_squares(truths, whole, count, [&](std::int64_t i) { return truth[i]; }));
}

void errors(const executor::ErrorArgs& args, std::int64_t begin, std::int64_t end, executor::ErrorSums& sums) {
  using formats::FormatId;
  alignas(64) float lanes[ops::rounding_block];
  for (std::int64_t first = begin; first < end; first += ops::rounding_block) {
    const std::int64_t count = end - first < ops::rounding_block ? end - first : ops::rounding_block;
    const double* const truth = args.truth + first;
    if (args.format == FormatId::float64) {
      add_errors(static_cast<const double*>(args.stored) + first, truth, count, args, sums);
    } else if (args.format == FormatId::float32 || args.format == FormatId::tfloat32) {
      add_errors(static_cast<const float*>(args.stored) + first, truth, count, args, sums);
    } else {
      widen(args.format, args.stored, first, first + count, lanes);
      add_errors(lanes, truth, count, args, sums);
    }
  }
}

}  // namespace
}  // namespace gradkern::cpu
