// updated = fl_s(fl_64(weight - rate gradient)), and one partial report a chunk of what rounding made of the update, by
// ops/update.hpp: one rounding in float64, one to storage. Sums as in cuda/square_tiles.hpp.
#include "cuda/rounding_groups.hpp"

namespace gradkern::cuda {
namespace {

using executor::UpdateArgs;

constexpr int n = group_size, tile = tile_size<double>;

// What the threads of a block counted of a chunk, in shared memory: of groups, and of entries that were taken one by one.
// A thread meets at most 64 entries of a chunk: a byte holds a count.
struct EntryCounts {
  int first_overflow[chunk_threads], first_nonfinite[chunk_threads];
  std::uint32_t of_groups[chunk_threads];
  std::uint8_t unchanged[chunk_threads], applied[chunk_threads], lost[chunk_threads], overflow[chunk_threads],
      nonfinite[chunk_threads], flushed[chunk_threads], subnormal[chunk_threads];
};

// One thread's, as ops::UpdateCounts, with indices in the chunk.
struct ThreadUpdate {
  int &first_overflow, &first_nonfinite;
  std::uint8_t &unchanged, &applied, &lost, &overflow, &nonfinite, &flushed, &subnormal;
  std::uint32_t& of_groups;  // bytes for applied, lost, flushed and subnormal
  static constexpr std::uint32_t one_applied = 1, one_lost = 1 << 8, one_flushed = 1 << 16, one_subnormal = 1 << 24;

  __device__ __forceinline__ explicit ThreadUpdate(EntryCounts& e)
      : first_overflow(e.first_overflow[threadIdx.x]),
        first_nonfinite(e.first_nonfinite[threadIdx.x]),
        unchanged(e.unchanged[threadIdx.x]),
        applied(e.applied[threadIdx.x]),
        lost(e.lost[threadIdx.x]),
        overflow(e.overflow[threadIdx.x]),
        nonfinite(e.nonfinite[threadIdx.x]),
        flushed(e.flushed[threadIdx.x]),
        subnormal(e.subnormal[threadIdx.x]),
        of_groups(e.of_groups[threadIdx.x]) {
    of_groups = 0;
    first_overflow = first_nonfinite = -1;
    unchanged = applied = lost = overflow = nonfinite = flushed = subnormal = 0;
  }
};

struct Rows {
  TileRow<double> wanted, made;
};

// groups: rounding is to nearest even, and the tensors are aligned.
struct Plan {
  bool groups, flush;
};

// A group of plain values, as the CPU's vectors take them: all finite, squares in the middle range, nothing beyond F.
// False, and nothing counted or stored, for any other. wanted, made: places in the rows, or null.
template <class F, class G, class Counts>
__device__ __forceinline__ bool update_group(const UpdateArgs& args, const Plan& plan, std::int64_t first,
                                             double* wanted, double* made, Counts& counts) {
  using Limits = ops::LaneLimits<F, double>;
  holder<F> w[n];
  G g[n];
  load_group_of<F>(args.weight, first, w);
  load_group(args.gradient_format, args.gradient, first, g);
  Words<group_words<F, n>> words;
  bool plain = true;
  std::uint32_t count = 0;
#pragma unroll
  for (int k = 0; k < n; k += 2) {
    double us[2], differences[2];
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      const double gradient = g[k + j], weight = w[k + j], u = args.rate * gradient;
      double x = ops::fma(-args.rate, gradient, weight);
      const double a = ops::abs(x), b = ops::abs(u);
      bool good = a < 0x1p490 && b < 0x1p490 && (a >= 0x1p-420 || x == 0) && (b >= 0x1p-420 || u == 0);
      x = good ? x : 0;
      const Rounded<double> rounded = round_plain<F>(x, plan.flush);
      const double r = rounded.magnitude <= Limits::largest ? rounded.magnitude : 0, stored = ops::with_sign(r, x);
      plain &= good && rounded.magnitude <= Limits::largest;
      put_value<F>(words, k + j, stored);
      const double difference = stored - weight;
      if (difference != 0) count += ThreadUpdate::one_applied;
      if (difference == 0 && u != 0) count += ThreadUpdate::one_lost;
      if (r == 0 && x != 0) count += ThreadUpdate::one_flushed;
      if (r != 0 && r < Limits::smallest_normal) count += ThreadUpdate::one_subnormal;
      us[j] = u;
      differences[j] = difference;
    }
    if (wanted) {
      store_values(wanted + k, us);
      store_values(made + k, differences);
    }
  }
  if (!plain) return false;
  counts.of_groups += count;
  store_words(static_cast<typename F::container*>(args.updated) + first, words);
  return true;
}

// index: of the entry in its chunk.
template <class F, bool nearest, class Counts, class Sums>
__device__ __forceinline__ void update_one(const UpdateArgs& args, std::int64_t i, int index, Counts& counts,
                                           Sums& sums) {
  const double w = load_entry_of<F>(args.weight, i), g = load_entry(args.gradient_format, args.gradient, i);
  formats::Mode mode = args.mode;
  if (nearest) mode.rounding = formats::Rounding::nearest_even;
  const std::uint64_t draw = formats::draw(mode, args.stream, i);
  const auto bits = ops::update_entry<F>(w, g, args.rate, mode, draw, index, counts, sums);
  store(static_cast<typename F::container*>(args.updated) + i, bits);
}

// Where nothing is reported.
struct NoCounts {
  unsigned unchanged, applied, lost, overflow, nonfinite, flushed, subnormal;
  int first_overflow, first_nonfinite;
  std::uint32_t of_groups;
};
struct NoRow {
  __device__ __forceinline__ void add(std::int64_t, double) {}
};
struct NoRows {
  NoRow wanted, made;
};

template <class F, class G, bool nearest>
__global__ void __launch_bounds__(chunk_threads) update_kernel(const UpdateArgs args, const Plan plan) {
  const std::int64_t begin = std::int64_t(blockIdx.x) * tile, first = begin + threadIdx.x * n;
  NoCounts counts{};
  if (nearest && plan.groups && first + n <= args.size)
    if (update_group<F, G>(args, plan, first, nullptr, nullptr, counts)) return;
  const int stride = plan.groups ? 1 : chunk_threads;
  std::int64_t i = plan.groups ? first : begin + threadIdx.x;
  NoRows none;
#pragma unroll 1
  for (int k = 0; k < n && i < args.size; ++k, i += stride) update_one<F, nearest>(args, i, 0, counts, none);
}

struct UpdateTotals {
  unsigned applied, lost, overflow, nonfinite, flushed, subnormal, first_overflow, first_nonfinite;
};

// Of the block, as the chunk's report; every thread calls it.
__device__ __forceinline__ void report(const ThreadUpdate& counts, const LaneSums& sums, const Chunk& chunk,
                                       UpdateTotals& totals, ops::UpdateCounts& result) {
  add_to(&totals.applied, counts.applied + (counts.of_groups & 0xFF));
  add_to(&totals.lost, counts.lost + (counts.of_groups >> 8 & 0xFF));
  add_to(&totals.overflow, counts.overflow);
  add_to(&totals.nonfinite, counts.nonfinite);
  add_to(&totals.flushed, counts.flushed + (counts.of_groups >> 16 & 0xFF));
  add_to(&totals.subnormal, counts.subnormal + (counts.of_groups >> 24));
  least_of(&totals.first_overflow, counts.first_overflow);
  least_of(&totals.first_nonfinite, counts.first_nonfinite);
  __syncthreads();
  if (!LaneSums::adds()) return;
  const ops::SquareSum squares = sums.total();
  if (LaneSums::lane() == 0) (LaneSums::which() == 0 ? result.wanted : result.made) = squares;
  if (threadIdx.x % 32 != 0) return;
  result.unchanged = chunk.count - std::int64_t(totals.applied) - totals.lost - totals.overflow - totals.nonfinite;
  result.applied = totals.applied;
  result.lost = totals.lost;
  result.overflow = totals.overflow;
  result.nonfinite = totals.nonfinite;
  result.flushed = totals.flushed;
  result.subnormal = totals.subnormal;
  result.first_overflow = index_in_tensor(chunk, totals.first_overflow);
  result.first_nonfinite = index_in_tensor(chunk, totals.first_nonfinite);
}

// One block fewer than the lane type allows: a group holds two tensors.
template <class F, class G, bool nearest>
__global__ void __launch_bounds__(chunk_threads, chunk_blocks<holder<F>> - 1)
    report_kernel(const UpdateArgs args, const Plan plan) {
  __shared__ __align__(16) SquareTile<double> shared;
  __shared__ LaneSums sums;
  __shared__ EntryCounts entries;
  __shared__ UpdateTotals totals;
  const Chunk chunk(args.size);
  double *const wanted = shared.value, *const made = shared.value + SquareTile<double>::row(1);
  ThreadUpdate counts(entries);
  sums.clear();
  if (threadIdx.x == 0) totals = {0, 0, 0, 0, 0, 0, ~0u, ~0u};
  for (int start = 0; start < chunk.count; start += tile) {
    const int slot = static_cast<int>(threadIdx.x) * n, count = min(tile, chunk.count - start);
    bool unusual = false;
    if (!nearest || !plan.groups || slot + n > count ||
        !update_group<F, G>(args, plan, chunk.begin + start + slot, wanted + slot, made + slot, counts)) {
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

template <class F, class G, bool nearest>
int start(const UpdateArgs& args, Stream stream) {
  const Plan plan{nearest && aligned(args.weight) && aligned(args.gradient) && aligned(args.updated),
                  args.mode.subnormals == formats::Subnormals::flush};
  const auto s = static_cast<stream_t>(stream);
  if (args.counts)
    return launch(report_kernel<F, G, nearest>, dim3(chunks_of(args.size)), dim3(chunk_threads), 0, s, args, plan);
  const dim3 tiles(static_cast<unsigned>((args.size + tile - 1) / tile));
  return launch(update_kernel<F, G, nearest>, tiles, dim3(chunk_threads), 0, s, args, plan);
}

}  // namespace

int update(const UpdateArgs* args, Stream stream) {
  if (args->size == 0) return 0;
  return formats::visit(args->format, [&](auto f) {
    using F = decltype(f);
    if (args->mode.rounding != formats::Rounding::nearest_even) return start<F, double, false>(*args, stream);
    if (args->gradient_format == FormatId::float64) return start<F, double, true>(*args, stream);
    return start<F, float, true>(*args, stream);
  });
}

}  // namespace gradkern::cuda
