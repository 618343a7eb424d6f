// stored[i] = encode(decode(source[i]) * scale), and the census of what that lost: one rounding an element, the product
// with the scale rounded in float64 (exact for a power of two). Sums as in ops/rounding.hpp.
//
// Three ways, which agree in every bit: float32 lanes where source and scale leave float32 values; float64 lanes where
// squares need no scaling; else one element at a time, as written in the contract. Each block takes the first that fits.
#pragma once

#include "cpu/block.inl.hpp"
#include "cpu/convert_lanes.inl.hpp"

namespace gradkern::cpu {
namespace {

inline constexpr std::int64_t convert_block = ops::rounding_block;

// A chunk's result, and one block's sums and arrays. Blocks are padded with zeros to whole groups.
template <class F>
struct Conversion {
  const executor::ConvertArgs& args;
  ops::RoundingCounts& counts;
  ops::RoundingSums sums = {};
  alignas(64) double wide[convert_block], error[convert_block];
  alignas(64) holder<F> rounded[convert_block];
  alignas(64) float source[convert_block], scaled[convert_block], error_f32[convert_block];
  alignas(64) typename F::container ragged[convert_block];

  Conversion(const executor::ConvertArgs& a, ops::RoundingCounts& c) : args(a), counts(c) {}
};

// A range of at most convert_block elements; whole: its size in whole groups.
struct Range {
  std::int64_t first, count, whole;
};

template <class F>
void scalar_block(Conversion<F>& c, Range range) {
  const executor::ConvertArgs& args = c.args;
  decode_block(args.source_format, args.source, range.first, range.count, c.wide);
  auto* stored = static_cast<typename F::container*>(args.stored);
  for (std::int64_t j = 0; j < range.count; ++j) {
    const std::int64_t i = range.first + j;
    const double exact = c.wide[j] * args.scale;
    const auto encoded = ops::encode_scaled<F>(c.wide[j], exact, args.mode, formats::draw(args.mode, args.stream, i));
    stored[i] = encoded.bits;
    ops::record_rounding<F>(exact, encoded, i, c.counts, c.sums);
  }
}

// The first group of 16 with a stored zero that was none; there is one. Zero: all bits but the sign.
template <class T, class C>
std::int64_t group_with_flushed(const T* x, const C* stored) {
  for (std::int64_t j = 0;; j += group) {
    bool found = false;
    for (int k = 0; k < group; ++k) found |= (x[j + k] != 0) & (static_cast<C>(stored[j + k] << 1) == 0);
    if (found) return j;
  }
}

// Adds a block to the chunk; x is what was rounded, and tells which element was the first of its kind.
template <class F, class T>
void count_block(Conversion<F>& c, const BlockCounts& block, const T* x, const typename F::container* stored,
                 Range range) {
  using formats::Event;
  ops::RoundingCounts& counts = c.counts;
  const auto add = [&](Event event, std::int64_t n) { counts.events[static_cast<int>(event)] += n; };
  add(Event::inexact, block.inexact);
  add(Event::overflow, block.overflow);
  add(Event::subnormal, block.subnormal);
  add(Event::flushed, block.flushed);
  add(Event::nan, block.nan);
  add(Event::inf, block.inf);
  const std::int64_t special = block.overflow + block.nan + block.inf;
  add(Event::exact, range.count - special - block.inexact - block.subnormal - block.flushed);
  if (block.max_ulp > counts.max_ulp) counts.max_ulp = block.max_ulp;
  if (block.flushed && counts.first_flushed < 0) {
    std::int64_t j = group_with_flushed(x, stored);
    while (x[j] == 0 || formats::decode<F>(stored[j]) != 0) ++j;
    counts.first_flushed = range.first + j;
  }
  if (block.overflow && counts.first_overflow < 0) {
    std::int64_t j = 0;
    const double largest = ops::LaneLimits<F, double>::largest;
    while (!(ops::abs(x[j]) > largest) || formats::encode<F>(x[j], c.args.mode).event != Event::overflow) ++j;
    counts.first_overflow = range.first + j;
  }
}

// The block as float32, in whole groups; buffer holds it where the source is not that already.
const float* source_f32(const executor::ConvertArgs& args, Range range, float* buffer) {
  using formats::FormatId;
  const bool is_f32 = args.source_format == FormatId::float32 || args.source_format == FormatId::tfloat32;
  if (is_f32 && range.count == range.whole) return static_cast<const float*>(args.source) + range.first;
  formats::visit(args.source_format, [&](auto f) {
    using S = decltype(f);
    if constexpr (S::id != FormatId::float64) {
      const auto* data = static_cast<const typename S::container*>(args.source) + range.first;
      if (range.count == range.whole) return widen_f32<S>(data, range.count, buffer);
      typename S::container padded[convert_block] = {};
      __builtin_memcpy(padded, data, static_cast<unsigned long>(range.count) * sizeof padded[0]);
      widen_f32<S>(padded, range.whole, buffer);
    }
  });
  return buffer;
}

// x times the scale where that is exact in float32; otherwise false.
bool scale_exactly(const float* x, std::int64_t count, float scale, float* scaled) {
  constexpr int lanes = group / group_f32;
  const vec_f32 factor(scale), inverse(1 / scale);
  simd::vec_i32 wrong(0);
  for (std::int64_t j = 0; j < count; j += lanes) {
    const vec_f32 value = vec_f32::load(x + j), product = value * factor;
    wrong = wrong | (product * inverse != value);
    product.store(scaled + j);
  }
  return !any(wrong);
}

// x times the scale in float64; false where float64 lanes cannot take a product.
template <class T>
bool scale_wide(const T* x, std::int64_t count, double scale, double* scaled) {
  constexpr int lanes = group / group_f64;
  const vec_f64 factor(scale), low(0x1p-420), high(0x1p500), zero(0.0), infinity(__builtin_inf());
  ops::int_t<vec_f64> wrong(std::int64_t(0));
  for (std::int64_t j = 0; j < count; j += lanes) {
    simd::prefetch_page(x + j);
    const vec_f64 value = simd::widen(x + j), product = value * factor, a = ops::abs(product);
    wrong = wrong | ((a < low) & (value != zero)) | ((a >= high) & (ops::abs(value) < infinity));
    product.store(scaled + j);
  }
  return !any(wrong);
}

bool scale_source(const executor::ConvertArgs& args, const float* source, Range range, double* scaled) {
  if (source) return scale_wide(source, range.whole, args.scale, scaled);
  const double* x = static_cast<const double*>(args.source) + range.first;
  if (range.count == range.whole) return scale_wide(x, range.whole, args.scale, scaled);
  double padded[convert_block] = {};
  __builtin_memcpy(padded, x, static_cast<unsigned long>(range.count) * sizeof(double));
  return scale_wide(padded, range.whole, args.scale, scaled);
}

// special: set where a value is beyond F's largest, or not finite.
template <class F, bool flush, bool counted>
bool narrow_block(Conversion<F>& c, const float* source, Range range, typename F::container* stored, bool& special) {
  const float* x = source;
  if (c.args.scale != 1) {
    if (!scale_exactly(source, range.whole, static_cast<float>(c.args.scale), c.scaled)) return false;
    x = c.scaled;
  }
  BlockCounts block;
  special = !round_f32<F, flush, counted>(x, range.whole, stored, c.error_f32, block);
  if (special) return false;
  if constexpr (!counted) return true;
  add_squares(x, range.whole, c.sums.signal.medium);
  add_squares(c.error_f32, range.whole, c.sums.noise.medium);
  count_block(c, block, x, stored, range);
  return true;
}

template <class F, bool flush>
bool wide_block(Conversion<F>& c, const float* source, Range range, typename F::container* stored, bool special) {
  if (!scale_source(c.args, source, range, c.wide)) return false;
  const bool clamps = c.args.mode.overflow == formats::Overflow::saturate;
  const double beyond = clamps ? ops::LaneLimits<F, double>::largest : __builtin_inf();
  BlockCounts block;
  if (special || !round_f64<F, flush, false>(c.wide, range.whole, beyond, c.rounded, c.error, block))
    round_f64<F, flush, true>(c.wide, range.whole, beyond, c.rounded, c.error, block);
  store_rounded<F>(c.rounded, range.whole, stored);
  count_block(c, block, c.wide, stored, range);
  if (block.overflow + block.nan + block.inf) {
    for (std::int64_t j = 0; j < range.whole; ++j)
      if (!(ops::abs(c.rounded[j]) < __builtin_inf())) c.wide[j] = 0;  // no finite error: in neither sum
  }
  add_squares(c.wide, range.whole, c.sums.signal.medium);
  add_squares(c.error, range.whole, c.sums.noise.medium);
  return true;
}

// counted: else float32 lanes round and do no more. Flushing, which is rare, always counts.
template <class F, bool flush, bool counted>
void lane_block(Conversion<F>& c, Range range) {
  using formats::FormatId;
  auto* out = static_cast<typename F::container*>(c.args.stored) + range.first;
  auto* stored = range.count == range.whole ? out : c.ragged;
  const float* source = c.args.source_format == FormatId::float64 ? nullptr : source_f32(c.args, range, c.source);
  bool done = false, special = false;
  if constexpr (F::id != FormatId::float64) {
    done = source && ops::fits_f32(c.args.scale) && narrow_block<F, flush, counted>(c, source, range, stored, special);
  }
  done = done || wide_block<F, flush>(c, source, range, stored, special);
  if (!done) return scalar_block(c, range);
  if (stored != out) __builtin_memcpy(out, stored, static_cast<unsigned long>(range.count) * sizeof *out);
}

template <class F>
void convert_chunk(const executor::ConvertArgs& args, std::int64_t begin, std::int64_t end,
                   ops::RoundingCounts& counts) {
  Conversion<F> c(args, counts);
  const bool flush = args.mode.subnormals == formats::Subnormals::flush;
  const bool lanes = args.mode.rounding == formats::Rounding::nearest_even;
  auto* const block = !lanes        ? scalar_block<F>
                      : flush       ? lane_block<F, true, true>
                      : args.counts ? lane_block<F, false, true>
                                    : lane_block<F, false, false>;
  for (std::int64_t first = begin; first < end; first += convert_block) {
    const std::int64_t count = end - first < convert_block ? end - first : convert_block;
    block(c, {first, count, (count + group - 1) / group * group});
    counts.add(c.sums);
    c.sums = {};
  }
}

void convert(const executor::ConvertArgs& args, std::int64_t begin, std::int64_t end, ops::RoundingCounts& counts) {
  formats::visit(args.format, [&](auto f) { convert_chunk<decltype(f)>(args, begin, end, counts); });
}

}  // namespace
}  // namespace gradkern::cpu
