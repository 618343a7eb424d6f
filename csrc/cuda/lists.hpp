// What kernels over lists of tensors share: which tensor a chunk is of, and the walk of 16 logical lanes through a block.
//
// Half a warp is the 16 lanes of one block of entries: thread l reads entries l, l + 16, ... in order, whatever their
// format. The entries come through shared memory in stages of 256 bytes, which the same 16 threads ask for by copies of
// 16 bytes each, some stages ahead: no barrier but that of the half warp. A chunk of eight blocks is 128 threads.
#pragma once

#include <type_traits>

#include "cuda/folds.hpp"
#include "executor/device.hpp"
#include "ops/rounding_lanes.hpp"

namespace gradkern::cuda {

using executor::TensorChunks;
using formats::FormatId;
using formats::holder;

inline constexpr int list_lanes = folded_lanes, list_block = 2048, list_blocks = 8,
                     list_chunk = list_block * list_blocks;
inline constexpr int list_threads = list_lanes * list_blocks;
inline constexpr int stage_bytes = 256;

template <class T>
using bits_of = std::conditional_t<sizeof(T) == 8, unsigned long long, unsigned>;

template <class F>
__device__ __forceinline__ holder<F> held(typename F::container stored) {
  if constexpr (F::id == FormatId::float64) {
    return base::bit_cast<double>(stored);
  } else {
    return ops::value_of<F, float>(static_cast<std::int32_t>(stored));
  }
}

// The last tensor whose first chunk is not behind this one; by all threads of a warp, 32 probes a step.
__device__ __forceinline__ std::int64_t tensor_of(const TensorChunks& where, std::int64_t chunk) {
  const std::int64_t lane = threadIdx.x % 32;
  std::int64_t first = 0, count = where.count;
  while (count > 1) {
    const std::int64_t step = (count + 31) / 32;
    const bool before = lane * step < count && where.first_chunk[first + lane * step] <= chunk;
    const std::int64_t skipped = (31 - __clz(static_cast<int>(__ballot_sync(~0u, before)))) * step;
    first += skipped;
    count = min(step, count - skipped);
  }
  return first;
}

// The stages of a warp: the second half's lie 16 banks apart from the first's.
template <int stages>
inline constexpr int warp_stage_bytes = 2 * stages * stage_bytes + 64;
template <int stages>
inline constexpr int all_stage_bytes = list_blocks / 2 * warp_stage_bytes<stages>;

template <int stages, class Byte>
__device__ __forceinline__ Byte* stages_of_half(Byte* all, int half) {
  return all + half / 2 * warp_stage_bytes<stages> + half % 2 * (stages * stage_bytes + 64);
}

// visit(j, entry j) for the lane's entries of `count` at x. What is no whole stage, or does not lie at a multiple of 16
// bytes, is read where it is.
// at_once: how many of a stage's entries are unrolled.
template <int stages, int at_once = stage_bytes, class C, class Index, class Visit>
__device__ __forceinline__ void walk(const C* x, Index count, unsigned char* buffer, Visit visit) {
  constexpr int entries = stage_bytes / static_cast<int>(sizeof(C));
  const int lane = threadIdx.x % list_lanes;
  const unsigned half_warp = 0xFFFFu << (threadIdx.x & 16);
  const Index whole = reinterpret_cast<std::uintptr_t>(x) % 16 == 0 ? count / entries : 0;
  const unsigned char* from = reinterpret_cast<const unsigned char*>(x) + lane * 16;
  unsigned char* const mine = buffer + lane * 16;
#pragma unroll
  for (int s = 0; s < stages - 1; ++s) {
    if (s < whole) cp_async_16(mine + s * stage_bytes, from + s * stage_bytes);
    cp_async_commit();
  }
  from += (stages - 1) * stage_bytes;
  int here = 0, free = (stages - 1) * stage_bytes;
#pragma unroll 1
  for (Index s = 0; s < whole; ++s) {
    cp_async_wait<stages - 2>();
    __syncwarp(half_warp);  // this stage is there for all, and all have read the one before
    if (s + (stages - 1) < whole) cp_async_16(mine + free, from);
    cp_async_commit();
    from += stage_bytes;
    const C* entry = reinterpret_cast<const C*>(buffer + here) + lane;
#pragma unroll at_once
    for (int r = 0; r < entries; r += list_lanes) visit(s * entries + r + lane, entry[r]);
    free = here;
    here = here + stage_bytes == stages * stage_bytes ? 0 : here + stage_bytes;
  }
  __syncwarp(half_warp);
#pragma unroll 1
  for (Index j = whole * entries + lane; j < count; j += list_lanes) visit(j, in_global(x)[j]);
}

// How many entries of a chunk's are those of one block.
__device__ __forceinline__ int block_size(int count, int block) {
  return max(0, min(count - block * list_block, list_block));
}

}  // namespace gradkern::cuda
