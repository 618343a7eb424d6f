// Blocks of ops/statistics.hpp in vector lanes of the width that holds the storage exactly: float or double.
//
// A block is read in turns of some hundred entries: scan (extrema, signs, binade codes), sums (float64, 16 lanes) and
// histogram of a turn in L1, so that memory is asked for evenly. A block with a NaN, an infinity or a number below the
// lane type's smallest normal goes entry by entry.
#pragma once

#include <algorithm>

#include "cpu/block.inl.hpp"
#include "cpu/cells.inl.hpp"
#include "cpu/halves.inl.hpp"
#include "cpu/statistics_sums.inl.hpp"

namespace gradkern::cpu {
namespace {

// Where a block is read from: entries that are lanes already.
template <class T, class C>
struct InPlace {
  static constexpr bool halves = false;
  static constexpr Order order = Order::natural;
  const T* x;
  TwoStreams<C> ahead;
  GRADKERN_HD void load(std::int64_t) const {}
  GRADKERN_HD simd::vec<T, lane_count<T>> entries(std::int64_t i, int j) const {
    return ahead.fetch(simd::vec<T, lane_count<T>>::load(x + i + j), i, j);
  }
  GRADKERN_HD void fetch_meanwhile(std::int64_t n) const { ahead.fetch_meanwhile(n); }
};

// Entries of a block in a format of 16 bits, widened to x as they are looked at.
template <class F>
struct Widened {
  static constexpr bool halves = simd::looks_at_halves;
  static constexpr Order order = Order::natural;
  const typename F::container* stored;
  float* x;
  TwoStreams<typename F::container> ahead;
  GRADKERN_HD void load(std::int64_t) const {}
  GRADKERN_HD simd::vec_f32 entries(std::int64_t i, int j) const {
    const simd::vec_f32 v = ahead.fetch(widen_lanes<F>(stored + i + j), i, j);
    v.store(x + i + j);
    return v;
  }
  GRADKERN_HD void fetch_meanwhile(std::int64_t n) const { ahead.fetch_meanwhile(n); }
};

// Entries from `first` on, of which `count` are decoded to x and the rest is zeros.
template <class T>
struct Decoded {
  static constexpr bool halves = false;
  static constexpr Order order = Order::natural;
  const executor::StatisticsArgs& args;
  std::int64_t first, count;
  T* x;
  const char* next;    // or null
  std::int64_t bytes;  // of an entry
  GRADKERN_HD void load(std::int64_t n) const {
    widen(args.format, args.data, first, first + count, x);
    for (std::int64_t j = count; j < n; ++j) x[j] = 0;
  }
  GRADKERN_HD simd::vec<T, lane_count<T>> entries(std::int64_t i, int j) const {
    if (next) __builtin_prefetch(next + (i + j) * bytes);
    return simd::vec<T, lane_count<T>>::load(x + i + j);
  }
  GRADKERN_HD void fetch_meanwhile(std::int64_t) const {}
};

template <class T, class Source, int width>
GRADKERN_HD void add_group(const Source& source, std::int64_t i, Summer<T, false, width>& sums) {
#pragma GCC unroll 4
  for (int j = 0; j < simd::vector_bytes; j += ops::statistics_lanes) sums.step(source.x, i + j, 1);
}

// Entries [first, end), multiples of simd::vector_bytes. Functions of their own: their registers are all that there are.
template <class S, class Source>
__attribute__((noinline)) void sum(Source source, std::int64_t first, std::int64_t end, S& sums) {
  S summer = sums;  // in registers
  for (std::int64_t i = first; i < end; i += simd::vector_bytes) add_group(source, i, summer);
  sums = summer;
}

template <class T, class Scanner, class Source>
__attribute__((noinline)) void scan(Source source, std::int64_t first, std::int64_t end, Scanner& scanner, Scan<T>& s,
                                    std::uint8_t* codes) {
  Scanner held;  // in registers, which a copy of `scanner` would not be
  held.begin(scanner);
  for (std::int64_t i = first; i < end; i += simd::vector_bytes) held.step(source, i, s, codes + i);
  scanner.merge(held);
}

// Where both fit into the registers, what waits in one is done in the other; where those are cut in halves, units are
// what is short, and halves of a format of 16 bits are summed later.
template <bool halves, int width>
inline constexpr bool scans_with_sums = simd::vector_bytes == 64 && (width == 8 || !halves);
template <class T, class Scanner, class S, class Source>
__attribute__((noinline)) void scan_and_sum(Source source, std::int64_t end, Scanner& scanner, S& sums, Scan<T>& s,
                                            std::uint8_t* codes) {
  Scanner held;
  held.begin(scanner);
  S summer = sums;
  for (std::int64_t i = 0; i < end; i += simd::vector_bytes) {
    held.step(source, i, s, codes + i);
    add_group(source, i, summer);
  }
  scanner.merge(held);
  sums = summer;
}

// All in one pass. n is a multiple of simd::vector_bytes. codes: of float only, and zeros up to the next multiple of
// codes_turn.
template <int width, class Scanner, class T, class Source>
GRADKERN_HD ops::BlockSums look(Scanner& scanner, const Source& source, std::int64_t n, Scan<T>& s,
                                std::uint8_t* codes) {
  source.load(n);
  Summer<T, false, width> sums;
  if constexpr (scans_with_sums<Source::halves, width>) {
    scan_and_sum(source, n, scanner, sums, s, codes);
  } else {
    constexpr std::int64_t turn = simd::vector_bytes == 64 ? statistics_block : 1024 / std::int64_t(sizeof(T));
    for (std::int64_t first = 0; first < n; first += turn) {
      const std::int64_t end = std::min(n, first + turn);
      scan(source, first, end, scanner, s, codes);
      sum(source, first, end, sums);
    }
  }
  if (n < statistics_block) {
    constexpr int lanes = lane_count<T>;
    __builtin_memset(s.candidates + n / lanes, 0,
                     sizeof s.candidates - sizeof s.candidates[0] * std::size_t(n / lanes));
    __builtin_memset(codes + n, 0, std::size_t(-n & (codes_turn - 1)));
  }
  scanner.finish(s);
  return sums.template total<Source::order>();
}

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

  // The first block is expected to have zeros if some of its entries are, as later ones are if the block before had any.
  void look_for_zeros(const typename F::container* stored, std::int64_t count) {
    using C = typename F::container;
    for (std::int64_t k = 0; k < std::min<std::int64_t>(count, 32); ++k) zeros_ |= C(stored[k] << 1) == 0;
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
        if (taken && Halves<F, false>::order != Order::natural) widen_f32<F>(source.stored, n, source.x);
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
  static constexpr int crowded_blocks = 16;

  // The sums. taken: if the entries are looked at as they are stored, up to where some are taken.
  template <class Source>
  GRADKERN_HD ops::BlockSums look_at(const Source& source, bool zeros, std::int64_t n, Scan<T>& s, std::uint8_t* codes,
                                     std::uint16_t*& taken) {
    if constexpr (Source::halves) {
      if (crowded_ > 0) {
        --crowded_;
      } else if (!zeros) {
        using H = Halves<F, simd::vector_bytes == 64 && !scans_with_sums<true, width>>;
        HalfScanner<F> scanner(half_cells_.next());
        const ops::BlockSums sums = look<width>(scanner, H{source.stored, source.x, source.ahead}, n, s, codes);
        zeros = s.amin == 0;
        taken = scanner.taken;
        if (!zeros && !half_cells_.is_crowded(taken)) return sums;
        taken = nullptr;
        if (!zeros) crowded_ = crowded_blocks;
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

  __attribute__((noinline)) void measure_entries(const T* x, std::int64_t count, std::int64_t index,
                                                 ops::Moments& moments) {
    ops::measure_block(result_, moments, [&](std::int64_t i) { return static_cast<double>(x[i]); }, index, count);
  }

  ops::Statistics& result_;
  CodeHistogram histogram_, stored_histogram_;
  CellCounter<T> cells_;
  HalfCells<std::conditional_t<sizeof(typename F::container) == 2, F, formats::float16>> half_cells_;
  bool zeros_ = false;
  int crowded_ = 0;  // blocks that are not looked at as stored
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
  if constexpr (sizeof(C) > 1)  // what is decoded first has no such choice
    meter.look_for_zeros(static_cast<const C*>(args.data) + begin, end - begin);
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
