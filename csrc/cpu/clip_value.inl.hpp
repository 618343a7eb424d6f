// y = min(max(x, low), high) in vector lanes, low and high being values of the storage: nothing is rounded. NaN stays. Turns of
// which no entry moves are not written.
#pragma once

#include "cpu/clip.inl.hpp"

namespace gradkern::cpu {
namespace {

// Whole groups: entries beyond low or high moved there; with `zero` those that are not finite count as zeros first.
// False, and nothing stored, where none changes and it is in place.
template <class F, class T>
GRADKERN_HD bool clamp_groups(const T* x, std::int64_t n, T low, T high, bool zero, bool always, Ahead& ahead,
                              typename F::container* stored, ops::ClipCounts& counts) {
  using V = simd::vec<T, simd::vector_bytes / sizeof(T)>;
  using I = ops::int_t<V>;
  constexpr int step = simd::vector_bytes / sizeof(T);
  alignas(64) T moved[512];
  I changed(0), zeroed(0);
  for (std::int64_t j = 0; j < n; j += step) {
    if (j % group == 0) ahead.template fetch<T>();
    V v = V::load(x + j);
    const I kept = ops::abs(v) < V(static_cast<T>(__builtin_inf()));
    if (zero) {
      zeroed = zeroed + ~kept;
      v = select(kept, v, V(T(0)));
    }
    const I above = v > V(high), below = v < V(low);
    changed = changed + (above | below);
    select(above, V(high), select(below, V(low), v)).store(moved + j);
  }
  const std::int64_t moves = total(changed), zeros = total(zeroed);
  counts.changed += moves;
  counts.flushed += zeros;
  if (moves + zeros == 0 && !always) return false;
  for (std::int64_t j = 0; j < n; j += step) {
    if constexpr (F::id == formats::FormatId::float64) {
      V::load(moved + j).store(reinterpret_cast<T*>(stored + j));
    } else {
      simd::store_lanes(stored + j, ops::pattern_of<F>(vec_f32::load(moved + j)));
    }
  }
  return true;
}

void clip_clamp(const executor::ClipTensor& t, double low, double high, bool zero, const ClipRange& range,
                ops::ClipCounts& counts) {
  formats::visit(t.format, [&](auto f) {
    using F = decltype(f);
    using T = holder<F>;
    using C = typename F::container;
    constexpr std::int64_t turn = 512;
    alignas(64) T buffer[turn];
    alignas(64) C ragged[turn];
    C* target = static_cast<C*>(t.target);
    const bool always = t.source != t.target;
    // Zeros that pad a turn are not counted, whatever the bounds: they are set to a bound and subtracted.
    const bool counts_zero = T(0) < static_cast<T>(low) || T(0) > static_cast<T>(high);
    Ahead ahead(t, range);
    for (std::int64_t i = range.begin; i < range.end; i += turn) {
      const std::int64_t count = range.end - i < turn ? range.end - i : turn, n = (count + group - 1) / group * group;
      const T* x = lanes_of(t, i, count, buffer);
      C* stored = n == count ? target + i : ragged;
      const bool done =
          clamp_groups<F>(x, n, static_cast<T>(low), static_cast<T>(high), zero, always, ahead, stored, counts);
      if (counts_zero) counts.changed -= n - count;
      if (done && n != count) __builtin_memcpy(target + i, ragged, static_cast<unsigned long>(count) * sizeof(C));
    }
  });
}

}  // namespace
}  // namespace gradkern::cpu
