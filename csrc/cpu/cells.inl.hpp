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
    if (count_ > statistics_block) move_all();
    ++blocks_;
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

  // Entries of float32 that have no code, and were not counted.
  void count_subnormals(const T* x, std::int64_t n) {
    using words = simd::words;
    constexpr int lanes = lane_count<float>;
    subnormals_ = true;
    for (std::int64_t i = 0; sizeof(T) == 4 && i < n; i += lanes) {
      words bits;
      __builtin_memcpy(&bits, x + i, sizeof bits);
      const words magnitude = bits & words(INT32_MAX);
      const words below =
          words::wrap(magnitude.v < words(1 << Wide<float>::fraction_bits).v) & ~words::wrap(magnitude.v == words(0).v);
      for (unsigned found = simd::lanes_of(below); found; found &= found - 1)
        binades_.add(x[i + __builtin_ctz(found)], 1);
    }
  }

  void finish() {
    move_all();
    for (int code = 1; powers_used_ && code < codes; ++code) {
      std::int64_t found = 0;
      for (const auto& powers : powers_) found += powers[code];
      if (found) move(binades_, code - Wide<T>::bias, 0, found, found);
    }
    powers_used_ = false;
  }

 private:
  static constexpr int usual = 8, tables = 4, crowded = statistics_block / 32;
  static constexpr int codes = sizeof(T) == 4 ? 2 * Wide<float>::bias + 1 : 1;

  void move_all() {
    if (sizeof(T) == 4 && (subnormals_ || count_ > crowded * blocks_)) {
      move_many();
    } else {
      for (int k = 0; k < count_; ++k) move(binades_, taken_[k], 1);
    }
    count_ = blocks_ = 0;
    subnormals_ = false;
  }
  // Powers of two may be all that there is: they are counted by exponent, in one of some tables, as an increment waits for
  // the last one of the same counter. What has no exponent was counted as a subnormal.
  __attribute__((noinline)) void move_many() {
    for (int k = 0; k < count_; ++k) {
      const std::uint32_t magnitude = base::bit_cast<std::uint32_t>(float(taken_[k])) & INT32_MAX;
      const std::uint32_t code = magnitude >> Wide<float>::fraction_bits;
      if (code != 0 && (magnitude & ((1u << Wide<float>::fraction_bits) - 1)) == 0) {
        use_powers();
        ++powers_[k % tables][code];
      } else if (code != 0) {
        move(binades_, taken_[k], 1);
      }
    }
  }
  void use_powers() {
    if (powers_used_) return;
    __builtin_memset(powers_, 0, sizeof powers_);
    powers_used_ = true;
  }

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
    for (; words.any; words.any &= words.any - 1) {
      const int w = __builtin_ctzll(words.any);
#if defined(GRADKERN_SIMD_AVX512)
      constexpr int bits = 8 * int(sizeof Scan<T>::candidates[0]), lanes = lane_count<T>;
      for (int b = 0; b < 32; b += bits) {
        const auto found = static_cast<simd::lane_bits<lanes>>(words.word[w] >> b);
        count_ += simd::store_selected(x + (32 * (first + w) + b) / bits * lanes, found, taken_ + count_);
      }
#else
      for (auto& word = words.word[w]; word; word &= word - 1) taken_[count_++] = x[entry_of(first, words, words.any)];
#endif
    }
  }

  ops::Binades& binades_;
  int count_ = 0, blocks_ = 0;  // taken, and from so many blocks
  bool subnormals_ = false;     // may be among them
  T taken_[2 * statistics_block + lane_count<T>];
  bool powers_used_ = false;
  std::int64_t powers_[tables][codes];
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
