// How many magnitudes lie in each binade, counted without a table where they can be.
//
// A byte codes the binade of an entry, as in float32: its biased exponent, 0 for zero. A lookup turns the 16 binades of
// a window into one bit each, of two bytes, and carry-save adders count every bit position: the positional population
// count of Klarqvist, Mula, Lemire (2019). The window begins at the largest binade met when it was last moved; the few
// entries outside are counted in a table one by one, and where there are many, so is all that lies near them.
#pragma once

#include <bit>

#include "ops/statistics.hpp"
#include "simd/lanes.hpp"

namespace gradkern::cpu {
namespace {

inline constexpr std::int64_t codes_turn = 8 * simd::vector_bytes;  // codes counted at a time
inline constexpr int code_bias = 127, code_limit = 255;             // binades -126 .. 127 have codes of their own

// Counts each of the 8 bit positions of bytes: bit k of position p of the count is in slice k.
struct PositionCounter {
  static constexpr int slices = 11;
  static constexpr std::int64_t capacity = (1 << slices) - 1;  // vectors
  simd::bytes slice[slices];

  GRADKERN_HD PositionCounter() { clear(); }
  GRADKERN_HD void clear() {
    for (auto& s : slice) s = simd::bytes(0);
  }

  // sum + a + b as sum, and the carry.
  static GRADKERN_HD simd::bytes add(simd::bytes& sum, simd::bytes a, simd::bytes b) {
    const simd::bytes carry = simd::carry_bit(a, b, sum);
    sum = simd::sum_bit(a, b, sum);
    return carry;
  }

  // What is left of eight vectors: a carry of weight 8, to be carried on from slice 3.
  GRADKERN_HD simd::bytes add8(const simd::bytes (&v)[8]) {
    const auto twos0 = add(slice[0], v[0], v[1]), twos1 = add(slice[0], v[2], v[3]);
    const auto fours0 = add(slice[1], twos0, twos1);
    const auto twos2 = add(slice[0], v[4], v[5]), twos3 = add(slice[0], v[6], v[7]);
    const auto fours1 = add(slice[1], twos2, twos3);
    return add(slice[2], fours0, fours1);
  }
  GRADKERN_HD void carry_on(int first, simd::bytes carry) {
#pragma GCC unroll 8
    for (int k = first; k < slices; ++k) {
      const auto next = slice[k] & carry;
      slice[k] = slice[k] ^ carry;
      carry = next;
    }
  }

  // After so many vectors.
  GRADKERN_HD void totals(std::int64_t vectors, std::int64_t* counts) const {
    const int used = std::bit_width(static_cast<std::uint64_t>(vectors));
    for (int p = 0; p < 8; ++p) {
      counts[p] = 0;
      for (int k = 0; k < used; ++k) counts[p] += std::int64_t(__builtin_popcountll(simd::bits_of(slice[k], p))) << k;
    }
  }
};

class CodeHistogram {
 public:
  explicit CodeHistogram(ops::Binades& binades) : binades_(binades) {}

  // Adds what was counted to the binades; without it, nothing is.
  void finish() {
    flush_window();
    for (int code = 1; table_used_ && code < code_limit; ++code) {
      std::int64_t count = 0;
      for (const auto& table : table_) count += table[code];
      add(code, count);
    }
  }

  // n codes, a multiple of simd::vector_bytes, and zeros up to the next one of codes_turn. Those that are not zero lie in
  // [least, most].
  GRADKERN_HD void count(const std::uint8_t* codes, std::int64_t n, int least, int most) {
    const bool inside = most <= top_ && least > top_ - window;
    std::int64_t i = 0;
    for (; inside && i + joined <= n; i += joined) count_joined(codes + i);
    for (; i < n; i += codes_turn) count_turn(codes + i);
  }

 private:
  static constexpr int few = codes_turn / 8, window = 16, tables = 4;
  static constexpr std::int64_t joined = 4 * codes_turn;

  struct Sorted {
    simd::bytes near[8], far[8];
  };

  // Turns that lie in the window, carried on together.
  __attribute__((noinline)) void count_joined(const std::uint8_t* codes) {
    if (vectors_ + 32 > PositionCounter::capacity) flush_window();
    PositionCounter near = near_, far = far_;  // in registers
    Sorted sorted;
    simd::bytes eights[2], sixteens[2];
#pragma GCC unroll 4
    for (int turn = 0; turn < 4; ++turn) {
      sort(codes + turn * codes_turn, sorted);
      const simd::bytes carry[2] = {near.add8(sorted.near), far.add8(sorted.far)};
      PositionCounter* const counters[2] = {&near, &far};
#pragma GCC unroll 2
      for (int k = 0; k < 2; ++k) {
        if (turn % 2 == 0) {
          eights[k] = carry[k];
          continue;
        }
        const simd::bytes next = PositionCounter::add(counters[k]->slice[3], eights[k], carry[k]);
        if (turn == 1) sixteens[k] = next;
        if (turn == 3) counters[k]->carry_on(5, PositionCounter::add(counters[k]->slice[4], sixteens[k], next));
      }
    }
    near_ = near;
    far_ = far;
    vectors_ += 32;
  }

  // codes_turn codes.
  __attribute__((noinline)) void count_turn(const std::uint8_t* codes) {
    if (vectors_ + 8 > PositionCounter::capacity) flush_window();
    Sorted sorted;
    sort(codes, sorted);
    if (any_outside(codes)) [[unlikely]] {
      if (count_outside(codes) > few) {
        flush_window();
        top_ = largest(codes) + 1;  // others are larger yet
        if (count_outside(codes) > few) return count_all_in_table(codes);
      }
      visit_outside(codes);
      sort(codes, sorted);
    }
    near_.carry_on(3, near_.add8(sorted.near));
    far_.carry_on(3, far_.add8(sorted.far));
    vectors_ += 8;
  }

  // A bit for each code in the window.
  GRADKERN_HD void sort(const std::uint8_t* codes, Sorted& sorted) const {
    using simd::bytes;
    constexpr std::uint8_t low[16] = {1, 2, 4, 8, 16, 32, 64, 128},
                           high[16] = {0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 64, 128};
    const bytes top(static_cast<std::uint8_t>(top_));
#pragma GCC unroll 8
    for (int j = 0; j < 8; ++j) {
      const bytes depth = top - bytes::load(codes + j * simd::vector_bytes);
      sorted.near[j] = simd::lookup(low, depth);
      sorted.far[j] = simd::lookup(high, depth);
    }
  }
  GRADKERN_HD bool any_outside(const std::uint8_t* codes) const {
    using simd::bytes;
    const bytes top(static_cast<std::uint8_t>(top_)), deepest(window - 1), none(0);
    simd::SetAndAbove outside(none, none, deepest);
#pragma GCC unroll 8
    for (int j = 0; j < 8; ++j) {
      const bytes code = bytes::load(codes + j * simd::vector_bytes);
      outside |= simd::SetAndAbove(code, top - code, deepest);
    }
    return outside.bits() != 0;
  }

  template <class Visit>
  GRADKERN_HD void each_outside(const std::uint8_t* codes, Visit visit) const {
    const simd::bytes top(static_cast<std::uint8_t>(top_));
    for (std::int64_t j = 0; j < codes_turn; j += simd::vector_bytes) {
      const simd::bytes code = simd::bytes::load(codes + j);
      visit(j, simd::SetAndAbove(code, top - code, simd::bytes(window - 1)).bits());
    }
  }
  int count_outside(const std::uint8_t* codes) const {
    int count = 0;
    each_outside(codes, [&](std::int64_t, std::uint64_t found) { count += __builtin_popcountll(found); });
    return count;
  }
  void visit_outside(const std::uint8_t* codes) {
    use_table();
    each_outside(codes, [&](std::int64_t first, std::uint64_t found) {
      for (; found; found &= found - 1) ++table_[0][codes[first + __builtin_ctzll(found)]];
    });
  }
  // Incrementing a counter again before the last increment is done waits for it: neighbours go to different tables.
  void count_all_in_table(const std::uint8_t* codes) {
    use_table();
    for (std::int64_t j = 0; j < codes_turn; j += tables)
      for (int t = 0; t < tables; ++t) ++table_[t][codes[j + t]];
  }
  void use_table() {
    if (table_used_) return;
    __builtin_memset(table_, 0, sizeof table_);
    table_used_ = true;
  }

  static int largest(const std::uint8_t* codes) {
    int most = 0;
    for (std::int64_t j = 0; j < codes_turn; ++j) most = codes[j] > most ? codes[j] : most;
    return most;
  }

  void flush_window() {
    if (vectors_ == 0) return;
    std::int64_t counts[window];
    near_.totals(vectors_, counts);
    far_.totals(vectors_, counts + 8);
    for (int j = 0; j < window; ++j) add((top_ - j) & code_limit, counts[j]);
    near_.clear();
    far_.clear();
    vectors_ = 0;
  }

  void add(int code, std::int64_t count) {
    if (count == 0 || code == 0 || code == code_limit) return;
    const int binade = code - code_bias;
    binades_.cover(binade, binade + 1);
    binades_.row(binade)[1] += count;
  }

  ops::Binades& binades_;
  int top_ = 0;
  bool table_used_ = false;
  std::int64_t vectors_ = 0;
  PositionCounter near_, far_;
  std::int64_t table_[tables][code_limit + 1];
};

}  // namespace
}  // namespace gradkern::cpu
