// stored[i] = encode(decode(source[i]) * scale), and one partial report a chunk of what that lost: ops/rounding.hpp.
//
// Without a report, a thread rounds one group of entries. With one, a block takes a chunk, tile by tile: every thread
// rounds and counts a group of the tile, then one warp adds squares of values and errors. Bytes: source and result once.
// Where all groups of a warp are there, they are loaded and stored by 128 bits. Rounded otherwise than to nearest even,
// their entries wait in shared memory, each for its turn.
#include "cuda/rounding_groups.hpp"

namespace gradkern::cuda {
namespace {

using executor::ConvertArgs;

// nearest: said at compile time, it leaves out the random bits and what else other roundings need.
template <class F, bool nearest>
__device__ __forceinline__ formats::Encoded<F> encode_entry(const ConvertArgs& args, double x, std::int64_t i,
                                                            double& exact) {
  exact = scaled(x, args.scale);
  formats::Mode mode = args.mode;
  if (nearest) mode.rounding = formats::Rounding::nearest_even;
  return ops::encode_scaled<F>(x, exact, mode, formats::draw(mode, args.stream, i));
}

template <class F>
__device__ __forceinline__ void store_entry(const ConvertArgs& args, std::int64_t i, const formats::Encoded<F>& e) {
  store(static_cast<typename F::container*>(args.stored) + i, e.bits);
}

// groups: the tensors are aligned.
struct Plan {
  bool groups, flush;
};

template <class F, class T, bool nearest>
__global__ void __launch_bounds__(chunk_threads, chunk_blocks)
    convert_kernel(const ConvertArgs args, const Plan plan, const Scale<T> scale) {
  constexpr int n = group_size;
  const std::int64_t tile = std::int64_t(blockIdx.x) * tile_round, first = tile + threadIdx.x * n;
  const bool groups = plan.groups && warp_is_whole(first, args.size);
  void* const stored = static_cast<typename F::container*>(args.stored) + first;
  double exact;
  if constexpr (nearest) {
    if (groups) {
      T x[n];
      load_group(args.source_format, args.source, first, x);
      Words<group_words<F, n>> words{};
      bool plain = true;
#pragma unroll entries_at_once < T>
      for (int k = 0; k < n; ++k) {
        T value = x[0];
        plain &= scale_plainly<F>(value, scale);
        put_rounded<F>(words, k, value, round_plain<F>(value, plan.flush), plan.flush);
        shift_in(x, T(0));
      }
      store_words(stored, words, plain);
      if (plain) return;
    }
  } else if (groups) {
    __shared__ __align__(16) double waiting[tile_round];
    double* const x = waiting + threadIdx.x * n;
    load_into<n>(args.source_format, args.source, first, x);
    Patterns<F> patterns;
#pragma unroll 1
    for (int k = 0; k < n; ++k) {
      const double value = exact_entry(args.source_format, args.source, first + k, load(x + k));
      patterns.add(stored, k, encode_entry<F, nearest>(args, value, first + k, exact).bits);
    }
    return;
  }
  const int stride = plan.groups ? 1 : chunk_threads;
  std::int64_t i = plan.groups ? first : tile + threadIdx.x;
#pragma unroll 1
  for (int k = 0; k < n && i < args.size; ++k, i += stride) {
    const double x = load_entry(args.source_format, args.source, i);
    store_entry(args, i, encode_entry<F, nearest>(args, x, i, exact));
  }
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
// stored, where it is not plain. By all lanes of a warp.
template <class F, class T>
__device__ __forceinline__ bool report_group(const ConvertArgs& args, const Plan& plan, const Scale<T>& scale,
                                             std::int64_t first, int index, T* signal, T* noise, EntryCounts& counts) {
  constexpr int n = group_size, quarter = 16 / static_cast<int>(sizeof(T));
  load_into<n>(args.source_format, args.source, first, signal);
  Words<group_words<F, n>> words{};
  GroupCounts<T> group;
  bool plain = true;
#pragma unroll 1
  for (int k = 0; k < n; k += quarter) {
    T values[quarter], errors[quarter] = {};
    load_values(signal + k, values);
#pragma unroll entries_at_once < T>
    for (int j = 0; j < quarter; ++j) {
      T value = values[0];
      plain &= scale_plainly<F>(value, scale);
      const Rounded<T> rounded = round_plain<F>(value, plan.flush);
      put_rounded<F>(words, k + j, value, rounded, plan.flush);
      group.template add<F>(rounded, k + j);
      shift_in(values, value);
      shift_in(errors, rounded.error);
    }
    store_values(signal + k, values);
    store_values(noise + k, errors);
  }
  store_words(static_cast<typename F::container*>(args.stored) + first, words, plain);
  if (plain) ThreadRounding(counts).template add<F>(group, index);
  return plain;
}

template <class T>
struct Rows {
  TileRow<T> signal, noise;
};

template <class F, class T, bool nearest>
__global__ void __launch_bounds__(chunk_threads, chunk_blocks)
    report_kernel(const ConvertArgs args, const Plan plan, const Scale<T> scale) {
  constexpr int n = group_size, tile = tile_size<T>;
  __shared__ __align__(16) SquareTile<T> shared;
  __shared__ LaneSums sums;
  __shared__ EntryCounts entries;
  __shared__ RoundingTotals totals;
  const Chunk chunk(args.size);
  T *const signal = shared.value, *const noise = shared.value + SquareTile<T>::row(1);
  ThreadRounding(entries).clear();
  sums.clear();
  clear(totals);
  for (int start = 0; start < chunk.count; start += tile) {
    const int count = min(tile, chunk.count - start);
    bool unusual = false;
#pragma unroll 1
    for (int round = 0; round < tile; round += tile_round) {
      const int slot = round + thread_anew() * n;
      const bool groups = plan.groups && warp_is_whole(slot, count);
      const std::int64_t first = chunk.begin + start + slot;
      if constexpr (nearest) {
        if (groups && report_group<F>(args, plan, scale, first, start + slot, signal + slot, noise + slot, entries))
          continue;
      } else if (groups) {
        load_into<n>(args.source_format, args.source, first, signal + slot);
      }
      const int stride = plan.groups ? 1 : chunk_threads;
      int j = plan.groups ? slot : round + thread_anew();
      Rows<T> rows{{signal, start}, {noise, start}};
      Patterns<F> patterns;
      ThreadRounding counts(entries);
#pragma unroll 1
      for (int k = 0; k < n; ++k, j += stride) {
        const std::int64_t i = chunk.begin + start + j;
        double value = 0, exact;
        if (!nearest && groups) {
          value = exact_entry(args.source_format, args.source, i, load(signal + j));
        } else if (j < count) {
          value = load_entry(args.source_format, args.source, i);
        }
        store(signal + j, T(0));
        store(noise + j, T(0));
        if (j >= count) continue;
        const auto encoded = encode_entry<F, nearest>(args, value, i, exact);
        if (!nearest && groups) {
          patterns.add(static_cast<typename F::container*>(args.stored) + first, k, encoded.bits);
        } else {
          store_entry(args, i, encoded);
        }
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
  report(ThreadRounding(entries), sums, chunk, totals, args.counts[blockIdx.x]);
}

template <class F, class T, bool nearest>
int start(const ConvertArgs& args, Stream stream) {
  const Plan plan{aligned(args.source) && aligned(args.stored), args.mode.subnormals == formats::Subnormals::flush};
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
