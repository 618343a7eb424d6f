// The first pass over a block of statistics: extrema, signs, zeros, the binade of every entry as a byte, and notes of the
// rare entries that lie where a binade is cut finely.
#pragma once

#include <type_traits>

#include "cpu/histogram.inl.hpp"

namespace gradkern::cpu {
namespace {

using ops::statistics_block;

template <class T>
struct Wide;  // the integer and vector types of a lane, and where its fields lie
template <>
struct Wide<float> {
  using lanes = simd::vec_f32;
  using integers = simd::words;
  using unsigned_scalar = std::uint32_t;
  static constexpr int fraction_bits = 23, bias = 127;
};
template <>
struct Wide<double> {
  using lanes = simd::vec_f64;
  using integers = simd::longs;
  using unsigned_scalar = std::uint64_t;
  static constexpr int fraction_bits = 52, bias = 1023;
};

template <class T>
struct Scan {
  using U = typename Wide<T>::unsigned_scalar;
  U amax = 0, amin = 0;  // magnitudes as bits; amin is that of the smallest non-zero one
  std::int64_t negative = 0, zero = 0;
  int noted = 0;
  std::uint16_t notes[statistics_block];                             // entries in another cell than cell 1
  alignas(64) std::uint8_t codes[statistics_block + codes_padding];  // for count_binades
};

template <class T>
GRADKERN_HD auto magnitude_bits(T x) {
  using U = typename Wide<T>::unsigned_scalar;
  return base::bit_cast<U>(x) & (~U(0) >> 1);
}

// The fraction of one less than a magnitude, at the top of its word: from fine_fraction up for what ops::cell_of does
// not put into cell 1 (powers of two come next to the top of the binade below), and for zero.
template <class U, int fraction_bits>
inline constexpr U fine_fraction =
    ((U(1) << fraction_bits) - 1 - (U(1) << (fraction_bits - 10))) << (8 * sizeof(U) - fraction_bits);

// Of a group with entries in fine cells, or zeros that are not counted yet: notes the former, counts the latter.
template <class T, bool zeros_counted>
GRADKERN_HD void note_group(Scan<T>& s, const T* x, std::int64_t first) {
  using W = Wide<T>;
  using U = typename W::unsigned_scalar;
  using UV = simd::vec<U, simd::vector_bytes / int(sizeof(T))>;
  constexpr int lanes = simd::vector_bytes / int(sizeof(T));
  const UV fine(fine_fraction<U, W::fraction_bits>), zero(U(0));
  std::uint64_t found = 0;
#pragma GCC unroll 8
  for (int j = 0; j < simd::vector_bytes / lanes; ++j) {
    const UV v = UV::wrap(W::lanes::load(x + first + j * lanes).v), m = v & UV(U(~U(0) >> 1));
    const UV shifted = (m - UV(U(1))) << int(8 * sizeof(U) - W::fraction_bits);
    const UV is_zero = UV::wrap(m.v == zero.v);
    if constexpr (!zeros_counted) {
      const unsigned zeros = simd::lanes_of(is_zero);
      s.zero += __builtin_popcount(zeros);
      s.negative -= __builtin_popcount(zeros & simd::lanes_of(v));
    }
    found |= std::uint64_t(simd::lanes_of(UV::wrap(shifted.v >= fine.v) & ~is_zero)) << (j * lanes);
  }
  for (; found; found &= found - 1) s.notes[s.noted++] = static_cast<std::uint16_t>(first + __builtin_ctzll(found));
}

// n is a multiple of simd::vector_bytes. Counting zeros in every vector costs a tenth more, and pays where there
// are many.
template <class T, bool many_zeros>
GRADKERN_HD void scan(const T* x, std::int64_t n, Fetch fetch, Scan<T>& s) {
  using W = Wide<T>;
  using U = typename W::unsigned_scalar;
  using UV = simd::vec<U, simd::vector_bytes / int(sizeof(T))>;
  using I = typename W::integers;
  constexpr int lanes = simd::vector_bytes / int(sizeof(T)), vectors = int(sizeof(T));
  const UV positive(U(~U(0) >> 1)), one(U(1)), fine(fine_fraction<U, W::fraction_bits>);
  I amax(std::make_signed_t<U>(0));
  UV amin(~U(0)), zeros(U(0));
  std::int64_t negative = 0;  // not in s, which the stored bytes may alias
  for (std::int64_t i = 0; i < n; i += simd::vector_bytes) {
    fetch();
    UV top(U(0));
    I exponent[vectors];
#pragma GCC unroll 8
    for (int j = 0; j < vectors; ++j) {
      const UV v = UV::wrap(W::lanes::load(x + i + j * lanes).v), m = v & positive;
      UV less = m - one, below_zero = v;
      amax = simd::max(amax, I::wrap(m.v));
      amin = simd::min(amin, less);
      if constexpr (many_zeros) {
        const UV is_zero = UV::wrap(m.v == UV(U(0)).v);
        zeros = zeros - is_zero;
        less = less - is_zero;  // zero again
        below_zero = UV::wrap((v & ~is_zero).v);
      }
      negative += __builtin_popcount(simd::lanes_of(below_zero));
      top = simd::max(top, less << int(8 * sizeof(T) - W::fraction_bits));
      exponent[j] = I::wrap((m >> W::fraction_bits).v);
    }
    if constexpr (sizeof(T) == 4) simd::narrow(exponent[0], exponent[1], exponent[2], exponent[3]).store(s.codes + i);
    if (simd::any(I::wrap(top.v >= fine.v))) note_group<T, many_zeros>(s, x, i);
  }
  using integer = std::make_signed_t<U>;
  s.negative += negative;
  for (int j = 0; many_zeros && j < lanes; ++j) s.zero += static_cast<std::int64_t>(zeros.v[j]);
  s.amax = static_cast<U>(simd::reduce(amax, integer(0), [](integer a, integer b) { return a > b ? a : b; }));
  s.amin = simd::reduce(amin, ~U(0), [](U a, U b) { return a < b ? a : b; }) + 1;
}

// codes[i] = how many binades entry i lies below the largest, 255 at most.
GRADKERN_HD void code_depths(const double* x, std::int64_t n, int top, std::uint8_t* codes) {
  using simd::longs;
  constexpr int lanes = simd::vector_bytes / 8;
  const longs positive(INT64_MAX), largest{std::int64_t(top)}, limit{std::int64_t(deepest)};
  for (std::int64_t i = 0; i < n; i += simd::vector_bytes) {
    longs depth[8];
#pragma GCC unroll 8
    for (int j = 0; j < 8; ++j) {
      const longs m = longs::wrap(simd::vec_f64::load(x + i + j * lanes).v) & positive;
      depth[j] = simd::min(largest - (m >> 52), limit);
    }
    simd::narrow(simd::narrow(depth[0], depth[1]), simd::narrow(depth[2], depth[3]), simd::narrow(depth[4], depth[5]),
                 simd::narrow(depth[6], depth[7]))
        .store(codes + i);
  }
}

}  // namespace
}  // namespace gradkern::cpu
