// Sums of ops/moments.hpp over a block, in float64 lanes: entry i in lane i % 16.
#pragma once

#include "ops/moments.hpp"
#include "simd/widths.hpp"

namespace gradkern::cpu {
namespace {

// acc + x * x: exact products of float entries may be fused.
template <class T>
GRADKERN_HD simd::vec_f64 add_square(simd::vec_f64 x, simd::vec_f64 acc) {
#if defined(GRADKERN_SIMD_AVX2) || defined(GRADKERN_SIMD_AVX512) || defined(GRADKERN_SIMD_NEON)
  if constexpr (sizeof(T) == 4) return fma(x, x, acc);
#endif
  return acc + x * x;
}

// acc + x, on the unit that multiplies: the adders have the widening and the magnitudes to do.
GRADKERN_HD simd::vec_f64 add_on_multiplier(simd::vec_f64 x, simd::vec_f64 acc) {
#if defined(GRADKERN_SIMD_AVX2) || defined(GRADKERN_SIMD_AVX512) || defined(GRADKERN_SIMD_NEON)
  return fma(x, simd::vec_f64(1.0), acc);
#else
  return acc + x;
#endif
}

template <class T, bool scaled>
struct Summer {
  static constexpr int width = simd::vector_bytes / 8, vectors = ops::statistics_lanes / width;
  simd::vec_f64 sum[vectors], magnitude[vectors], square[vectors];

  GRADKERN_HD Summer() {
    for (int j = 0; j < vectors; ++j) sum[j] = magnitude[j] = square[j] = simd::vec_f64(0.0);
  }
  // Entries [first, end) of a source, a multiple of 16. Fetching here and not in the scan spaces the fetches best.
  template <class Source>
  __attribute__((noinline)) void add(const Source& source, std::int64_t first, std::int64_t end, double scale) {
    const T* x = source.x;
    Summer held = *this;  // in registers
    for (std::int64_t i = first; i < end; i += ops::statistics_lanes) {
      source.fetch(i);
#pragma GCC unroll 8
      for (int j = 0; j < vectors; ++j) {
        simd::vec_f64 v = simd::widen(x + i + j * width);
        if constexpr (scaled) v = v * simd::vec_f64(scale);
        held.sum[j] = add_on_multiplier(v, held.sum[j]);
        held.magnitude[j] = held.magnitude[j] + ops::abs(v);
        held.square[j] = add_square<T>(v, held.square[j]);
      }
    }
    *this = held;
  }
  GRADKERN_HD void store(ops::Lanes& lanes) const {
    for (int j = 0; j < vectors; ++j) {
      sum[j].store(lanes.sum + j * width);
      magnitude[j].store(lanes.magnitude + j * width);
      square[j].store(lanes.square + j * width);
    }
  }
};

template <class T>
GRADKERN_HD ops::Deviations sum_deviations(const T* x, std::int64_t count, double scale, double mean) {
  using simd::vec_f64;
  constexpr int width = simd::vector_bytes / 8, vectors = ops::statistics_lanes / width;
  vec_f64 sum[vectors], square[vectors];
  for (int j = 0; j < vectors; ++j) sum[j] = square[j] = vec_f64(0.0);
  const std::int64_t whole = count - count % ops::statistics_lanes;
  for (std::int64_t i = 0; i < whole; i += ops::statistics_lanes) {
#pragma GCC unroll 8
    for (int j = 0; j < vectors; ++j) {
      const vec_f64 deviation = simd::widen(x + i + j * width) * vec_f64(scale) - vec_f64(mean);
      sum[j] = sum[j] + deviation;
      square[j] = square[j] + deviation * deviation;
    }
  }
  ops::Deviations d;
  for (int j = 0; j < vectors; ++j) {
    sum[j].store(d.sum + j * width);
    square[j].store(d.square + j * width);
  }
  for (std::int64_t i = whole; i < count; ++i) {
    const double deviation = static_cast<double>(x[i]) * scale - mean;
    d.sum[i % ops::statistics_lanes] += deviation;
    d.square[i % ops::statistics_lanes] += deviation * deviation;
  }
  return d;
}

}  // namespace
}  // namespace gradkern::cpu
