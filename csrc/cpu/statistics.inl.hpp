// Blocks of ops/statistics.hpp in vector lanes of the width that holds the storage exactly: float or double. A block with a
// subnormal of float64, or whose sums leave it, goes entry by entry.
#pragma once

#include <algorithm>

#include "cpu/cells.inl.hpp"
#include "cpu/dots.inl.hpp"
#include "cpu/finite.inl.hpp"
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

// Normal numbers in cell 1, of n entries x().
template <class InOrder>
void count_binades(const InOrder&, std::int64_t n, float amin, float amax, std::uint8_t* codes, ops::Binades&,
                   CodeHistogram& histogram) {
  histogram.count(codes, n, amin, amax);
}
template <class InOrder>
void count_binades(const InOrder& in_order, std::int64_t n, double amin, double amax, std::uint8_t* codes,
                   ops::Binades& binades, CodeHistogram& histogram) {
  const double* const x = in_order();
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
  GRADKERN_HD void measure(const Source& source, std::int64_t count, std::int64_t n, std::int64_t index,
                           ops::Moments& moments) {
    Look look;
    look.uncounted = n - count;
    look_at(source, zeros_ || n > count, n, look);
    zeros_ = look.s.zero > n - count;  // in the next block, too
    source.fetch_meanwhile(n);
    const auto in_order = [&] {
      if constexpr (Source::halves)
        if (look.taken) widen_f32<F>(source.stored, n, source.x);
      return static_cast<const T*>(source.x);
    };
    const auto deviations = [&](double scale, double mean) { return sum_deviations(in_order(), count, scale, mean); };
    if (look.s.amax < infinity && add(look, in_order, n, moments, deviations)) return;
    if (!add_finite(in_order(), count, n, index, moments))
      ops::measure_block(
          result_, moments, [x = in_order()](std::int64_t i) { return static_cast<double>(x[i]); }, index, count);
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

  // What is known of a block after a look at it, and how many zeros there are that are no entries.
  struct Look {
    alignas(64) std::uint8_t codes[statistics_block];
    Scan<T> s;
    ops::BlockSums sums;
    std::int64_t uncounted;
    std::uint16_t* taken = nullptr;  // if the entries were looked at as they are stored, up to where some were taken
  };

  // A look at finite entries; false where a sum leaves float64, a NaN was among them or a subnormal of float64, and nothing
  // is added.
  template <class InOrder, class About>
  GRADKERN_HD bool add(Look& look, const InOrder& in_order, std::int64_t n, ops::Moments& moments, About deviations) {
    const Scan<T>& s = look.s;
    const bool subnormals = s.amax != 0 && s.amin < smallest_normal;
    if (sizeof(T) == 8 && subnormals) return false;
    const T amax = base::bit_cast<T>(s.amax), amin = base::bit_cast<T>(s.amin);
    const int range = sizeof(T) == 8 ? ops::range_of(amax) : 0;
    const double scale = ops::range_scale(range);
    if constexpr (sizeof(T) == 8)
      if (range != 0) look.sums = sum_scaled(in_order(), n, scale);
    const std::int64_t count = n - look.uncounted, zero = s.zero - look.uncounted;
    const bool constant = amax == amin && zero == 0 && (s.negative == 0 || s.negative == count);
    const ops::Moments found = ops::moments_of_sums(look.sums, count, range, constant || amax == 0,
                                                    [&](double mean) { return deviations(scale, mean); });
    if (!(found.l1 < __builtin_inf())) return false;
    moments.merge(found);
    result_.size += count;
    result_.zero += zero;
    result_.negative += s.negative;
    if (amax > result_.amax) result_.amax = amax;
    if (amax == 0) return true;
    if (amin < result_.amin) result_.amin = amin;
    count_binades(in_order, n, amin, amax, look.codes, result_.binades, look.taken ? stored_histogram_ : histogram_);
    if (look.taken) {
      half_cells_.take(look.taken);
    } else {
      cells_.take(in_order(), s);
    }
    if (subnormals) cells_.count_subnormals(in_order(), n);
    return true;
  }

  // The same of entries that are not all finite; false where they are, or where the rest cannot be added.
  __attribute__((noinline)) bool add_finite(const T* x, std::int64_t count, std::int64_t n, std::int64_t index,
                                            ops::Moments& moments) {
    const Finite<T> finite(x, n);
    if (finite.removed() == 0) return false;
    Look look;
    look.uncounted = n - count + finite.removed();
    look_at(finite.source(), true, n, look);
    const auto deviations = [&](double scale, double mean) { return sum_finite_deviations(x, count, scale, mean); };
    if (!add(look, [&] { return finite.x; }, n, moments, deviations)) return false;
    zeros_ = look.s.zero > look.uncounted;
    result_.size += finite.removed();
    result_.nan += finite.nan;
    result_.pos_inf += finite.pos_inf;
    result_.neg_inf += finite.neg_inf;
    if (result_.first_nonfinite < 0 || index + finite.first < result_.first_nonfinite)
      result_.first_nonfinite = index + finite.first;
    return true;
  }

  template <class Source>
  GRADKERN_HD void look_at(const Source& source, bool zeros, std::int64_t n, Look& look) {
    if constexpr (Source::halves) {
      if (crowded_ > 0) {
        --crowded_;
      } else if (!zeros) {
        if (look_at_halves(source, n, look)) return;
        zeros = look.s.amin == 0;
        look.taken = nullptr;
      }
    }
    if (!zeros) {
      Scanner<T, false> scanner;
      look.sums = cpu::look<width>(scanner, source, n, look.s, look.codes);
      if (look.s.amin != 0) return;
    }
    Scanner<T, true> scanner;
    look.sums = cpu::look<width>(scanner, source, n, look.s, look.codes);
  }

  // Whether the sums are right, and to look at the block as float would not take less time.
  template <class Source>
  GRADKERN_HD bool look_at_halves(const Source& source, std::int64_t n, Look& look) {
    const Halves<F> halves{source.stored, source.x, source.ahead};
    if constexpr (sums_by_dots) {
      if (spread_ > 0) {
        --spread_;
      } else {
        if (sum_by_dots(halves, look)) return true;
        if (look.s.amin == 0) return false;
      }
    }
    HalfScanner<F> scanner(half_cells_.next());
    look.sums = cpu::look<width>(scanner, halves, n, look.s, look.codes);
    look.taken = scanner.taken;
    if (look.s.amin != 0 && half_cells_.is_crowded(look.taken)) crowded_ = many_blocks;
    return look.s.amin != 0 && crowded_ == 0;
  }

#if defined(GRADKERN_SIMD_AVX512)
  GRADKERN_HD bool sum_by_dots(const Halves<F>& halves, Look& look) {
    std::uint16_t* const first = half_cells_.next();
    HalfScanner<F, true> scanner(first, windows_.low());
    look.sums = windows_.tables() == 1 ? scan_and_dot<1>(halves, windows_, scanner, look.codes)
                                       : scan_and_dot<2>(halves, windows_, scanner, look.codes);
    scanner.finish(look.s);
    look.taken = scanner.taken;
    if (look.s.amin < smallest_normal) return false;
    if (look.s.amax >= infinity) {
      if (look.taken - first > most_below) crowded_ = many_blocks;
      return true;
    }
    const int most = exponent_of(look.s.amax), least = exponent_of(look.s.amin);
    if (!windows_.hold(least, most)) {
      windows_.move(most, windows_.tables());
      if (!windows_.hold(least, most)) spread_ = many_blocks;
      return false;
    }
    const int below = least < windows_.low() ? add_below<F>(windows_.low(), first, look.taken, look.sums) : 0;
    if (below > most_below) {
      if (windows_.tables() == 2) spread_ = many_blocks;
      windows_.move(most, 2);
    } else if (half_cells_.is_crowded(look.taken)) {
      crowded_ = many_blocks;
    }
    return true;
  }
#endif

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
