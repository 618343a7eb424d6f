// stored[i] = encode(decode(source[i]) * scale), and one partial report a chunk of what that lost: ops/rounding.hpp.
//
// Without a report, a thread rounds one group of entries. With one, a block takes a chunk, tile by tile: every thread
// rounds and counts a group of the tile, then one warp adds squares of values and errors. Bytes: source and result once.
#include "cuda/rounding_groups.hpp"

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
  constexpr int n = group_size;
  const std::int64_t tile = std::int64_t(blockIdx.x) * tile_round, first = tile + threadIdx.x * n;
  if (nearest && plan.groups && first + n <= args.size) {
    T x[n];
    load_group(args.source_format, args.source, first, x);
    Words<group_words<F, n>> words;
    bool plain = true;
#pragma unroll
    for (int k = 0; k < n; ++k) {
      plain &= scale_plainly<F>(x[k], scale);
      put_rounded<F>(words, k, x[k], round_plain<F>(x[k], plan.flush), plan.flush);
    }
    if (plain) return store_words(static_cast<typename F::container*>(args.stored) + first, words);
  }
  const int stride = plan.groups ? 1 : chunk_threads;
  std::int64_t i = plan.groups ? first : tile + threadIdx.x;
  double exact;
#pragma unroll 1
  for (int k = 0; k < n && i < args.size; ++k, i += stride) encode_entry<F, nearest>(args, i, exact);
}

struct RoundingTotals {
  unsigned events[formats::event_count], first_overflow, first_flushed;
};

__device__ __forceinline__ void clear(RoundingTotals& totals) {
  if (threadIdx.x < formats::event_count) totals.events[threadIdx.x] = 0;
  if (threadIdx.x == 0) totals.first_overflow = totals.first_flushed = ~0u;
}

// Of the block, as the chunk's report; every thread calls it.
__device__ __forceinline__ void report(const ThreadRounding& counts, const LaneSums& sums, const Chunk& chunk,
                                       RoundingTotals& totals, ops::RoundingCounts& result) {
#pragma unroll
  for (int event = 1; event < formats::event_count; ++event)
    add_to(&totals.events[event], counts.events(static_cast<formats::Event>(event)));
  least_of(&totals.first_overflow, counts.first_overflow);
  least_of(&totals.first_flushed, counts.first_flushed);
  double ulp = counts.max_ulp;
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) ulp = ops::max(ulp, __shfl_xor_sync(0xFFFFFFFFu, ulp, distance));
  if (threadIdx.x % 32 == 0) counts.max_ulp = ulp;
  __syncthreads();
  if (!LaneSums::adds()) return;
  const ops::SquareSum squares = sums.total();
  if (LaneSums::lane() == 0) (LaneSums::which() == 0 ? result.signal : result.noise) = squares;
  if (threadIdx.x % 32 != 0) return;
  std::int64_t exact = chunk.count;
#pragma unroll
  for (int event = 1; event < formats::event_count; ++event) {
    result.events[event] = totals.events[event];
    exact -= totals.events[event];
  }
  result.events[static_cast<int>(formats::Event::exact)] = exact;
  for (int warp = 0; warp < chunk_warps; ++warp) ulp = ops::max(ulp, counts.entries.max_ulp[warp * 32]);
  result.max_ulp = ulp;
  result.first_overflow = index_in_tensor(chunk, totals.first_overflow);
  result.first_flushed = index_in_tensor(chunk, totals.first_flushed);
}

// A group of the chunk, at `index` of it, counted and with its values left in the rows; false, and nothing counted or
// stored, where it is not plain.
template <class F, class T>
__device__ __forceinline__ bool report_group(const ConvertArgs& args, const Plan& plan, const Scale<T>& scale,
                                             std::int64_t first, int index, T* signal, T* noise,
                                             ThreadRounding& counts) {
  constexpr int n = group_size, quarter = 16 / static_cast<int>(sizeof(T));
  T x[n];
  load_group(args.source_format, args.source, first, x);
  Words<group_words<F, n>> words;
  GroupCounts<T> group;
  bool plain = true;
#pragma unroll
  for (int k = 0; k < n; k += quarter) {
    T value[quarter], error[quarter];
#pragma unroll
    for (int j = 0; j < quarter; ++j) {
      plain &= scale_plainly<F>(x[k + j], scale);
      value[j] = x[k + j];
      const Rounded<T> rounded = round_plain<F>(value[j], plan.flush);
      put_rounded<F>(words, k + j, value[j], rounded, plan.flush);
      group.template add<F>(rounded, k + j);
      error[j] = rounded.error;
    }
    store_values(signal + k, value);
    store_values(noise + k, error);
  }
  if (!plain) return false;
  counts.template add<F>(group, index);
  store_words(static_cast<typename F::container*>(args.stored) + first, words);
  return true;
}

template <class T>
struct Rows {
  TileRow<T> signal, noise;
};

template <class F, class T, bool nearest>
__global__ void __launch_bounds__(chunk_threads, chunk_blocks<T>)
    report_kernel(const ConvertArgs args, const Plan plan, const Scale<T> scale) {
  constexpr int n = group_size, tile = tile_size<T>;
  __shared__ __align__(16) SquareTile<T> shared;
  __shared__ LaneSums sums;
  __shared__ EntryCounts entries;
  __shared__ RoundingTotals totals;
  const Chunk chunk(args.size);
  T *const signal = shared.value, *const noise = shared.value + SquareTile<T>::row(1);
  ThreadRounding counts(entries);
  sums.clear();
  clear(totals);
  for (int start = 0; start < chunk.count; start += tile) {
    const int count = min(tile, chunk.count - start);
    bool unusual = false;
#pragma unroll 1
    for (int round = 0; round < tile; round += tile_round) {
      const int slot = round + static_cast<int>(threadIdx.x) * n;
      if (nearest && plan.groups && slot + n <= count &&
          report_group<F>(args, plan, scale, chunk.begin + start + slot, start + slot, signal + slot, noise + slot,
                          counts))
        continue;
      const int stride = plan.groups ? 1 : chunk_threads;
      int j = plan.groups ? slot : round + static_cast<int>(threadIdx.x);
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
      unusual |= rows.signal.unusual || rows.noise.unusual;
    }
    unusual = __syncthreads_or(unusual);
    sums.add(shared, count, unusual, [&](int which, int j) {
      const std::int64_t i = chunk.begin + start + j;
      const double exact = scaled(load_entry(args.source_format, args.source, i), args.scale);
      return which == 0 ? exact : load_entry_of<F>(args.stored, i) - exact;
    });
    __syncthreads();
  }
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
  const dim3 tiles(static_cast<unsigned>((args.size + tile_round - 1) / tile_round));
  return launch(convert_kernel<F, T, nearest>, tiles, dim3(chunk_threads), 0, s, args, plan, scale);
}

// Whether multiplying float32 values by this scale can be exact, both ways.
bool fits_f32(double scale) {
  return scale >= 0x1p-126 && scale <= 0x1p126 && (ops::to_bits(scale) & 0xFFFFFFFFFFFFF) == 0;
}

}  // namespace

int convert(const ConvertArgs* args, Stream stream) {
  if (args->size == 0) return 0;
  // In place, float32 lanes would look at entries that are overwritten.
  const bool narrow = args->source_format != FormatId::float64 && fits_f32(args->scale) && args->source != args->stored;
  return formats::visit(args->format, [&](auto f) {
    using F = decltype(f);
    if (args->mode.rounding != formats::Rounding::nearest_even) return start<F, double, false>(*args, stream);
    if constexpr (F::id != FormatId::float64)
      if (narrow) return start<F, float, true>(*args, stream);
    return start<F, double, true>(*args, stream);
  });
}

}  // namespace gradkern::cuda
