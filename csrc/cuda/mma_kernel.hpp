// A product on a matrix unit: d = c + a b by mma.sync, one ascending walk over k, then the bias in the accumulator's
// format. Warps hold their part of the result in registers; cp.async fills the stages of a ring in shared memory while
// the units work on an earlier one. The result leaves through shared memory, so that rows are written whole.
#pragma once

#include "cuda/kernels.hpp"
#include "cuda/mma_instruction.hpp"
#include "cuda/mma_tile.hpp"

namespace gradkern::cuda {

struct MmaTask {
  MmaSource a, b;
  int m, n, k;
  Epilogue out;
};

template <int m_, int n_, int warps_m_, int warps_n_, int blocks_>
struct MmaShape {
  static constexpr int m = m_, n = n_, warps_m = warps_m_, warps_n = warps_n_, blocks = blocks_;
  static constexpr int threads = 32 * warps_m * warps_n;
  static constexpr int tiles_m = m / warps_m / 16, tiles_n = n / warps_n / 8;  // of a warp
};

using MmaLarge = MmaShape<128, 128, 2, 4, 2>;
using MmaSmall = MmaShape<64, 64, 2, 2, 3>;
using MmaFewWarps = MmaShape<64, 64, 1, 2, 8>;  // small, too: in halves, additions leave little room for other work

// How the operands lie in memory: both with k contiguous, b with its columns, both with their rows or columns; or both
// packed, because one of them lies otherwise or cannot be copied.
enum class MmaLayout : int { k_k, k_outer, outer_outer, packed };

constexpr MmaLines lines_of_a(MmaLayout layout) {
  return layout == MmaLayout::packed        ? MmaLines::packed
         : layout == MmaLayout::outer_outer ? MmaLines::outer
                                            : MmaLines::k;
}
constexpr MmaLines lines_of_b(MmaLayout layout) {
  return layout == MmaLayout::k_outer ? MmaLines::outer : lines_of_a(layout);
}

template <class Instruction, class Shape, MmaLayout layout>
struct MmaBlock {
  using TileA = MmaTile<typename Instruction::A, Shape::m, Shape::threads, lines_of_a(layout)>;
  using TileB = MmaTile<typename Instruction::B, Shape::n, Shape::threads, lines_of_b(layout)>;
  using Word = typename Instruction::Word;
  static constexpr int words = Instruction::words, depth = TileA::depth, steps = Instruction::in_halves ? 1 : 2;
  static_assert(TileA::depth == TileB::depth);
  static constexpr int stage_bytes = TileA::bytes + TileB::bytes, turn_bytes = 2 * stage_bytes,
                       shared_bytes = 2 * turn_bytes;
  static_assert(Shape::m * Shape::n * 4 <= shared_bytes);  // the result goes there

  // Registers are few where an instruction adds: there a's rows come one fragment after the other.
  static constexpr int at_once = Instruction::in_halves ? 1 : Shape::tiles_m;

  const MmaTask& task;
  unsigned char* shared;
  typename TileA::Cursor a_at;
  typename TileB::Cursor b_at;
  typename TileA::Reader a_from;
  typename TileB::Reader b_from;
  Word sum[Shape::tiles_m][Shape::tiles_n][words];

  static __device__ __forceinline__ int first_row() { return static_cast<int>(blockIdx.x) * Shape::m; }
  static __device__ __forceinline__ int first_column() {
    return static_cast<int>(blockIdx.z * gridDim.y + blockIdx.y) * Shape::n;
  }

  // This tile and the next.
  __device__ __forceinline__ void fill(int tile, unsigned char* to) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      TileA::copy(task.a, a_at, tile + i, to + i * stage_bytes);
      TileB::copy(task.b, b_at, tile + i, to + i * stage_bytes + TileA::bytes);
    }
    cp_async_commit();
  }

  __device__ __forceinline__ void multiply(const unsigned char* stage) {
#pragma unroll
    for (int step = 0; step < steps; ++step) {
      std::uint32_t b[Shape::tiles_n][Instruction::b_words];
      TileB::columns(stage + TileA::bytes, b_from, step, b);
#pragma unroll
      for (int first = 0; first < Shape::tiles_m; first += at_once) {
        std::uint32_t a[at_once][Instruction::a_words];
        TileA::rows(stage, a_from, 16 * first, step, a);
#pragma unroll
        for (int i = 0; i < at_once; ++i) {
#pragma unroll
          for (int j = 0; j < Shape::tiles_n; ++j) Instruction::run(sum[first + i][j], a[i], b[j]);
        }
      }
    }
  }

  // While the units work on two tiles, the next two come.
  __device__ __forceinline__ void stream() {
    const int tiles = static_cast<int>(packed_tiles(task.k, depth));
    if (tiles == 0) return;
    fill(0, shared);
    unsigned now = 0;
    int ahead = 0;
#pragma unroll 1
    do {
      ahead += 2;
      cp_async_wait<0>();
      __syncthreads();  // these tiles are there, and those before are read
      if (ahead < tiles) fill(ahead, shared + (now ^ turn_bytes));
      if constexpr (Instruction::in_halves) {  // unrolled, the additions would be spread over other registers
#pragma unroll 1
        do {
          multiply(shared + now);
          now = (now + stage_bytes) % shared_bytes;
        } while (now % turn_bytes != 0);
      } else {
        multiply(shared + now);
        multiply(shared + now + stage_bytes);
        now ^= turn_bytes;
      }
    } while (ahead < tiles);
  }

  // An entry of the result in shared memory: four rows of a fragment lie in different banks.
  static __device__ __forceinline__ int slot(int row, int column) { return row * Shape::n + (column ^ 8 * (row & 3)); }

  // each(pair of the warp's results, its place in shared memory)
  template <class Each>
  __device__ __forceinline__ void for_pairs(Each each) {
    float* const results = reinterpret_cast<float*>(shared);
    const unsigned thread = static_cast<unsigned>(thread_anew()), lane = thread % 32, warp = thread / 32;
    const int row = static_cast<int>(warp / Shape::warps_n * Shape::tiles_m * 16 + lane / 4),
              column = static_cast<int>(warp % Shape::warps_n * Shape::tiles_n * 8 + lane % 4 * 2);
#pragma unroll
    for (int i = 0; i < Shape::tiles_m; ++i) {
#pragma unroll
      for (int j = 0; j < Shape::tiles_n; ++j) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          each(sum[i][j], half, results + slot(row + 16 * i + 8 * half, column + 8 * j));
        }
      }
    }
  }

  // each(four neighbours in shared memory, row, column, how many of them exist)
  template <class Each>
  __device__ __forceinline__ void for_rows(Each each) {
    float* const results = reinterpret_cast<float*>(shared);
    const int first_m = first_row(), first_n = first_column();
#pragma unroll 1
    for (int id = thread_anew(); id < Shape::m * Shape::n / 4; id += Shape::threads) {
      const int row = id / (Shape::n / 4), column = id % (Shape::n / 4) * 4;
      const int count = first_m + row < task.m ? task.n - first_n - column : 0;
      if (count > 0) each(results + slot(row, column), first_m + row, first_n + column, count);
    }
  }

  __device__ __forceinline__ float* wide(int row, int column) const {
    return static_cast<float*>(task.out.wide) + std::int64_t(row) * task.n + column;
  }

  // +0, or what the result holds.
  __device__ __forceinline__ void start() {
    if (!task.out.continued) {
#pragma unroll
      for (int i = 0; i < Shape::tiles_m; ++i) {
#pragma unroll
        for (int j = 0; j < Shape::tiles_n; ++j) {
#pragma unroll
          for (int w = 0; w < words; ++w) sum[i][j][w] = Word(0);
        }
      }
      return;
    }
    for_rows([&](float* at, int row, int column, int count) {
      float x[4];
      load_four(wide(row, column), count, task.out.aligned, x);
      store_128(at, base::bit_cast<uint4>(float4{x[0], x[1], x[2], x[3]}));
    });
    __syncthreads();
    for_pairs([&](Word(&part)[words], int row, float* at) {
      Instruction::set_pair(part, row, base::bit_cast<float2>(load_64(at)));
    });
    __syncthreads();
  }

  __device__ __forceinline__ void finish() {
    __syncthreads();
    for_pairs([&](Word(&part)[words], int row, float* at) {
      store_64(at, base::bit_cast<uint2>(Instruction::pair(part, row)));
    });
    __syncthreads();
    for_rows([&](const float* at, int row, int column, int count) {
      const auto four = base::bit_cast<float4>(load_128(at));
      float x[4] = {four.x, four.y, four.z, four.w};
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        if (e < count) x[e] = Instruction::finish(task.out, row, column + e, x[e]);
      }
      store_four(wide(row, column), count, task.out.aligned, x);
    });
  }
};

template <class Instruction, class Shape, MmaLayout layout>
__global__ __launch_bounds__(Shape::threads, Shape::blocks) void mma_product_kernel(const MmaTask task) {
  using Block = MmaBlock<Instruction, Shape, layout>;
  DYNAMIC_SHARED(unsigned char, shared);
  if (Block::first_column() >= task.n) return;
  Block block{task, shared, {}, {}, {}, {}, {}};
  block.start();
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
  Block::TileA::start(task.a, thread, block.first_row(), block.a_at);
  Block::TileB::start(task.b, thread, block.first_column(), block.b_at);
  block.a_from = Block::TileA::template reader<true>(warp / Shape::warps_n * Shape::tiles_m * 16, lane);
  block.b_from = Block::TileB::template reader<false>(warp % Shape::warps_n * Shape::tiles_n * 8, lane);
  block.stream();
  block.finish();
}

}  // namespace gradkern::cuda
