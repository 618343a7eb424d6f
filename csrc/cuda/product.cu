// wide[i, j] = chain of step(a[i, k], b[k, j]), k ascending from +0 or from what wide holds, then step(1, bias[i, j]).
//
// One thread runs the whole chain of an output: k is never split, so the order of additions is that of every executor.
// product_tiled   float32 and float64 by fma, float16 and bfloat16 by one correctly rounded fma a step, where the
//                 accumulator's format represents every operand. Tiles in registers, fed from two buffers of shared
//                 memory while the next tile's loads are under way.
// product_exact   the rest, in float64 lanes: one thread an output, every step by ops/dense.hpp.
#include "cuda/kernels.hpp"
#include "cuda/product_result.hpp"
#include "cuda/product_tile.hpp"

namespace gradkern::cuda {
namespace {

using executor::ProductArgs;

struct ProductTask {
  TileSource a, b;
  int m, n, k;
  int tiles_n;  // tiles along a row of the result
  Epilogue out;
};

// Rows x columns of the result a block computes, of which a thread has thread_rows x thread_columns.
template <int m_, int n_, int k_, int thread_rows_, int thread_columns_, int blocks_>
struct TileShape {
  static constexpr int m = m_, n = n_, k = k_, rows = thread_rows_, columns = thread_columns_;
  static constexpr int threads_n = n / columns, threads = m / rows * threads_n;
  static constexpr int blocks = blocks_;  // that fit a multiprocessor, at least
  static constexpr int row_group = rows < 4 ? rows : 4, column_group = columns < 4 ? columns : 4;
  static_assert(threads_n % 8 == 0 && m / rows % 4 == 0);
  static_assert(rows <= 4 || 128 <= m);  // the swizzle of a tile stays below the first of its thread's later groups
};

template <class Lane>
__device__ __forceinline__ typename Lane::wide finish(const Epilogue& out, int row, int column,
                                                      typename Lane::type sum) {
  if (out.bias) {
    const auto bias = load_value<typename Lane::wide>(out.bias_format, out.bias, row * out.bias_row + column);
    sum = Lane::step(Lane::one(), Lane::from_wide(bias), sum);
  }
  return ops::canonical_nan(Lane::to_wide(sum));
}

// +0, or what the result holds.
template <class Lane, class Shape, class Row, class Column, class T = typename Lane::type>
__device__ __forceinline__ void start(const ProductTask& task, int first_m, int first_n, Row row, Column column,
                                      T (&sum)[Shape::rows][Shape::columns]) {
  using Wide = typename Lane::wide;
#pragma unroll
  for (int i = 0; i < Shape::rows; ++i) {
#pragma unroll
    for (int j = 0; j < Shape::columns; ++j) sum[i][j] = T(0);
  }
  if (!task.out.continued) return;
#pragma unroll
  for (int i = 0; i < Shape::rows; ++i) {
    const int r = first_m + row(i);
#pragma unroll
    for (int j = 0; j < Shape::columns; j += 4) {
      const int c = first_n + column(j);
      const Wide* const from = static_cast<const Wide*>(task.out.wide) + std::int64_t(r) * task.n + c;
      Wide x[4];
      load_four(from, r < task.m ? task.n - c : 0, task.out.aligned, x);
#pragma unroll
      for (int e = 0; e < 4; ++e) sum[i][j + e] = Lane::from_wide(x[e]);
    }
  }
}

// A tile's steps of every chain of this thread.
template <class Lane, class Shape, class Row, class Column, class T = typename Lane::type>
__device__ __forceinline__ void multiply(const T* a, const T* b, Row row, Column column,
                                         T (&sum)[Shape::rows][Shape::columns]) {
  using TileA = Tile<Lane, Shape::m, Shape::k, Shape::threads>;
  using TileB = Tile<Lane, Shape::n, Shape::k, Shape::threads>;
  // Large tiles: ptxas would hold so much of the next steps that 128 registers do not suffice.
  [[maybe_unused]] constexpr int unrolled = Shape::rows == 8 ? 1 : Shape::k / 4;
#pragma unroll unrolled
  for (int quad = 0; quad < Shape::k / 4; ++quad) {
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      T left[Shape::rows], right[Shape::columns];
#pragma unroll
      for (int i = 0; i < Shape::rows; i += Shape::row_group)
        TileA::template read<Shape::row_group>(a, quad, k, row(0), row(i) - row(0), left + i);
#pragma unroll
      for (int j = 0; j < Shape::columns; j += Shape::column_group)
        TileB::template read<Shape::column_group>(b, quad, k, column(0), column(j) - column(0), right + j);
#pragma unroll
      for (int i = 0; i < Shape::rows; ++i) {
#pragma unroll
        for (int j = 0; j < Shape::columns; ++j) sum[i][j] = Lane::step(left[i], right[j], sum[i][j]);
      }
    }
  }
}

template <class Lane, class Shape>
__global__ __launch_bounds__(Shape::threads, Shape::blocks) void product_tiled(const ProductTask task) {
  using T = typename Lane::type;
  using Wide = typename Lane::wide;
  using TileA = Tile<Lane, Shape::m, Shape::k, Shape::threads>;
  using TileB = Tile<Lane, Shape::n, Shape::k, Shape::threads>;
  constexpr int rows = Shape::rows, columns = Shape::columns;
  constexpr int row_group = Shape::row_group, column_group = Shape::column_group;
  __shared__ __align__(16) T a_shared[2][Shape::m * Shape::k], b_shared[2][Shape::n * Shape::k];

  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
  constexpr int warps_n = Shape::threads_n / 8;  // a warp is 4 x 8 threads
  const int thread_m = warp / warps_n * 4 + lane / 8, thread_n = warp % warps_n * 8 + lane % 8;
  const int first_m = static_cast<int>(blockIdx.x) / task.tiles_n * Shape::m;
  const int first_n = static_cast<int>(blockIdx.x) % task.tiles_n * Shape::n;
  const auto row = [&](int i) {
    return i / row_group * (Shape::m * row_group / rows) + thread_m * row_group + i % row_group;
  };
  const auto column = [&](int j) {
    return j / column_group * (Shape::n * column_group / columns) + thread_n * column_group + j % column_group;
  };

  T sum[rows][columns];
  start<Lane, Shape>(task, first_m, first_n, row, column, sum);

  Cursor a_at[TileA::quads], b_at[TileB::quads];
  TileA::start(task.a, thread, first_m, a_at);
  TileB::start(task.b, thread, first_n, b_at);
  Quad<T> a_held[TileA::quads], b_held[TileB::quads];
  for (int k = -Shape::k, buffer = 1; k < task.k; k += Shape::k, buffer ^= 1) {
    const bool more = k + Shape::k < task.k;
    if (more) {
      TileA::fetch(task.a, true, a_at, a_held);
      TileB::fetch(task.b, false, b_at, b_held);
    }
    if (k >= 0) multiply<Lane, Shape>(a_shared[buffer], b_shared[buffer], row, column, sum);
    if (more) {  // into the other buffer, which no thread reads: all have passed the barrier since
      TileA::keep(task.a, a_at, a_held, a_shared[buffer ^ 1]);
      TileB::keep(task.b, b_at, b_held, b_shared[buffer ^ 1]);
      __syncthreads();
    }
  }

#pragma unroll
  for (int i = 0; i < rows; ++i) {
    const int r = first_m + row(i);
    if (r >= task.m) continue;
#pragma unroll
    for (int j = 0; j < columns; j += 4) {
      const int c = first_n + column(j), count = task.n - c;
      Wide x[4];
#pragma unroll
      for (int e = 0; e < 4; ++e) x[e] = e < count ? finish<Lane>(task.out, r, c + e, sum[i][j + e]) : Wide(0);
      store_four(static_cast<Wide*>(task.out.wide) + std::int64_t(r) * task.n + c, count, task.out.aligned, x);
    }
  }
}

__device__ __forceinline__ double load_operand(const TileSource& s, int outer, int k) {
  const double x = load_value<double>(s.format, s.data, outer * s.outer_stride + k * s.k_stride);
  return s.to_tfloat32 ? ops::round_to_nearest_even<formats::tfloat32>(x) : x;
}

inline constexpr int exact_threads_m = 8, exact_threads_n = 16;

// exact_products: a product of two operands has 53 bits or fewer.
template <class Acc, bool exact_products>
__global__ __launch_bounds__(exact_threads_m* exact_threads_n) void product_exact(const ProductTask task) {
  const int r = static_cast<int>(blockIdx.x) / task.tiles_n * exact_threads_m + static_cast<int>(threadIdx.y);
  const int c = static_cast<int>(blockIdx.x) % task.tiles_n * exact_threads_n + static_cast<int>(threadIdx.x);
  if (r >= task.m || c >= task.n) return;
  const auto step = [](double x, double w, double sum) {
    if constexpr (exact_products) {
      return ops::step<Acc>(x, w, sum);
    } else {
      return ops::exact_step<Acc>(x, w, sum);
    }
  };
  float* const to = static_cast<float*>(task.out.wide) + std::int64_t(r) * task.n + c;
  double sum = task.out.continued ? load(to) : 0;
  for (int k = 0; k < task.k; ++k) sum = step(load_operand(task.a, r, k), load_operand(task.b, c, k), sum);
  if (task.out.bias) {
    double bias = load_value<double>(task.out.bias_format, task.out.bias, r * task.out.bias_row + c);
    if constexpr (exact_products && Acc::id == FormatId::float32) bias = static_cast<float>(bias);  // as every lane
    sum = step(1.0, bias, sum);
  }
  store(to, ops::canonical_nan(static_cast<float>(sum)));
}

constexpr std::int64_t tiles(std::int64_t count, std::int64_t tile) { return (count + tile - 1) / tile; }

template <class Lane, class Shape>
int launch_tiled(ProductTask task, Stream stream) {
  task.tiles_n = static_cast<int>(tiles(task.n, Shape::n));
  const auto blocks = static_cast<unsigned>(tiles(task.m, Shape::m) * task.tiles_n);
  return launch(product_tiled<Lane, Shape>, dim3(blocks), dim3(Shape::threads), 0, static_cast<stream_t>(stream), task);
}

// The largest tile with which at least this many blocks run: about as many as a large GPU has multiprocessors.
inline constexpr std::int64_t enough_blocks = 128;

template <class Lane, class Smallest>
int launch_fitting(const ProductTask& task, Stream stream) {
  return launch_tiled<Lane, Smallest>(task, stream);
}
template <class Lane, class Large, class Smaller, class... Rest>
int launch_fitting(const ProductTask& task, Stream stream) {
  if (tiles(task.m, Large::m) * tiles(task.n, Large::n) >= enough_blocks)
    return launch_tiled<Lane, Large>(task, stream);
  return launch_fitting<Lane, Smaller, Rest...>(task, stream);
}

using Large = TileShape<128, 128, 8, 8, 8, 2>;
using Medium = TileShape<64, 64, 16, 4, 4, 2>;
using Small = TileShape<16, 32, 32, 1, 4, 4>;

template <class Acc>
int launch_exact(ProductTask task, bool double_operands, Stream stream) {
  task.tiles_n = static_cast<int>(tiles(task.n, exact_threads_n));
  const dim3 grid(static_cast<unsigned>(tiles(task.m, exact_threads_m) * task.tiles_n));
  const dim3 block(exact_threads_n, exact_threads_m);
  const auto native = static_cast<stream_t>(stream);
  if (double_operands) return launch(product_exact<Acc, false>, grid, block, 0, native, task);
  return launch(product_exact<Acc, true>, grid, block, 0, native, task);
}

// Whether Half represents every number of the format.
template <class Half>
bool is_within(FormatId format) {
  return format == Half::id || format == FormatId::float8_e4m3fn || format == FormatId::float8_e5m2;
}

template <class Half>
int launch_half(const ProductTask& task, bool double_operands, Stream stream) {
  const bool within = is_within<Half>(task.a.format) && is_within<Half>(task.b.format) &&
                      (!task.out.bias || is_within<Half>(task.out.bias_format));
  if (!within) return launch_exact<Half>(task, double_operands, stream);
  return launch_fitting<LaneHalf<Half>, Medium, Small>(task, stream);
}

}  // namespace

int product(const ProductArgs* args, Stream stream) {
  constexpr int invalid_value = 1;
  constexpr std::int64_t largest = (std::int64_t(1) << 31) - 256;
  if (args->m > largest || args->n > largest || args->k > largest) return invalid_value;
  if (args->m == 0 || args->n == 0) return 0;
  if (args->unit != 0) return mma_product(args, stream);
  ProductTask task{};
  task.a = tile_source(args->a, args->operands, args->m, args->k, args->a.row_stride, args->a.column_stride);
  task.b = tile_source(args->b, args->operands, args->n, args->k, args->b.column_stride, args->b.row_stride);
  task.m = static_cast<int>(args->m);
  task.n = static_cast<int>(args->n);
  task.k = static_cast<int>(args->k);
  task.out = epilogue_of(*args);
  const bool double_operands = args->operands == FormatId::float64;
  switch (args->accumulate) {
    case FormatId::float64:
      return launch_fitting<LaneFloat64, Medium, Small>(task, stream);
    case FormatId::float32:
      if (task.a.bytes == 8 || task.b.bytes == 8) return launch_exact<formats::float32>(task, double_operands, stream);
      return launch_fitting<LaneFloat32, Large, Medium, Small>(task, stream);
    case FormatId::float16:
      return launch_half<formats::float16>(task, double_operands, stream);
    case FormatId::bfloat16:
      return launch_half<formats::bfloat16>(task, double_operands, stream);
    default:
      return invalid_value;
  }
}

}  // namespace gradkern::cuda
