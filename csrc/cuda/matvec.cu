// A matrix in storage times a few float64 vectors, as ops/matvec.hpp says.
//
//   y = W x      16 threads a row, thread l being lane l: neighbours read neighbours; lanes fold by shuffles
//   y = W^T x    a thread an entry of y, going down its column: neighbours read neighbours in every row
#include "cuda/kernels.hpp"
#include "cuda/lanes.hpp"
#include "ops/matvec.hpp"

namespace gradkern::cuda {
namespace {

constexpr int threads = 256, lanes = ops::matvec_lanes;

__global__ void __launch_bounds__(threads) dot_kernel(executor::MatvecArgs args) {
  const std::int64_t row = (static_cast<std::int64_t>(blockIdx.x) * threads + threadIdx.x) / lanes;
  const int lane = static_cast<int>(threadIdx.x % lanes);
  const double* x = args.x + blockIdx.y * args.columns;
  double sum = 0;
  if (row < args.rows) {
    for (std::int64_t j = lane; j < args.columns; j += lanes)
      sum = ops::fma(load_value<double>(args.format, args.matrix, row * args.columns + j), x[j], sum);
  }
#pragma unroll
  for (int width = lanes / 2; width > 0; width /= 2) sum += __shfl_down_sync(0xFFFFFFFFu, sum, width, lanes);
  if (lane == 0 && row < args.rows) args.y[blockIdx.y * args.rows + row] = sum;
}

__global__ void __launch_bounds__(threads) column_kernel(executor::MatvecArgs args) {
  const std::int64_t column = static_cast<std::int64_t>(blockIdx.x) * threads + threadIdx.x;
  if (column >= args.columns) return;
  const double* x = args.x + blockIdx.y * args.rows;
  double sum = 0;
  for (std::int64_t i = 0; i < args.rows; ++i)
    sum = ops::fma(load_value<double>(args.format, args.matrix, i * args.columns + column), x[i], sum);
  args.y[blockIdx.y * args.columns + column] = sum;
}

}  // namespace

int matvec(const executor::MatvecArgs* args, Stream stream) {
  const std::int64_t wanted = args->transposed ? args->columns : args->rows * lanes;
  if (wanted == 0 || args->vectors == 0) return 0;
  const dim3 grid(static_cast<unsigned>((wanted + threads - 1) / threads), static_cast<unsigned>(args->vectors));
  if (args->transposed) return launch(column_kernel, grid, dim3(threads), 0, stream, *args);
  return launch(dot_kernel, grid, dim3(threads), 0, stream, *args);
}

}  // namespace gradkern::cuda
