// updated = fl_s(fl_64(weight - rate gradient)), and one partial report a chunk of what rounding made of the update, by
// ops/update.hpp: one rounding in float64, one to storage. Sums as in cuda/square_tiles.hpp.
#include "cuda/rounding_groups.hpp"
#include "cuda/square_tiles.hpp"

namespace gradkern::cuda {
namespace {

using executor::UpdateArgs;

constexpr int n = per_thread<double>, tile = tile_size<double>;

// What one thread counted of one chunk, as ops::UpdateCounts; indices are those in the chunk.
struct ThreadUpdate {
  unsigned unchanged = 0, applied = 0, lost = 0, overflow = 0, nonfinite = 0, flushed = 0, subnormal = 0;
  int first_overflow = -1, first_nonfinite = -1;
};

struct Rows {
  TileRow<double> wanted, made;
};

// groups: rounding is to nearest even, and the tensors are aligned.
struct Plan {
  bool groups, flush;
};

// A group of plain values, as the CPU's vectors take them: all finite, squares in the middle range, nothing beyond F.
// False, and nothing done, for any other. wanted, made: places in the rows, or null.
template <class F>
__device__ __forceinline__ bool update_group(const UpdateArgs& args, const Plan& plan, std::int64_t first,
                                             double* wanted, double* made, ThreadUpdate& counts) {
  using Limits = ops::LaneLimits<F, double>;
  double w[n], g[n], stored[n];
  load_group_of<F>(args.weight, first, w);
  load_group(args.gradient_format, args.gradient, first, g);
  bool plain = true;
#pragma unroll
  for (int k = 0; k < n; ++k) {
    const double u = args.rate * g[k], x = ops::fma(-args.rate, g[k], w[k]), a = ops::abs(x), b = ops::abs(u);
    plain &= a < 0x1p490 && b < 0x1p490 && (a >= 0x1p-420 || x == 0) && (b >= 0x1p-420 || u == 0);
    const Rounded<double> rounded = round_plain<F>(x, plan.flush);
    plain &= rounded.magnitude <= Limits::largest;
    stored[k] = ops::with_sign(rounded.magnitude, x);
  }
  if (!plain) return false;
  Words<group_words<F, n>> words;
#pragma unroll
  for (int k = 0; k < n; ++k) {
    const double u = args.rate * g[k], x = ops::fma(-args.rate, g[k], w[k]), r = ops::abs(stored[k]);
    const double difference = stored[k] - w[k];
    put_value<F>(words, k, stored[k]);
    counts.applied += difference != 0;
    counts.lost += difference == 0 && u != 0;
    counts.unchanged += difference == 0 && u == 0;
    counts.flushed += r == 0 && x != 0;
    counts.subnormal += r != 0 && r < Limits::smallest_normal;
    g[k] = u;
    w[k] = difference;
  }
  store_words(static_cast<typename F::container*>(args.updated) + first, words);
  if (wanted) {
    store_values(wanted, g);
    store_values(made, w);
  }
  return true;
}

// index: of the entry in its chunk.
template <class F, bool nearest, class Sums>
__device__ __forceinline__ void update_one(const UpdateArgs& args, std::int64_t i, int index, ThreadUpdate& counts,
                                           Sums& sums) {
  const double w = load_entry_of<F>(args.weight, i), g = load_entry(args.gradient_format, args.gradient, i);
  formats::Mode mode = args.mode;
  if (nearest) mode.rounding = formats::Rounding::nearest_even;
  const std::uint64_t draw = formats::draw(mode, args.stream, i);
  const auto bits = ops::update_entry<F>(w, g, args.rate, mode, draw, index, counts, sums);
  store(static_cast<typename F::container*>(args.updated) + i, bits);
}

struct NoRow {
  __device__ __forceinline__ void add(std::int64_t, double) {}
};
struct NoRows {
  NoRow wanted, made;
};

template <class F, bool nearest>
__global__ void __launch_bounds__(chunk_threads) update_kernel(const UpdateArgs args, const Plan plan) {
  const std::int64_t begin = std::int64_t(blockIdx.x) * tile, first = begin + threadIdx.x * n;
  ThreadUpdate counts;
  if (nearest && plan.groups && first + n <= args.size)
    if (update_group<F>(args, plan, first, nullptr, nullptr, counts)) return;
  const int stride = plan.groups ? 1 : chunk_threads;
  std::int64_t i = plan.groups ? first : begin + threadIdx.x;
  NoRows none;
#pragma unroll 1
  for (int k = 0; k < n && i < args.size; ++k, i += stride) update_one<F, nearest>(args, i, 0, counts, none);
}

struct UpdateTotals {
  unsigned unchanged, applied, lost, overflow, nonfinite, flushed, subnormal, first_overflow, first_nonfinite;
};

// Of the block, as the chunk's report; every thread calls it.
__device__ __forceinline__ void report(const ThreadUpdate& counts, const LaneSums& sums, const Chunk& chunk,
                                       UpdateTotals& totals, ops::UpdateCounts& result) {
  add_to(&totals.unchanged, counts.unchanged);
  add_to(&totals.applied, counts.applied);
  add_to(&totals.lost, counts.lost);
  add_to(&totals.overflow, counts.overflow);
  add_to(&totals.nonfinite, counts.nonfinite);
  add_to(&totals.flushed, counts.flushed);
  add_to(&totals.subnormal, counts.subnormal);
  least_of(&totals.first_overflow, counts.first_overflow);
  least_of(&totals.first_nonfinite, counts.first_nonfinite);
  __syncthreads();
  if (!LaneSums::adds()) return;
  const ops::SquareSum squares = sums.total();
  if (LaneSums::lane() == 0) (LaneSums::which() == 0 ? result.wanted : result.made) = squares;
  if (threadIdx.x % 32 != 0) return;
  result.unchanged = totals.unchanged;
  result.applied = totals.applied;
  result.lost = totals.lost;
  result.overflow = totals.overflow;
  result.nonfinite = totals.nonfinite;
  result.flushed = totals.flushed;
  result.subnormal = totals.subnormal;
  result.first_overflow = index_in_tensor(chunk, totals.first_overflow);
  result.first_nonfinite = index_in_tensor(chunk, totals.first_nonfinite);
}

template <class F, bool nearest>
__global__ void __launch_bounds__(chunk_threads) report_kernel(const UpdateArgs args, const Plan plan) {
  __shared__ __align__(16) SquareTile<double> shared;
  __shared__ LaneSums sums;
  __shared__ UpdateTotals totals;
  const Chunk chunk(args.size);
  double *const wanted = shared.value, *const made = shared.value + SquareTile<double>::row(1);
  ThreadUpdate counts;
  sums.clear();
  if (threadIdx.x == 0) totals = {0, 0, 0, 0, 0, 0, 0, ~0u, ~0u};
  for (int start = 0; start < chunk.count; start += tile) {
    const int slot = static_cast<int>(threadIdx.x) * n, count = min(tile, chunk.count - start);
    bool unusual = false;
    if (!nearest || !plan.groups || slot + n > count ||
        !update_group<F>(args, plan, chunk.begin + start + slot, wanted + slot, made + slot, counts)) {
      const int stride = plan.groups ? 1 : chunk_threads;
      int j = plan.groups ? slot : static_cast<int>(threadIdx.x);
      Rows rows{{wanted, start}, {made, start}};
#pragma unroll 1
      for (int k = 0; k < n; ++k, j += stride) {
        store(wanted + j, 0.0);
        store(made + j, 0.0);
        if (j < count) update_one<F, nearest>(args, chunk.begin + start + j, start + j, counts, rows);
      }
      unusual = rows.wanted.unusual || rows.made.unusual;
    }
    unusual = __syncthreads_or(unusual);
    sums.add(shared, count, unusual, [](int, int) { return 0.0; });
    __syncthreads();
  }
  report(counts, sums, chunk, totals, args.counts[blockIdx.x]);
}

template <class F, bool nearest>
int start(const UpdateArgs& args, Stream stream) {
  const Plan plan{nearest && aligned(args.weight) && aligned(args.gradient) && aligned(args.updated),
                  args.mode.subnormals == formats::Subnormals::flush};
  const auto s = static_cast<stream_t>(stream);
  if (args.counts)
    return launch(report_kernel<F, nearest>, dim3(chunks_of(args.size)), dim3(chunk_threads), 0, s, args, plan);
  const dim3 tiles(static_cast<unsigned>((args.size + tile - 1) / tile));
  return launch(update_kernel<F, nearest>, tiles, dim3(chunk_threads), 0, s, args, plan);
}

}  // namespace

int update(const UpdateArgs* args, Stream stream) {
  if (args->size == 0) return 0;
  return formats::visit(args->format, [&](auto f) {
    using F = decltype(f);
    if (args->mode.rounding != formats::Rounding::nearest_even) return start<F, false>(*args, stream);
    return start<F, true>(*args, stream);
  });
}

}  // namespace gradkern::cuda
