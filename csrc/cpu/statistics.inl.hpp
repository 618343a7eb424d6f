// Blocks of ops/statistics.hpp in vector lanes of the width that holds the storage exactly: float or double. A block with a
// NaN, an infinity or a number below the lane type's smallest normal goes entry by entry.
#pragma once

#include <algorithm>

#include "cpu/cells.inl.hpp"
#include "cpu/dots.inl.hpp"
#include "cpu/halves.inl.hpp"
#include "cpu/statistics_look.inl.hpp"

namespace gradkern::cpu {
namespace {

// Again, where squares would leave float64.
ops::BlockSums sum_scaled(const double* x, std::int64_t n, double scale) {
  Summer<double, true> sums;
  for (std::int64_t i = 0; i < n; i += ops::statistics_lanes) sums.step(x, i, scale);
  return sums.total<Order::natural>();
}

// Normal numbers and zeros, in cell 1.
void count_binades(const float*, std::int64_t n, float amin, float amax, std::uint8_t* codes, ops::Binades&,
                   CodeHistogram& histogram) {
  histogram.count(codes, n, amin, amax);
}
void count_binades(const double* x, std::int64_t n, double amin, double amax, std::uint8_t* codes,
                   ops::Binades& binades, CodeHistogram& histogram) {
  if (amin >= 0x1p-126 && amax < 0x1p128) {
    for (std::int64_t i = 0; i < n; i += simd::vector_bytes) code_binades(x + i, codes + i);
    return histogram.count(codes, n, amin, amax);
  }
  binades.cover(ops::binade_of(amin), ops::binade_of(amax) + 1);
  for (std::int64_t i = 0; i < n; ++i)
    if (x[i] != 0) ++binades.row(ops::binade_of(x[i]))[1];
}

// Measures block after block, and keeps what they share.
template <class T, class F, int width>
class BlockMeter {
 public:
  explicit BlockMeter(ops::Statistics& result)
      : result_(result),
        histogram_(result.binades, code_bias),
        stored_histogram_(result.binades, F::bias),
        cells_(result.binades),
        half_cells_(result.binades) {}
  void finish() {
    histogram_.finish();
    stored_histogram_.finish();
    cells_.finish();
    half_cells_.finish();
  }

  // The first block is expected to have zeros if some of its entries are, as later ones are if the block before had any;
  // and some that are twice as large.
  void look_ahead(const typename F::container* stored, std::int64_t count) {
    using C = typename F::container;
    C most = 0;
    for (std::int64_t k = 0; k < std::min<std::int64_t>(count, 32); ++k) {
      const C magnitude = C(stored[k] << 1);
      zeros_ |= magnitude == 0;
      most = std::max(most, magnitude);
    }
    if constexpr (sizeof(C) == 2 && sums_by_dots)
      windows_.move(std::min((most >> F::significand_bits) + 1, largest_exponent), 1);
  }

  // count entries, and zeros up to n, a multiple of simd::vector_bytes; index is that of the first.
  template <class Source>
  void measure(const Source& source, std::int64_t count, std::int64_t n, std::int64_t index, ops::Moments& moments) {
    Scan<T> s;
    alignas(64) std::uint8_t codes[statistics_block];
    const T* x = source.x;
    std::uint16_t* taken = nullptr;
    ops::BlockSums sums = look_at(source, zeros_ || n > count, n, s, codes, taken);
    zeros_ = s.zero > n - count;  // in the next block, too
    const auto in_order = [&] {
      if constexpr (Source::halves)
        if (taken) widen_f32<F>(source.stored, n, source.x);
      return x;
    };
    if (s.amax >= infinity || (s.amax != 0 && s.amin < smallest_normal))
      return measure_entries(in_order(), count, index, moments);
    const T amax = base::bit_cast<T>(s.amax), amin = base::bit_cast<T>(s.amin);
    const int range = sizeof(T) == 8 ? ops::range_of(amax) : 0;
    const double scale = ops::range_scale(range);
    if constexpr (sizeof(T) == 8)
      if (range != 0) sums = sum_scaled(x, n, scale);
    const bool constant = amax == amin && s.zero == n - count && (s.negative == 0 || s.negative == count);
    const ops::Moments found = ops::moments_of_sums(sums, count, range, constant || amax == 0, [&](double mean) {
      return sum_deviations(in_order(), count, scale, mean);
    });
    if (!(found.l1 < __builtin_inf()))
      return measure_entries(in_order(), count, index, moments);  // a NaN, or a sum beyond float64
    moments.merge(found);
    result_.size += count;
    result_.zero += s.zero - (n - count);
    result_.negative += s.negative;
    if (amax > result_.amax) result_.amax = amax;
    if (amax == 0) return;
    if (amin < result_.amin) result_.amin = amin;
    source.fetch_meanwhile(n);
    count_binades(x, n, amin, amax, codes, result_.binades, taken ? stored_histogram_ : histogram_);
    if (taken) {
      half_cells_.take(taken);
    } else {
      cells_.take(x, s);
    }
  }

 private:
  using U = typename Wide<T>::unsigned_scalar;
  static constexpr U smallest_normal = U(1) << Wide<T>::fraction_bits, infinity = U(2 * Wide<T>::bias + 1)
                                                                                  << Wide<T>::fraction_bits;
  static constexpr int many_blocks = 16, most_below = statistics_block / 64;
  static constexpr int largest_exponent = (1 << F::exponent_bits) - 2;
  // Processors that cut registers of 512 bits in halves are short of units for conversions.
  static constexpr bool sums_by_dots = simd::vector_bytes == 64 && width == 4;

  static int exponent_of(U magnitude) {  // as F stores it
    return std::max(int(magnitude >> Wide<T>::fraction_bits) - Wide<T>::bias + F::bias, 0);
  }

  // The sums. taken: if the entries are looked at as they are stored, up to where some are taken.
  template <class Source>
  GRADKERN_HD ops::BlockSums look_at(const Source& source, bool zeros, std::int64_t n, Scan<T>& s, std::uint8_t* codes,
                                     std::uint16_t*& taken) {
    if constexpr (Source::halves) {
      if (crowded_ > 0) {
        --crowded_;
      } else if (!zeros) {
        ops::BlockSums sums;
        if (look_at_halves(source, n, s, codes, taken, sums)) return sums;
        zeros = s.amin == 0;
        taken = nullptr;
      }
    }
    if (!zeros) {
      Scanner<T, false> scanner;
      const ops::BlockSums sums = look<width>(scanner, source, n, s, codes);
      if (s.amin != 0) return sums;
    }
    Scanner<T, true> scanner;
    return look<width>(scanner, source, n, s, codes);
  }

  // Whether the sums are right, and to look at the block as float would not take less time.
  template <class Source>
  GRADKERN_HD bool look_at_halves(const Source& source, std::int64_t n, Scan<T>& s, std::uint8_t* codes,
                                  std::uint16_t*& taken, ops::BlockSums& sums) {
    const Halves<F> halves{source.stored, source.x, source.ahead};
    if constexpr (sums_by_dots) {
      if (spread_ > 0) {
        --spread_;
      } else {
        if (sum_by_dots(halves, s, codes, taken, sums)) return true;
        if (s.amin == 0) return false;
      }
    }
    HalfScanner<F> scanner(half_cells_.next());
    sums = look<width>(scanner, halves, n, s, codes);
    taken = scanner.taken;
    if (half_cells_.is_crowded(taken)) crowded_ = many_blocks;
    return s.amin != 0 && crowded_ == 0;
  }

#if defined(GRADKERN_SIMD_AVX512)
  GRADKERN_HD bool sum_by_dots(const Halves<F>& halves, Scan<T>& s, std::uint8_t* codes, std::uint16_t*& taken,
                               ops::BlockSums& sums) {
    std::uint16_t* const first = half_cells_.next();
    HalfScanner<F, true> scanner(first, windows_.low());
    sums = windows_.tables() == 1 ? scan_and_dot<1>(halves, windows_, scanner, codes)
                                  : scan_and_dot<2>(halves, windows_, scanner, codes);
    scanner.finish(s);
    taken = scanner.taken;
    if (s.amin == 0 || s.amax >= infinity) return s.amin != 0;
    const int most = exponent_of(s.amax), least = exponent_of(s.amin);
    if (!windows_.hold(least, most)) {
      windows_.move(most, windows_.tables());
      if (!windows_.hold(least, most)) spread_ = many_blocks;
      return false;
    }
    const int below = least < windows_.low() ? add_below<F>(windows_.low(), first, taken, sums) : 0;
    if (below > most_below) {
      if (windows_.tables() == 2) spread_ = many_blocks;
      windows_.move(most, 2);
    } else if (half_cells_.is_crowded(taken)) {
      crowded_ = many_blocks;
    }
    return true;
  }
#endif

  __attribute__((noinline)) void measure_entries(const T* x, std::int64_t count, std::int64_t index,
                                                 ops::Moments& moments) {
    ops::measure_block(result_, moments, [&](std::int64_t i) { return static_cast<double>(x[i]); }, index, count);
  }

  ops::Statistics& result_;
  CodeHistogram histogram_, stored_histogram_;
  CellCounter<T> cells_;
  HalfCells<std::conditional_t<sizeof(typename F::container) == 2, F, formats::float16>> half_cells_;
  Windows<F> windows_;
  bool zeros_ = false;
  // Blocks that are not looked at as stored, or not summed by dot products.
  int crowded_ = 0, spread_ = 0;
};

// Whole blocks are read where they lie, or widened as they are looked at; others are decoded and padded first. Memory is
// asked for what will be read soon, unless there is something else to ask for.
template <class T, class F, int width>
void measure_range(const executor::StatisticsArgs& args, std::int64_t begin, std::int64_t end, std::int64_t piece,
                   ops::Statistics& result, ops::Moments* pieces) {
  using C = typename F::container;
  constexpr std::int64_t chunk = ops::statistics_chunk;
  alignas(64) T buffer[statistics_block];
  BlockMeter<T, F, width> meter(result);
  if constexpr (sizeof(C) > 1)  // what is decoded first has no choice
    meter.look_ahead(static_cast<const C*>(args.data) + begin, end - begin);
  for (std::int64_t i = begin; i < end; i += statistics_block) {
    ops::Moments& moments = pieces[(i - begin) / piece];
    const std::int64_t count = std::min(end - i, statistics_block), in_chunk = i % chunk;
    [[maybe_unused]] const C* const stored = static_cast<const C*>(args.data) + i;
    if (count == statistics_block && sizeof(C) > 1) {
      const auto next = reinterpret_cast<std::uintptr_t>(args.next ? args.next : args.data);
      const std::int64_t wanted = i - in_chunk + (args.next ? 0 : chunk);
      const auto ahead = TwoStreams<C>::of(next + std::uintptr_t(wanted) * sizeof(C), in_chunk);
      if constexpr (sizeof(C) == sizeof(T)) {
        meter.measure(InPlace<T, C>{static_cast<const T*>(args.data) + i, ahead}, count, count, i, moments);
      } else if constexpr (sizeof(C) == 2) {
        meter.measure(Widened<F>{stored, buffer, ahead}, count, count, i, moments);
      }
      continue;
    }
    const std::int64_t n = (count + simd::vector_bytes - 1) / simd::vector_bytes * simd::vector_bytes;
    const char* const next = args.next ? static_cast<const char*>(args.next) + i * std::int64_t(sizeof(C)) : nullptr;
    meter.measure(Decoded<T>{args, i, count, buffer, next, sizeof(C)}, count, n, i, moments);
  }
  meter.finish();
}

// Entries [begin, end). Each piece, a block or a chunk, has moments of its own; begin is the first entry of one. Sums are
// taken in registers of so many lanes.
template <int width>
void measure(const executor::StatisticsArgs& args, std::int64_t begin, std::int64_t end, std::int64_t piece,
             ops::Statistics& result, ops::Moments* pieces) {
  formats::visit(args.format, [&](auto f) {
    using F = decltype(f);
    using T = std::conditional_t<F::id == formats::FormatId::float64, double, float>;
    measure_range<T, F, width>(args, begin, end, piece, result, pieces);
  });
}

}  // namespace
}  // namespace gradkern::cpu
