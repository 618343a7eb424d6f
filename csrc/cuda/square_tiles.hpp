// Two sums of squares of one chunk, in the lanes and the order of ops/rounding.hpp, by one block of threads.
//
// The block takes its chunk in tiles. All threads leave two values of each entry in shared memory; one warp then adds
// their squares, 16 threads for the 16 lanes of each sum, while other blocks of the multiprocessor encode. Where every
// square is in the middle range of SquareSum, and the value is in the tile, that is a load and two operations an entry.
#pragma once

#include "cuda/platform.hpp"
#include "executor/kernels.hpp"
#include "ops/rounding.hpp"

namespace gradkern::cuda {

inline constexpr int chunk_threads = 256, chunk_warps = chunk_threads / 32;
inline constexpr int chunk_blocks = 6;  // of a multiprocessor at once, at least
inline constexpr int lanes = ops::rounding_lanes;
inline constexpr std::int64_t chunk_size = ops::rounding_chunk;

// A thread takes groups of four entries, one or two of each tile: 16 KB of shared memory in both lane types.
inline constexpr int group_size = 4, tile_round = chunk_threads * group_size;
template <class T>
inline constexpr int tile_size = tile_round * (sizeof(T) == 4 ? 2 : 1);

// Rows of values of a tile, the second shifted by 16 places so that both halves of a warp find free banks.
template <class T>
struct SquareTile {
  T value[2 * tile_size<T> + lanes];

  static __device__ __forceinline__ int row(int which) { return which * (tile_size<T> + lanes); }
};

__device__ __forceinline__ bool is_medium(double x) {
  const double magnitude = ops::abs(x);
  return magnitude == 0 || (magnitude >= 0x1p-480 && magnitude <= 0x1p500);
}

// A row as something to add values to, by the index of the entry in its chunk. A value that the lane type does not hold
// is left as NaN; then, and where a square is not in the middle range, `unusual` is set.
template <class T>
struct TileRow {
  T* value;
  int start;  // of the tile in the chunk
  bool unusual = false;

  __device__ __forceinline__ void add(std::int64_t index, double x) {
    T lane = static_cast<T>(x);
    if constexpr (sizeof(T) == 4) {
      if (static_cast<double>(lane) != x) {
        lane = __builtin_nanf("");
        unusual = true;
      }
    } else {
      unusual |= !is_medium(x);
    }
    store(value + (index - start), lane);
  }
};

// The sums of the lanes, which wait in shared memory between tiles. The warp that adds has 16 threads for each of two.
struct LaneSums {
  double big[2 * lanes], medium[2 * lanes], small[2 * lanes];

  static __device__ __forceinline__ int place() { return thread_anew() % (2 * lanes); }
  static __device__ __forceinline__ int which() { return place() / lanes; }
  static __device__ __forceinline__ int lane() { return place() % lanes; }
  // Blocks that share a multiprocessor let different warps add: each of its four parts has some.
  static __device__ __forceinline__ bool adds() {
    return thread_anew() / 32 == static_cast<int>(blockIdx.x) % chunk_warps;
  }

  __device__ __forceinline__ void clear() {
    const int own = place();
    if (adds()) big[own] = medium[own] = small[own] = 0;
  }

  // `count` entries of a tile. value(which, j) is what entry j is where the tile holds NaN.
  template <class T, class Value>
  __device__ __forceinline__ void add(const SquareTile<T>& tile, int count, bool unusual, Value value) {
    if (!adds()) return;
    const int own = place(), which = own / lanes, lane = own % lanes;
    const T* const row = tile.value + SquareTile<T>::row(which);
    if (unusual) {
      ops::SquareSum sum{big[own], medium[own], small[own]};
#pragma unroll 1
      for (int j = lane; j < count; j += lanes) {
        double x = load(row + j);
        if constexpr (sizeof(T) == 4)
          if (x != x) x = value(which, j);
        sum.add(x);
      }
      big[own] = sum.big;
      medium[own] = sum.medium;
      small[own] = sum.small;
    } else {
      const int steps = (count + lanes - 1) / lanes;  // the tile is zero beyond its end
      double sum = medium[own];
#pragma unroll 4
      for (int step = 0; step < steps; ++step) {
        const double x = load(row + step * lanes + lane);
        // The square of a float32 is exact in float64.
        sum = sizeof(T) == 4 ? ops::fma(x, x, sum) : sum + x * x;
      }
      medium[own] = sum;
    }
  }

  // Of all lanes, in their order; every thread of the warp that adds calls it.
  __device__ __forceinline__ ops::SquareSum total() const {
    ops::SquareSum all;
    const int first = which() * lanes;
#pragma unroll 1
    for (int from = first, end = first + lanes; from < end; ++from) all.merge({big[from], medium[from], small[from]});
    return all;
  }
};

// The entries of a block's chunk, and of one tile of it. Indices are 32 bits wide within a chunk.
struct Chunk {
  std::int64_t begin;
  int count;

  __device__ __forceinline__ explicit Chunk(std::int64_t size)
      : begin(std::int64_t(blockIdx.x) * chunk_size),
        count(static_cast<int>(size - begin < chunk_size ? size - begin : chunk_size)) {}
};

inline unsigned chunks_of(std::int64_t size) { return static_cast<unsigned>((size + chunk_size - 1) / chunk_size); }

// The sum over the block's threads of a count, the least of an index; into shared memory that was cleared.
__device__ __forceinline__ void add_to(unsigned* total, unsigned count) {
  const unsigned sum = __reduce_add_sync(0xFFFFFFFFu, count);
  if (threadIdx.x % 32 == 0 && sum) atomicAdd(total, sum);
}
// -1 is none, and the largest as an unsigned number.
__device__ __forceinline__ void least_of(unsigned* least, int index) {
  const unsigned first = __reduce_min_sync(0xFFFFFFFFu, static_cast<unsigned>(index));
  if (threadIdx.x % 32 == 0) atomicMin(least, first);
}
__device__ __forceinline__ std::int64_t index_in_tensor(const Chunk& chunk, unsigned first) {
  return first == ~0u ? -1 : chunk.begin + first;
}

}  // namespace gradkern::cuda
