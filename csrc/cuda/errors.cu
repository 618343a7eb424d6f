// Squares of stored * 2^power - truth, and of truth: one partial result a chunk, summed as ops/rounding.hpp says.
#include "cuda/elements.hpp"
#include "cuda/kernels.hpp"
#include "cuda/square_tiles.hpp"

namespace gradkern::cuda {
namespace {

using executor::ErrorArgs;
using executor::ErrorSums;

constexpr int n = group_size, tile = tile_size<double>;

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

__global__ void __launch_bounds__(chunk_threads, chunk_blocks)
    errors_kernel(const ErrorArgs args, const Factors factors, bool vectors, ErrorSums* partials) {
  __shared__ __align__(16) SquareTile<double> shared;
  __shared__ LaneSums sums;
  const Chunk chunk(args.size);
  double *const error = shared.value, *const signal = shared.value + SquareTile<double>::row(1);
  bool nonfinite = false, infinite = false;
  sums.clear();
  for (int start = 0; start < chunk.count; start += tile) {
    const int slot = static_cast<int>(threadIdx.x) * n, count = min(tile, chunk.count - start);
    Seen seen;
    if (vectors && is_whole(slot, count)) {
      double d[n], truth[n];
      load_group(args.format, args.stored, chunk.begin + start + slot, d);
      load_group_of<formats::float64>(args.truth, chunk.begin + start + slot, truth);
#pragma unroll
      for (int k = 0; k < n; ++k) d[k] = seen.difference(d[k], truth[k], factors);
      store_values(error + slot, d);
      store_values(signal + slot, truth);
    } else {
#pragma unroll 1
      for (int j = slot; j < slot + n; ++j) {
        double d = 0, truth = 0;
        if (j < count) {
          truth = load(args.truth + chunk.begin + start + j);
          d = seen.difference(load_entry(args.format, args.stored, chunk.begin + start + j), truth, factors);
        }
        store(error + j, d);
        store(signal + j, truth);
      }
    }
    nonfinite |= seen.nonfinite;
    infinite |= seen.infinite;
    const bool unusual = __syncthreads_or(seen.unusual);
    sums.add(shared, count, unusual, [](int, int) { return 0.0; });
    __syncthreads();
  }
  nonfinite = __syncthreads_or(nonfinite);
  infinite = __syncthreads_or(infinite);
  if (!LaneSums::adds()) return;
  const ops::SquareSum total = sums.total();
  ErrorSums& partial = partials[blockIdx.x];
  if (LaneSums::lane() == 0) (LaneSums::which() == 0 ? partial.error : partial.truth) = total;
  if (threadIdx.x % 32 == 0) {
    partial.nonfinite = nonfinite;
    partial.infinite = infinite;
  }
}

}  // namespace

int errors(const ErrorArgs* args, ErrorSums* partials, Stream stream) {
  if (args->size == 0) return 0;
  return launch(errors_kernel, dim3(chunks_of(args->size)), dim3(chunk_threads), 0, static_cast<stream_t>(stream),
                *args, Factors(*args), aligned(args->stored) && aligned(args->truth), partials);
}

}  // namespace gradkern::cuda
