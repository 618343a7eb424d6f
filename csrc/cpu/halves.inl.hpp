// A whole block without zeros in a format of 16 bits, looked at as it is stored: half as many vectors as of float32.
//
// What is summed is float64 lanes as everywhere. bfloat16 is widened by a shift and a mask, which part even entries from
// odd ones.
#pragma once

#include "cpu/block.inl.hpp"
#include "cpu/statistics_scan.inl.hpp"
#include "cpu/statistics_sums.inl.hpp"
#include "cpu/streams.inl.hpp"

namespace gradkern::cpu {
namespace {

template <class F, bool all_below = false>
struct HalfScanner;
template <class F>
struct Halves;

#if defined(GRADKERN_SIMD_AVX512) || defined(GRADKERN_SIMD_AVX2)

// amin is 0 if there are zeros nonetheless, and nothing else is right. The codes are the format's own exponents, 0 of
// subnormals. Entries that may lie in another cell than cell 1, all subnormals, and if so wanted whatever is below an
// exponent are copied to `taken`: the scalar units have nothing else to do.
template <class F, bool all_below>
struct HalfScanner {
  using V = simd::halves;
  static constexpr int lanes = simd::vector_bytes / 2, fraction_bits = F::significand_bits - 1;
  static constexpr bool has_subnormals = F::bias < Wide<float>::bias;  // that are not subnormal in float32
  static constexpr std::uint16_t fraction = (1 << fraction_bits) - 1;
  V amax = V(0), amin = V(0xFFFF), limit = V(fraction);
  std::int64_t negative = 0;
  std::uint16_t* taken = nullptr;

  HalfScanner() = default;
  explicit HalfScanner(std::uint16_t* next) : taken(next) {}
  // Everything whose exponent is below `low` is to be taken.
  HalfScanner(std::uint16_t* next, int low)
      : limit(static_cast<std::uint16_t>((low << fraction_bits) - has_subnormals)), taken(next) {}
  GRADKERN_HD void begin(const HalfScanner& at) {
    limit = at.limit;
    taken = at.taken;
  }

  GRADKERN_HD void step(const Halves<F>& source, std::int64_t i, Scan<float>&, std::uint8_t* codes) {
    step([&](int j) { return source.entries(i, j * lanes); }, source.stored + i, codes);
  }
  // vector_bytes entries: entries(j) are those of vector j.
  template <class Entries>
  GRADKERN_HD void step(const Entries& entries, const std::uint16_t* stored, std::uint8_t* codes) {
    V v[2];
    std::uint64_t found = 0;
#pragma GCC unroll 2
    for (int j = 0; j < 2; ++j) {
      v[j] = entries(j);
      const V magnitude = v[j] & V(0x7FFF);
      amax = max(amax, magnitude);
      amin = min(amin, magnitude);
      found |= ordinary(magnitude) << (j * lanes);
    }
    const simd::ExponentBytes<fraction_bits> top(v[0], v[1]);
    if constexpr (F::exponent_bits == 8 || all_below)
      negative += simd::count_signs(v[0]) + simd::count_signs(v[1]);
    else
      negative += simd::count_set(top.joined, simd::bytes(1 << F::exponent_bits));
    top.exponent().store(codes);
    constexpr std::uint64_t last = std::uint64_t(1) << (2 * lanes - 1);
    found ^= last | (last - 1);
    const auto take_one = [&] {
      *taken = stored[__builtin_ctzll(found | last)];  // whether there is one or not: no branch
      taken += found != 0;
      found &= found - 1;
    };
    take_one();
    if constexpr (!has_subnormals) take_one();  // one in 128 is a power of two
    while (found) [[unlikely]]
      take_one();
  }

  // Where nothing is to be taken. Of float16 the last fraction and zero are in cells of their own, and next to one
  // another with the last one subtracted, which leaves nothing of what is smaller; of bfloat16 there is but zero.
  GRADKERN_HD std::uint64_t ordinary(V magnitude) const {
    if constexpr (has_subnormals) return simd::where_set(simd::minus_or_zero(magnitude, limit), V(fraction - 1));
    return simd::where_set(all_below ? simd::minus_or_zero(magnitude, limit) : magnitude, V(fraction));
  }

  GRADKERN_HD void merge(const HalfScanner& other) {
    amax = max(amax, other.amax);
    amin = min(amin, other.amin);
    negative += other.negative;
    taken = other.taken;
  }

  GRADKERN_HD void finish(Scan<float>& s) const {
    const auto widened = [](std::uint16_t magnitude) {
      return base::bit_cast<std::uint32_t>(static_cast<float>(formats::decode<F>(magnitude)));
    };
    s.negative = negative;
    s.zero = 0;
    s.amax = widened(simd::reduce(amax, [](auto a, auto b) { return max(a, b); }));
    s.amin = widened(simd::reduce(amin, [](auto a, auto b) { return min(a, b); }));
  }
};

template <class F>
struct Halves {
  static constexpr bool halves = true;
  static constexpr bool parted = F::significand_bits == 8;  // bfloat16 is the upper half of a float32
  static constexpr Order order = parted ? Order::even_odd : Order::natural;
  static constexpr int lanes = simd::vector_bytes / 4;
  const std::uint16_t* stored;
  float* x;
  TwoStreams<std::uint16_t> ahead;

  GRADKERN_HD void load(std::int64_t) const {}
  GRADKERN_HD simd::halves entries(std::int64_t i, int j) const {
    using words = simd::vec<std::uint32_t, lanes>;
    const simd::halves v = ahead.fetch(simd::halves::load(stored + i + j), i, j);
    float* const widened = x + i + j;
    if constexpr (parted) {
      const words pairs = words::wrap(v.v);
      simd::vec_f32::wrap((pairs << 16).v).store(widened);
      simd::vec_f32::wrap((pairs & words(0xFFFF0000)).v).store(widened + lanes);
    } else {
      widen_lanes<F>(stored + i + j).store(widened);
      widen_lanes<F>(stored + i + j + lanes).store(widened + lanes);
    }
    return v;
  }
};

template <class F, int width>
GRADKERN_HD void add_group(const Halves<F>& source, std::int64_t i, Summer<float, false, width>& sums) {
  using H = Halves<F>;
  constexpr int vectors = Summer<float, false, width>::vectors, of_parity = H::lanes / width;
#pragma GCC unroll 16
  for (int g = 0; g < simd::vector_bytes / width; ++g) {
    const int parted = g / of_parity % 2 * vectors / 2 + g % of_parity % (vectors / 2);
    sums.add(H::parted ? parted : g % vectors, simd::widen<width>(source.x + i + g * width));
  }
}

#endif

}  // namespace
}  // namespace gradkern::cpu
