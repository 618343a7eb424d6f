// A block without its NaNs and infinities: zeros in their places change no sum, and are counted out again.
#pragma once

#include <limits>
#include <type_traits>

#include "cpu/statistics_scan.inl.hpp"
#include "cpu/statistics_sums.inl.hpp"

namespace gradkern::cpu {
namespace {

template <class T>
struct Finite {
  alignas(64) T x[statistics_block];
  std::int64_t nan = 0, pos_inf = 0, neg_inf = 0;
  std::int64_t first = -1;  // what is not finite

  // n is a multiple of simd::vector_bytes.
  Finite(const T* all, std::int64_t n) {
    using I = std::make_signed_t<typename Wide<T>::unsigned_scalar>;  // whose comparisons are instructions
    using IV = simd::vec<I, lane_count<T>>;
    constexpr I infinity = I(2 * Wide<T>::bias + 1) << Wide<T>::fraction_bits;
    for (std::int64_t i = 0; i < n; i += lane_count<T>) {
      const IV bits = IV::wrap(simd::vec<T, lane_count<T>>::load(all + i).v);
      const IV magnitude = bits & IV(std::numeric_limits<I>::max());
      const IV removed = IV::wrap(magnitude.v > IV(infinity - 1).v);
      simd::vec<T, lane_count<T>>::wrap((bits & ~removed).v).store(x + i);
      const unsigned where = simd::lanes_of(removed);
      if (where == 0) continue;
      if (first < 0) first = i + __builtin_ctz(where);
      const unsigned infinite = simd::lanes_of(IV::wrap(magnitude.v == IV(infinity).v));
      const unsigned negative = simd::lanes_of(bits);
      nan += __builtin_popcount(where & ~infinite);
      pos_inf += __builtin_popcount(infinite & ~negative);
      neg_inf += __builtin_popcount(infinite & negative);
    }
  }
  std::int64_t removed() const { return nan + pos_inf + neg_inf; }

  // Copied with a scan, and so without x; there is nothing to ask memory for.
  struct Source {
    static constexpr bool halves = false;
    static constexpr Order order = Order::natural;
    const T* x;
    GRADKERN_HD void load(std::int64_t) const {}
    GRADKERN_HD simd::vec<T, lane_count<T>> entries(std::int64_t i, int j) const {
      return simd::vec<T, lane_count<T>>::load(x + i + j);
    }
  };
  Source source() const { return {x}; }
};

// As sum_deviations, of what is finite.
template <class T>
__attribute__((noinline)) ops::DeviationSums sum_finite_deviations(const T* x, std::int64_t count, double scale,
                                                                   double mean) {
  ops::Deviations d;
  for (std::int64_t i = 0; i < count; ++i) {
    const double deviation = static_cast<double>(x[i]) * scale - mean;
    if (!(ops::abs(deviation) < __builtin_inf())) continue;
    d.sum[i % ops::statistics_lanes] += deviation;
    d.square[i % ops::statistics_lanes] += deviation * deviation;
  }
  return {ops::fold(d.sum), ops::fold(d.square)};
}

}  // namespace
}  // namespace gradkern::cpu
