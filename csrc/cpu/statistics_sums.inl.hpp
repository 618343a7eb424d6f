// Sums of ops/moments.hpp over a block, in float64 lanes: entry i in lane i % 16.
#pragma once

#include "ops/moments.hpp"
#include "simd/widths.hpp"

namespace gradkern::cpu {
namespace {

// acc + x * x: exact products of float entries may be fused.
template <class T, class V>
GRADKERN_HD V add_square(V x, V acc) {
#if defined(GRADKERN_SIMD_AVX2) || defined(GRADKERN_SIMD_AVX512) || defined(GRADKERN_SIMD_NEON)
  if constexpr (sizeof(T) == 4) return fma(x, x, acc);
#endif
  return acc + x * x;
}

// acc + x, on the unit that multiplies: the adders have the widening and the magnitudes to do.
template <class V>
GRADKERN_HD V add_on_multiplier(V x, V acc) {
#if defined(GRADKERN_SIMD_AVX2) || defined(GRADKERN_SIMD_AVX512) || defined(GRADKERN_SIMD_NEON)
  return fma(x, V(1.0), acc);
#else
  return acc + x;
#endif
}

// As ops::fold does it.
template <int vectors, class V>
GRADKERN_HD double fold(const V* lanes) {
  V v[vectors];
  for (int j = 0; j < vectors; ++j) v[j] = lanes[j];
  for (int width = vectors / 2; width > 0; width /= 2)
    for (int j = 0; j < width; ++j) v[j] = v[j] + v[j + width];
  return simd::reduce(v[0], [](auto a, auto b) { return a + b; });
}

// Lanes in order, or the even ones and then the odd ones.
enum class Order { natural, even_odd };

// width: of its registers, in lanes.
template <class T, bool scaled, int width = simd::vector_bytes / 8>
struct Summer {
  using V = simd::vec<double, width>;
  static constexpr int vectors = ops::statistics_lanes / width;
  V sum[vectors], magnitude[vectors], square[vectors];

  GRADKERN_HD Summer() {
    for (int j = 0; j < vectors; ++j) sum[j] = magnitude[j] = square[j] = V(0.0);
  }
  // One by one: a large struct is copied as a whole, and then stays in memory.
  GRADKERN_HD Summer(const Summer& s) { *this = s; }
  GRADKERN_HD Summer& operator=(const Summer& s) {
#pragma GCC unroll 8
    for (int j = 0; j < vectors; ++j) {
      sum[j] = s.sum[j];
      magnitude[j] = s.magnitude[j];
      square[j] = s.square[j];
    }
    return *this;
  }
  GRADKERN_HD void add(int j, V v) {
    sum[j] = add_on_multiplier(v, sum[j]);
    magnitude[j] = magnitude[j] + ops::abs(v);
    square[j] = add_square<T>(v, square[j]);
  }
  // Entries [i, i + 16) of x.
  GRADKERN_HD void step(const T* x, std::int64_t i, double scale) {
#pragma GCC unroll 8
    for (int j = 0; j < vectors; ++j) {
      const V v = simd::widen<width>(x + i + j * width);
      add(j, scaled ? v * V(scale) : v);
    }
  }
  template <Order order>
  GRADKERN_HD ops::BlockSums total() const {
    return {total_of<order>(sum), total_of<order>(magnitude), total_of<order>(square)};
  }

 private:
  // Lanes i and i + 8, 4, 2 of one parity meet in it, and the two parities last.
  template <Order order>
  static GRADKERN_HD double total_of(const V (&lanes)[vectors]) {
    if constexpr (order == Order::natural || vectors == 1) return fold<vectors>(lanes);
    return fold<vectors / 2>(lanes) + fold<vectors / 2>(lanes + vectors / 2);
  }
};

// Of count entries times scale, about a mean.
template <class T>
GRADKERN_HD ops::DeviationSums sum_deviations(const T* x, std::int64_t count, double scale, double mean) {
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
  double sums[ops::statistics_lanes], squares[ops::statistics_lanes];
  for (int j = 0; j < vectors; ++j) {
    sum[j].store(sums + j * width);
    square[j].store(squares + j * width);
  }
  for (std::int64_t i = whole; i < count; ++i) {
    const double deviation = static_cast<double>(x[i]) * scale - mean;
    sums[i % ops::statistics_lanes] += deviation;
    squares[i % ops::statistics_lanes] += deviation * deviation;
  }
  return {ops::fold(sums), ops::fold(squares)};
}

}  // namespace
}  // namespace gradkern::cpu
