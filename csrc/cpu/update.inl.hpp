// w' = fl_s(fl_64(w - rate g)), and the census of what rounding made of the update, in one pass over memory. Sums as in
// ops/rounding.hpp.
//
// Two ways, which agree in every bit: float64 lanes, where rounding is to nearest even, everything is finite and squares
// need no scaling; else one entry at a time, as written in ops/update.hpp. Each block takes the first that fits.
#pragma once

#include "cpu/block.inl.hpp"
#include "cpu/convert_lanes.inl.hpp"

namespace gradkern::cpu {
namespace {

inline constexpr std::int64_t update_block = ops::rounding_block;

// A chunk's result, and one block's sums and arrays. Blocks are padded with zeros to whole groups.
template <class F>
struct Updating {
  const executor::UpdateArgs& args;
  ops::UpdateCounts& counts;
  ops::UpdateSums sums = {};
  alignas(64) double exact[update_block], gradient[update_block];
  alignas(64) float gradient_f32[update_block];
  alignas(64) holder<F> rounded[update_block], weight[update_block];
  alignas(64) typename F::container ragged[update_block];

  Updating(const executor::UpdateArgs& a, ops::UpdateCounts& c) : args(a), counts(c) {}
};

// A block of a tensor in lanes of T: the tensor itself where it is that already, in whole groups, else buffer.
template <class T>
const T* block_of(formats::FormatId format, const void* data, std::int64_t first, std::int64_t count, T* buffer) {
  using formats::FormatId;
  const bool is_lane = sizeof(T) == 8 || format == FormatId::float32 || format == FormatId::tfloat32;
  if (is_lane && count % group == 0) return static_cast<const T*>(data) + first;
  widen(format, data, first, first + count, buffer);
  for (std::int64_t j = count; j % group != 0; ++j) buffer[j] = 0;
  return buffer;
}

// What one block did. Entries that neither moved nor were lost had no update.
struct BlockUpdate {
  std::int64_t applied = 0, lost = 0, flushed = 0, subnormal = 0;
};

// Whole groups of vectors, rounded to nearest even and held in `rounded`; adds to the lanes of the sums. False where
// float64 lanes cannot take a value, or something is not finite or beyond F: then only `rounded` has changed.
template <class F, bool flush, class W, class G>
bool descend_groups(const W* w, const G* g, std::int64_t count, double rate, W* rounded, ops::UpdateSums& sums,
                    BlockUpdate& block) {
  using V = vec_f64;
  using I = ops::int_t<V>;
  using Limits = ops::LaneLimits<F, V>;
  constexpr int lanes = group / group_f64;
  const V factor(rate), minus(-rate), low(0x1p-420), high(0x1p490), zero(0.0);
  const V smallest_normal(Limits::smallest_normal), largest(Limits::largest);
  const I none(std::int64_t(0));
  I applied = none, idle = none, flushed = none, normal = none, empty = none, plain = ~none;
  V wanted[group_f64], made[group_f64];
  for (int v = 0; v < group_f64; ++v) {
    wanted[v] = V::load(sums.wanted.medium + v * lanes);
    made[v] = V::load(sums.made.medium + v * lanes);
  }
  for (std::int64_t i = 0; i < count; i += group) {
    simd::prefetch_page(w + i);
    simd::prefetch_page(g + i);
#pragma GCC unroll 8
    for (int v = 0; v < group_f64; ++v) {
      const std::int64_t j = i + v * lanes;
      const V weight = simd::widen(w + j), gradient = simd::widen(g + j), u = factor * gradient;
      const V x = fma(minus, gradient, weight), a = ops::abs(x), b = ops::abs(u);
      const I no_update = u == zero, is_zero = x == zero;
      plain = plain & (b < high) & (a < high) & ((a >= low) | is_zero) & ((b >= low) | no_update);
      V r = ops::round_magnitude<F>(a, ops::binade_bits<F>(a));
      plain = plain & (r <= largest);
      if constexpr (flush) r = select(r < smallest_normal, zero, r);
      const V stored = ops::with_sign(r, x), difference = stored - weight;
      simd::narrow(rounded + j, stored);
      const I moved = difference != zero, gone = r == zero;
      applied = applied + moved;
      idle = idle + (no_update | moved);
      empty = empty + gone;
      flushed = flushed + (gone & ~is_zero);
      normal = normal + (r >= smallest_normal);
      wanted[v] = wanted[v] + u * u;
      made[v] = made[v] + difference * difference;
    }
  }
  if (total(~plain) != 0) return false;
  for (int v = 0; v < group_f64; ++v) {
    wanted[v].store(sums.wanted.medium + v * lanes);
    made[v].store(sums.made.medium + v * lanes);
  }
  block = {total(applied), count - total(idle), total(flushed), count - total(normal) - total(empty)};
  return true;
}

// False, and nothing stored or counted, where the block needs the other way.
template <class F, bool flush>
bool lane_update(Updating<F>& u, std::int64_t first, std::int64_t count) {
  const executor::UpdateArgs& args = u.args;
  const std::int64_t whole = (count + group - 1) / group * group;
  const holder<F>* w = block_of(F::id, args.weight, first, count, u.weight);
  BlockUpdate block;
  const auto descends = [&](auto* buffer) {
    const auto* g = block_of(args.gradient_format, args.gradient, first, count, buffer);
    return descend_groups<F, flush>(w, g, whole, args.rate, u.rounded, u.sums, block);
  };
  const bool wide = args.gradient_format == formats::FormatId::float64;
  if (!(wide ? descends(u.gradient) : descends(u.gradient_f32))) return false;
  u.counts.applied += block.applied;
  u.counts.lost += block.lost;
  u.counts.unchanged += count - block.applied - block.lost;
  u.counts.flushed += block.flushed;
  u.counts.subnormal += block.subnormal;
  auto* out = static_cast<typename F::container*>(args.updated) + first;
  store_rounded<F>(u.rounded, whole, count == whole ? out : u.ragged);
  if (count != whole) __builtin_memcpy(out, u.ragged, static_cast<unsigned long>(count) * sizeof *out);
  return true;
}

template <class F>
void scalar_update(Updating<F>& u, std::int64_t first, std::int64_t count) {
  const executor::UpdateArgs& args = u.args;
  decode_block(F::id, args.weight, first, count, u.exact);
  decode_block(args.gradient_format, args.gradient, first, count, u.gradient);
  auto* out = static_cast<typename F::container*>(args.updated);
  for (std::int64_t j = 0; j < count; ++j) {
    const std::uint64_t draw = formats::draw(args.mode, args.stream, first + j);
    out[first + j] =
        ops::update_entry<F>(u.exact[j], u.gradient[j], args.rate, args.mode, draw, first + j, u.counts, u.sums);
  }
}

template <class F>
void update_chunk(const executor::UpdateArgs& args, std::int64_t begin, std::int64_t end, ops::UpdateCounts& counts) {
  Updating<F> u(args, counts);
  const bool flush = args.mode.subnormals == formats::Subnormals::flush;
  const bool lanes = args.mode.rounding == formats::Rounding::nearest_even;
  for (std::int64_t first = begin; first < end; first += update_block) {
    const std::int64_t count = end - first < update_block ? end - first : update_block;
    const bool done = lanes && (flush ? lane_update<F, true>(u, first, count) : lane_update<F, false>(u, first, count));
    if (!done) scalar_update(u, first, count);
    counts.add(u.sums);
    u.sums = {};
  }
}

void update(const executor::UpdateArgs& args, std::int64_t begin, std::int64_t end, ops::UpdateCounts& counts) {
  formats::visit(args.format, [&](auto f) { update_chunk<decltype(f)>(args, begin, end, counts); });
}

}  // namespace
}  // namespace gradkern::cpu
