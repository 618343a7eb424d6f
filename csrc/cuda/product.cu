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
#include "cuda/together.hpp"

namespace gradkern::cuda {
namespace {

using executor::ProductArgs;

struct ProductTask {
  TileSource a, b;
  int m, n, k;
  int tiles_n;  // tiles along a row of the result
  Epilogue out;
};

// blockIdx.y is of one of them.
template <int count>
struct ProductTasks {
  ProductTask task[count];
};

// Rows x columns of the result a block computes, of which a thread has thread_rows x thread_columns.
template <int m_, int n_, int k_, int thread_rows_, int thread_columns_, int blocks_>
struct TileShape {
  static constexpr int m = m_, n = n_, k = k_, rows = thread_rows_, columns = thread_columns_;
  static constexpr int threads_n = n / columns, threads = m / rows * threads_n;
  static constexpr int blocks = blocks_;  // that fit a multiprocessor, at least
  // In the largest tiles there is no register for which product it is.
  static constexpr int together = rows == 8 ? 1 : most_together;
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
__global__ __launch_bounds__(Shape::threads,
                             Shape::blocks) void product_tiled(const ProductTasks<Shape::together> tasks) {
  const ProductTask& task = tasks.task[Shape::together == 1 ? 0 : blockIdx.y];
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
  const int tile_m = static_cast<int>(blockIdx.x) / task.tiles_n, first_m = tile_m * Shape::m;
  const int first_n = static_cast<int>(blockIdx.x) % task.tiles_n * Shape::n;
  if (std::int64_t(tile_m) * Shape::m >= task.m) return;  // the grid is that of another product
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

ProductTask task_of(const ProductArgs& args, int tile_n) {
  ProductTask task{};
  task.a = tile_source(args.a, args.operands, args.m, args.k, args.a.row_stride, args.a.column_stride);
  task.b = tile_source(args.b, args.operands, args.n, args.k, args.b.column_stride, args.b.row_stride);
  task.m = static_cast<int>(args.m);
  task.n = static_cast<int>(args.n);
  task.k = static_cast<int>(args.k);
  task.tiles_n = static_cast<int>(tiles(args.n, tile_n));
  task.out = epilogue_of(args);
  return task;
}

template <class Lane, class Shape>
int launch_tiled(const ProductArgs* args, int count, Stream stream) {
  ProductTasks<Shape::together> tasks{};
  std::int64_t blocks = 0;
  for (int i = 0; i < count; ++i) {
    tasks.task[i] = task_of(args[i], Shape::n);
    const std::int64_t own = tiles(args[i].m, Shape::m) * tasks.task[i].tiles_n;
    blocks = own > blocks ? own : blocks;
  }
  return launch(product_tiled<Lane, Shape>, dim3(static_cast<unsigned>(blocks), static_cast<unsigned>(count)),
                dim3(Shape::threads), 0, static_cast<stream_t>(stream), tasks);
}

using Large = TileShape<128, 128, 8, 8, 8, 2>;
using Medium = TileShape<64, 64, 16, 4, 4, 2>;
using Small = TileShape<16, 32, 32, 1, 4, 4>;

template <class Acc>
int launch_exact(const ProductArgs& args, Stream stream) {
  const ProductTask task = task_of(args, exact_threads_n);
  const dim3 grid(static_cast<unsigned>(tiles(args.m, exact_threads_m) * task.tiles_n));
  const dim3 block(exact_threads_n, exact_threads_m);
  const auto native = static_cast<stream_t>(stream);
  if (args.operands == FormatId::float64) return launch(product_exact<Acc, false>, grid, block, 0, native, task);
  return launch(product_exact<Acc, true>, grid, block, 0, native, task);
}

// Whether Half represents every number of the format.
bool is_within(FormatId half, FormatId format) {
  return format == half || format == FormatId::float8_e4m3fn || format == FormatId::float8_e5m2;
}

// Whether a lane of the accumulator's format represents every operand.
bool has_lane(const ProductArgs& args) {
  switch (args.accumulate) {
    case FormatId::float64:
      return true;
    case FormatId::float32:
      return args.a.format != FormatId::float64 && args.b.format != FormatId::float64;
    default:
      return is_within(args.accumulate, args.a.format) && is_within(args.accumulate, args.b.format) &&
             (!args.bias || is_within(args.accumulate, args.bias_format));
  }
}

enum class Way { nothing, unit, exact, large, medium, small };

// The largest tile with which at least this many blocks run: about as many as a large GPU has multiprocessors.
inline constexpr std::int64_t enough_blocks = 128;

Way way_of(const ProductArgs& args) {
  if (args.m == 0 || args.n == 0) return Way::nothing;
  if (args.unit != 0) return Way::unit;
  if (!has_lane(args)) return Way::exact;
  const auto fills = [&](auto shape) {
    return tiles(args.m, decltype(shape)::m) * tiles(args.n, decltype(shape)::n) >= enough_blocks;
  };
  if (args.accumulate == FormatId::float32 && fills(Large{})) return Way::large;
  return fills(Medium{}) ? Way::medium : Way::small;
}

template <class Lane>
int launch_lane(Way way, const ProductArgs* args, int count, Stream stream) {
  if constexpr (std::is_same_v<Lane, LaneFloat32>)
    if (way == Way::large) return launch_tiled<Lane, Large>(args, count, stream);
  if (way == Way::medium) return launch_tiled<Lane, Medium>(args, count, stream);
  return launch_tiled<Lane, Small>(args, count, stream);
}

inline constexpr int invalid_value = 1;  // CUDA's number

// visit(the lane of an accumulator, its format)
template <class Visit>
int visit_accumulator(FormatId accumulate, Visit visit) {
  switch (accumulate) {
    case FormatId::float64:
      return visit(LaneFloat64{}, formats::float64{});
    case FormatId::float32:
      return visit(LaneFloat32{}, formats::float32{});
    case FormatId::float16:
      return visit(LaneHalf<formats::float16>{}, formats::float16{});
    case FormatId::bfloat16:
      return visit(LaneHalf<formats::bfloat16>{}, formats::bfloat16{});
    default:
      return invalid_value;
  }
}

bool may_join(const ProductArgs& first, const ProductArgs& next) {
  const Way way = way_of(first);
  return (way == Way::medium || way == Way::small) && way_of(next) == way && first.accumulate == next.accumulate;
}

int multiply_alike(const ProductArgs* args, int count, Stream stream) {
  constexpr std::int64_t largest = (std::int64_t(1) << 31) - 256;
  for (int i = 0; i < count; ++i)
    if (args[i].m > largest || args[i].n > largest || args[i].k > largest) return invalid_value;
  const Way way = way_of(*args);
  if (way == Way::nothing) return 0;
  if (way == Way::unit) return mma_product(args, stream);
  return visit_accumulator(args->accumulate, [&](auto lane, auto format) {
    if constexpr (decltype(format)::id != FormatId::float64)
      if (way == Way::exact) return launch_exact<decltype(format)>(*args, stream);
    return launch_lane<decltype(lane)>(way, args, count, stream);
  });
}

}  // namespace

int products(const ProductArgs* list, int count, Stream stream) {
  return each_together(list, count, may_join,
                       [&](const ProductArgs* args, int alike) { return multiply_alike(args, alike, stream); });
}

}  // namespace gradkern::cuda
