// A product on a matrix unit: d = c + a b by mma.sync, one ascending walk over k, then the bias in the accumulator's
// format. Warps hold their part of the result in registers; cp.async fills the stages of a ring in shared memory while
// the units work on an earlier one. The result leaves through shared memory, so that rows are written whole.
#pragma once

#include "cuda/kernels.hpp"
#include "cuda/mma_tile.hpp"
#include "cuda/product_result.hpp"
#include "mma/units.hpp"

namespace gradkern::cuda {

struct MmaTask {
  MmaSource a, b;
  int m, n, k;
  int tiles_n;
  Epilogue out;
};

// The instruction for operands A and B: 32 bytes of k at once, or two of 16 bytes.
template <class A_, class B_, class Accumulate_, bool halved>
struct MmaInstruction {
  using A = A_;
  using B = B_;
  static constexpr bool half = Accumulate_::id == FormatId::float16;
  // A warp's part of 16 x 8 results: rows g and g + 8, columns 2t and 2t + 1 (simt/tensor_core.hpp).
  using Word = std::conditional_t<half, std::uint32_t, float>;
  static constexpr int words = half ? 2 : 4;

  static __device__ __forceinline__ void run(Word (&sum)[words], const std::uint32_t (&a)[4],
                                             const std::uint32_t (&b)[2]) {
    if constexpr (halved) {
      const std::uint32_t a_low[2] = {a[0], a[1]}, a_high[2] = {a[2], a[3]}, b_low[1] = {b[0]}, b_high[1] = {b[1]};
      if constexpr (A::id == FormatId::tfloat32) {
        mma_m16n8k4<A>(sum, a_low, b_low, sum);
        mma_m16n8k4<A>(sum, a_high, b_high, sum);
      } else {
        mma_m16n8k8<A>(sum, a_low, b_low, sum);
        mma_m16n8k8<A>(sum, a_high, b_high, sum);
      }
    } else if constexpr (A::id == FormatId::tfloat32) {
      mma_m16n8k8<A>(sum, a, b, sum);
    } else if constexpr (sizeof(typename A::container) == 2) {
      mma_m16n8k16<A>(sum, a, b, sum);
    } else {
      mma_m16n8k32<A, B>(sum, a, b, sum);
    }
  }

  // Two neighbours of a row of the result, of which a warp's part has two.
  static __device__ __forceinline__ float2 pair(const Word (&sum)[words], int row) {
    if constexpr (half) {
      return {decode_f32<formats::float16>(sum[row] & 0xFFFFu), decode_f32<formats::float16>(sum[row] >> 16)};
    } else {
      return {sum[2 * row], sum[2 * row + 1]};
    }
  }
  static __device__ __forceinline__ void set_pair(Word (&sum)[words], int row, float2 x) {
    if constexpr (half) {
      sum[row] = encode_exact<formats::float16>(x.x) | std::uint32_t(encode_exact<formats::float16>(x.y)) << 16;
    } else {
      sum[2 * row] = x.x;
      sum[2 * row + 1] = x.y;
    }
  }

  // The sum with its bias, NaN as the units write it.
  static __device__ __forceinline__ float finish(const Epilogue& out, int row, int column, float sum) {
    if (out.bias) {
      const std::int64_t index = row * out.bias_row + column;
      if constexpr (half) {
        const auto bias =
            formats::encode<formats::float16>(load_value<double>(out.bias_format, out.bias, index), formats::Mode{}, 0)
                .bits;
        const std::uint16_t one = 0x3C00;
        sum = decode_f32<formats::float16>(fma_f16(one, bias, encode_exact<formats::float16>(sum)));
      } else {
        sum = sum + load_value<float>(out.bias_format, out.bias, index);
      }
    }
    return sum == sum ? sum : __uint_as_float(0x7FFFFFFFu);
  }
};

template <int m_, int n_, int warps_m_, int warps_n_, int blocks_>
struct MmaShape {
  static constexpr int m = m_, n = n_, warps_m = warps_m_, warps_n = warps_n_, blocks = blocks_, stages = 4;
  static constexpr int threads = 32 * warps_m * warps_n;
  static constexpr int tiles_m = m / warps_m / 16, tiles_n = n / warps_n / 8;  // of a warp
};

using MmaLarge = MmaShape<128, 128, 2, 4, 2>;
using MmaFloat8 = MmaShape<128, 64, 4, 2, 2>;  // large, too: as float16 its fragments are twice as many registers
using MmaSmall = MmaShape<64, 64, 2, 2, 3>;

// How the operands lie in memory: both with k contiguous, b with its columns, both with their rows or columns; or
// anyhow, in which case entries that cannot be copied are gathered.
enum class MmaLayout : int { k_k, k_outer, outer_outer, any };

template <class Instruction, class Shape, MmaLayout layout, bool rounds>
struct MmaBlock {
  using TileA = MmaTile<typename Instruction::A, Shape::m, Shape::threads, layout == MmaLayout::outer_outer>;
  using TileB = MmaTile<typename Instruction::B, Shape::n, Shape::threads,
                        layout == MmaLayout::k_outer || layout == MmaLayout::outer_outer>;
  using Word = typename Instruction::Word;
  static constexpr int words = Instruction::words, depth = TileA::depth;
  static_assert(TileA::depth == TileB::depth);
  static constexpr int stage_bytes = TileA::bytes + TileB::bytes, shared_bytes = Shape::stages * stage_bytes;
  static_assert(Shape::m * Shape::n * 4 <= shared_bytes);  // the result goes there

  static constexpr int unrolled_steps = TileA::element == 1 ? 1 : 2;  // float8 may become float16 in registers

  const MmaTask& task;
  unsigned char* shared;
  int first_m, first_n, thread, lane, warp_m, warp_n;
  typename TileA::Cursor a_at;
  typename TileB::Cursor b_at;
  Word sum[Shape::tiles_m][Shape::tiles_n][words];

  __device__ __forceinline__ unsigned char* stage(int index) const { return shared + index * stage_bytes; }
  __device__ __forceinline__ unsigned char* stage_b(int index) const { return stage(index) + TileA::bytes; }

  template <class Tile>
  __device__ __forceinline__ void fill_one(const MmaSource& s, typename Tile::Cursor& at, int first, int tile,
                                           unsigned char* to) const {
    if constexpr (layout == MmaLayout::any) {
      if (s.fill != Fill::copy) return Tile::gather(s, thread, first, tile * depth, to);
    }
    Tile::copy(s, at, to);
  }

  __device__ __forceinline__ void fill(int tile, int into) {
    fill_one<TileA>(task.a, a_at, first_m, tile, stage(into));
    fill_one<TileB>(task.b, b_at, first_n, tile, stage_b(into));
  }

  __device__ __forceinline__ void round(int at) const {
    if constexpr (rounds) {
      if (layout != MmaLayout::any || task.a.fill == Fill::copy) TileA::round(a_at, stage(at));
      if (layout != MmaLayout::any || task.b.fill == Fill::copy) TileB::round(b_at, stage_b(at));
    }
  }

  __device__ __forceinline__ void multiply(int at) {
#pragma unroll unrolled_steps
    for (int step = 0; step < 2; ++step) {
      std::uint32_t a[Shape::tiles_m][4], b[Shape::tiles_n][2];
#pragma unroll
      for (int i = 0; i < Shape::tiles_m; ++i)
        TileA::template fragment<true>(stage(at), warp_m * Shape::tiles_m * 16 + i * 16, step, lane, a[i]);
#pragma unroll
      for (int j = 0; j < Shape::tiles_n; j += 2) {
        std::uint32_t both[4];
        TileB::template fragment<false>(stage_b(at), warp_n * Shape::tiles_n * 8 + j * 8, step, lane, both);
        b[j][0] = both[0], b[j][1] = both[1], b[j + 1][0] = both[2], b[j + 1][1] = both[3];
      }
#pragma unroll
      for (int i = 0; i < Shape::tiles_m; ++i) {
#pragma unroll
        for (int j = 0; j < Shape::tiles_n; ++j) Instruction::run(sum[i][j], a[i], b[j]);
      }
    }
  }

  // An entry of the result in shared memory: four rows of a fragment lie in different banks.
  static __device__ __forceinline__ int slot(int row, int column) { return row * Shape::n + (column ^ 8 * (row & 3)); }

  // each(pair of the warp's results, its place in shared memory)
  template <class Each>
  __device__ __forceinline__ void for_pairs(Each each) {
    float* const results = reinterpret_cast<float*>(shared);
#pragma unroll
    for (int i = 0; i < Shape::tiles_m; ++i) {
#pragma unroll
      for (int j = 0; j < Shape::tiles_n; ++j) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const int row = (warp_m * Shape::tiles_m + i) * 16 + lane / 4 + 8 * half;
          const int column = (warp_n * Shape::tiles_n + j) * 8 + lane % 4 * 2;
          each(sum[i][j], half, results + slot(row, column));
        }
      }
    }
  }

  // each(four neighbours in shared memory, row, column, how many of them exist)
  template <class Each>
  __device__ __forceinline__ void for_rows(Each each) {
    float* const results = reinterpret_cast<float*>(shared);
#pragma unroll 1
    for (int id = thread; id < Shape::m * Shape::n / 4; id += Shape::threads) {
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
#pragma unroll
    for (int i = 0; i < Shape::tiles_m; ++i) {
#pragma unroll
      for (int j = 0; j < Shape::tiles_n; ++j) {
#pragma unroll
        for (int w = 0; w < words; ++w) sum[i][j][w] = Word(0);
      }
    }
    if (!task.out.continued) return;
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

template <class Instruction, class Shape, MmaLayout layout, bool rounds>
__global__ __launch_bounds__(Shape::threads, Shape::blocks) void mma_product_kernel(const MmaTask task) {
  using Block = MmaBlock<Instruction, Shape, layout, rounds>;
  DYNAMIC_SHARED(unsigned char, shared);
  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32;
  Block block{task,
              shared,
              static_cast<int>(blockIdx.x) / task.tiles_n * Shape::m,
              static_cast<int>(blockIdx.x) % task.tiles_n * Shape::n,
              thread,
              thread % 32,
              warp / Shape::warps_n,
              warp % Shape::warps_n,
              {},
              {},
              {}};
  block.start();
  Block::TileA::start(task.a, thread, block.first_m, block.a_at);
  Block::TileB::start(task.b, thread, block.first_n, block.b_at);

  const int tiles = (task.k + Block::depth - 1) / Block::depth;
#pragma unroll
  for (int s = 0; s < Shape::stages - 1; ++s) {
    if (s < tiles) block.fill(s, s);
    cp_async_commit();
  }
#pragma unroll 1
  for (int tile = 0; tile < tiles; ++tile) {
    const int now = tile % Shape::stages;
    cp_async_wait<Shape::stages - 2>();
    block.round(now);
    __syncthreads();  // this stage is there, and the one before is free
    const int ahead = tile + Shape::stages - 1;
    if (ahead < tiles) block.fill(ahead, ahead % Shape::stages);
    cp_async_commit();
    block.multiply(now);
  }
  cp_async_wait<0>();
  block.finish();
}

}  // namespace gradkern::cuda
