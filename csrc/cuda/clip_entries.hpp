// What clipping by a factor and by bounds share: a chunk's entries read, changed and written, 16 bytes at a time.
#pragma once

#include "cuda/lists.hpp"

namespace gradkern::cuda {

struct ListChunk {
  const executor::ClipTensor* tensor;
  std::int64_t index, begin;  // of the tensor; of the chunk's first entry in it
  int count;
};

__device__ __forceinline__ ListChunk chunk_of(const executor::ClipList& list) {
  ListChunk c;
  c.index = tensor_of(list.where, blockIdx.x);
  c.tensor = list.tensors + c.index;
  c.begin = (static_cast<std::int64_t>(blockIdx.x) - list.where.first_chunk[c.index]) * list_chunk;
  c.count = static_cast<int>(min(c.tensor->size - c.begin, std::int64_t(list_chunk)));
  return c;
}

// ops::ClipCounts of one thread.
struct EntryCounts {
  unsigned flushed = 0, subnormal = 0, overflow = 0, changed = 0;

  __device__ __forceinline__ void add(const ops::ClipCounts& c) {
    flushed += static_cast<unsigned>(c.flushed);
    subnormal += static_cast<unsigned>(c.subnormal);
    overflow += static_cast<unsigned>(c.overflow);
    changed += static_cast<unsigned>(c.changed);
  }
};

// By all threads of a CUDA block: the sum of their counts.
__device__ __forceinline__ void sum_counts(const EntryCounts& mine, ops::ClipCounts* partial) {
  __shared__ EntryCounts warps[list_threads / 32];
  const EntryCounts warp{__reduce_add_sync(~0u, mine.flushed), __reduce_add_sync(~0u, mine.subnormal),
                         __reduce_add_sync(~0u, mine.overflow), __reduce_add_sync(~0u, mine.changed)};
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = warp;
  __syncthreads();
  if (threadIdx.x != 0) return;
  ops::ClipCounts all;
  for (int w = 0; w < list_threads / 32; ++w)
    all.merge({warps[w].flushed, warps[w].subnormal, warps[w].overflow, warps[w].changed});
  *partial = all;
}

// The entries in a word, each changed.
template <class C, class Change>
__device__ __forceinline__ unsigned changed_word(unsigned word, Change change) {
  constexpr int bits = 8 * sizeof(C);
  unsigned result = 0;
#pragma unroll
  for (int j = 0; j < 32; j += bits) result |= static_cast<unsigned>(change(static_cast<C>(word >> j))) << j;
  return result;
}

template <class C, class Change>
__device__ __forceinline__ uint4 changed_group(uint4 g, Change change) {
  if constexpr (sizeof(C) == 8) {
    const C low = change(C(g.y) << 32 | g.x), high = change(C(g.w) << 32 | g.z);
    return make_uint4(static_cast<unsigned>(low), static_cast<unsigned>(low >> 32), static_cast<unsigned>(high),
                      static_cast<unsigned>(high >> 32));
  } else {
    return make_uint4(changed_word<C>(g.x, change), changed_word<C>(g.y, change), changed_word<C>(g.z, change),
                      changed_word<C>(g.w, change));
  }
}

// target[i] = change(source[i], counts), where `write`. always: what has not changed is written, too, in place.
template <class F, class Change>
__device__ __forceinline__ void each_entry(const ListChunk& chunk, bool write, bool always, ops::ClipCounts* partials,
                                           Change change) {
  using C = typename F::container;
  constexpr int together = 16 / sizeof(C);
  const C* source = in_global(static_cast<const C*>(chunk.tensor->source) + chunk.begin);
  C* target = in_global(static_cast<C*>(chunk.tensor->target) + chunk.begin);
  EntryCounts counts;
  if (write) {
    always |= source != target;
    const bool aligned =
        (reinterpret_cast<std::uintptr_t>(source) | reinterpret_cast<std::uintptr_t>(target)) % 16 == 0;
    const int groups = aligned ? chunk.count / together : 0;
#pragma unroll 2
    for (int g = threadIdx.x; g < groups; g += list_threads) {
      const uint4 loaded = load_128(source + g * together);
      const auto changed = changed_group<C>(loaded, [&](C stored) { return change(stored, counts); });
      const bool differs =
          ((changed.x ^ loaded.x) | (changed.y ^ loaded.y) | (changed.z ^ loaded.z) | (changed.w ^ loaded.w)) != 0;
      if (always || differs) store_global_128(target + g * together, changed);
    }
#pragma unroll 1
    for (int i = groups * together + threadIdx.x; i < chunk.count; i += list_threads) {
      const C stored = source[i], changed = change(stored, counts);
      if (always || changed != stored) target[i] = changed;
    }
  }
  sum_counts(counts, partials + blockIdx.x);
}

}  // namespace gradkern::cuda
