// Squares of stored * 2^power - truth, and of truth: one partial result a chunk, summed as ops/rounding.hpp says.
#include "cuda/elements.hpp"
#include "cuda/kernels.hpp"
#include "cuda/square_tiles.hpp"

namespace gradkern::cuda {
namespace {

using executor::ErrorArgs;
using executor::ErrorSums;

constexpr int n = group_size<double>, round = round_size<double>;

// 2^power in three factors, of which only the last can round: 1 but for one where float64 has that number.
struct Factors {
  double each, last;

  explicit Factors(const ErrorArgs& args) : each(1), last(args.scale) {
    if (args.scale != 0) return;
    const int power = args.power < -2200 ? -2200 : args.power > 2200 ? 2200 : args.power;
    each = formats::exp2i(power / 3);
    last = formats::exp2i(power - 2 * (power / 3));
  }
};

struct Seen {
  bool nonfinite = false, infinite = false, unusual = false;

  __device__ __forceinline__ double difference(double stored, double truth, const Factors& factors) {
    const double d = stored * factors.each * factors.each * factors.last - truth;
    nonfinite |= !(ops::abs(stored) < __builtin_inf());
    infinite |= !(ops::abs(d) < __builtin_inf());
    unusual |= !is_medium(d) || !is_medium(truth);
    return d;
  }
};

// The thread's group of a round that begins at `begin` of the chunk, into the rows.
__device__ __forceinline__ Seen take_group(const ErrorArgs& args, const Factors& factors, bool vectors,
                                           const Chunk& chunk, int begin, SquareTile<double>& tile) {
  const int slot = thread_anew() % 32 * n, count = chunk.block_end() - begin;
  const std::int64_t first = Chunk::begin() + begin + slot;
  Seen seen;
  if (vectors && is_whole(slot, count)) {
    double d[n], truth[n];
    load_group(args.format, args.stored, first, d);
    load_group_of<formats::float64>(args.truth, first, truth);
#pragma unroll
    for (int k = 0; k < n; ++k) d[k] = seen.difference(d[k], truth[k], factors);
    store_values(tile.row(0) + slot, d);
    store_values(tile.row(1) + slot, truth);
    return seen;
  }
#pragma unroll 1
  for (int k = 0; k < n; ++k) {
    double d = 0, truth = 0;
    if (slot + k < count) {
      truth = load(args.truth + first + k);
      d = seen.difference(load_entry(args.format, args.stored, first + k), truth, factors);
    }
    store(tile.row(0) + slot + k, d);
    store(tile.row(1) + slot + k, truth);
  }
  return seen;
}

__global__ void __launch_bounds__(chunk_threads, chunk_blocks)
    errors_kernel(const ErrorArgs args, const Factors factors, bool vectors, ErrorSums* partials) {
  __shared__ __align__(16) SquareTile<double> tiles[chunk_warps];
  __shared__ SharedSquares squares;
  const Chunk chunk(args.size);
  SquareTile<double>& tile = tiles[Chunk::warp()];
  bool nonfinite = false, infinite = false;
  const SquareLane sum(squares);
#pragma unroll 1
  for (int begin = Chunk::block_begin(); begin < chunk.block_end(); begin += round) {
    const Seen seen = take_group(args, factors, vectors, chunk, begin, tile);
    nonfinite |= seen.nonfinite;
    infinite |= seen.infinite;
    const bool unusual = __any_sync(~0u, seen.unusual);
    __syncwarp();
    sum.add(tile, chunk.block_end() - begin, unusual, [](int, int) { return 0.0; });
    __syncwarp();
  }
  sum.finish();
  nonfinite = __syncthreads_or(nonfinite);
  infinite = __syncthreads_or(infinite);
  ErrorSums& partial = partials[blockIdx.x];
  if (thread_anew() == 32) partial.error = squares.of_chunk(0, chunk.blocks());
  if (thread_anew() == 64) partial.truth = squares.of_chunk(1, chunk.blocks());
  if (thread_anew() != 0) return;
  partial.nonfinite = nonfinite;
  partial.infinite = infinite;
}

}  // namespace

int errors(const ErrorArgs* args, ErrorSums* partials, Stream stream) {
  if (args->size == 0) return 0;
  return launch(errors_kernel, dim3(chunks_of(args->size)), dim3(chunk_threads), 0, static_cast<stream_t>(stream),
                *args, Factors(*args), aligned(args->stored) && aligned(args->truth), partials);
}

}  // namespace gradkern::cuda
