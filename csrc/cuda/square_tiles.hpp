// Two sums of squares of one chunk, in the lanes, blocks and order of ops/rounding.hpp, by one block of threads.
//
// Each warp takes one block of entries, round by round, and waits for no other warp. Its threads leave two values of each
// entry in shared memory; then its halves are the 16 lanes of either sum, which add their squares. Where every square is
// in the middle range of SquareSum, and the value is in the tile, that is a load and two operations an entry.
#pragma once

#include "cuda/folds.hpp"
#include "executor/kernels.hpp"
#include "ops/rounding.hpp"

namespace gradkern::cuda {

inline constexpr int lanes = ops::rounding_lanes;
inline constexpr int chunk_size = ops::rounding_chunk, block_size = ops::rounding_block;
inline constexpr int chunk_warps = chunk_size / block_size, chunk_threads = 32 * chunk_warps;
inline constexpr int chunk_blocks = 3;  // of a multiprocessor at once, at least: three quarters of its threads

// What a thread takes in a round: as many entries as make 32 bytes in the lane type.
template <class T>
inline constexpr int group_size = 32 / static_cast<int>(sizeof(T));
template <class T>
inline constexpr int round_size = 32 * group_size<T>;

// A warp's two rows of values. Of 32-bit values the second is shifted by 16 places, so that both halves of the warp find
// free banks at once.
template <class T>
struct SquareTile {
  static constexpr int pitch = round_size<T> + (sizeof(T) == 4 ? lanes : 0);
  T value[pitch + round_size<T>];

  __device__ __forceinline__ T* row(int which) { return value + which * pitch; }
  __device__ __forceinline__ const T* row(int which) const { return value + which * pitch; }
};

__device__ __forceinline__ bool is_medium(double x) {
  const double magnitude = ops::abs(x);
  return magnitude == 0 || (magnitude >= 0x1p-480 && magnitude <= 0x1p500);
}

// The entries of a thread block's chunk, and of a warp's block of it. Indices are 32 bits wide within a chunk. Computed
// anew where it is asked for, so that nothing of it waits in registers.
struct Chunk {
  std::int64_t size;  // of the tensor

  __device__ __forceinline__ explicit Chunk(std::int64_t entries) : size(entries) {}
  static __device__ __forceinline__ std::int64_t begin() { return std::int64_t(blockIdx.x) * chunk_size; }
  __device__ __forceinline__ int count() const {
    return static_cast<int>(min(size - begin(), std::int64_t(chunk_size)));
  }
  static __device__ __forceinline__ int warp() { return thread_anew() / 32; }
  static __device__ __forceinline__ int block_begin() { return warp() * block_size; }
  __device__ __forceinline__ int block_end() const { return min(count(), block_begin() + block_size); }
  __device__ __forceinline__ int blocks() const { return (count() + block_size - 1) / block_size; }
};

// A row as something to add values to, by the index of the entry in its chunk. A value that the lane type does not hold
// is left as NaN; then, and where a square is not in the middle range, `unusual` is set.
template <class T>
struct TileRow {
  SquareTile<T>* tiles;  // one a warp
  int which;
  int start;  // of the round in the chunk
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
    store(tiles[Chunk::warp()].row(which) + (index - start), lane);
  }
};

inline unsigned chunks_of(std::int64_t size) { return static_cast<unsigned>((size + chunk_size - 1) / chunk_size); }

// The sums of a chunk's threads, which wait here between rounds. In the end a block's sum is in its first lane.
struct SharedSquares {
  double big[chunk_threads], medium[chunk_threads], small[chunk_threads];

  // Of the chunk's blocks, of the first or the second sum, in their order.
  __device__ __forceinline__ ops::SquareSum of_chunk(int which, int blocks) const {
    ops::SquareSum all;
#pragma unroll 4
    for (int first = which * lanes; first < 32 * blocks; first += 32)
      all.merge({big[first], medium[first], small[first]});
    return all;
  }
};

// A thread's lane of a sum: lane l of the first in thread l of a warp, of the second in thread l + 16.
class SquareLane {
 public:
  __device__ __forceinline__ explicit SquareLane(SharedSquares& shared) : shared_(shared) {
    shared_.big[thread_anew()] = shared_.medium[thread_anew()] = shared_.small[thread_anew()] = 0;
  }

  // A round, of which `count` entries are there, or more than all, by all threads of a warp. value(which, j) is what entry
  // j is where the tile holds NaN.
  template <class T, class Value>
  __device__ __forceinline__ void add(const SquareTile<T>& tile, int count, bool unusual, Value value) const {
    const T* const row = tile.row(which());
    if (unusual) {
      ops::SquareSum sum{shared_.big[thread_anew()], shared_.medium[thread_anew()], shared_.small[thread_anew()]};
#pragma unroll 1
      for (int j = lane(); j < min(count, round_size<T>); j += lanes) {
        double x = load(row + j);
        if constexpr (sizeof(T) == 4)
          if (x != x) x = value(which(), j);
        sum.add(x);
      }
      shared_.big[thread_anew()] = sum.big;
      shared_.small[thread_anew()] = sum.small;
      shared_.medium[thread_anew()] = sum.medium;
      return;
    }
    const T* const own = row + lane();
    double sum = shared_.medium[thread_anew()];
#pragma unroll 8
    for (int j = 0; j < round_size<T>; j += lanes) {  // the rows are zero beyond their end
      const double x = load(own + j);
      // The square of a float32 is exact in float64.
      sum = sizeof(T) == 4 ? ops::fma(x, x, sum) : sum + x * x;
    }
    shared_.medium[thread_anew()] = sum;
  }

  // Every thread calls it, then comes a barrier, then SharedSquares::of_chunk.
  __device__ __forceinline__ void finish() const {
    fold(shared_.medium);
    if (!__any_sync(~0u, shared_.big[thread_anew()] + shared_.small[thread_anew()] != 0)) return;
    fold(shared_.big);
    fold(shared_.small);
  }

 private:
  static __device__ __forceinline__ void fold(double* sums) {
    const double sum = fold_lanes(sums[thread_anew()]);
    if (lane() == 0) sums[thread_anew()] = sum;
  }
  static __device__ __forceinline__ int which() { return thread_anew() / lanes % 2; }
  static __device__ __forceinline__ int lane() { return thread_anew() % lanes; }

  SharedSquares& shared_;
};

// The sum over the block's threads of a count, the least of an index; into shared memory that was cleared.
__device__ __forceinline__ void add_to(unsigned* total, unsigned count) {
  const unsigned sum = __reduce_add_sync(~0u, count);
  if (threadIdx.x % 32 == 0 && sum) atomicAdd(total, sum);
}
// -1 is none, and the largest as an unsigned number.
__device__ __forceinline__ void least_of(unsigned* least, int index) {
  const unsigned first = __reduce_min_sync(~0u, static_cast<unsigned>(index));
  if (threadIdx.x % 32 == 0) atomicMin(least, first);
}
__device__ __forceinline__ std::int64_t index_in_tensor(const Chunk& chunk, unsigned first) {
  return first == ~0u ? -1 : chunk.begin() + first;
}

}  // namespace gradkern::cuda
