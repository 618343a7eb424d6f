// Blocks of ops/statistics.hpp in vector lanes of the width that holds the storage exactly: float or double.
//
// A block is read in turns of some hundred entries: scan (extrema, counts, binade codes), sums (float64, 16 lanes) and
// histogram of a turn in L1, so that memory is asked for evenly. Entries where a binade is cut finely are rare and noted
// by the scan. A block with a NaN, an infinity or a number below the lane type's smallest normal goes entry by entry.
#pragma once

#include <algorithm>

#include "cpu/block.inl.hpp"
#include "cpu/statistics_scan.inl.hpp"
#include "cpu/statistics_sums.inl.hpp"

namespace gradkern::cpu {
namespace {

// Entries that are lanes already. With every 16 of them, memory is asked for as many of `next`.
template <class T>
struct InPlace {
  const T* x;
  const char* next;
  GRADKERN_HD void load(std::int64_t, std::int64_t) const {}
  GRADKERN_HD void fetch(std::int64_t i) const {
    for (std::int64_t line = 0; line < ops::statistics_lanes; line += 64 / std::int64_t(sizeof(T)))
      __builtin_prefetch(next + (i + line) * std::int64_t(sizeof(T)), 0, 2);
  }
};

// Entries from `first` on, of which `count` are decoded and the rest is zeros.
template <class T>
struct Decoded {
  const executor::StatisticsArgs& args;
  std::int64_t first, count;
  T* x;
  const char* next;    // or null
  std::int64_t bytes;  // of an entry
  GRADKERN_HD void load(std::int64_t begin, std::int64_t end) const {
    const std::int64_t known = std::clamp(count, begin, end);
    widen(args.format, args.data, first + begin, first + known, x + begin);
    for (std::int64_t j = known; j < end; ++j) x[j] = 0;
  }
  GRADKERN_HD void fetch(std::int64_t i) const {
    if (next) __builtin_prefetch(next + i * bytes, 0, 2);
  }
};

// Counted, summed and sorted into binades, all in one pass. n is a multiple of simd::vector_bytes, and the first turn is
// loaded.
template <bool many_zeros, class Source>
GRADKERN_HD void look(const Source& source, std::int64_t n, Scan<float>& s, ops::Lanes& lanes,
                      CodeHistogram& histogram) {
  alignas(64) std::uint8_t codes[codes_turn];
  const float* x = source.x;
  Scanner<float, many_zeros> scanner;
  Summer<float, false> sums;
  for (std::int64_t first = 0; first < n; first += codes_turn) {
    const std::int64_t end = std::min(n, first + codes_turn);
    if (first > 0) source.load(first, end);
    scanner.look(x, first, end, s, codes);
    sums.add(source, first, end, 1);
    if (end - first < codes_turn) __builtin_memset(codes + (end - first), 0, codes_turn - (end - first));
    histogram.count(codes);
  }
  scanner.finish(s);
  sums.store(lanes);
}

template <bool many_zeros, class Source>
GRADKERN_HD void look(const Source& source, std::int64_t n, Scan<double>& s, ops::Lanes&, CodeHistogram&) {
  Scanner<double, many_zeros> scanner;
  if (n > codes_turn) source.load(codes_turn, n);
  scanner.look(source.x, 0, n, s, nullptr);
  scanner.finish(s);
}

template <bool scaled, class Source>
GRADKERN_HD void sum_lanes(const Source& source, std::int64_t n, double scale, ops::Lanes& lanes) {
  Summer<double, scaled> sums;
  sums.add(source, 0, n, scale);
  sums.store(lanes);
}

// Normal numbers and zeros.
void count_binades(const double* x, std::int64_t n, double amin, double amax, ops::Binades& binades,
                   CodeHistogram& histogram) {
  if (amin >= 0x1p-126 && amax < 0x1p128) {
    alignas(64) std::uint8_t codes[codes_turn];
    for (std::int64_t i = 0; i < n; i += codes_turn) {
      const std::int64_t end = std::min(n - i, codes_turn);
      for (std::int64_t j = 0; j < end; j += simd::vector_bytes) code_binades(x + i + j, codes + j);
      if (end < codes_turn) __builtin_memset(codes + end, 0, codes_turn - end);
      histogram.count(codes);
    }
    return;
  }
  binades.cover(ops::binade_of(amin), ops::binade_of(amax) + 1);
  for (std::int64_t i = 0; i < n; ++i)
    if (x[i] != 0) ++binades.row(ops::binade_of(x[i]))[1];
}

// x is counted in cell 1, now or later.
GRADKERN_HD void add_in_cell_1(ops::Binades& binades, double x, std::int64_t times) {
  const int binade = ops::binade_of(x);
  binades.cover(binade, binade + 1);
  binades.row(binade)[1] += times;
}

// count entries, and zeros up to n, a multiple of simd::vector_bytes; index is that of the first.
template <class T, class Source>
void measure_block(const Source& source, std::int64_t count, std::int64_t n, std::int64_t index,
                   ops::Statistics& result, ops::Moments& moments, CodeHistogram& histogram) {
  using W = Wide<T>;
  using U = typename W::unsigned_scalar;
  Scan<T> s;
  ops::Lanes lanes;
  const T* x = source.x;
  source.load(0, std::min(n, codes_turn));
  if (x[0] == 0 || x[1] == 0 || x[2] == 0 || x[3] == 0) {
    look<true>(source, n, s, lanes, histogram);
  } else {
    look<false>(source, n, s, lanes, histogram);
  }
  constexpr U smallest_normal = U(1) << W::fraction_bits, infinity = U(2 * W::bias + 1) << W::fraction_bits;
  const auto entry_by_entry = [&] {
    ops::measure_block(result, moments, [&](std::int64_t i) { return static_cast<double>(x[i]); }, index, count);
    for (std::int64_t i = 0; sizeof(T) == 4 && i < count; ++i)  // what the histogram has counted already
      if (const U m = magnitude_bits(x[i]); m >= smallest_normal && m < infinity)
        add_in_cell_1(result.binades, x[i], -1);
  };
  if (s.amax >= infinity || (s.amax != 0 && s.amin < smallest_normal)) return entry_by_entry();
  const double amax = base::bit_cast<T>(s.amax), amin = base::bit_cast<T>(s.amin);
  const int range = sizeof(T) == 8 ? ops::range_of(amax) : 0;
  const double scale = ops::range_scale(range);
  if constexpr (sizeof(T) == 8)
    range == 0 ? sum_lanes<false>(source, n, 1, lanes) : sum_lanes<true>(source, n, scale, lanes);
  const bool constant = amax == amin && s.zero == n - count && (s.negative == 0 || s.negative == count);
  const ops::Moments found = ops::block_moments(lanes, count, range, constant || amax == 0,
                                                [&](double mean) { return sum_deviations(x, count, scale, mean); });
  if (!(found.l1 < __builtin_inf())) return entry_by_entry();  // a NaN, or a sum beyond float64
  moments.merge(found);
  result.size += count;
  result.zero += s.zero - (n - count);
  result.negative += s.negative;
  if (amax > result.amax) result.amax = amax;
  if (amax == 0) return;
  if (amin < result.amin) result.amin = amin;
  if constexpr (sizeof(T) == 8) count_binades(x, n, amin, amax, result.binades, histogram);
  for (int k = 0; k < s.noted; ++k) {
    const double noted = x[s.notes[k]];
    add_in_cell_1(result.binades, noted, -1);
    ++result.binades.row(ops::binade_of(noted))[ops::cell_of(ops::fraction_of(noted))];
  }
}

// Whole blocks of the lane's own format are read where they lie; the rest is decoded and padded first.
template <class T>
void measure_range(const executor::StatisticsArgs& args, std::int64_t begin, std::int64_t end, bool in_place,
                   ops::Statistics& result, ops::Moments* moments) {
  alignas(64) T buffer[statistics_block];
  CodeHistogram histogram(result.binades);
  const auto* const next = static_cast<const char*>(args.next);
  const std::int64_t bytes =
      formats::visit(args.format, [](auto f) -> std::int64_t { return sizeof(typename decltype(f)::container); });
  constexpr std::int64_t page = 4096;  // asked for before it is read, where nothing else is
  for (std::int64_t i = begin; i < end; i += statistics_block, ++moments) {
    const std::int64_t count = std::min(end - i, statistics_block);
    if (in_place && count == statistics_block) {
      const T* const x = static_cast<const T*>(args.data) + i;
      const InPlace<T> source{x, next ? next + i * bytes : reinterpret_cast<const char*>(x) + page};
      measure_block<T>(source, count, count, i, result, *moments, histogram);
      continue;
    }
    const std::int64_t n = (count + simd::vector_bytes - 1) / simd::vector_bytes * simd::vector_bytes;
    const Decoded<T> source{args, i, count, buffer, next ? next + i * bytes : nullptr, bytes};
    measure_block<T>(source, count, n, i, result, *moments, histogram);
  }
  histogram.finish();
}

void measure(const executor::StatisticsArgs& args, std::int64_t begin, std::int64_t end, ops::Statistics& result,
             ops::Moments* moments) {
  if (args.format == formats::FormatId::float64) return measure_range<double>(args, begin, end, true, result, moments);
  const bool in_place = args.format == formats::FormatId::float32 || args.format == formats::FormatId::tfloat32;
  measure_range<float>(args, begin, end, in_place, result, moments);
}

}  // namespace
}  // namespace gradkern::cpu
