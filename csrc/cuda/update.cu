// updated = fl_s(fl_64(weight - rate gradient)), and one partial report a chunk of what rounding made of the update, by
// ops/update.hpp: one rounding in float64, one to storage. Sums as in cuda/square_tiles.hpp; groups as in convert.cu.
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

  // Made where it is used, so that its addresses wait in no registers.
  __device__ __forceinline__ explicit ThreadUpdate(EntryCounts& e, int thread = thread_anew())
      : first_overflow(e.first_overflow[thread]),
        first_nonfinite(e.first_nonfinite[thread]),
        unchanged(e.unchanged[thread]),
        applied(e.applied[thread]),
        lost(e.lost[thread]),
        overflow(e.overflow[thread]),
        nonfinite(e.nonfinite[thread]),
        flushed(e.flushed[thread]),
        subnormal(e.subnormal[thread]),
        of_groups(e.of_groups[thread]) {}

  __device__ __forceinline__ void clear() {
    of_groups = 0;
    first_overflow = first_nonfinite = -1;
    unchanged = applied = lost = overflow = nonfinite = flushed = subnormal = 0;
  }
};

struct Rows {
  TileRow<double> wanted, made;
};

// groups: the tensors are aligned.
struct Plan {
  bool groups, flush;
};

// A group of weights and gradients, to wait in shared memory.
template <class F>
__device__ __forceinline__ void load_both(const UpdateArgs& args, std::int64_t first, double* weights,
                                          double* gradients) {
  double x[n];
  load_group_of<F>(args.weight, first, x);
  store_values(weights, x);
  load_into<n>(args.gradient_format, args.gradient, first, gradients);
}

// A group of plain values, as the CPU's vectors take them: all finite, squares in the middle range, nothing beyond F.
// False, and nothing counted or stored, for any other. By all lanes of a warp. The weights and gradients wait in two
// places that then hold what was wanted and made.
template <class F, class AddCounts>
__device__ __forceinline__ bool update_group(const UpdateArgs& args, const Plan& plan, std::int64_t first,
                                             double* wanted, double* made, AddCounts add_counts) {
  using Limits = ops::LaneLimits<F, double>;
  load_both<F>(args, first, wanted, made);
  Words<group_words<F, n>> words{};
  bool plain = true;
  std::uint32_t count = 0;
#pragma unroll 1
  for (int k = 0; k < n; k += 2) {
    double weights[2], gradients[2];  // then what was made and wanted
    load_values(wanted + k, weights);
    load_values(made + k, gradients);
#pragma unroll 1
    for (int j = 0; j < 2; ++j) {
      const double gradient = gradients[0], weight = weights[0], u = args.rate * gradient;
      double x = ops::fma(-args.rate, gradient, weight);
      const double a = ops::abs(x), b = ops::abs(u);
      bool good = a < 0x1p490 && b < 0x1p490 && (a >= 0x1p-420 || x == 0) && (b >= 0x1p-420 || u == 0);
      x = good ? x : 0;
      const Rounded<double> rounded = round_plain<F>(x, plan.flush);
      const double r = rounded.magnitude <= Limits::largest ? rounded.magnitude : 0, stored = ops::with_sign(r, x);
      plain &= good && rounded.magnitude <= Limits::largest;
      shift_in_pattern<F>(words, pattern_of_value<F>(stored));
      const double difference = stored - weight;
      if (difference != 0) count += ThreadUpdate::one_applied;
      if (difference == 0 && u != 0) count += ThreadUpdate::one_lost;
      if (r == 0 && x != 0) count += ThreadUpdate::one_flushed;
      if (r != 0 && r < Limits::smallest_normal) count += ThreadUpdate::one_subnormal;
      shift_in(gradients, u);
      shift_in(weights, difference);
    }
    store_values(wanted + k, gradients);
    store_values(made + k, weights);
  }
  store_words(static_cast<typename F::container*>(args.updated) + first, words, plain);
  if (plain) add_counts(count);
  return plain;
}

// index: of the entry in its chunk.
template <class F, bool nearest, class Counts, class Sums>
__device__ __forceinline__ typename F::container update_one(const UpdateArgs& args, double w, double g, std::int64_t i,
                                                            int index, Counts& counts, Sums& sums) {
  formats::Mode mode = args.mode;
  if (nearest) mode.rounding = formats::Rounding::nearest_even;
  return ops::update_entry<F>(w, g, args.rate, mode, formats::draw(mode, args.stream, i), index, counts, sums);
}

// The weight and the gradient at i: out of their group, or where they lie.
template <class F>
__device__ __forceinline__ double2 operands(const UpdateArgs& args, std::int64_t i, double w, double g) {
  return {exact_entry(F::id, args.weight, i, w), exact_entry(args.gradient_format, args.gradient, i, g)};
}
template <class F>
__device__ __forceinline__ double2 operands(const UpdateArgs& args, std::int64_t i) {
  return {load_entry_of<F>(args.weight, i), load_entry(args.gradient_format, args.gradient, i)};
}

template <class F>
__device__ __forceinline__ void store_bits(const UpdateArgs& args, std::int64_t i, typename F::container bits) {
  store(static_cast<typename F::container*>(args.updated) + i, bits);
}

// Where nothing is reported.
struct NoCounts {
  unsigned unchanged, applied, lost, overflow, nonfinite, flushed, subnormal;
  int first_overflow, first_nonfinite;
};
struct NoRow {
  __device__ __forceinline__ void add(std::int64_t, double) {}
};
struct NoRows {
  NoRow wanted, made;
};

template <class F, bool nearest>
__global__ void __launch_bounds__(chunk_threads, chunk_blocks) update_kernel(const UpdateArgs args, const Plan plan) {
  __shared__ __align__(16) double waiting[2][tile];
  const std::int64_t begin = std::int64_t(blockIdx.x) * tile, first = begin + threadIdx.x * n;
  double *const weights = waiting[0] + threadIdx.x * n, *const gradients = waiting[1] + threadIdx.x * n;
  NoCounts counts{};
  NoRows none;
  const bool groups = plan.groups && warp_is_whole(first, args.size);
  if constexpr (nearest) {
    if (groups && update_group<F>(args, plan, first, weights, gradients, [](std::uint32_t) {})) return;
  } else if (groups) {
    load_both<F>(args, first, weights, gradients);
    Patterns<F> patterns;
#pragma unroll 1
    for (int k = 0; k < n; ++k) {
      const double2 x = operands<F>(args, first + k, load(weights + k), load(gradients + k));
      const auto bits = update_one<F, nearest>(args, x.x, x.y, first + k, 0, counts, none);
      patterns.add(static_cast<typename F::container*>(args.updated) + first, k, bits);
    }
    return;
  }
  const int stride = plan.groups ? 1 : chunk_threads;
  std::int64_t i = plan.groups ? first : begin + threadIdx.x;
#pragma unroll 1
  for (int k = 0; k < n && i < args.size; ++k, i += stride) {
    const double2 x = operands<F>(args, i);
    store_bits<F>(args, i, update_one<F, nearest>(args, x.x, x.y, i, 0, counts, none));
  }
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

template <class F, bool nearest>
__global__ void __launch_bounds__(chunk_threads, chunk_blocks) report_kernel(const UpdateArgs args, const Plan plan) {
  __shared__ __align__(16) SquareTile<double> shared;
  __shared__ LaneSums sums;
  __shared__ EntryCounts entries;
  __shared__ UpdateTotals totals;
  const Chunk chunk(args.size);
  double *const wanted = shared.value, *const made = shared.value + SquareTile<double>::row(1);
  ThreadUpdate(entries).clear();
  sums.clear();
  if (threadIdx.x == 0) totals = {0, 0, 0, 0, 0, 0, ~0u, ~0u};
  for (int start = 0; start < chunk.count; start += tile) {
    const int slot = thread_anew() * n, count = min(tile, chunk.count - start);
    const bool groups = plan.groups && warp_is_whole(slot, count);
    const std::int64_t first = chunk.begin + start + slot;
    bool unusual = false, done = false;
    if constexpr (nearest) {
      done = groups && update_group<F>(args, plan, first, wanted + slot, made + slot,
                                       [&](std::uint32_t counted) { ThreadUpdate(entries).of_groups += counted; });
    } else if (groups) {
      load_both<F>(args, first, wanted + slot, made + slot);
    }
    if (!done) {
      const int stride = plan.groups ? 1 : chunk_threads;
      int j = plan.groups ? slot : thread_anew();
      Rows rows{{wanted, start}, {made, start}};
      Patterns<F> patterns;
      ThreadUpdate counts(entries);
#pragma unroll 1
      for (int k = 0; k < n; ++k, j += stride) {
        const std::int64_t i = chunk.begin + start + j;
        double2 x{};
        if (!nearest && groups) {
          x = operands<F>(args, i, load(wanted + j), load(made + j));
        } else if (j < count) {
          x = operands<F>(args, i);
        }
        store(wanted + j, 0.0);
        store(made + j, 0.0);
        if (j >= count) continue;
        const auto bits = update_one<F, nearest>(args, x.x, x.y, i, start + j, counts, rows);
        if (!nearest && groups) {
          patterns.add(static_cast<typename F::container*>(args.updated) + (i - k), k, bits);
        } else {
          store_bits<F>(args, i, bits);
        }
      }
      unusual = rows.wanted.unusual || rows.made.unusual;
    }
    unusual = __syncthreads_or(unusual);
    sums.add(shared, count, unusual, [](int, int) { return 0.0; });
    __syncthreads();
  }
  report(ThreadUpdate(entries), sums, chunk, totals, args.counts[blockIdx.x]);
}

template <class F, bool nearest>
int start(const UpdateArgs& args, Stream stream) {
  const Plan plan{aligned(args.weight) && aligned(args.gradient) && aligned(args.updated),
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
