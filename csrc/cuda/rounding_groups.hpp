// A group of entries rounded to nearest even: the bits of formats/encode.hpp by the formulas of ops/rounding_lanes.hpp,
// in float32 where source and scale leave float32 values, else in float64. A group with a value that is not plain (beyond
// F's largest, not finite, or with a square that needs scaling) is refused; its entries are taken one by one.
#pragma once

#include "cuda/elements.hpp"
#include "cuda/kernels.hpp"

namespace gradkern::cuda {

// What one thread counted of the entries of one chunk, as ops::RoundingCounts: of each event at most 64, in a byte.
struct ThreadRounding {
  std::uint32_t low = 0, high = 0;  // exact, inexact, overflow, subnormal; flushed, nan, inf
  int first_overflow = -1, first_flushed = -1;
  double& max_ulp;  // in shared memory: seldom looked at

  __device__ __forceinline__ explicit ThreadRounding(double& ulp) : max_ulp(ulp) {}

  static constexpr std::uint32_t exact = 1, inexact = 1 << 8, subnormal = 1 << 24;  // of low

  __device__ __forceinline__ void count(formats::Event event) {
    const int e = static_cast<int>(event);
    const std::uint32_t one = std::uint32_t(1) << (8 * (e % 4));
    low += e < 4 ? one : 0;
    high += e < 4 ? 0 : one;
  }
  __device__ __forceinline__ unsigned events(int event) const {
    return (event < 4 ? low >> (8 * event) : high >> (8 * (event - 4))) & 0xFF;
  }
};

// The product with the scale; a NaN keeps its sign, which the device's product drops.
__device__ __forceinline__ double scaled(double x, double scale) { return x == x ? x * scale : x; }

// scale and 1 / scale in the lane type. In float32 the product counts only where it is exact.
template <class T>
struct Scale {
  T factor, inverse;

  explicit Scale(double scale) : factor(static_cast<T>(scale)), inverse(static_cast<T>(1 / scale)) {}
};

// x becomes the product; false where it is not plain.
template <class F, class T>
__device__ __forceinline__ bool scale_plainly(T& x, const Scale<T>& scale) {
  const T product = x * scale.factor, a = ops::abs(product);
  bool plain = a <= ops::LaneLimits<F, T>::largest;
  if constexpr (sizeof(T) == 4) {
    plain &= product * scale.inverse == x;
  } else {
    plain &= (a >= 0x1p-420 && a < 0x1p500) || x == 0;
  }
  x = product;
  return plain;
}

template <class F, int n, class T>
__device__ __forceinline__ bool scale_plainly(T (&x)[n], const Scale<T>& scale) {
  bool plain = true;
#pragma unroll
  for (int k = 0; k < n; ++k) plain &= scale_plainly<F>(x[k], scale);
  return plain;
}

// What rounding made of one plain value.
template <class T>
struct Rounded {
  T magnitude, error;  // error of the magnitude
  ops::int_t<T> binade;
};

template <class F, class T>
__device__ __forceinline__ Rounded<T> round_plain(T x, bool flush) {
  const T a = ops::abs(x);
  const ops::int_t<T> binade = ops::binade_bits<F>(a);
  T r = ops::round_magnitude<F>(a, binade);
  r = flush && r < ops::LaneLimits<F, T>::smallest_normal ? T(0) : r;
  return {r, r - a, binade};
}

// Puts y, a finite value of F, at entry k.
template <class F, int count>
__device__ __forceinline__ void put_value(Words<count>& words, int k, double y) {
  if constexpr (F::id == FormatId::float64) {
    const auto bits = static_cast<std::uint64_t>(ops::to_bits(y));
    words.word[2 * k] = static_cast<std::uint32_t>(bits);
    words.word[2 * k + 1] = static_cast<std::uint32_t>(bits >> 32);
  } else {
    put_pattern<F>(words, k, ops::pattern_of_finite<F>(static_cast<float>(y)));
  }
}

// Puts the rounded value, with the sign of x, at entry k.
template <class F, class T, int count>
__device__ __forceinline__ void put_rounded(Words<count>& words, int k, T x, const Rounded<T>& rounded, bool flush) {
  if constexpr (sizeof(T) == 8) {
    put_value<F>(words, k, ops::with_sign(rounded.magnitude, x));
  } else {
    const std::int32_t pattern = ops::pattern_of_rounded<F>(ops::abs(x), rounded.binade, rounded.magnitude, x);
    constexpr auto sign = static_cast<std::int32_t>(formats::Layout<F>::sign << F::container_shift);
    put_pattern<F>(words, k, flush && rounded.magnitude == 0 ? pattern & sign : pattern);
  }
}

// Counts it, at `index` of the chunk; ulp is the largest error so far, per binade.
template <class F, class T>
__device__ __forceinline__ void count_rounded(const Rounded<T>& rounded, int index, ThreadRounding& counts, T& ulp) {
  const T r = rounded.magnitude;
  const bool changed = rounded.error != 0, zero = r == 0, flushed = zero && changed;
  const bool normal = r >= ops::LaneLimits<F, T>::smallest_normal;
  const std::uint32_t inexact = changed ? ThreadRounding::inexact : ThreadRounding::exact;
  counts.low += flushed ? 0 : normal || zero ? inexact : ThreadRounding::subnormal;
  counts.high += flushed;
  if (flushed && counts.first_flushed < 0) counts.first_flushed = index;
  ulp = ops::max(ops::error_per_binade(rounded.error, rounded.binade), ulp);
}

// The largest error in units of F's last place.
template <class F, class T>
__device__ __forceinline__ double in_ulps(T ulp) {
  return static_cast<double>(ulp) * formats::exp2i(formats::Layout<F>::fraction_bits - 1);
}

}  // namespace gradkern::cuda
