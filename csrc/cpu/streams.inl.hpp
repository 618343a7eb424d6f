// What a reader asks of memory.
#pragma once

#include "ops/statistics.hpp"
#include "simd/widths.hpp"

namespace gradkern::cpu {
namespace {

// What is asked for from memory while a block is read: with every line, one of `at`. Of a chunk two streams by turns, its
// halves, for that takes less time than one; and some lines more where nothing is read for a while.
template <class C>
struct TwoStreams {
  static constexpr std::int64_t size = sizeof(C), chunk = ops::statistics_chunk * size;
  static constexpr int lines_meanwhile = 8, streams = simd::vector_bytes * size >= 128 ? 2 : 1;
  std::uintptr_t at;  // no pointer: it may lie beyond the tensor

  // While entries from i on of a chunk are read, a chunk at `wanted` is asked for.
  static TwoStreams of(std::uintptr_t wanted, std::int64_t i) { return {wanted + std::uintptr_t(i * size / streams)}; }

  // v, which was read at entry i + j of a block, and its line asked for.
  template <class V>
  GRADKERN_HD V fetch(V v, std::int64_t i, int j) const {
    const int line = j * int(size) / 64;
    if (j * int(size) % 64 != 0) return v;
    return simd::fetch_after(v, address(i * size / streams + line / streams * 64 + line % streams * (chunk / streams)));
  }
  GRADKERN_HD void fetch_meanwhile(std::int64_t n) const {
    for (int k = 0; k < lines_meanwhile; ++k)
      __builtin_prefetch(address(n * size / streams + k / streams * 64 + k % streams * (chunk / streams)), 0, 2);
  }

 private:
  GRADKERN_HD const char* address(std::int64_t offset) const {
    return reinterpret_cast<const char*>(at + std::uintptr_t(offset));
  }
};

}  // namespace
}  // namespace gradkern::cpu
