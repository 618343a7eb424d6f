// Entries of a binade that lie at its borders: in another cell than cell 1.
#pragma once

#include "cpu/statistics_scan.inl.hpp"
#include "formats/decode.hpp"

namespace gradkern::cpu {
namespace {

GRADKERN_HD void move(ops::Binades& binades, int binade, int cell, std::int64_t times, std::int64_t counted) {
  binades.cover(binade, binade + 1);
  std::int64_t* const row = binades.row(binade);
  row[1] -= counted;
  row[cell] += times;
}
// An entry to where it belongs, from cell 1 if it was counted there.
GRADKERN_HD void move(ops::Binades& binades, double x, bool counted) {
  move(binades, ops::binade_of(x), ops::cell_of(ops::fraction_of(x)), 1, counted);
}

// Moves entries that were counted in cell 1 to where they belong: later and many at a time, for what happens to one in
// some hundred entries is not foreseen by a processor.
template <class T>
class CellCounter {
 public:
  explicit CellCounter(ops::Binades& binades) : binades_(binades) {}

  // The candidates among the entries of a block.
  GRADKERN_HD void take(const T* x, const Scan<T>& s) {
    if (count_ > statistics_block) finish();
    constexpr int all = int(sizeof s.candidates) / 4;
    for (int first = 0; first < all; first += 64) {
      Words words(reinterpret_cast<const char*>(s.candidates) + 4 * first);
      const int found = __builtin_popcountll(words.any);
      if (words.several == 0 && found <= usual) [[likely]] {
        std::uint64_t any = words.any;
#pragma GCC unroll 8
        for (int k = 0; k < usual; ++k, any &= any - 1) taken_[count_ + k] = x[entry_of(first, words, any)];
        count_ += found;  // what was taken beyond is taken again
      } else {
        take_many(x, first, words);
      }
    }
  }

  void finish() {
    for (int k = 0; k < count_; ++k) move(binades_, taken_[k], 1);
    count_ = 0;
  }

 private:
  static constexpr int usual = 8;

  // 64 words of 32 candidates' bits: which of them have any, and which more than one.
  struct Words {
    std::uint32_t word[64];
    std::uint64_t any = 0, several = 0;
    explicit Words(const char* stored) {
      using words = simd::vec<std::uint32_t, simd::vector_bytes / 4>;
      __builtin_memcpy(word, stored, sizeof word);
      for (int w = 0; w < 64; w += simd::vector_bytes / 4) {
        words v;
        __builtin_memcpy(&v, stored + 4 * w, sizeof v);
        const auto where = [&](words some) {
          return std::uint64_t(simd::lanes_of(words::wrap(some.v != words(0).v))) << w;
        };
        any |= where(v);
        several |= where(v & (v - words(1)));
      }
    }
  };

  // Of the lowest bit of the first of some words that have any; of some other one where none has.
  static GRADKERN_HD int entry_of(int first, const Words& words, std::uint64_t any) {
    constexpr int bits = 8 * int(sizeof Scan<T>::candidates[0]), lanes = lane_count<T>;
    const int w = any == 0 ? 0 : __builtin_ctzll(any);
    const int bit = 32 * (first + w) + (words.word[w] == 0 ? 0 : __builtin_ctz(words.word[w]));
    return bit / bits * lanes + bit % bits % lanes;
  }

  __attribute__((noinline)) void take_many(const T* x, int first, Words& words) {
    for (; words.any; words.any &= words.any - 1)
      for (auto& word = words.word[__builtin_ctzll(words.any)]; word; word &= word - 1)
        taken_[count_++] = x[entry_of(first, words, words.any)];
  }

  ops::Binades& binades_;
  int count_ = 0;
  T taken_[2 * statistics_block + usual];
};

// The same of entries that were looked at as they are stored, and taken at once.
template <class F>
class HalfCells {
 public:
  explicit HalfCells(ops::Binades& binades) : binades_(binades) {}

  // Where the next entries are to be stored: there is room for those of a block.
  std::uint16_t* next() {
    if (count_ > statistics_block) move_all();
    return taken_ + count_;
  }
  // Whether there is so much up to `end` that to look at the block as float takes less time.
  bool is_crowded(const std::uint16_t* end) const { return !powers && end - (taken_ + count_) > statistics_block / 64; }
  void take(const std::uint16_t* end) { count_ = static_cast<int>(end - taken_); }

  void finish() {
    move_all();
    for (int code = 0; powers && code < codes; ++code)
      if (const std::int64_t found = powers_[0][code] + powers_[1][code])
        move(binades_, code - F::bias, 0, found, found);
  }

 private:
  static constexpr bool powers = F::significand_bits <= 10;  // no other fraction is in a cell of its own
  static constexpr int codes = powers ? 1 << F::exponent_bits : 1;

  void move_all() {
    constexpr std::uint16_t magnitude = 0x7FFF, smallest_normal = 1 << (F::significand_bits - 1);
    for (int k = 0; k < count_; ++k) {
      const std::uint16_t x = taken_[k] & magnitude;
      if constexpr (powers)  // in one of two tables, as an increment waits for the last one of the same counter
        powers_[k % 2][x / smallest_normal] += x % smallest_normal == 0;
      else
        move(binades_, formats::decode<F>(x), x >= smallest_normal);
    }
    count_ = 0;
  }

  ops::Binades& binades_;
  int count_ = 0;
  std::uint16_t taken_[2 * statistics_block + 2];
  std::int64_t powers_[2][codes] = {};
};

}  // namespace
}  // namespace gradkern::cpu
