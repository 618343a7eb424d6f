// The most that a core can do: independent fused multiply-adds in registers.
#pragma once

#include "cpu/kernels.hpp"
#include "simd/vec.hpp"

namespace gradkern::cpu {
namespace {

// Returns how many were done; x keeps the compiler from knowing the result.
template <class V>
std::int64_t multiply_adds(std::int64_t rounds, double x) {
  using T = ops::scalar_t<V>;
  constexpr int chains = 12;  // latency times units, with some to spare
  const V factor(static_cast<T>(x));
  V sum[chains];
  for (int c = 0; c < chains; ++c) sum[c] = factor;
  for (std::int64_t r = 0; r < rounds; ++r)
#pragma GCC unroll 12
    for (int c = 0; c < chains; ++c) sum[c] = fma(sum[c], factor, factor);
  V total = sum[0];
  for (int c = 1; c < chains; ++c) total = total + sum[c];
  T lane[sizeof(V) / sizeof(T)];
  total.store(lane);
  return lane[0] == T(0) ? 0 : rounds * chains * static_cast<std::int64_t>(sizeof(V) / sizeof(T));
}

std::int64_t multiply_adds(bool wide, std::int64_t rounds, double x) {
  return wide ? multiply_adds<simd::vec_f64>(rounds, x) : multiply_adds<simd::vec_f32>(rounds, x);
}

}  // namespace
}  // namespace gradkern::cpu
