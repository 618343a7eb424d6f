// Blocks of ops/statistics.hpp in vector lanes of the width that holds the storage exactly: float or double.
//
// A block is read in turns of some hundred entries: scan (extrema, signs, binade codes), sums (float64, 16 lanes) and
// histogram of a turn in L1, so that memory is asked for evenly. A block with a NaN, an infinity or a number below the
// lane type's smallest normal goes entry by entry.
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
#pragma GCC unroll 2
    for (std::int64_t line = 0; line < ops::statistics_lanes; line += 64 / std::int64_t(sizeof(T)))
      __builtin_prefetch(next + (i + line) * std::int64_t(sizeof(T)), 0, 3);
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
    if (next) __builtin_prefetch(next + i * bytes, 0, 3);
  }
};

// Whether scan and sums fit into the registers together: what waits in one is done in the other.
inline constexpr bool scan_with_sums = simd::vector_bytes == 64;

// Of entries [first, end), a multiple of simd::vector_bytes. Functions of their own: their registers are all that there are.
template <class T, class Source>
__attribute__((noinline)) void sum(const Source& source, std::int64_t first, std::int64_t end, Summer<T, false>& sums) {
  const T* const x = source.x;
  Summer<T, false> summer = sums;  // in registers
  for (std::int64_t i = first; i < end; i += ops::statistics_lanes) {
    source.fetch(i);
    summer.step(x, i, 1);
  }
  sums = summer;
}

template <class T, class Source>
__attribute__((noinline)) void look(const Source& source, std::int64_t first, std::int64_t end, Scanner<T>& scan,
                                    Summer<T, false>& sums, Scan<T>& s, std::uint8_t* codes) {
  const T* const x = source.x;
  Scanner<T> scanner = scan;
  if constexpr (scan_with_sums) {
    Summer<T, false> summer = sums;
    for (std::int64_t i = first; i < end; i += simd::vector_bytes) {
      scanner.step(x, i, s, codes + i);
#pragma GCC unroll 4
      for (int j = 0; j < simd::vector_bytes; j += ops::statistics_lanes) {
        source.fetch(i + j);
        summer.step(x, i + j, 1);
      }
    }
    sums = summer;
  } else {
    for (std::int64_t i = first; i < end; i += simd::vector_bytes) scanner.step(x, i, s, codes + i);
    sum(source, first, end, sums);
  }
  scan = scanner;
}

// All in one pass. n is a multiple of simd::vector_bytes, and the first turn is loaded. codes: of float only, and zeros
// up to the next multiple of codes_turn.
template <class T, class Source>
GRADKERN_HD ops::BlockSums look_at_block(const Source& source, std::int64_t n, Scan<T>& s, std::uint8_t* codes) {
  Scanner<T> scanner;
  Summer<T, false> sums;
  if (n < statistics_block) __builtin_memset(s.candidates, 0, sizeof s.candidates);
  for (std::int64_t first = 0; first < n; first += codes_turn) {
    const std::int64_t end = std::min(n, first + codes_turn);
    if (first > 0) source.load(first, end);
    look(source, first, end, scanner, sums, s, codes);
  }
  if (const std::int64_t rest = n % codes_turn; rest != 0) __builtin_memset(codes + n, 0, codes_turn - rest);
  scanner.finish(s);
  if (s.amin == 0) separate_zeros(source.x, n, s);
  return sums.total();
}

// Again, where squares would leave float64.
ops::BlockSums sum_scaled(const double* x, std::int64_t n, double scale) {
  Summer<double, true> sums;
  for (std::int64_t i = 0; i < n; i += ops::statistics_lanes) sums.step(x, i, scale);
  return sums.total();
}

// Normal numbers and zeros, in cell 1.
void count_binades(const float*, std::int64_t n, float amin, float amax, std::uint8_t* codes, ops::Binades&,
                   CodeHistogram& histogram) {
  histogram.count(codes, n, ops::binade_of(amin) + code_bias, ops::binade_of(amax) + code_bias);
}
void count_binades(const double* x, std::int64_t n, double amin, double amax, std::uint8_t* codes,
                   ops::Binades& binades, CodeHistogram& histogram) {
  if (amin >= 0x1p-126 && amax < 0x1p128) {
    for (std::int64_t i = 0; i < n; i += simd::vector_bytes) code_binades(x + i, codes + i);
    histogram.count(codes, n, ops::binade_of(amin) + code_bias, ops::binade_of(amax) + code_bias);
    return;
  }
  binades.cover(ops::binade_of(amin), ops::binade_of(amax) + 1);
  for (std::int64_t i = 0; i < n; ++i)
    if (x[i] != 0) ++binades.row(ops::binade_of(x[i]))[1];
}

// count entries, and zeros up to n, a multiple of simd::vector_bytes; index is that of the first.
template <class T, class Source>
void measure_block(const Source& source, std::int64_t count, std::int64_t n, std::int64_t index,
                   ops::Statistics& result, ops::Moments& moments, CodeHistogram& histogram, CellCounter<T>& cells) {
  using W = Wide<T>;
  using U = typename W::unsigned_scalar;
  Scan<T> s;
  alignas(64) std::uint8_t codes[statistics_block];
  const T* x = source.x;
  source.load(0, std::min(n, codes_turn));
  ops::BlockSums sums = look_at_block(source, n, s, codes);
  constexpr U smallest_normal = U(1) << W::fraction_bits, infinity = U(2 * W::bias + 1) << W::fraction_bits;
  const auto entry_by_entry = [&] {
    ops::measure_block(result, moments, [&](std::int64_t i) { return static_cast<double>(x[i]); }, index, count);
  };
  if (s.amax >= infinity || (s.amax != 0 && s.amin < smallest_normal)) return entry_by_entry();
  const T amax = base::bit_cast<T>(s.amax), amin = base::bit_cast<T>(s.amin);
  const int range = sizeof(T) == 8 ? ops::range_of(amax) : 0;
  const double scale = ops::range_scale(range);
  if constexpr (sizeof(T) == 8)
    if (range != 0) sums = sum_scaled(x, n, scale);
  const bool constant = amax == amin && s.zero == n - count && (s.negative == 0 || s.negative == count);
  const ops::Moments found = ops::moments_of_sums(sums, count, range, constant || amax == 0,
                                                  [&](double mean) { return sum_deviations(x, count, scale, mean); });
  if (!(found.l1 < __builtin_inf())) return entry_by_entry();  // a NaN, or a sum beyond float64
  moments.merge(found);
  result.size += count;
  result.zero += s.zero - (n - count);
  result.negative += s.negative;
  if (amax > result.amax) result.amax = amax;
  if (amax == 0) return;
  if (amin < result.amin) result.amin = amin;
  count_binades(x, n, amin, amax, codes, result.binades, histogram);
  cells.take(x, s);
}

// Whole blocks of the lane's own format are read where they lie; the rest is decoded and padded first.
template <class T>
void measure_range(const executor::StatisticsArgs& args, std::int64_t begin, std::int64_t end, std::int64_t piece,
                   bool in_place, ops::Statistics& result, ops::Moments* pieces) {
  alignas(64) T buffer[statistics_block];
  CodeHistogram histogram(result.binades);
  CellCounter<T> cells(result.binades);
  const auto* const next = static_cast<const char*>(args.next);
  const std::int64_t bytes =
      formats::visit(args.format, [](auto f) -> std::int64_t { return sizeof(typename decltype(f)::container); });
  constexpr std::int64_t ahead = 2048;  // bytes that are asked for before they are read, where nothing else is
  for (std::int64_t i = begin; i < end; i += statistics_block) {
    ops::Moments& moments = pieces[(i - begin) / piece];
    const std::int64_t count = std::min(end - i, statistics_block);
    if (in_place && count == statistics_block) {
      const T* const x = static_cast<const T*>(args.data) + i;
      const InPlace<T> source{x, next ? next + i * bytes : reinterpret_cast<const char*>(x) + ahead};
      measure_block<T>(source, count, count, i, result, moments, histogram, cells);
      continue;
    }
    const std::int64_t n = (count + simd::vector_bytes - 1) / simd::vector_bytes * simd::vector_bytes;
    const Decoded<T> source{args, i, count, buffer, next ? next + i * bytes : nullptr, bytes};
    measure_block<T>(source, count, n, i, result, moments, histogram, cells);
  }
  histogram.finish();
  cells.finish();
}

// Entries [begin, end). Each piece, a block or a chunk, has moments of its own; begin is the first entry of one.
void measure(const executor::StatisticsArgs& args, std::int64_t begin, std::int64_t end, std::int64_t piece,
             ops::Statistics& result, ops::Moments* pieces) {
  if (args.format == formats::FormatId::float64)
    return measure_range<double>(args, begin, end, piece, true, result, pieces);
  const bool in_place = args.format == formats::FormatId::float32 || args.format == formats::FormatId::tfloat32;
  measure_range<float>(args, begin, end, piece, in_place, result, pieces);
}

}  // namespace
}  // namespace gradkern::cpu
