// updated = fl_s(fl_64(weight - rate gradient)), and one partial report a chunk of what rounding made of the update, by
// ops/update.hpp: one rounding in float64, one to storage. Sums as in cuda/square_tiles.hpp; groups as those of
// convert.cu in float64 lanes.
#include "cuda/rounding_groups.hpp"

namespace gradkern::cuda {
namespace {

using executor::UpdateArgs;

constexpr int n = group_size<double>, tile_size = tile_threads * n;

// What the threads of a block count of a chunk, in shared memory.
struct ChunkUpdate {
  unsigned unchanged, applied, lost, overflow, nonfinite, flushed, subnormal, first_overflow, first_nonfinite;
  std::uint32_t of_groups[chunk_threads];  // a thread's: bytes for applied, lost, flushed and subnormal
  static constexpr std::uint32_t one_applied = 1, one_lost = 1 << 8, one_flushed = 1 << 16, one_subnormal = 1 << 24;
  static_assert(block_size / 32 <= 255);

  // By every thread, before a barrier.
  __device__ __forceinline__ void clear() {
    of_groups[thread_anew()] = 0;
    if (thread_anew() != 0) return;
    unchanged = applied = lost = overflow = nonfinite = flushed = subnormal = 0;
    first_overflow = first_nonfinite = ~0u;
  }
};

// A number of the chunk's entries.
struct Counter {
  unsigned& total;

  __device__ __forceinline__ void operator++() const { atomicAdd(&total, 1u); }
  __device__ __forceinline__ void operator+=(bool one) const {
    if (one) atomicAdd(&total, 1u);
  }
};

// Counts entries that are taken one by one, as ops::UpdateCounts does, into the chunk's.
struct EntryUpdate {
  Counter unchanged, applied, lost, overflow, nonfinite, flushed, subnormal;
  FirstIndex first_overflow, first_nonfinite;

  __device__ __forceinline__ explicit EntryUpdate(ChunkUpdate& c)
      : unchanged{c.unchanged},
        applied{c.applied},
        lost{c.lost},
        overflow{c.overflow},
        nonfinite{c.nonfinite},
        flushed{c.flushed},
        subnormal{c.subnormal},
        first_overflow{c.first_overflow},
        first_nonfinite{c.first_nonfinite} {}
};

struct Rows {
  TileRow<double> wanted, made;
};

// groups: the tensors are aligned. key: of random bits.
struct Plan {
  std::uint64_t key;
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
      if (difference != 0) count += ChunkUpdate::one_applied;
      if (difference == 0 && u != 0) count += ChunkUpdate::one_lost;
      if (r == 0 && x != 0) count += ChunkUpdate::one_flushed;
      if (r != 0 && r < Limits::smallest_normal) count += ChunkUpdate::one_subnormal;
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
__device__ __forceinline__ typename F::container update_one(const UpdateArgs& args, const Plan& plan, double w,
                                                            double g, std::int64_t i, int index, Counts& counts,
                                                            Sums& sums) {
  formats::Mode mode = args.mode;
  if (nearest) mode.rounding = formats::Rounding::nearest_even;
  return ops::update_entry<F>(w, g, args.rate, mode, formats::draw_by_key(mode, plan.key, i), index, counts, sums);
}

// The weight and the gradient at i. The sign of a NaN, which groups lose, is in no result.
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
__global__ void __launch_bounds__(tile_threads, tile_blocks) update_kernel(const UpdateArgs args, const Plan plan) {
  __shared__ __align__(16) double waiting[2][tile_size];
  const std::int64_t begin = std::int64_t(blockIdx.x) * tile_size, first = begin + threadIdx.x * n;
  double *const weights = waiting[0] + threadIdx.x * n, *const gradients = waiting[1] + threadIdx.x * n;
  NoCounts counts{};
  NoRows none;
  const bool groups = plan.groups && warp_is_whole<n>(first, args.size);
  if constexpr (nearest) {
    if (groups && update_group<F>(args, plan, first, weights, gradients, [](std::uint32_t) {})) return;
  } else if (groups) {
    load_both<F>(args, first, weights, gradients);
    Patterns<F> patterns;
#pragma unroll 1
    for (int k = 0; k < n; ++k) {
      const auto bits =
          update_one<F, nearest>(args, plan, load(weights + k), load(gradients + k), first + k, 0, counts, none);
      patterns.add(static_cast<typename F::container*>(args.updated) + first, k, bits);
    }
    return;
  }
  const int stride = plan.groups ? 1 : tile_threads;
  std::int64_t i = plan.groups ? first : begin + threadIdx.x;
#pragma unroll 1
  for (int k = 0; k < n && i < args.size; ++k, i += stride) {
    const double2 x = operands<F>(args, i);
    store_bits<F>(args, i, update_one<F, nearest>(args, plan, x.x, x.y, i, 0, counts, none));
  }
}

// Of the chunk, by three of its warps at once.
__device__ __forceinline__ void report(const ChunkUpdate& counts, const SharedSquares& squares, const Chunk& chunk,
                                       ops::UpdateCounts& result) {
  if (thread_anew() == 32) result.wanted = squares.of_chunk(0, chunk.blocks());
  if (thread_anew() == 64) result.made = squares.of_chunk(1, chunk.blocks());
  if (thread_anew() != 0) return;
  result.unchanged = chunk.count() - std::int64_t(counts.applied) - counts.lost - counts.overflow - counts.nonfinite;
  result.applied = counts.applied;
  result.lost = counts.lost;
  result.overflow = counts.overflow;
  result.nonfinite = counts.nonfinite;
  result.flushed = counts.flushed;
  result.subnormal = counts.subnormal;
  result.first_overflow = index_in_tensor(chunk, counts.first_overflow);
  result.first_nonfinite = index_in_tensor(chunk, counts.first_nonfinite);
}

// The thread's group of the round that begins at `begin` of the chunk, one by one; whether a square is unusual. whole: the
// warp's groups are all there, and aligned.
template <class F, bool nearest>
__device__ __forceinline__ bool report_entries(const UpdateArgs& args, const Plan& plan, const Chunk& chunk, int begin,
                                               bool whole, SquareTile<double>* tiles, ChunkUpdate& shared) {
  const auto tile = [&]() -> SquareTile<double>& { return tiles[Chunk::warp()]; };
  const auto slot = [] { return thread_anew() % 32 * n; };
  const auto first = [&] { return Chunk::begin() + begin + slot(); };
  if (!nearest && whole) load_both<F>(args, first(), tile().row(0) + slot(), tile().row(1) + slot());
  Rows rows{{tiles, 0, begin}, {tiles, 1, begin}};
  Patterns<F> patterns;
  EntryUpdate counts(shared);
#pragma unroll 1
  for (int k = 0; k < n; ++k) {
    const int j = slot() + k;
    const auto i = [&] { return Chunk::begin() + begin + slot() + k; };
    const bool there = (!nearest && whole) || begin + j < chunk.block_end();
    double2 x{};
    if (!nearest && whole) {
      x = {load(tile().row(0) + j), load(tile().row(1) + j)};
    } else if (there) {
      x = operands<F>(args, i());
    }
    store(tile().row(0) + j, 0.0);
    store(tile().row(1) + j, 0.0);
    if (!there) continue;
    const auto bits = update_one<F, nearest>(args, plan, x.x, x.y, i(), begin + j, counts, rows);
    if (!nearest && whole) {
      patterns.add(static_cast<typename F::container*>(args.updated) + first(), k, bits);
    } else {
      store_bits<F>(args, i(), bits);
    }
  }
  return rows.wanted.unusual || rows.made.unusual;
}

template <class F, bool nearest>
__global__ void __launch_bounds__(chunk_threads, (report_blocks<F, float, nearest>))
    report_kernel(const UpdateArgs args, const Plan plan) {
  __shared__ __align__(16) SquareTile<double> tiles[chunk_warps];
  __shared__ SharedSquares squares;
  __shared__ ChunkUpdate counted;
  const Chunk chunk(args.size);
  const auto tile = [&]() -> SquareTile<double>& { return tiles[Chunk::warp()]; };
  counted.clear();
  __syncthreads();
  const SquareLane sum(squares);
#pragma unroll 1
  for (int begin = Chunk::block_begin(); begin < chunk.block_end(); begin += round_size<double>) {
    const bool whole = plan.groups && begin + round_size<double> <= chunk.block_end();
    const int slot = thread_anew() % 32 * n;
    bool done = false, unusual = false;
    if constexpr (nearest)
      done = whole &&
             update_group<F>(args, plan, Chunk::begin() + begin + slot, tile().row(0) + slot, tile().row(1) + slot,
                             [&](std::uint32_t more) { counted.of_groups[thread_anew()] += more; });
    if (!done) unusual = report_entries<F, nearest>(args, plan, chunk, begin, whole, tiles, counted);
    unusual = __any_sync(~0u, unusual);
    __syncwarp();
    sum.add(tile(), chunk.block_end() - begin, unusual, [](int, int) { return 0.0; });
    __syncwarp();
  }
  const std::uint32_t groups = counted.of_groups[thread_anew()];
  add_to(&counted.applied, groups & 0xFF);
  add_to(&counted.lost, groups >> 8 & 0xFF);
  add_to(&counted.flushed, groups >> 16 & 0xFF);
  add_to(&counted.subnormal, groups >> 24);
  sum.finish();
  __syncthreads();
  report(counted, squares, chunk, args.counts[blockIdx.x]);
}

template <class F, bool nearest>
int start(const UpdateArgs& args, Stream stream) {
  const Plan plan{formats::random_bits(args.mode.seed, args.stream),
                  aligned(args.weight) && aligned(args.gradient) && aligned(args.updated),
                  args.mode.subnormals == formats::Subnormals::flush};
  const auto s = static_cast<stream_t>(stream);
  if (args.counts)
    return launch(report_kernel<F, nearest>, dim3(chunks_of(args.size)), dim3(chunk_threads), 0, s, args, plan);
  const dim3 tiles(static_cast<unsigned>((args.size + tile_size - 1) / tile_size));
  return launch(update_kernel<F, nearest>, tiles, dim3(tile_threads), 0, s, args, plan);
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
