// ops/clip.hpp in vector lanes of the width that holds the storage exactly: float or double.
//
// survey: each block is read once, for its largest magnitude (as an integer, so that NaN and infinity are the largest)
// and its sum of powers. A block with a non-finite entry goes entry by entry, a block out of range is summed again.
// scale: one read and one write, where no entry and no result is infinite or NaN; the rest goes entry by entry.
#pragma once

#include "cpu/convert_lanes.inl.hpp"
#include "cpu/statistics_sums.inl.hpp"
#include "ops/clip.hpp"

namespace gradkern::cpu {
namespace {

using ops::clip_block;

// The storage itself is the lane type, or at least has its bits.
template <class T>
GRADKERN_HD bool lies_in_lanes(formats::FormatId format) {
  if constexpr (sizeof(T) == 8) return format == formats::FormatId::float64;
  return format == formats::FormatId::float32 || format == formats::FormatId::tfloat32;
}

// Entries [first, first + count) as lanes and zeros up to a whole group; buffer holds them where they cannot be read in
// place.
template <class T>
GRADKERN_HD const T* lanes_of(const executor::ClipTensor& t, std::int64_t first, std::int64_t count, T* buffer) {
  if (count % group == 0 && lies_in_lanes<T>(t.format)) return static_cast<const T*>(t.source) + first;
  widen(t.format, t.source, first, first + count, buffer);
  for (std::int64_t j = count; j % group != 0; ++j) buffer[j] = 0;
  return buffer;
}

// Asks the second cache for the next page: it has room for more requests than the first.
GRADKERN_HD void fetch_page(const void* p) {
  __builtin_prefetch(reinterpret_cast<const void*>(reinterpret_cast<std::uintptr_t>(p) + 4096), 0, 2);
}

template <ops::Norm p, class T>
GRADKERN_HD vec_f64 add_power(vec_f64 x, vec_f64 sum) {
  if constexpr (p == ops::Norm::two) return add_square<T>(x, sum);
  return sum + ops::abs(x);
}

// Whole groups: their powers by lane, and the bits of the largest magnitude.
template <class T, ops::Norm p, bool scaled>
__attribute__((noinline)) ops::int_t<T> look(const T* x, std::int64_t n, double scale, double* lane) {
  using V = simd::vec<T, simd::vector_bytes / sizeof(T)>;
  constexpr int width = simd::vector_bytes / 8, vectors = group / width, in_vector = simd::vector_bytes / sizeof(T);
  ops::int_t<V> top(0);
  vec_f64 sum[vectors];
  for (int j = 0; j < vectors; ++j) sum[j] = vec_f64(0.0);
  for (std::int64_t i = 0; i < n; i += group) {
    for (std::int64_t line = 0; line < group; line += 64 / std::int64_t(sizeof(T))) fetch_page(x + i + line);
#pragma GCC unroll 8
    for (int j = 0; j < group; j += in_vector) top = max(top, to_bits(ops::abs(V::load(x + i + j))));
    if constexpr (p != ops::Norm::infinity) {
#pragma GCC unroll 8
      for (int j = 0; j < vectors; ++j) {
        vec_f64 v = simd::widen(x + i + j * width);
        if constexpr (scaled) v = v * vec_f64(scale);
        sum[j] = add_power<p, T>(v, sum[j]);
      }
    }
  }
  for (int j = 0; j < vectors; ++j) sum[j].store(lane + j * width);
  return largest(top);
}

// A block with entries that are not finite, which count as zeros; index is that of the first.
template <class T, ops::Norm p>
void survey_entries(const T* x, std::int64_t count, std::int64_t index, ops::Survey& s) {
  double amax = 0, lane[group] = {};
  for (std::int64_t i = 0; i < count; ++i) {
    const double a = ops::abs(static_cast<double>(x[i]));
    if (a < __builtin_inf()) {
      if (a > amax) amax = a;
      continue;
    }
    ++(a != a ? s.nan : s.inf);
    if (s.first_nonfinite < 0) s.first_nonfinite = index + i;
  }
  const int range = ops::clip_range_of(amax);
  const double scale = ops::range_scale(range);
  for (std::int64_t i = 0; i < count; ++i) {
    const double a = ops::abs(static_cast<double>(x[i])) * scale;
    if (a < __builtin_inf()) lane[i % group] += p == ops::Norm::two ? a * a : a;
  }
  if (amax > s.amax) s.amax = amax;
  if (p != ops::Norm::infinity) s.add(range, ops::fold(lane));
}

template <class T, ops::Norm p>
void survey_range(const executor::ClipTensor& t, std::int64_t begin, std::int64_t end, ops::Survey& s) {
  alignas(64) T buffer[clip_block];
  double lane[group];
  for (std::int64_t i = begin; i < end; i += clip_block) {
    const std::int64_t count = end - i < clip_block ? end - i : clip_block, n = (count + group - 1) / group * group;
    const T* x = lanes_of(t, i, count, buffer);
    const auto top = look<T, p, false>(x, n, 1, lane);
    if (top >= ops::to_bits(static_cast<T>(__builtin_inf()))) {
      survey_entries<T, p>(x, count, i, s);
      continue;
    }
    const double amax = ops::from_bits<T>(top);
    const int range = ops::clip_range_of(amax);
    if (amax > s.amax) s.amax = amax;
    if (p == ops::Norm::infinity) continue;
    if (sizeof(T) == 8 && range != 0) look<T, p, sizeof(T) == 8>(x, n, ops::range_scale(range), lane);
    s.add(range, ops::fold(lane));
  }
}

template <class T>
void survey_norm(const executor::ClipTensor& t, ops::Norm p, std::int64_t begin, std::int64_t end, ops::Survey& s) {
  if (p == ops::Norm::one) return survey_range<T, ops::Norm::one>(t, begin, end, s);
  if (p == ops::Norm::two) return survey_range<T, ops::Norm::two>(t, begin, end, s);
  survey_range<T, ops::Norm::infinity>(t, begin, end, s);
}

void clip_survey(const executor::ClipTensor& t, ops::Norm p, std::int64_t begin, std::int64_t end, ops::Survey& s) {
  if (t.format == formats::FormatId::float64) return survey_norm<double>(t, p, begin, end, s);
  survey_norm<float>(t, p, begin, end, s);
}

// Whole groups: stored = fl(x * first * second), all of it finite.
template <class F, class T>
GRADKERN_HD void scale_groups(const T* x, std::int64_t n, T first, T second, typename F::container* stored,
                              ops::ClipCounts& counts) {
  using V = simd::vec<T, simd::vector_bytes / sizeof(T)>;
  using I = ops::int_t<V>;
  using Limits = ops::ClipLimits<F, T>;
  constexpr int step = simd::vector_bytes / sizeof(T);
  const V zero(T(0)), zero_to(Limits::zero_to), below(Limits::subnormal_below), smallest(Limits::smallest_normal);
  I flushed(0), subnormal(0);
  for (std::int64_t j = 0; j < n; j += step) {
    fetch_page(x + j);
    const V v = V::load(x + j);
    V y = v * V(first);
    if constexpr (sizeof(T) == 8) y = y * V(second);
    const V a = ops::abs(y);
    const I none = a <= zero_to;
    flushed = flushed + (none & (v != zero));
    subnormal = subnormal + ((a < below) & (a > zero_to) & (ops::abs(v) >= smallest));
    if constexpr (Limits::own) {
      y.store(reinterpret_cast<T*>(stored + j));
    } else {
      const auto binade = ops::binade_bits<F>(a);
      store_finite<F, false>(stored + j, a, binade, ops::round_magnitude<F>(a, binade), y);
    }
  }
  counts.flushed += total(flushed);
  counts.subnormal += total(subnormal);
}

template <class F>
void scale_range(const executor::ClipTensor& t, const ops::ClipFactor& factor, std::int64_t begin, std::int64_t end,
                 ops::ClipCounts& counts) {
  using T = holder<F>;
  using C = typename F::container;
  constexpr std::int64_t turn = 512;
  alignas(64) T buffer[turn];
  alignas(64) C ragged[turn];
  C* target = static_cast<C*>(t.target);
  if constexpr (ops::ClipLimits<F, T>::own) {  // no turns needed
    const std::int64_t whole = (end - begin) / group * group;
    scale_groups<F>(static_cast<const T*>(t.source) + begin, whole, static_cast<T>(factor.first),
                    static_cast<T>(factor.second), target + begin, counts);
    begin += whole;
  }
  for (std::int64_t i = begin; i < end; i += turn) {
    const std::int64_t count = end - i < turn ? end - i : turn, n = (count + group - 1) / group * group;
    const T* x = lanes_of(t, i, count, buffer);
    C* stored = n == count ? target + i : ragged;
    scale_groups<F>(x, n, static_cast<T>(factor.first), static_cast<T>(factor.second), stored, counts);
    if (n != count) __builtin_memcpy(target + i, ragged, static_cast<unsigned long>(count) * sizeof(C));
  }
}

void clip_scale(const executor::ClipTensor& t, const ops::ClipFactor& factor, bool plain, bool zero, std::int64_t begin,
                std::int64_t end, ops::ClipCounts& counts) {
  formats::visit(t.format, [&](auto f) {
    using F = decltype(f);
    using C = typename F::container;
    if (plain) return scale_range<F>(t, factor, begin, end, counts);
    const C* source = static_cast<const C*>(t.source);
    C* target = static_cast<C*>(t.target);
    for (std::int64_t i = begin; i < end; ++i) target[i] = ops::clip_entry<F>(source[i], factor, zero, counts);
  });
}

}  // namespace
}  // namespace gradkern::cpu
