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

// Asks the second cache, which has room for more requests than the first, for what is wanted later: as many bytes as a group
// of entries has, whose lanes are T. Of a whole chunk its halves by turns: two streams take less time than one.
class Ahead {
 public:
  Ahead(const executor::ClipTensor& t, const ClipRange& range) : at_(reinterpret_cast<std::uintptr_t>(range.next)) {
    const auto size = static_cast<std::uintptr_t>(formats::container_bytes(t.format));
    const std::uintptr_t bytes = group * size;
    other_ = at_ + (range.next_is_whole ? ops::clip_chunk / 2 * size : bytes);
    step_ = range.next_is_whole ? bytes : 2 * bytes;
  }

  template <class T>
  GRADKERN_HD void fetch() {
    __builtin_prefetch(reinterpret_cast<const void*>(at_), 0, 2);
    if constexpr (sizeof(T) == 8) __builtin_prefetch(reinterpret_cast<const void*>(at_ + 64), 0, 2);
    const std::uintptr_t next = at_ + step_;
    at_ = other_;
    other_ = next;
  }

 private:
  std::uintptr_t at_, other_, step_;
};

template <ops::Norm p, class T>
GRADKERN_HD vec_f64 add_power(vec_f64 x, vec_f64 sum) {
  if constexpr (p == ops::Norm::two) return add_square<T>(x, sum);
  return sum + ops::abs(x);
}

// op over the lanes of v by halves: lane j with lane j + half of them. As simd::reduce, but of an array of halves: with
// two variables g++ 12 copies one register more in each turn of the loop of look().
template <class T, int N, class Op>
GRADKERN_HD T halved(simd::vec<T, N> v, Op op) {
  if constexpr (N == 1) {
    return v.v[0];
  } else {
    simd::vec<T, N / 2> half[2];
    __builtin_memcpy(half, &v, sizeof v);
    return halved(op(half[0], half[1]), op);
  }
}

// Whole groups at x, and one more at rest, if any: the bits of the largest magnitude, the least but for zeros, and the sum
// of powers.
template <class T>
struct Seen {
  ops::int_t<T> top;
  T least;
  double sum;
};
template <class T, ops::Norm p, bool scaled>
__attribute__((noinline)) Seen<T> look(const T* x, std::int64_t n, const T* rest, double scale, Ahead& ahead) {
  using V = simd::vec<T, simd::vector_bytes / sizeof(T)>;
  constexpr int width = simd::vector_bytes / 8, vectors = group / width, in_vector = simd::vector_bytes / sizeof(T);
  Ahead held = ahead;  // in registers
  ops::int_t<V> top(0);
  V least(static_cast<T>(__builtin_inf()));
  vec_f64 sum[vectors];
  for (int j = 0; j < vectors; ++j) sum[j] = vec_f64(0.0);
  const auto add = [&](const T* at) {
#pragma GCC unroll 8
    for (int j = 0; j < group; j += in_vector) {
      const auto bits = to_bits(ops::abs(V::load(at + j)));
      top = max(top, bits);
      least = min(ops::from_bits<V>(bits - ops::int_t<V>(1)), least);  // one less: zeros are NaN, and passed over
    }
    if constexpr (p != ops::Norm::infinity) {
#pragma GCC unroll 8
      for (int j = 0; j < vectors; ++j) {
        vec_f64 v = simd::widen(at + j * width);
        if constexpr (scaled) v = v * vec_f64(scale);
        sum[j] = add_power<p, T>(v, sum[j]);
      }
    }
  };
  for (std::int64_t i = 0; i < n; i += group) {
    held.template fetch<T>();
    add(x + i);
  }
  if (rest) add(rest);
  ahead = held;
  for (int half = vectors / 2; half > 0; half /= 2)  // as ops::fold does
    for (int j = 0; j < half; ++j) sum[j] = sum[j] + sum[j + half];
  const T low = halved(least, [](auto a, auto b) { return min(a, b); });
  return {halved(top, [](auto a, auto b) { return max(a, b); }),
          low < static_cast<T>(__builtin_inf()) ? ops::from_bits<T>(ops::to_bits(low) + 1) : low,
          halved(sum[0], [](auto a, auto b) { return a + b; })};
}

// A block with entries that are not finite, which count as zeros; index is that of the first.
template <class T, ops::Norm p>
void survey_entries(const T* x, std::int64_t count, std::int64_t index, ops::Survey& s) {
  double amax = 0, lane[group] = {};
  for (std::int64_t i = 0; i < count; ++i) {
    const double a = ops::abs(static_cast<double>(x[i]));
    if (a < __builtin_inf()) {
      if (a > amax) amax = a;
      if (a != 0 && a < s.amin) s.amin = a;
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
void survey_range(const executor::ClipTensor& t, const ClipRange& range, ops::Survey& s) {
  alignas(64) T buffer[clip_block], rest[group];
  Ahead ahead(t, range);
  const bool in_place = lies_in_lanes<T>(t.format);
  for (std::int64_t i = range.begin; i < range.end; i += clip_block) {
    const std::int64_t count = range.end - i < clip_block ? range.end - i : clip_block;
    std::int64_t whole = count / group * group;
    const T *x = buffer, *more = nullptr;
    if (in_place) {
      x = static_cast<const T*>(t.source) + i;
      if (whole != count) more = lanes_of(t, i + whole, count - whole, rest);
    } else {
      lanes_of(t, i, count, buffer);
      if (whole != count) whole += group;
    }
    const Seen<T> seen = look<T, p, false>(x, whole, more, 1, ahead);
    if (seen.top >= ops::to_bits(static_cast<T>(__builtin_inf()))) {
      survey_entries<T, p>(x, count, i, s);
      continue;
    }
    const double amax = ops::from_bits<T>(seen.top);
    const int binades = ops::clip_range_of(amax);
    if (amax > s.amax) s.amax = amax;
    if (seen.least < s.amin) s.amin = seen.least;
    if (p == ops::Norm::infinity) continue;
    if (sizeof(T) == 8 && binades != 0) {
      s.add(binades, look<T, p, sizeof(T) == 8>(x, whole, more, ops::range_scale(binades), ahead).sum);
    } else {
      s.add(binades, seen.sum);
    }
  }
}

template <class T>
void survey_norm(const executor::ClipTensor& t, ops::Norm p, const ClipRange& range, ops::Survey& s) {
  if (p == ops::Norm::one) return survey_range<T, ops::Norm::one>(t, range, s);
  if (p == ops::Norm::two) return survey_range<T, ops::Norm::two>(t, range, s);
  survey_range<T, ops::Norm::infinity>(t, range, s);
}

void clip_survey(const executor::ClipTensor& t, ops::Norm p, const ClipRange& range, ops::Survey& s) {
  if (t.format == formats::FormatId::float64) return survey_norm<double>(t, p, range, s);
  survey_norm<float>(t, p, range, s);
}

// Whole groups: stored = fl(x * first * second), all of it finite; lossless: nothing is to be counted.
template <class F, bool lossless, class T>
GRADKERN_HD void scale_groups(const T* x, std::int64_t n, T first, T second, typename F::container* stored,
                              Ahead& ahead, ops::ClipCounts& counts) {
  using V = simd::vec<T, simd::vector_bytes / sizeof(T)>;
  using I = ops::int_t<V>;
  using Limits = ops::ClipLimits<F, T>;
  constexpr int step = simd::vector_bytes / sizeof(T);
  const V zero(T(0)), zero_to(Limits::zero_to), below(Limits::subnormal_below), smallest(Limits::smallest_normal);
  const V factor(first), factor_2(second);
  I flushed(0), subnormal(0);
  Ahead held = ahead;  // in registers
  for (std::int64_t j = 0; j < n; j += step) {
    if (j % group == 0) held.template fetch<T>();
    const V v = V::load(x + j);
    V y = v * factor;
    if constexpr (sizeof(T) == 8) y = y * factor_2;
    const V a = ops::abs(y);
    if constexpr (!lossless) {
      const I none = a <= zero_to;
      flushed = flushed + (none & (v != zero));
      subnormal = subnormal + ((a < below) & (a > zero_to) & (ops::abs(v) >= smallest));
    }
    if constexpr (Limits::own) {
      y.store(reinterpret_cast<T*>(stored + j));
    } else {
      const auto binade = ops::binade_bits<F>(a);
      store_finite<F, false>(stored + j, a, binade, ops::round_magnitude<F>(a, binade), y);
    }
  }
  ahead = held;
  if constexpr (!lossless) {
    counts.flushed += total(flushed);
    counts.subnormal += total(subnormal);
  }
}

template <class F, bool lossless>
void scale_range(const executor::ClipTensor& t, const ops::ClipFactor& factor, const ClipRange& range,
                 ops::ClipCounts& counts) {
  using T = holder<F>;
  using C = typename F::container;
  constexpr std::int64_t turn = 512;
  alignas(64) T buffer[turn];
  alignas(64) C ragged[group];
  const T first = static_cast<T>(factor.first), second = static_cast<T>(factor.second);
  Ahead ahead(t, range);
  const auto scale = [&](const T* x, std::int64_t n, C* stored) {
    scale_groups<F, lossless>(x, n, first, second, stored, ahead, counts);
  };
  for (std::int64_t i = range.begin; i < range.end;) {
    C* const target = static_cast<C*>(t.target) + i;
    const std::int64_t count = range.end - i < turn ? range.end - i : turn, whole = count / group * group;
    if (whole != 0) {
      scale(lanes_of(t, i, whole, buffer), whole, target);
      i += whole;
    } else {
      scale(lanes_of(t, i, count, buffer), group, ragged);
      __builtin_memcpy(target, ragged, static_cast<unsigned long>(count) * sizeof(C));
      i += count;
    }
  }
}

void clip_scale(const executor::ClipTensor& t, const ops::ClipFactor& factor, ClipWay way, bool zero,
                const ClipRange& range, ops::ClipCounts& counts) {
  formats::visit(t.format, [&](auto f) {
    using F = decltype(f);
    using C = typename F::container;
    if (way == ClipWay::lossless) return scale_range<F, true>(t, factor, range, counts);
    if (way == ClipWay::plain) return scale_range<F, false>(t, factor, range, counts);
    const C* source = static_cast<const C*>(t.source);
    C* target = static_cast<C*>(t.target);
    for (std::int64_t i = range.begin; i < range.end; ++i)
      target[i] = ops::clip_entry<F>(source[i], factor, zero, counts);
  });
}

}  // namespace
}  // namespace gradkern::cpu
