// Small kernels, one for each thing that cuda/platform.hpp offers, and some that are wrong on purpose. A host compiler
// runs them (test_simt*.cpp); nvcc, where there is one, proves that the device's side compiles.
#pragma once

#include "cuda/platform.hpp"
#include "formats/format.hpp"

namespace gradkern::test {

using namespace gradkern::cuda;
using namespace gradkern::formats;

inline constexpr unsigned whole_warp = 0xFFFFFFFFu;

__device__ __forceinline__ unsigned global_thread() { return blockIdx.x * blockDim.x + threadIdx.x; }

__global__ void indices(uint4* out) {
  const unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  const unsigned thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
  store_128(&out[block * blockDim.x * blockDim.y * blockDim.z + thread],
            make_uint4(block, threadIdx.x, threadIdx.y, threadIdx.z));
}

template <class T>
__global__ void shuffles(const T* in, T* out) {
  const unsigned i = threadIdx.x, n = blockDim.x;
  const T x = in[i];
  out[i] = __shfl_sync(whole_warp, x, static_cast<int>(i * 7 + 3));
  out[n + i] = __shfl_sync(whole_warp, x, 5, 8);
  out[2 * n + i] = __shfl_up_sync(whole_warp, x, 3);
  out[3 * n + i] = __shfl_down_sync(whole_warp, x, 3, 16);
  out[4 * n + i] = __shfl_xor_sync(whole_warp, x, 9);
  out[5 * n + i] = __shfl_xor_sync(whole_warp, x, 4, 4);  // leaves the segment: its own
}

__global__ void votes(const unsigned* in, unsigned* out) {
  const unsigned i = threadIdx.x, x = in[i];
  const unsigned even = 0x55555555u, mask = i % 2 ? ~even : even;
  unsigned* mine = out + i * 12;
  mine[0] = __ballot_sync(whole_warp, x & 1);
  mine[1] = static_cast<unsigned>(__any_sync(whole_warp, x == 7));
  mine[2] = static_cast<unsigned>(__all_sync(whole_warp, x < 200));
  mine[3] = __match_any_sync(whole_warp, x % 4);
  if (i % 2 == 0) {  // the halves of a warp meet apart from one another
    mine[4] = __reduce_add_sync(mask, x);
  } else {
    mine[4] = __reduce_add_sync(mask, 2 * x);
  }
  mine[5] = __reduce_min_sync(whole_warp, x);
  mine[6] = __reduce_max_sync(whole_warp, x);
  mine[7] = __reduce_and_sync(whole_warp, x);
  mine[8] = __reduce_or_sync(whole_warp, x);
  mine[9] = __reduce_xor_sync(whole_warp, x);
  mine[10] = static_cast<unsigned>(__syncthreads_count(x & 1));
  mine[11] = static_cast<unsigned>(__syncthreads_or(x == 7) + 2 * __syncthreads_and(x < 200));
}

__global__ void row_sums(const float* x, float* sums, int columns) {
  __shared__ float partial[32];
  const float* row = x + static_cast<std::size_t>(blockIdx.x) * columns;
  float sum = 0;
  for (int i = static_cast<int>(threadIdx.x); i < columns; i += static_cast<int>(blockDim.x)) sum += __ldg(row + i);
  for (int d = 16; d; d /= 2) sum += __shfl_down_sync(whole_warp, sum, static_cast<unsigned>(d));
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = sum;
  __syncthreads();
  if (threadIdx.x < 32) {
    sum = threadIdx.x < blockDim.x / 32 ? partial[threadIdx.x] : 0.0f;
    for (int d = 16; d; d /= 2) sum += __shfl_down_sync(whole_warp, sum, static_cast<unsigned>(d));
    if (threadIdx.x == 0) sums[blockIdx.x] = sum;
  }
}

// A 32 x 32 tile a block, 8 rows of threads; stride: of the tile in shared memory.
__global__ void transpose(const float* in, float* out, unsigned size, unsigned stride) {
  DYNAMIC_SHARED(float, tile);
  for (unsigned r = threadIdx.y; r < 32; r += blockDim.y) {
    store(&tile[r * stride + threadIdx.x], load(&in[(blockIdx.y * 32 + r) * size + blockIdx.x * 32 + threadIdx.x]));
  }
  __syncthreads();
  for (unsigned r = threadIdx.y; r < 32; r += blockDim.y) {
    store(&out[(blockIdx.x * 32 + r) * size + blockIdx.y * 32 + threadIdx.x], load(&tile[threadIdx.x * stride + r]));
  }
}

// Sums tiles of 128 floats, loaded two ahead of their use; every thread reads what its neighbour copied.
template <bool waits, bool barriers>
__global__ void pipeline(const float* in, float* out, int tiles) {
  DYNAMIC_SHARED(float, stages);   // 3 of 128
  const unsigned i = threadIdx.x;  // of 32
  const auto copy = [&](int tile) {
    if (tile < tiles) cp_async_16(&stages[(tile % 3) * 128 + 4 * i], &in[tile * 128 + 4 * i]);
    cp_async_commit();
  };
  copy(0);
  copy(1);
  float4 sum = make_float4(0, 0, 0, 0);
  for (int tile = 0; tile < tiles; ++tile) {
    if constexpr (waits) cp_async_wait<1>();
    if constexpr (barriers) __syncthreads();
    copy(tile + 2);
    const float* from = &stages[(tile % 3) * 128 + 4 * (i ^ 1)];
    sum = make_float4(sum.x + from[0], sum.y + from[1], sum.z + from[2], sum.w + from[3]);
  }
  float* to = out + 4 * (i ^ 1);
  to[0] = sum.x, to[1] = sum.y, to[2] = sum.z, to[3] = sum.w;
}

// 16, 8 and 4 bytes, each with one element of two bytes less than it has; then what was there before.
__global__ void zero_fill(const std::uint16_t* in, std::uint16_t* out) {
  DYNAMIC_SHARED(std::uint16_t, tile);
  cp_async_16(tile, in, 14);
  cp_async_8(tile + 8, in + 8, 6);
  cp_async_4(tile + 12, in + 12, 2);
  cp_async_commit();
  cp_async_wait<0>();
  for (int i = 0; i < 16; ++i) out[i] = tile[i];
}

template <int count, bool transposed>
__global__ void matrices(std::uint16_t* out) {
  DYNAMIC_SHARED(std::uint16_t, tile);  // 32 rows of 8
  const unsigned lane = threadIdx.x;
  for (unsigned c = 0; c < 8; ++c) tile[lane * 8 + c] = static_cast<std::uint16_t>(lane * 8 + c);
  __syncwarp();
  std::uint32_t r[count];
  const void* row = &tile[lane % (8 * count) * 8];
  if constexpr (count == 1) transposed ? ldmatrix_x1_trans(r, row) : ldmatrix_x1(r, row);
  if constexpr (count == 2) transposed ? ldmatrix_x2_trans(r, row) : ldmatrix_x2(r, row);
  if constexpr (count == 4) transposed ? ldmatrix_x4_trans(r, row) : ldmatrix_x4(r, row);
  for (int m = 0; m < count; ++m) {
    out[(m * 32 + lane) * 2] = static_cast<std::uint16_t>(r[m]);
    out[(m * 32 + lane) * 2 + 1] = static_cast<std::uint16_t>(r[m] >> 16);
  }
}

__global__ void integer_atomics(unsigned* counts, int* extremes, unsigned* bits, unsigned long long* wide) {
  __shared__ unsigned local[8];
  const unsigned i = global_thread();
  if (threadIdx.x < 8) local[threadIdx.x] = 0;
  __syncthreads();
  atomicAdd(&local[i % 8], 1u);
  __syncthreads();
  if (threadIdx.x < 8) atomicAdd(&counts[threadIdx.x], local[threadIdx.x]);
  atomicMin(&extremes[0], -static_cast<int>(i));
  atomicMax(&extremes[1], static_cast<int>(i));
  atomicOr(&bits[0], 1u << i % 32);
  atomicAnd(&bits[1], ~(1u << i % 16));
  atomicAdd(&wide[0], 1ull << 32);
  atomicMax(&wide[1], static_cast<unsigned long long>(i) << 33);
  for (unsigned old = atomicAdd(&bits[2], 0u);;) {  // an addition by exchanges
    const unsigned seen = atomicCAS(&bits[2], old, old + 2);
    if (seen == old) break;
    old = seen;
  }
  atomicExch(&bits[3], 77u);
}

__global__ void bit_functions(const unsigned* in, unsigned* out) {
  const unsigned i = threadIdx.x, x = in[i];
  unsigned* mine = out + i * 8;
  const unsigned long long wide = static_cast<unsigned long long>(x) << 20;
  mine[0] = static_cast<unsigned>(__popc(x));
  mine[1] = static_cast<unsigned>(__clz(static_cast<int>(x)));
  mine[2] = static_cast<unsigned>(__ffs(static_cast<int>(x)));
  mine[3] = static_cast<unsigned>(__clzll(static_cast<long long>(wide)));
  mine[4] = __brev(x);
  mine[5] = __float_as_uint(fmaf(static_cast<float>(x), 3.0f, 1.0f));
  mine[6] = static_cast<unsigned>(__ffsll(static_cast<long long>(wide)) + __popcll(wide));
  mine[7] = min(x, 100u) + max(static_cast<unsigned>(__float_as_int(__uint_as_float(x))), 3u);
}

__global__ void half_fma(const std::uint16_t* x, std::uint16_t* float16s, std::uint16_t* bfloat16s) {
  const unsigned i = global_thread();
  float16s[i] = fma_f16(x[3 * i], x[3 * i + 1], x[3 * i + 2]);
  bfloat16s[i] = fma_bf16(x[3 * i], x[3 * i + 1], x[3 * i + 2]);
}

__global__ void first_bytes(unsigned* out) {
  DYNAMIC_SHARED(unsigned, shared);
  out[global_thread()] = shared[threadIdx.x];
  shared[threadIdx.x] = 1;
}

__global__ void strided_copy(const uint4* in, uint4* out, unsigned stride) {
  store_128(&out[global_thread()], load_128(&in[global_thread() * stride]));
}

}  // namespace gradkern::test
