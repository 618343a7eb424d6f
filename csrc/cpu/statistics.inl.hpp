// Blocks of ops/statistics.hpp in vector lanes of the width that holds the storage exactly: float or double.
//
// Three passes over a block in L1: scan (extrema, counts, binade codes), sums (float64, 16 lanes), histogram. Entries
// where a binade is cut finely are rare and noted by the scan. A block with a NaN, an infinity or a number below the
// lane type's smallest normal goes entry by entry. Each pass fetches a part of the next block from memory.
#pragma once

#include <algorithm>

#include "cpu/block.inl.hpp"
#include "cpu/statistics_scan.inl.hpp"

namespace gradkern::cpu {
namespace {

// acc + x * x: exact products of float entries may be fused.
template <class T>
GRADKERN_HD simd::vec_f64 add_square(simd::vec_f64 x, simd::vec_f64 acc) {
#if defined(GRADKERN_SIMD_AVX2) || defined(GRADKERN_SIMD_AVX512) || defined(GRADKERN_SIMD_NEON)
  if constexpr (sizeof(T) == 4) return fma(x, x, acc);
#endif
  return acc + x * x;
}

// acc + x, on the unit that multiplies: the adders have the widening and the magnitudes to do.
GRADKERN_HD simd::vec_f64 add_on_multiplier(simd::vec_f64 x, simd::vec_f64 acc) {
#if defined(GRADKERN_SIMD_AVX2) || defined(GRADKERN_SIMD_AVX512) || defined(GRADKERN_SIMD_NEON)
  return fma(x, simd::vec_f64(1.0), acc);
#else
  return acc + x;
#endif
}

template <class T, bool scaled>
GRADKERN_HD void sum_lanes(const T* x, std::int64_t n, double scale, Fetch fetch, ops::Lanes& lanes) {
  using simd::vec_f64;
  constexpr int width = simd::vector_bytes / 8, vectors = ops::statistics_lanes / width;
  vec_f64 sum[vectors], magnitude[vectors], square[vectors];
  for (int j = 0; j < vectors; ++j) sum[j] = magnitude[j] = square[j] = vec_f64(0.0);
  for (std::int64_t i = 0; i < n; i += ops::statistics_lanes) {
    fetch();
#pragma GCC unroll 8
    for (int j = 0; j < vectors; ++j) {
      vec_f64 v = simd::widen(x + i + j * width);
      if constexpr (scaled) v = v * vec_f64(scale);
      sum[j] = add_on_multiplier(v, sum[j]);
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

// The block after the one in hand.
struct Upcoming {
  const char* data = nullptr;
  std::int64_t bytes = 0;

  GRADKERN_HD Fetch part(int eighths_before, int eighths, std::int64_t calls) const {
    return Fetch(data, bytes, eighths_before, eighths, calls > 0 ? calls : 1);
  }
};

// x was counted in cell 1.
GRADKERN_HD void move_to_cell(ops::Binades& binades, double x) {
  std::int64_t* cells = binades.row(ops::binade_of(x));
  --cells[1];
  ++cells[ops::cell_of(ops::fraction_of(x))];
}

template <class T>
GRADKERN_HD void count_block(const T* x, std::int64_t n, Upcoming next, Scan<T>& s, ops::Binades& binades) {
  using W = Wide<T>;
  const int top = static_cast<int>(s.amax >> W::fraction_bits), low = static_cast<int>(s.amin >> W::fraction_bits);
  const auto row = [&](int exponent) { return binades.row(exponent - W::bias); };
  const auto add = [&](int depth, std::int64_t count) { row(top - depth)[1] += count; };
  const auto straggler = [&](std::int64_t i) {
    const auto m = magnitude_bits(x[i]);
    if (m != 0) ++row(static_cast<int>(m >> W::fraction_bits))[1];
  };
  const int rows = ((top - low) / counted_together + 1) * counted_together;  // whole passes, empty rows included
  binades.cover(std::max(top - W::bias - rows + 1, ops::binade_min), top - W::bias + 1);
  if constexpr (sizeof(T) == 8) code_depths(x, n, top, s.codes);
  __builtin_memset(s.codes + n, sizeof(T) == 8 ? deepest : 0, codes_padding);
  count_binades(s.codes, n, n - s.zero, top - low, sizeof(T) == 8 ? -1 : top, next.part(6, 2, n / codes_padding), add,
                straggler);
  for (int k = 0; k < s.noted; ++k) move_to_cell(binades, x[s.notes[k]]);
}

// x: count entries and zeros up to n, a multiple of simd::vector_bytes.
template <class T>
void measure_vectors(const T* x, std::int64_t count, std::int64_t n, std::int64_t index, Upcoming next,
                     ops::Statistics& result, ops::Moments& moments) {
  using W = Wide<T>;
  using U = typename W::unsigned_scalar;
  Scan<T> s;
  if (x[0] == 0 || x[1] == 0 || x[2] == 0 || x[3] == 0) {
    scan<T, true>(x, n, next.part(0, 3, n / simd::vector_bytes), s);
  } else {
    scan<T, false>(x, n, next.part(0, 3, n / simd::vector_bytes), s);
  }
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
  const Fetch fetch = next.part(3, 3, n / ops::statistics_lanes);
  if (range == 0) {
    sum_lanes<T, false>(x, n, 1, fetch, lanes);
  } else {
    sum_lanes<T, true>(x, n, scale, fetch, lanes);
  }
  const bool constant = amax == amin && s.zero == n - count && (s.negative == 0 || s.negative == count);
  moments.merge(ops::block_moments(lanes, count, range, constant || amax == 0,
                                   [&](double mean) { return sum_deviations(x, count, scale, mean); }));
  if (amax > 0) count_block(x, n, next, s, result.binades);
}

// entries[first .. first + count) as lanes, padded with zeros to n.
template <class T>
GRADKERN_HD void load_block(const executor::StatisticsArgs& args, std::int64_t first, std::int64_t count,
                            std::int64_t n, T* x) {
  std::int64_t whole = 0;
  if constexpr (sizeof(T) == 4) {
    whole = count - count % group;
    formats::visit(args.format, [&](auto f) {
      using F = decltype(f);
      if constexpr (F::id != formats::FormatId::float64)
        widen_f32<F>(static_cast<const typename F::container*>(args.data) + first, whole, x);
    });
  }
  decode_block(args.format, args.data, first + whole, count - whole, x + whole);
  for (std::int64_t j = count; j < n; ++j) x[j] = 0;
}

// Whole blocks of the lane's own format are read where they lie; the rest is decoded and padded first.
template <class T>
void measure_range(const executor::StatisticsArgs& args, std::int64_t begin, std::int64_t end, bool in_place,
                   ops::Statistics& result, ops::Moments* moments) {
  const std::int64_t bytes = formats::visit(
      args.format, [](auto f) { return static_cast<std::int64_t>(sizeof(typename decltype(f)::container)); });
  alignas(64) T buffer[statistics_block];
  for (std::int64_t i = begin; i < end; i += statistics_block, ++moments) {
    const std::int64_t count = end - i < statistics_block ? end - i : statistics_block;
    const bool more = i + 2 * statistics_block <= args.size;
    const Upcoming next{static_cast<const char*>(args.data) + (i + count) * bytes, more ? statistics_block * bytes : 0};
    if (in_place && count == statistics_block) {
      measure_vectors(static_cast<const T*>(args.data) + i, count, count, i, next, result, *moments);
      continue;
    }
    const std::int64_t n = (count + simd::vector_bytes - 1) / simd::vector_bytes * simd::vector_bytes;
    load_block(args, i, count, n, buffer);
    measure_vectors(buffer, count, n, i, next, result, *moments);
  }
}

void measure(const executor::StatisticsArgs& args, std::int64_t begin, std::int64_t end, ops::Statistics& result,
             ops::Moments* moments) {
  if (args.format == formats::FormatId::float64) return measure_range<double>(args, begin, end, true, result, moments);
  const bool in_place = args.format == formats::FormatId::float32 || args.format == formats::FormatId::tfloat32;
  measure_range<float>(args, begin, end, in_place, result, moments);
}

}  // namespace
}  // namespace gradkern::cpu
