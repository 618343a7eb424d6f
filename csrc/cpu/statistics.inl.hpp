// Blocks of ops/statistics.hpp in vector lanes of the width that holds the storage exactly: float or double.
//
// Three passes over a block in L1: scan (extrema, counts, binade codes), sums (float64, 16 lanes), histogram. Entries
// where a binade is cut finely are rare and noted by the scan. A block with a NaN, an infinity or a number below the
// lane type's smallest normal goes entry by entry. Each pass fetches a part of the next block from memory.
#pragma once

#include "cpu/block.inl.hpp"
#include "cpu/histogram.inl.hpp"
#include "ops/statistics.hpp"

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
  std::uint16_t notes[statistics_block];      // entries in another cell than cell 1
  std::uint8_t codes[statistics_block + 64];  // for count_binades; padded to whole vectors
};

template <class T>
GRADKERN_HD auto magnitude_bits(T x) {
  using U = typename Wide<T>::unsigned_scalar;
  return base::bit_cast<U>(x) & (~U(0) >> 1);
}

GRADKERN_HD void fetch(const void* next, std::int64_t offset) {
  __builtin_prefetch(static_cast<const char*>(next) + offset);
}

// The fraction of one less than a magnitude, at the top of its word: from fine_fraction up for what ops::cell_of does
// not put into cell 1 (powers of two come next to the top of the binade below), and for zero.
template <class U, int fraction_bits>
inline constexpr U fine_fraction =
    ((U(1) << fraction_bits) - 1 - (U(1) << (fraction_bits - 10))) << (8 * sizeof(U) - fraction_bits);

// Of a group with zeros or entries in fine cells: counts the former and notes the latter.
template <class T>
GRADKERN_HD void note_group(Scan<T>& s, const T* x, std::int64_t first) {
  using W = Wide<T>;
  using U = typename W::unsigned_scalar;
  using UV = simd::vec<U, simd::vector_bytes / int(sizeof(T))>;
  constexpr int lanes = simd::vector_bytes / int(sizeof(T));
  const UV fine(fine_fraction<U, W::fraction_bits>), zero(U(0));
  for (std::int64_t i = first; i < first + simd::vector_bytes; i += lanes) {
    const UV v = UV::wrap(W::lanes::load(x + i).v), m = v & UV(U(~U(0) >> 1));
    const UV shifted = (m - UV(U(1))) << int(8 * sizeof(U) - W::fraction_bits);
    const unsigned zeros = simd::lanes_of(UV::wrap(m.v == zero.v));
    s.zero += __builtin_popcount(zeros);
    s.negative -= __builtin_popcount(zeros & simd::lanes_of(v));
    unsigned found = simd::lanes_of(UV::wrap(shifted.v >= fine.v)) & ~zeros;
    for (; found; found &= found - 1) s.notes[s.noted++] = static_cast<std::uint16_t>(i + __builtin_ctz(found));
  }
}

// n is a multiple of simd::vector_bytes; next: what is read after this block.
template <class T>
GRADKERN_HD void scan(const T* x, std::int64_t n, const T* next, Scan<T>& s) {
  using W = Wide<T>;
  using U = typename W::unsigned_scalar;
  using UV = simd::vec<U, simd::vector_bytes / int(sizeof(T))>;
  using I = typename W::integers;
  constexpr int lanes = simd::vector_bytes / int(sizeof(T)), vectors = int(sizeof(T));
  const UV positive(U(~U(0) >> 1)), one(U(1)), fine(fine_fraction<U, W::fraction_bits>);
  I amax(std::make_signed_t<U>(0));
  UV amin(~U(0));
  std::int64_t negative = 0;  // not in s, which the stored bytes may alias
  for (std::int64_t i = 0; i < n; i += simd::vector_bytes) {
    for (int line = 0; line < simd::vector_bytes * int(sizeof(T)) / 2; line += 64)
      fetch(next, i * std::int64_t(sizeof(T)) / 2 + line);
    UV top(U(0));
    I exponent[vectors];
#pragma GCC unroll 8
    for (int j = 0; j < vectors; ++j) {
      const UV v = UV::wrap(W::lanes::load(x + i + j * lanes).v), m = v & positive, less = m - one;
      amax = simd::max(amax, I::wrap(m.v));
      amin = simd::min(amin, less);
      negative += __builtin_popcount(simd::lanes_of(v));
      top = simd::max(top, less << int(8 * sizeof(T) - W::fraction_bits));
      exponent[j] = I::wrap((m >> W::fraction_bits).v);
    }
    if constexpr (sizeof(T) == 4) simd::narrow(exponent[0], exponent[1], exponent[2], exponent[3]).store(s.codes + i);
    if (simd::any(I::wrap(top.v >= fine.v))) note_group(s, x, i);
  }
  using integer = std::make_signed_t<U>;
  s.negative += negative;
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

// acc + x * x: exact products of float entries may be fused.
template <class T>
GRADKERN_HD simd::vec_f64 add_square(simd::vec_f64 x, simd::vec_f64 acc) {
#if defined(GRADKERN_SIMD_AVX2) || defined(GRADKERN_SIMD_AVX512) || defined(GRADKERN_SIMD_NEON)
  if constexpr (sizeof(T) == 4) return fma(x, x, acc);
#endif
  return acc + x * x;
}

template <class T, bool scaled>
GRADKERN_HD void sum_lanes(const T* x, std::int64_t n, double scale, const T* next, ops::Lanes& lanes) {
  using simd::vec_f64;
  constexpr int width = simd::vector_bytes / 8, vectors = ops::statistics_lanes / width;
  vec_f64 sum[vectors], magnitude[vectors], square[vectors];
  for (int j = 0; j < vectors; ++j) sum[j] = magnitude[j] = square[j] = vec_f64(0.0);
  for (std::int64_t i = 0; i < n; i += ops::statistics_lanes) {
    if (i * std::int64_t(sizeof(T)) % 128 == 0) fetch(next, (n + i) * std::int64_t(sizeof(T)) / 2);
#pragma GCC unroll 8
    for (int j = 0; j < vectors; ++j) {
      vec_f64 v = simd::widen(x + i + j * width);
      if constexpr (scaled) v = v * vec_f64(scale);
      sum[j] = sum[j] + v;
      magnitude[j] = magnitude[j] + ops::abs(v);
      square[j] = add_square<T>(v, square[j]);
    }
  }
  for (int j = 0; j < vectors; ++j) {
    sum[j].store(lanes.sum + j * width);
    magnitude[j].store(lanes.magnitude + j * width);
    square[j].store(lanes.square + j * width);
  }
}

template <class T>
GRADKERN_HD ops::Deviations sum_deviations(const T* x, std::int64_t count, double scale, double mean) {
  using simd::vec_f64;
  constexpr int width = simd::vector_bytes / 8, vectors = ops::statistics_lanes / width;
  vec_f64 sum[vectors], square[vectors];
  for (int j = 0; j < vectors; ++j) sum[j] = square[j] = vec_f64(0.0);
  const std::int64_t whole = count - count % ops::statistics_lanes;
  for (std::int64_t i = 0; i < whole; i += ops::statistics_lanes) {
#pragma GCC unroll 8
    for (int j = 0; j < vectors; ++j) {
      const vec_f64 deviation = simd::widen(x + i + j * width) * vec_f64(scale) - vec_f64(mean);
      sum[j] = sum[j] + deviation;
      square[j] = square[j] + deviation * deviation;
    }
  }
  ops::Deviations d;
  for (int j = 0; j < vectors; ++j) {
    sum[j].store(d.sum + j * width);
    square[j].store(d.square + j * width);
  }
  for (std::int64_t i = whole; i < count; ++i) {
    const double deviation = static_cast<double>(x[i]) * scale - mean;
    d.sum[i % ops::statistics_lanes] += deviation;
    d.square[i % ops::statistics_lanes] += deviation * deviation;
  }
  return d;
}

template <class T>
GRADKERN_HD void count_block(const T* x, std::int64_t n, Scan<T>& s, ops::Binades& binades) {
  using W = Wide<T>;
  const int top = static_cast<int>(s.amax >> W::fraction_bits), low = static_cast<int>(s.amin >> W::fraction_bits);
  const auto row = [&](int exponent) { return binades.row(exponent - W::bias); };
  const auto add = [&](int depth, std::int64_t count) { row(top - depth)[1] += count; };
  const auto straggler = [&](std::int64_t i) {
    const auto m = magnitude_bits(x[i]);
    if (m != 0) ++row(static_cast<int>(m >> W::fraction_bits))[1];
  };
  binades.cover(low - W::bias, top - W::bias + 1);
  const auto code = [&](int depth) { return static_cast<std::uint8_t>(sizeof(T) == 4 ? top - depth : depth); };
  if constexpr (sizeof(T) == 8) code_depths(x, n, top, s.codes);
  count_binades(s.codes, n, n - s.zero, top - low, code, add, straggler);
  for (int k = 0; k < s.noted; ++k) {
    const double entry = x[s.notes[k]];
    std::int64_t* cells = binades.row(ops::binade_of(entry));
    --cells[1];
    ++cells[ops::cell_of(ops::fraction_of(entry))];
  }
}

// x: count entries and zeros up to n, a multiple of simd::vector_bytes.
template <class T>
void measure_vectors(const T* x, std::int64_t count, std::int64_t n, std::int64_t index, const T* next,
                     ops::Statistics& result, ops::Moments& moments) {
  using W = Wide<T>;
  using U = typename W::unsigned_scalar;
  Scan<T> s;
  scan(x, n, next, s);
  constexpr U smallest_normal = U(1) << W::fraction_bits, infinity = U(2 * W::bias + 1) << W::fraction_bits;
  if (s.amax >= infinity || (s.amax != 0 && s.amin < smallest_normal)) {
    ops::measure_block(result, moments, [&](std::int64_t i) { return static_cast<double>(x[i]); }, index, count);
    return;
  }
  const double amax = base::bit_cast<T>(s.amax), amin = base::bit_cast<T>(s.amin);
  result.size += count;
  result.zero += s.zero - (n - count);
  result.negative += s.negative;
  if (amax > result.amax) result.amax = amax;
  if (amax > 0 && amin < result.amin) result.amin = amin;
  const int range = sizeof(T) == 8 ? ops::range_of(amax) : 0;
  const double scale = ops::range_scale(range);
  ops::Lanes lanes;
  if (range == 0) {
    sum_lanes<T, false>(x, n, 1, next, lanes);
  } else {
    sum_lanes<T, true>(x, n, scale, next, lanes);
  }
  const bool constant = amax == amin && s.zero == n - count && (s.negative == 0 || s.negative == count);
  moments.merge(ops::block_moments(lanes, count, range, constant || amax == 0,
                                   [&](double mean) { return sum_deviations(x, count, scale, mean); }));
  if (amax > 0) count_block(x, n, s, result.binades);
}

// Whole blocks of the lane's own format are read where they lie; the rest is decoded or padded with zeros first.
template <class T>
void measure_range(const executor::StatisticsArgs& args, std::int64_t begin, std::int64_t end, bool in_place,
                   ops::Statistics& result, ops::Moments& moments) {
  alignas(64) T buffer[statistics_block];
  for (std::int64_t i = begin; i < end; i += statistics_block) {
    const std::int64_t count = end - i < statistics_block ? end - i : statistics_block;
    if (in_place && count == statistics_block) {
      const T* x = static_cast<const T*>(args.data) + i;
      measure_vectors(x, count, count, i, args.size - i < 2 * statistics_block ? x : x + count, result, moments);
      continue;
    }
    decode_block(args.format, args.data, i, count, buffer);
    const std::int64_t n = (count + simd::vector_bytes - 1) / simd::vector_bytes * simd::vector_bytes;
    for (std::int64_t j = count; j < n; ++j) buffer[j] = 0;
    measure_vectors(buffer, count, n, i, buffer, result, moments);
  }
}

void measure(const executor::StatisticsArgs& args, std::int64_t begin, std::int64_t end, ops::Statistics& result,
             ops::Moments& moments) {
  if (args.format == formats::FormatId::float64) return measure_range<double>(args, begin, end, true, result, moments);
  const bool in_place = args.format == formats::FormatId::float32 || args.format == formats::FormatId::tfloat32;
  measure_range<float>(args, begin, end, in_place, result, moments);
}

}  // namespace
}  // namespace gradkern::cpu
