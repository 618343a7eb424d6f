// stored[i] = encode(decode(source[i]) * scale), and one partial report a chunk of what that lost: ops/rounding.hpp.
//
// Without a report, a thread rounds one group of entries. With one, a block takes a chunk, tile by tile: every thread
// rounds and counts a group of the tile, then one warp adds squares of values and errors. Bytes: source and result once.
#include "cuda/rounding_groups.hpp"
#include "cuda/square_tiles.hpp"

namespace gradkern::cuda {
namespace {

using executor::ConvertArgs;

// nearest: said at compile time, it leaves out the random bits and what else other roundings need.
template <class F, bool nearest>
__device__ __forceinline__ formats::Encoded<F> encode_entry(const ConvertArgs& args, std::int64_t i, double& exact) {
  const double x = load_entry(args.source_format, args.source, i);
  exact = scaled(x, args.scale);
  formats::Mode mode = args.mode;
  if (nearest) mode.rounding = formats::Rounding::nearest_even;
  const auto encoded = ops::encode_scaled<F>(x, exact, mode, formats::draw(mode, args.stream, i));
  store(static_cast<typename F::container*>(args.stored) + i, encoded.bits);
  return encoded;
}

// groups: rounding is to nearest even, and the tensors are aligned.
struct Plan {
  bool groups, flush;
};

template <class F, class T, bool nearest>
__global__ void __launch_bounds__(chunk_threads)
    convert_kernel(const ConvertArgs args, const Plan plan, const Scale<T> scale) {
  constexpr int n = per_thread<T>;
  const std::int64_t tile = std::int64_t(blockIdx.x) * tile_size<T>, first = tile + threadIdx.x * n;
  if (nearest && plan.groups && first + n <= args.size) {
    T x[n];
    load_group(args.source_format, args.source, first, x);
    if (scale_plainly<F>(x, scale)) {
      Words<group_words<F, n>> words;
#pragma unroll
      for (int k = 0; k < n; ++k) put_rounded<F>(words, k, x[k], round_plain<F>(x[k], plan.flush), plan.flush);
      store_words(static_cast<typename F::container*>(args.stored) + first, words);
      return;
    }
  }
  const int stride = plan.groups ? 1 : chunk_threads;
  std::int64_t i = plan.groups ? first : tile + threadIdx.x;
  double exact;
#pragma unroll 1
  for (int k = 0; k < n && i < args.size; ++k, i += stride) encode_entry<F, nearest>(args, i, exact);
}

struct RoundingTotals {
  unsigned events[formats::event_count], first_overflow, first_flushed;
  double max_ulp[chunk_threads];
};

__device__ __forceinline__ void clear(RoundingTotals& totals) {
  if (threadIdx.x < formats::event_count) totals.events[threadIdx.x] = 0;
  if (threadIdx.x == 0) totals.first_overflow = totals.first_flushed = ~0u;
  totals.max_ulp[threadIdx.x] = 0;
}

// Of the block, as the chunk's report; every thread calls it.
__device__ __forceinline__ void report(const ThreadRounding& counts, const LaneSums& sums, const Chunk& chunk,
                                       RoundingTotals& totals, ops::RoundingCounts& result) {
#pragma unroll
  for (int event = 0; event < formats::event_count; ++event) add_to(&totals.events[event], counts.events(event));
  least_of(&totals.first_overflow, counts.first_overflow);
  least_of(&totals.first_flushed, counts.first_flushed);
  double ulp = counts.max_ulp;
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2)
    ulp = ops::max(ulp, __shfl_xor_sync(0xFFFFFFFFu, ulp, distance));
  if (threadIdx.x % 32 == 0) counts.max_ulp = ulp;
  __syncthreads();
  if (!LaneSums::adds()) return;
  const ops::SquareSum squares = sums.total();
  if (LaneSums::lane() == 0) (LaneSums::which() == 0 ? result.signal : result.noise) = squares;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  if (lane < formats::event_count) result.events[lane] = totals.events[lane];
  if (lane != 0) return;
  for (int warp = 0; warp < chunk_warps; ++warp) ulp = ops::max(ulp, totals.max_ulp[warp * 32]);
  result.max_ulp = ulp;
  result.first_overflow = index_in_tensor(chunk, totals.first_overflow);
  result.first_flushed = index_in_tensor(chunk, totals.first_flushed);
}

// A group of the chunk, at `index` of it, counted and with its values left in the rows; false, and nothing done, where
// it is not plain.
template <class F, class T>
__device__ __forceinline__ bool report_group(const ConvertArgs& args, const Plan& plan, const Scale<T>& scale,
                                             std::int64_t first, int index, T* signal, T* noise,
                                             ThreadRounding& counts, T& ulp) {
  constexpr int n = per_thread<T>, quarter = 16 / static_cast<int>(sizeof(T));
  T x[n];
  load_group(args.source_format, args.source, first, x);
  if (!scale_plainly<F>(x, scale)) return false;
  Words<group_words<F, n>> words;
#pragma unroll
  for (int k = 0; k < n; k += quarter) {
    T value[quarter], error[quarter];
#pragma unroll
    for (int j = 0; j < quarter; ++j) {
      value[j] = x[k + j];
      const Rounded<T> rounded = round_plain<F>(value[j], plan.flush);
      put_rounded<F>(words, k + j, value[j], rounded, plan.flush);
      count_rounded<F>(rounded, index + k + j, counts, ulp);
      error[j] = rounded.error;
    }
    store_values(signal + k, value);
    store_values(noise + k, error);
  }
  store_words(static_cast<typename F::container*>(args.stored) + first, words);
  return true;
}

template <class T>
struct Rows {
  TileRow<T> signal, noise;
};

template <class F, class T, bool nearest>
__global__ void __launch_bounds__(chunk_threads)
    report_kernel(const ConvertArgs args, const Plan plan, const Scale<T> scale) {
  constexpr int n = per_thread<T>, tile = tile_size<T>;
  __shared__ __align__(16) SquareTile<T> shared;
  __shared__ LaneSums sums;
  __shared__ RoundingTotals totals;
  const Chunk chunk(args.size);
  T *const signal = shared.value, *const noise = shared.value + SquareTile<T>::row(1);
  ThreadRounding counts(totals.max_ulp[threadIdx.x]);
  T ulp = 0;
  sums.clear();
  clear(totals);
  for (int start = 0; start < chunk.count; start += tile) {
    const int slot = static_cast<int>(threadIdx.x) * n, count = min(tile, chunk.count - start);
    bool unusual = false;
    if (!nearest || !plan.groups || slot + n > count ||
        !report_group<F>(args, plan, scale, chunk.begin + start + slot, start + slot, signal + slot, noise + slot,
                         counts, ulp)) {
      const int stride = plan.groups ? 1 : chunk_threads;
      int j = plan.groups ? slot : static_cast<int>(threadIdx.x);
      Rows<T> rows{{signal, start}, {noise, start}};
#pragma unroll 1
      for (int k = 0; k < n; ++k, j += stride) {
        store(signal + j, T(0));
        store(noise + j, T(0));
        if (j >= count) continue;
        double exact;
        const auto encoded = encode_entry<F, nearest>(args, chunk.begin + start + j, exact);
        ops::record_rounding<F>(exact, encoded, start + j, counts, rows);
      }
      unusual = rows.signal.unusual || rows.noise.unusual;
    }
    unusual = __syncthreads_or(unusual);
    sums.add(shared, count, unusual, [&](int which, int j) {
      const std::int64_t i = chunk.begin + start + j;
      const double exact = scaled(load_entry(args.source_format, args.source, i), args.scale);
      return which == 0 ? exact : load_entry_of<F>(args.stored, i) - exact;
    });
    __syncthreads();
  }
  counts.max_ulp = ops::max(counts.max_ulp, in_ulps<F>(ulp));
  report(counts, sums, chunk, totals, args.counts[blockIdx.x]);
}

template <class F, class T, bool nearest>
int start(const ConvertArgs& args, Stream stream) {
  const Plan plan{nearest && aligned(args.source) && aligned(args.stored),
                  args.mode.subnormals == formats::Subnormals::flush};
  const Scale<T> scale(args.scale);
  const auto s = static_cast<stream_t>(stream);
  if (args.counts)
    return launch(report_kernel<F, T, nearest>, dim3(chunks_of(args.size)), dim3(chunk_threads), 0, s, args, plan,
                  scale);
  const dim3 tiles(static_cast<unsigned>((args.size + tile_size<T> - 1) / tile_size<T>));
  return launch(convert_kernel<F, T, nearest>, tiles, dim3(chunk_threads), 0, s, args, plan, scale);
}

// Whether multiplying float32 values by this scale can be exact, both ways.
bool fits_f32(double scale) {
  return scale >= 0x1p-126 && scale <= 0x1p126 && (ops::to_bits(scale) & 0xFFFFFFFFFFFFF) == 0;
}

}  // namespace

int convert(const ConvertArgs* args, Stream stream) {
  if (args->size == 0) return 0;
  const bool narrow = args->source_format != FormatId::float64 && fits_f32(args->scale);
  return formats::visit(args->format, [&](auto f) {
    using F = decltype(f);
    if (args->mode.rounding != formats::Rounding::nearest_even) return start<F, double, false>(*args, stream);
    if constexpr (F::id != FormatId::float64)
      if (narrow) return start<F, float, true>(*args, stream);
    return start<F, double, true>(*args, stream);
  });
}

}  // namespace gradkern::cuda
