// How many magnitudes lie in each binade, counted without a table where they can be.
//
// A byte codes the binade of an entry: its biased exponent, as in float32 or as it is stored, 0 for what is not counted.
// A lookup turns the 16 binades of a window into one bit each, of two bytes, and carry-save adders count every bit
// position: the positional population count of Klarqvist, Mula, Lemire (2019). The window begins at the largest binade
// met when it was last moved; the few entries outside are noted one by one, and where there are many, all that lies near
// them is counted in a table.
#pragma once

#include <algorithm>
#include <bit>

#include "ops/statistics.hpp"
#include "simd/lanes.hpp"

namespace gradkern::cpu {
namespace {

inline constexpr std::int64_t codes_turn = 8 * simd::vector_bytes;  // codes counted at a time
inline constexpr int code_bias = 127, code_limit = 255;             // binades -126 .. 127 have codes of their own

// A bit for each of 16 positions, of every byte of a vector: the first eight, and the others.
struct Positions {
  simd::bytes near, far;
  friend GRADKERN_HD Positions operator&(Positions a, Positions b) { return {a.near & b.near, a.far & b.far}; }
  friend GRADKERN_HD Positions operator^(Positions a, Positions b) { return {a.near ^ b.near, a.far ^ b.far}; }
};

// Counts each position: bit k of position p of the count is in slice k.
struct PositionCounter {
  static constexpr int slices = 11;
  static constexpr std::int64_t capacity = (1 << slices) - 1;  // vectors
  Positions slice[slices];

  GRADKERN_HD PositionCounter() { clear(); }
  GRADKERN_HD void clear() {
    for (auto& s : slice) s = {simd::bytes(0), simd::bytes(0)};
  }

  // sum + a + b as sum, and the carry.
  static GRADKERN_HD Positions add(Positions& sum, Positions a, Positions b) {
    const Positions carry{simd::carry_bit(a.near, b.near, sum.near), simd::carry_bit(a.far, b.far, sum.far)};
    sum = {simd::sum_bit(a.near, b.near, sum.near), simd::sum_bit(a.far, b.far, sum.far)};
    return carry;
  }

  // Adds vector(0) to vector(7). What is left is a carry of weight 8, for slice 3.
  template <class Vector>
  GRADKERN_HD Positions add8(Vector vector) {
    const auto twos = [&](int j) { return add(slice[0], vector(j), vector(j + 1)); };
    const auto fours = [&](int j) {
      const Positions a = twos(j), b = twos(j + 2);
      return add(slice[1], a, b);
    };
    const Positions a = fours(0), b = fours(4);
    return add(slice[2], a, b);
  }
  GRADKERN_HD void carry_on(int first, Positions carry) {
#pragma GCC unroll 8
    for (int k = first; k < slices; ++k) {
      const Positions next = slice[k] & carry;
      slice[k] = slice[k] ^ carry;
      carry = next;
    }
  }

  // After so many vectors.
  GRADKERN_HD void totals(std::int64_t vectors, std::int64_t (&counts)[16]) const {
    const int used = std::bit_width(static_cast<std::uint64_t>(vectors));
    for (int p = 0; p < 16; ++p) {
      counts[p] = 0;
      for (int k = 0; k < used; ++k) {
        const simd::bytes bits = p < 8 ? slice[k].near : slice[k].far;
        counts[p] += std::int64_t(__builtin_popcountll(simd::bits_of(bits, p % 8))) << k;
      }
    }
  }
};

class CodeHistogram {
 public:
  CodeHistogram(ops::Binades& binades, int bias) : binades_(binades), bias_(bias) {}

  // Adds what was counted to the binades; without it, nothing is.
  void finish() {
    flush_window();
    for (int k = 0; k < outside_; ++k) add(noted_[k], 1);
    outside_ = 0;
    for (int code = 1; table_used_ && code < code_limit; ++code) {
      std::int64_t count = 0;
      for (const auto& table : table_) count += table[code];
      add(code, count);
    }
  }

  // n codes, a multiple of simd::vector_bytes, and zeros up to the next one of codes_turn, of magnitudes in [amin, amax].
  GRADKERN_HD void count(const std::uint8_t* codes, std::int64_t n, double amin, double amax) {
    const int least = std::max(ops::binade_of(amin) + bias_, 1), most = std::max(ops::binade_of(amax) + bias_, 0);
    if (vectors_ == 0) top_ = std::max(most + 1, window - 1);  // others are larger yet
    const bool inside = most <= top_ && least > top_ - window;
    std::int64_t i = 0;
    for (; i + joined <= n && (inside || note_few_outside<joined>(codes + i)); i += joined)
      (inside && top_ == window - 1) ? count_joined<true>(codes + i) : count_joined<false>(codes + i);
    for (; i < n; i += codes_turn) count_turn(codes + i);
  }

 private:
  static constexpr int few = codes_turn / 8, window = 16, tables = 4, most_noted = 2 * few;
  static constexpr std::int64_t joined = 4 * codes_turn;

  // A bit for each code in the window, of the vectors of a turn. all: the window has all codes that there are.
  template <bool all>
  GRADKERN_HD auto sorted(const std::uint8_t* codes) const {
    return [codes, top = simd::bytes(static_cast<std::uint8_t>(top_))](int j) -> Positions {
      constexpr std::uint8_t low[16] = {1, 2, 4, 8, 16, 32, 64, 128},
                             high[16] = {0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 64, 128};
      constexpr std::uint8_t low_up[16] = {0, 0, 0, 0, 0, 0, 0, 0, 128, 64, 32, 16, 8, 4, 2, 1},
                             high_up[16] = {128, 64, 32, 16, 8, 4, 2, 1};
      const simd::bytes code = simd::bytes::load(codes + j * simd::vector_bytes);
      if constexpr (all) return {simd::lookup<true>(low_up, code), simd::lookup<true>(high_up, code)};
      const simd::bytes depth = top - code;
      return {simd::lookup(low, depth), simd::lookup(high, depth)};
    };
  }

  // Turns that lie in the window, or whose few codes outside are noted: carried on together.
  template <bool all>
  __attribute__((noinline)) void count_joined(const std::uint8_t* codes) {
    if (vectors_ + 32 > PositionCounter::capacity) flush_window();
    PositionCounter counter = counter_;  // in registers
    const auto eights = [&](int turn) { return counter.add8(sorted<all>(codes + turn * codes_turn)); };
    const auto sixteens = [&](int turn) {
      const Positions a = eights(turn), b = eights(turn + 1);
      return PositionCounter::add(counter.slice[3], a, b);
    };
    const Positions a = sixteens(0), b = sixteens(2);
    counter.carry_on(5, PositionCounter::add(counter.slice[4], a, b));
    counter_ = counter;
    vectors_ += 32;
  }

  // codes_turn codes.
  __attribute__((noinline)) void count_turn(const std::uint8_t* codes) {
    if (vectors_ + 8 > PositionCounter::capacity) flush_window();
    if (any_outside(codes) && !note_few_outside<codes_turn>(codes)) {
      flush_window();
      top_ = largest(codes) + 1;  // others are larger yet
      if (!note_few_outside<codes_turn>(codes)) return count_all_in_table(codes);
    }
    counter_.carry_on(3, counter_.add8(sorted<false>(codes)));
    vectors_ += 8;
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

  // Notes the codes outside of the window, unless there are more than few.
  template <std::int64_t length>
  __attribute__((noinline)) bool note_few_outside(const std::uint8_t* codes) {
    constexpr int vectors = int(length / simd::vector_bytes);
    const simd::bytes top(static_cast<std::uint8_t>(top_));
    std::uint64_t outside[vectors];
    int count = 0;
    for (int j = 0; j < vectors; ++j) {
      const simd::bytes code = simd::bytes::load(codes + j * simd::vector_bytes);
      outside[j] = simd::SetAndAbove(code, top - code, simd::bytes(window - 1)).bits();
      count += __builtin_popcountll(outside[j]);
    }
    if (count > few) return false;
    if (outside_ > most_noted - few) move_noted_to_table();
    for (int j = 0; j < vectors; ++j)
      for (std::uint64_t found = outside[j]; found; found &= found - 1)
        noted_[outside_++] = codes[j * simd::vector_bytes + __builtin_ctzll(found)];
    return true;
  }
  void move_noted_to_table() {
    use_table();
    for (int k = 0; k < outside_; ++k) ++table_[k % tables][noted_[k]];
    outside_ = 0;
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
    counter_.totals(vectors_, counts);
    const auto each = [&](auto body) {
      for (int j = 0; j < window; ++j)
        if (const int code = (top_ - j) & code_limit; counts[j] != 0 && is_counted(code)) body(code, counts[j]);
    };
    int low = code_limit, high = 0;  // a window that begins low goes on at the upper end
    each([&](int code, std::int64_t) {
      low = std::min(low, code);
      high = std::max(high, code);
    });
    if (low <= high) binades_.cover(low - bias_, high - bias_ + 1);
    each([&](int code, std::int64_t count) { binades_.row(code - bias_)[1] += count; });
    counter_.clear();
    vectors_ = 0;
  }

  static constexpr bool is_counted(int code) { return 0 < code && code < code_limit; }
  void add(int code, std::int64_t count) {
    if (count == 0 || !is_counted(code)) return;
    const int binade = code - bias_;
    binades_.cover(binade, binade + 1);
    binades_.row(binade)[1] += count;
  }

  ops::Binades& binades_;
  const int bias_;
  int top_ = 0;
  bool table_used_ = false;
  std::int64_t vectors_ = 0;
  PositionCounter counter_;
  int outside_ = 0;  // noted
  std::uint8_t noted_[most_noted];
  std::int64_t table_[tables][code_limit + 1];
};

}  // namespace
}  // namespace gradkern::cpu
