// A matrix in storage times a few float64 vectors (ops/matvec.hpp), up to four vectors for each read of the matrix.
//
// y = W x: half a warp a row, its 16 lanes those of the sum. y = W^T x: a thread an entry of y, for its chain over the
// rows has an order; a warp's 32 columns come through shared memory, some rows ahead.
#include "cuda/kernels.hpp"
#include "cuda/lists.hpp"

namespace gradkern::cuda {
namespace {

using executor::MatvecArgs;

constexpr int dot_stages = 4, axpy_threads = 64, axpy_stages = 5, axpy_stage_bytes = 512;

template <class F, int vectors>
__global__ __launch_bounds__(list_threads, 12) void dot_kernel(MatvecArgs a, std::int64_t first) {
  using C = typename F::container;
  __shared__ __align__(16) unsigned char stages[all_stage_bytes<dot_stages>];
  const auto row = [] { return std::int64_t(blockIdx.x) * list_blocks + thread_anew() / list_lanes; };
  const std::int64_t read = min(row(), a.rows - 1);
  const double* x = a.x + first * a.columns;
  double sum[vectors] = {};
  walk<dot_stages, vectors == 1 ? stage_bytes : 1>(static_cast<const C*>(a.matrix) + read * a.columns, a.columns,
                                                   stages_of_half<dot_stages>(stages, threadIdx.x / list_lanes),
                                                   [&](std::int64_t j, C stored) {
                                                     const double w = static_cast<double>(held<F>(stored));
#pragma unroll
                                                     for (int v = 0; v < vectors; ++v)
                                                       sum[v] = ops::fma(w, x[v * a.columns + j], sum[v]);
                                                   });
#pragma unroll
  for (int v = 0; v < vectors; ++v) {
    const double y = fold_lanes(sum[v]);
    if (thread_anew() % list_lanes == 0 && row() < a.rows) a.y[(first + v) * a.rows + row()] = y;
  }
}

// body(row, its entry in the thread's column), rows ascending. A copy of 16 bytes by each thread of a warp is some rows
// of its 32 columns.
template <class C, class Body>
__device__ __forceinline__ void walk_rows(const C* matrix, std::int64_t rows, std::int64_t columns,
                                          std::int64_t first_column, unsigned char* buffer, Body body) {
  constexpr int width = sizeof(C), row_copies = 2 * width, together = 16 / width;
  const int lane = threadIdx.x % 32;
  const std::int64_t copied = first_column + lane % row_copies * together;  // the first column of the copy
  const C* from = matrix + lane / row_copies * columns + min(copied, columns - together);
  const auto ask = [&](std::int64_t row, int slot) {
    if (row + lane / row_copies < rows)
      cp_async_16(buffer + slot + lane * 16, from + row * columns, copied < columns ? 16 : 0);
    cp_async_commit();
  };
#pragma unroll
  for (int s = 0; s < axpy_stages - 1; ++s) ask(s * together, s * axpy_stage_bytes);
  int here = 0, free = (axpy_stages - 1) * axpy_stage_bytes;
#pragma unroll 1
  for (std::int64_t row = 0; row < rows; row += together) {
    cp_async_wait<axpy_stages - 2>();
    __syncwarp();
    ask(row + (axpy_stages - 1) * together, free);
    const C* entry = reinterpret_cast<const C*>(buffer + here) + lane;
#pragma unroll
    for (int r = 0; r < together; ++r)
      if (row + r < rows) body(row + r, entry[r * 32]);
    free = here;
    here = here + axpy_stage_bytes == axpy_stages * axpy_stage_bytes ? 0 : here + axpy_stage_bytes;
  }
}

template <class F, int vectors>
__global__ __launch_bounds__(axpy_threads, 24) void axpy_kernel(MatvecArgs a, std::int64_t first) {
  using C = typename F::container;
  __shared__ __align__(16) unsigned char stages[axpy_threads / 32 * axpy_stages * axpy_stage_bytes];
  const C* matrix = static_cast<const C*>(a.matrix);
  const std::int64_t column = std::int64_t(blockIdx.x) * axpy_threads + threadIdx.x;
  const double* x = a.x + first * a.rows;
  double sum[vectors] = {};
  const auto add = [&](std::int64_t i, C stored) {
    const double w = static_cast<double>(held<F>(stored));
#pragma unroll
    for (int v = 0; v < vectors; ++v) sum[v] = ops::fma(w, x[v * a.rows + i], sum[v]);
  };
  const std::int64_t warp_column = column - threadIdx.x % 32;
  if (warp_column >= a.columns) return;
  if ((reinterpret_cast<std::uintptr_t>(matrix) | a.columns * sizeof(C)) % 16 == 0) {
    walk_rows(matrix, a.rows, a.columns, warp_column, stages + threadIdx.x / 32 * (axpy_stages * axpy_stage_bytes),
              add);
  } else if (column < a.columns) {
#pragma unroll 4
    for (std::int64_t i = 0; i < a.rows; ++i) add(i, matrix[i * a.columns + column]);
  }
  if (column >= a.columns) return;
#pragma unroll
  for (int v = 0; v < vectors; ++v) a.y[(first + v) * a.columns + column] = sum[v];
}

template <class F, int vectors>
int enqueue(const MatvecArgs& a, std::int64_t first, Stream stream) {
  const std::int64_t out = a.transposed ? a.columns : a.rows, per_block = a.transposed ? axpy_threads : list_blocks;
  return launch(a.transposed ? axpy_kernel<F, vectors> : dot_kernel<F, vectors>,
                static_cast<unsigned>((out + per_block - 1) / per_block), a.transposed ? axpy_threads : list_threads, 0,
                static_cast<stream_t>(stream), a, first);
}

}  // namespace

int matvec(const MatvecArgs* args, Stream stream) {
  if ((args->transposed ? args->columns : args->rows) == 0) return 0;
  return formats::visit(args->format, [&](auto f) {
    using F = decltype(f);
    for (std::int64_t first = 0; first < args->vectors;) {
      const bool four = args->vectors - first >= 4;
      if (const int error = four ? enqueue<F, 4>(*args, first, stream) : enqueue<F, 1>(*args, first, stream))
        return error;
      first += four ? 4 : 1;
    }
    return 0;
  });
}

}  // namespace gradkern::cuda
