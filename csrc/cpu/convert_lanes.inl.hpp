// Blocks of a conversion in vector lanes: rounded by ops/rounding_lanes.hpp, once an element, and counted in the same
// pass. Errors wait in an array in the first cache, since 16 lanes of two sums fill the registers of most machines.
//
// Both loops take groups of 16 elements, the logical lanes of ops/rounding.hpp. The first works in float32, where every
// error below is exact, and refuses a block with a value beyond F's largest; the second works in float64 and takes any
// value whose square, and whose error's square, stays in the middle range of SquareSum.
#pragma once

#include "cpu/block.inl.hpp"
#include "ops/rounding_lanes.hpp"
#include "simd/widths.hpp"

namespace gradkern::cpu {
namespace {

using formats::holder;

// What one block counted; elements that are none of these are exact.
struct BlockCounts {
  std::int64_t inexact = 0, overflow = 0, subnormal = 0, flushed = 0, nan = 0, inf = 0;
  double max_ulp = 0;
};

// Adds the squares of whole groups to their lanes. The square of a float32 is exact in float64, so fma gives the same
// bits as a product and a sum; that of a float64 is rounded first.
template <class T>
void add_squares(const T* x, std::int64_t count, double* medium) {
  constexpr int lanes = group / group_f64;
  vec_f64 sum[group_f64];
  for (int v = 0; v < group_f64; ++v) sum[v] = vec_f64::load(medium + v * lanes);
  for (std::int64_t j = 0; j < count; j += group) {
    for (int v = 0; v < group_f64; ++v) {
      const vec_f64 value = simd::widen(x + j + v * lanes);
      if constexpr (sizeof(T) == 4 && simd::has_fma) {
        sum[v] = simd::fma(value, value, sum[v]);
      } else {
        sum[v] = sum[v] + value * value;
      }
    }
  }
  for (int v = 0; v < group_f64; ++v) sum[v].store(medium + v * lanes);
}

// Set lanes of a count of masks.
template <class T, int N>
GRADKERN_HD std::int64_t total(simd::vec<T, N> minus) {
  T lane[N];
  minus.store(lane);
  std::int64_t sum = 0;
  for (int i = 0; i < N; ++i) sum -= lane[i];
  return sum;
}

template <class T, int N>
GRADKERN_HD bool any(simd::vec<T, N> mask) {
  return total(mask) != 0;
}

template <class T, int N>
GRADKERN_HD T largest(simd::vec<T, N> x) {
  T lane[N];
  x.store(lane);
  T result = lane[0];
  for (int i = 1; i < N; ++i) result = lane[i] > result ? lane[i] : result;
  return result;
}

// Stores the patterns of x rounded to r = |y|, where a = |x|. F16C rounds x itself, to the same bits.
template <class F, bool flush, class C>
GRADKERN_HD void store_finite(C* stored, vec_f32 a, simd::vec_i32 binade, vec_f32 r, vec_f32 x) {
  if constexpr (simd::has_f16 && F::id == formats::FormatId::float16) {
    simd::narrow_f16(stored, flush ? ops::with_sign(r, x) : x);
  } else if constexpr (flush) {
    simd::store_lanes(stored, ops::pattern_of_finite<F>(ops::with_sign(r, x)));
  } else {
    simd::store_lanes(stored, ops::pattern_of_rounded<F>(a, binade, r, x));
  }
}

// Rounds whole groups of float32 values; false, and nothing counted, where one is beyond F's largest or not finite. Errors
// and counts only if they are asked for.
template <class F, bool flush, bool counted>
bool round_f32(const float* x, std::int64_t count, typename F::container* stored, float* error, BlockCounts& counts) {
  using V = vec_f32;
  using I = simd::vec_i32;
  using Limits = ops::LaneLimits<F, V>;
  constexpr int lanes = group / group_f32;
  const V smallest_normal(Limits::smallest_normal), zero(0.0f);
  I inexact(0), neither(0), flushed(0), top(0);
  V ulp(0.0f);
  for (std::int64_t j = 0; j < count; j += lanes) {
    simd::prefetch_page(x + j);
    const V value = V::load(x + j);
    const V a = ops::abs(value);
    const I binade = ops::binade_bits<F>(a);
    V r = ops::round_magnitude<F>(a, binade);
    if constexpr (flush) r = select(r < smallest_normal, zero, r);
    store_finite<F, flush>(stored + j, a, binade, r, value);
    top = max(top, to_bits(a));
    if constexpr (!counted) continue;
    const V e = r - a;
    e.store(error + j);
    ulp = max(ops::error_per_binade(e, binade), ulp);
    const I changed = r != a, normal = r >= smallest_normal, none = r == zero;
    inexact = inexact + (changed & normal);
    neither = neither - normal - none;
    flushed = flushed + (none & changed);
  }
  if (any(top > I(ops::to_bits(Limits::largest)))) return false;
  counts.inexact = total(inexact);
  counts.subnormal = count + total(neither);  // of all, those neither normal nor zero
  counts.flushed = total(flushed);
  counts.max_ulp = largest(ulp) * formats::exp2i(formats::Layout<F>::fraction_bits - 1);
  return true;
}

// Rounds whole groups of float64 values: zero, or with magnitudes in [2^-420, 2^500). False, and nothing counted, where
// one is beyond F's largest or not finite; with `special` none is refused, infinity and NaN are taken too, and the error
// is 0 where the result is not finite.
template <class F, bool flush, bool special>
bool round_f64(const double* x, std::int64_t count, double beyond, holder<F>* rounded, double* error,
               BlockCounts& counts) {
  using V = vec_f64;
  using I = ops::int_t<V>;
  using Limits = ops::LaneLimits<F, V>;
  const V smallest_normal(Limits::smallest_normal), zero(0.0), infinity(__builtin_inf()), nan(__builtin_nan(""));
  const V largest_finite(Limits::largest), overflowed(beyond);
  const I none_yet(std::int64_t(0));
  I inexact = none_yet, neither = none_yet, flushed = none_yet;
  I refused = none_yet, overflow = none_yet, nans = none_yet, finites = none_yet;
  V ulp(0.0);
  for (std::int64_t j = 0; j < count; j += group / group_f64) {
    const V value = V::load(x + j);
    const V magnitude = ops::abs(value);
    const I finite = magnitude < infinity;
    const V a = special ? select(finite, magnitude, zero) : magnitude;
    const I binade = ops::binade_bits<F>(a);
    V r = ops::round_magnitude<F>(a, binade);
    const I over = r > largest_finite;
    if constexpr (special) r = select(over, overflowed, r);
    if constexpr (flush) r = select(r < smallest_normal, zero, r);
    V e = r - a, shown = r;
    if constexpr (special) {
      const I is_nan = value != value;
      e = select(r < infinity, e, zero);
      shown = select(finite, r, select(is_nan, nan, infinity));
      overflow = overflow + over;
      nans = nans + is_nan;
      finites = finites + finite;
    } else {
      refused = refused | ~(a <= largest_finite);
    }
    simd::narrow(rounded + j, ops::with_sign(shown, value));
    e.store(error + j);
    ulp = max(ops::error_per_binade(e, binade), ulp);
    const I changed = r != a, normal = r >= smallest_normal, none = r == zero;
    inexact = inexact + (changed & normal);
    neither = neither - normal - none;
    flushed = flushed + (none & changed);
  }
  if (any(refused)) return false;
  counts.overflow = total(overflow);
  counts.inexact = total(inexact) - counts.overflow;
  counts.subnormal = count + total(neither);  // of all, those neither normal nor zero
  counts.flushed = total(flushed);
  counts.nan = total(nans);
  counts.inf = special ? count - total(finites) - counts.nan : 0;
  counts.max_ulp = largest(ulp) * formats::exp2i(formats::Layout<F>::fraction_bits - 1);
  return true;
}

// Stores whole groups of values of F, infinities and NaN among them.
template <class F>
void store_rounded(const holder<F>* rounded, std::int64_t count, typename F::container* stored) {
  if constexpr (F::id == formats::FormatId::float64) {
    __builtin_memcpy(stored, rounded, static_cast<unsigned long>(count) * sizeof(double));
  } else {
    constexpr int lanes = group / group_f32;
    for (std::int64_t j = 0; j < count; j += lanes) {
      simd::store_lanes(stored + j, ops::pattern_of<F>(vec_f32::load(rounded + j)));
    }
  }
}

}  // namespace
}  // namespace gradkern::cpu
