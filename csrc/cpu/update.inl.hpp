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

inline constexpr std::int64_t update_block = 1024;

// A chunk's result and its sums, and one block's arrays. Blocks are padded with zeros to whole groups.
template <class F>
struct Updating {
  const executor::UpdateArgs& args;
  ops::UpdateCounts& counts;
  ops::UpdateSums sums = {};
  alignas(64) double wanted[update_block], exact[update_block], made[update_block];
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

// wanted = rate g and exact = w - rate g; false where float64 lanes cannot take them, or something is not finite.
template <class W, class G>
bool descend_groups(const W* w, const G* g, std::int64_t count, double rate, double* wanted, double* exact) {
  constexpr int lanes = group / group_f64;
  const vec_f64 factor(rate), minus(-rate), low(0x1p-420), high(0x1p490), zero(0.0);
  ops::int_t<vec_f64> wrong(std::int64_t(0));
  for (std::int64_t j = 0; j < count; j += lanes) {
    simd::prefetch_page(w + j);
    simd::prefetch_page(g + j);
    const vec_f64 gradient = simd::widen(g + j), u = factor * gradient;
    const vec_f64 x = fma(minus, gradient, simd::widen(w + j)), a = ops::abs(x), b = ops::abs(u);
    wrong = wrong | ~(max(a, b) < high) | ~(a < high) | ((a < low) & (x != zero)) | ((b < low) & (u != zero));
    u.store(wanted + j);
    x.store(exact + j);
  }
  return total(wrong) == 0;
}

// made = w' - w; how many entries moved, and how many did not though they should have.
template <class W>
void compare_groups(const W* w, const W* rounded, const double* wanted, std::int64_t count, double* made,
                    ops::UpdateCounts& counts) {
  constexpr int lanes = group / group_f64;
  const vec_f64 zero(0.0);
  ops::int_t<vec_f64> applied(std::int64_t(0)), lost(std::int64_t(0));
  for (std::int64_t j = 0; j < count; j += lanes) {
    const vec_f64 difference = simd::widen(rounded + j) - simd::widen(w + j);
    applied = applied + (difference != zero);
    lost = lost + ((difference == zero) & (vec_f64::load(wanted + j) != zero));
    difference.store(made + j);
  }
  counts.applied += total(applied);
  counts.lost += total(lost);
}

// Whole groups of vectors; false, and nothing stored or counted, where the block needs the other way.
template <class F, bool flush>
bool lane_update(Updating<F>& u, std::int64_t first, std::int64_t count) {
  const executor::UpdateArgs& args = u.args;
  const std::int64_t whole = (count + group - 1) / group * group;
  const holder<F>* w = block_of(F::id, args.weight, first, count, u.weight);
  bool plain;
  if (args.gradient_format == formats::FormatId::float64) {
    const double* g = block_of(args.gradient_format, args.gradient, first, count, u.made);
    plain = descend_groups(w, g, whole, args.rate, u.wanted, u.exact);
  } else {
    alignas(64) float gradient[update_block];
    const float* g = block_of(args.gradient_format, args.gradient, first, count, gradient);
    plain = descend_groups(w, g, whole, args.rate, u.wanted, u.exact);
  }
  BlockCounts block;
  if (!plain || !round_f64<F, flush, false>(u.exact, whole, 0, u.rounded, u.made, block)) return false;
  const std::int64_t before = u.counts.applied + u.counts.lost;
  compare_groups(w, u.rounded, u.wanted, whole, u.made, u.counts);
  u.counts.unchanged += count - (u.counts.applied + u.counts.lost - before);
  u.counts.flushed += block.flushed;
  u.counts.subnormal += block.subnormal;
  add_squares(u.wanted, whole, u.sums.wanted.medium);
  add_squares(u.made, whole, u.sums.made.medium);
  auto* out = static_cast<typename F::container*>(args.updated) + first;
  store_rounded<F>(u.rounded, whole, count == whole ? out : u.ragged);
  if (count != whole) __builtin_memcpy(out, u.ragged, static_cast<unsigned long>(count) * sizeof *out);
  return true;
}

template <class F>
void scalar_update(Updating<F>& u, std::int64_t first, std::int64_t count) {
  const executor::UpdateArgs& args = u.args;
  decode_block(F::id, args.weight, first, count, u.exact);
  decode_block(args.gradient_format, args.gradient, first, count, u.wanted);
  auto* out = static_cast<typename F::container*>(args.updated);
  for (std::int64_t j = 0; j < count; ++j) {
    const std::uint64_t draw = formats::draw(args.mode, args.stream, first + j);
    out[first + j] =
        ops::update_entry<F>(u.exact[j], u.wanted[j], args.rate, args.mode, draw, first + j, u.counts, u.sums);
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
  }
  counts.add(u.sums);
}

void update(const executor::UpdateArgs& args, std::int64_t begin, std::int64_t end, ops::UpdateCounts& counts) {
  formats::visit(args.format, [&](auto f) { update_chunk<decltype(f)>(args, begin, end, counts); });
}

}  // namespace
}  // namespace gradkern::cpu
