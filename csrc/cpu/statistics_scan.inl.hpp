// The first look at entries of a block: extrema, signs, the binade of every entry as a byte, and which entries may lie
// where a binade is cut finely.
#pragma once

#include <limits>

#include "cpu/histogram.inl.hpp"
#include "simd/looked.hpp"

namespace gradkern::cpu {
namespace {

using ops::statistics_block;

template <class T>
struct Wide;  // the integer type of a lane, and where its fields lie
template <>
struct Wide<float> {
  using unsigned_scalar = std::uint32_t;
  static constexpr int fraction_bits = 23, bias = 127;
};
template <>
struct Wide<double> {
  using unsigned_scalar = std::uint64_t;
  static constexpr int fraction_bits = 52, bias = 1023;
};

template <class T>
inline constexpr int lane_count = simd::vector_bytes / int(sizeof(T));

template <class T>
struct Scan {
  using U = typename Wide<T>::unsigned_scalar;
  U amax = 0, amin = 0;  // magnitudes as bits; amin is that of the smallest non-zero one
  std::int64_t negative = 0, zero = 0;
  // Of every vector of T, which entries may lie in another cell than cell 1; what follows those of a short block is 0.
  alignas(64) simd::lane_bits<lane_count<T>> candidates[statistics_block / lane_count<T>];
};

// Extrema over magnitudes, and how many signs and zeros. Without zeros a block is looked at faster; amin is 0 if it has any
// nonetheless, and nothing else is right.
template <class T, bool zeros>
struct Scanner {
  using W = Wide<T>;
  using U = typename W::unsigned_scalar;
  static constexpr int lanes = lane_count<T>, vectors = int(sizeof(T));
  using V = simd::vec<T, lanes>;
  using UV = simd::vec<U, lanes>;

  // Two of each by turns, as one waits for its last comparison.
  V amax[2] = {T(0), T(0)}, amin[2] = {std::numeric_limits<T>::infinity(), std::numeric_limits<T>::infinity()};
  std::int64_t negative = 0, zero = 0;

  // The fractions from 1 - 2^-10 up, zero, and as many above it: these carry, or leave nothing but low bits.
  static constexpr U cut = U(1) << (W::fraction_bits - 10), cut_mask = (U(1) << W::fraction_bits) - 2 * cut;

  GRADKERN_HD void begin(const Scanner&) {}

  // Entries [i, i + vector_bytes). codes: for the histogram, of float only.
  template <class Source>
  GRADKERN_HD void step(const Source& source, std::int64_t i, Scan<T>& s, std::uint8_t* codes) {
    UV v[vectors];
#pragma GCC unroll 8
    for (int j = 0; j < vectors; ++j) {
      const simd::Looked<T, lanes, !zeros> entries(source.entries(i, j * lanes));
      v[j] = entries.bits();
      amax[j % 2] = simd::max_magnitude(entries.v, amax[j % 2]);
      amin[j % 2] = entries.min_magnitude(amin[j % 2]);
      zero += entries.zeros();
      entries.store_where_zero(UV(cut), UV(cut_mask), s.candidates + i / lanes + j);
    }
    if constexpr (sizeof(T) == 4) {
      const simd::SignsAndExponents top(v[0], v[1], v[2], v[3]);
      negative += __builtin_popcountll(simd::bits_of(top.sign, 7));
      top.exponent.store(codes);
    } else {
#pragma GCC unroll 8
      for (int j = 0; j < vectors; ++j) negative += __builtin_popcount(simd::lanes_of(v[j]));
    }
  }

  GRADKERN_HD void merge(const Scanner& other) {
    for (int j = 0; j < 2; ++j) {
      amax[j] = max(amax[j], other.amax[j]);
      amin[j] = min(amin[j], other.amin[j]);
    }
    negative += other.negative;
    zero += other.zero;
  }

  GRADKERN_HD void finish(Scan<T>& s) const {
    s.negative = negative;
    s.zero = zero;
    s.amax = base::bit_cast<U>(simd::reduce(max(amax[0], amax[1]), [](auto a, auto b) { return max(a, b); }));
    s.amin = base::bit_cast<U>(simd::reduce(min(amin[0], amin[1]), [](auto a, auto b) { return min(a, b); }));
  }
};

// The codes of vector_bytes entries whose magnitudes are normal in float32, or zero.
GRADKERN_HD void code_binades(const double* x, std::uint8_t* codes) {
  using simd::words;
  constexpr int lanes = simd::vector_bytes / 8;
  words code[4];
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    const auto load = [&](int k) { return simd::longs::wrap(simd::vec_f64::load(x + (2 * j + k) * lanes).v); };
    const words exponent = (simd::narrow(load(0) >> 32, load(1) >> 32) & words(INT32_MAX)) >> 20;
    code[j] = max(exponent - words(Wide<double>::bias - code_bias), words(0));
  }
  simd::narrow(code[0], code[1], code[2], code[3]).store(codes);
}

}  // namespace
}  // namespace gradkern::cpu
