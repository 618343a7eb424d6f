// A block in turns of some hundred entries: scan (extrema, signs, binade codes), sums (float64, 16 lanes) and histogram of a
// turn in L1, so that memory is asked for evenly.
#pragma once

#include <algorithm>

#include "cpu/block.inl.hpp"
#include "cpu/statistics_scan.inl.hpp"
#include "cpu/statistics_sums.inl.hpp"
#include "cpu/streams.inl.hpp"

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

// Where both fit into the registers, what waits in one is done in the other.
inline constexpr bool scans_with_sums = simd::vector_bytes == 64;
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
  if constexpr (scans_with_sums) {
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

}  // namespace
}  // namespace gradkern::cpu
