// stored[i] = encode(decode(source[i]) * scale), and one partial report a chunk of what that lost: ops/rounding.hpp.
//
// Without a report, a thread rounds one group of entries. With one, a thread block takes a chunk, each warp of it a block,
// round by round: its threads round and count a group each, then it adds squares of values and errors. Bytes: source and
// result once. Groups that are there are loaded and stored by 128 bits; in float64 lanes, and without a report, where all of
// a warp are. Rounded otherwise than to nearest even, their entries wait in shared memory, each for its turn.
#include "cuda/rounding_groups.hpp"

namespace gradkern::cuda {
namespace {

using executor::ConvertArgs;

template <class T>
struct Rows {
  TileRow<T> signal, noise;
};

// groups: the tensors are aligned. key: of random bits.
struct Plan {
  std::uint64_t key;
  bool groups, flush, scaled;
};

// nearest: said at compile time, it leaves out the random bits and what else other roundings need.
template <class F, bool nearest>
__device__ __forceinline__ formats::Encoded<F> encode_entry(const ConvertArgs& args, const Plan& plan, double x,
                                                            std::int64_t i, double& exact) {
  exact = scaled(x, args.scale);
  formats::Mode mode = args.mode;
  if (nearest) mode.rounding = formats::Rounding::nearest_even;
  return ops::encode_scaled<F>(x, exact, mode, formats::draw_by_key(mode, plan.key, i));
}

template <class F>
__device__ __forceinline__ void store_entry(const ConvertArgs& args, std::int64_t i, const formats::Encoded<F>& e) {
  store(static_cast<typename F::container*>(args.stored) + i, e.bits);
}

template <class F, class T, bool nearest>
__global__ void __launch_bounds__(tile_threads, tile_blocks)
    convert_kernel(const ConvertArgs args, const Plan plan, const Scale<T> scale) {
  constexpr int n = group_size<T>, tile_size = tile_threads * n;
  const std::int64_t tile = std::int64_t(blockIdx.x) * tile_size, first = tile + threadIdx.x * n;
  const bool groups = plan.groups && warp_is_whole<n>(first, args.size);
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
    __shared__ __align__(16) double waiting[tile_size];
    double* const x = waiting + threadIdx.x * n;
    load_into<n>(args.source_format, args.source, first, x);
    Patterns<F> patterns;
#pragma unroll 1
    for (int k = 0; k < n; ++k) {
      const double value = exact_entry(args.source_format, args.source, first + k, load(x + k));
      patterns.add(stored, k, encode_entry<F, nearest>(args, plan, value, first + k, exact).bits);
    }
    return;
  }
  const int stride = plan.groups ? 1 : tile_threads;
  std::int64_t i = plan.groups ? first : tile + threadIdx.x;
#pragma unroll 1
  for (int k = 0; k < n && i < args.size; ++k, i += stride) {
    const double x = load_entry(args.source_format, args.source, i);
    store_entry(args, i, encode_entry<F, nearest>(args, plan, x, i, exact));
  }
}

// The chunk's report, by three of its warps at once.
__device__ __forceinline__ void report(const ChunkRounding& counts, const SharedSquares& squares, const Chunk& chunk,
                                       ops::RoundingCounts& result) {
  using formats::Event;
  if (thread_anew() == 32) result.signal = squares.of_chunk(0, chunk.blocks());
  if (thread_anew() == 64) result.noise = squares.of_chunk(1, chunk.blocks());
  if (thread_anew() != 0) return;
  std::int64_t exact = chunk.count();
#pragma unroll
  for (int event = 1; event < formats::event_count; ++event) {
    result.events[event] = counts.events[event];
    exact -= counts.events[event];
  }
  result.events[static_cast<int>(Event::exact)] = exact;
  double ulp = 0;
#pragma unroll 4
  for (int warp = 0; warp < chunk_warps; ++warp) ulp = ops::max(ulp, counts.max_ulp[warp]);
  result.max_ulp = ulp;
  result.first_overflow = index_in_tensor(chunk, counts.first_overflow);
  result.first_flushed = index_in_tensor(chunk, counts.first_flushed);
}

// Entries of a tile as vectors of 128 bits in the lane type.
template <class T>
constexpr int quarter = 16 / static_cast<int>(sizeof(T));

// What float64 makes of a group of its own values, two at a time: of all of it, no register would be left.
template <int n>
__device__ __forceinline__ void store_float64(std::uint64_t* to, const double* values, bool flush) {
#pragma unroll
  for (int k = 0; k < n; k += 2) {
    double x[2];
    load_values(values + k, x);
    Words<4> words{};
    for (int j = 0; j < 2; ++j)
      put_rounded<formats::float64>(words, k, x[j], round_plain<formats::float64>(x[j], flush), flush);
    store_words(to + k, words);
  }
}

// A group, whose values and errors it leaves in the rows; false, and nothing counted or stored, where it is not plain: of
// its plain entries only the error per binade is kept, which they have one by one as well. By all lanes of a warp; there:
// all of the group is.
template <class F, class T>
__device__ __forceinline__ bool report_group(const ConvertArgs& args, const Plan& plan, const Scale<T>& scale,
                                             bool there, std::int64_t first, int index, T* signal, T* noise, T& ulp,
                                             ChunkRounding& shared) {
  constexpr int n = group_size<T>;
  T none[n] = {};
  if (there) {
    load_into<n>(args.source_format, args.source, first, signal);
  } else {
    store_values(signal, none);
  }
  Words<group_words<F, n>> words{};
  GroupCounts group;
  bool plain = there;
#pragma unroll entries_at_once < T>
  for (int k = 0; k < n; k += quarter<T>) {
    T values[quarter<T>], errors[quarter<T>] = {};
    load_values(signal + k, values);
#pragma unroll entries_at_once < T>
    for (int j = 0; j < quarter<T>; ++j) {
      T value = values[0];
      plain &= scale_plainly<F>(value, scale);
      const Rounded<T> rounded = round_plain<F>(value, plan.flush);
      if constexpr (F::id != FormatId::float64) put_rounded<F>(words, k + j, value, rounded, plan.flush);
      group.add<F>(rounded, k + j);
      ulp = ops::max(ops::error_per_binade(rounded.error, rounded.binade), ulp);
      shift_in(values, value);
      shift_in(errors, rounded.error);
    }
    if (plan.scaled) store_values(signal + k, values);
    store_values(noise + k, errors);
  }
  auto* const stored = static_cast<typename F::container*>(args.stored) + first;
  if constexpr (F::id == FormatId::float64) {
    if (plain) store_float64<n>(stored, signal, plan.flush);
  } else {
    store_words(stored, words, plain);
  }
  if constexpr (sizeof(T) == 8) {  // two registers that could not wait
    add_max_ulp(shared, ulp * formats::exp2i(formats::Layout<F>::fraction_bits - 1));
    ulp = 0;
  }
  if (plain) ThreadCounts(shared).add(group.count, group.flushed_bits, index);
  return plain;
}

// The thread's group of the round that begins at `begin` of the chunk, one by one; whether a square is unusual. whole: the
// warp's groups are all there, and aligned.
template <class F, class T, bool nearest>
__device__ __forceinline__ bool report_entries(const ConvertArgs& args, const Plan& plan, const Chunk& chunk, int begin,
                                               bool whole, bool done, SquareTile<T>* tiles, ChunkRounding& shared) {
  constexpr int n = group_size<T>;
  const auto tile = [&]() -> SquareTile<T>& { return tiles[Chunk::warp()]; };
  const auto slot = [] { return thread_anew() % 32 * n; };
  const auto first = [&] { return Chunk::begin() + begin + slot(); };
  if (!nearest && whole) load_into<n>(args.source_format, args.source, first(), tile().row(0) + slot());
  Rows<T> rows{{tiles, 0, begin}, {tiles, 1, begin}};
  Patterns<F> patterns;
  EntryRounding counts(shared);
#pragma unroll 1
  for (int k = 0; k < n; ++k) {
    if (nearest && done) break;
    const int j = slot() + k;
    const auto i = [&] { return Chunk::begin() + begin + slot() + k; };
    const bool there = (!nearest && whole) || begin + j < chunk.block_end();
    double value = 0, exact;
    if (!nearest && whole) {
      value = exact_entry(args.source_format, args.source, i(), load(tile().row(0) + j));
    } else if (there) {
      value = load_entry(args.source_format, args.source, i());
    }
    store(tile().row(0) + j, T(0));
    store(tile().row(1) + j, T(0));
    if (!there) continue;
    const auto encoded = encode_entry<F, nearest>(args, plan, value, i(), exact);
    if (!nearest && whole) {
      patterns.add(static_cast<typename F::container*>(args.stored) + first(), k, encoded.bits);
    } else {
      store_entry(args, i(), encoded);
    }
    ops::record_rounding<F>(exact, encoded, begin + j, counts, rows);
  }
  add_max_ulp(shared, counts.max_ulp);
  return rows.signal.unusual || rows.noise.unusual;
}

template <class F, class T, bool nearest>
__global__ void __launch_bounds__(chunk_threads, (report_blocks<F, T, nearest>))
    report_kernel(const ConvertArgs args, const Plan plan, const Scale<T> scale) {
  constexpr int n = group_size<T>;
  __shared__ __align__(16) SquareTile<T> tiles[chunk_warps];
  __shared__ SharedSquares squares;
  __shared__ ChunkRounding counted;
  const Chunk chunk(args.size);
  const auto tile = [&]() -> SquareTile<T>& { return tiles[Chunk::warp()]; };
  counted.clear();
  __syncthreads();
  T ulp = 0;  // of groups: the largest error, per binade
  const SquareLane sum(squares);
#pragma unroll 1
  for (int begin = Chunk::block_begin(), end = chunk.block_end(); begin < end; begin += round_size<T>) {
    const bool whole = plan.groups && begin + round_size<T> <= end;
    const int slot = thread_anew() % 32 * n;
    bool done = false, unusual = false;
    // Of float64 all groups of a round or none: for those that are there in part no registers are left.
    if constexpr (nearest && sizeof(T) == 4) {
      done =
          plan.groups && report_group<F>(args, plan, scale, is_whole(begin + slot, end), chunk.begin() + begin + slot,
                                         begin + slot, tile().row(0) + slot, tile().row(1) + slot, ulp, counted);
    } else if constexpr (nearest) {
      done = whole && report_group<F>(args, plan, scale, true, chunk.begin() + begin + slot, begin + slot,
                                      tile().row(0) + slot, tile().row(1) + slot, ulp, counted);
    }
    if (!__all_sync(~0u, done))
      unusual = report_entries<F, T, nearest>(args, plan, chunk, begin, whole, done, tiles, counted);
    unusual = __any_sync(~0u, unusual);
    __syncwarp();
    sum.add(tile(), end - begin, unusual, [&](int which, int j) {
      const std::int64_t i = chunk.begin() + begin + j;
      const double exact = scaled(load_entry(args.source_format, args.source, i), args.scale);
      return which == 0 ? exact : load_entry_of<F>(args.stored, i) - exact;
    });
    __syncwarp();
  }
  ThreadCounts(counted).add_to_chunk(counted);
  add_max_ulp(counted, static_cast<double>(ulp) * formats::exp2i(formats::Layout<F>::fraction_bits - 1));
  sum.finish();
  __syncthreads();
  report(counted, squares, chunk, args.counts[blockIdx.x]);
}

template <class F, class T, bool nearest>
int start(const ConvertArgs& args, Stream stream) {
  const Plan plan{formats::random_bits(args.mode.seed, args.stream), aligned(args.source) && aligned(args.stored),
                  args.mode.subnormals == formats::Subnormals::flush, args.scale != 1};
  const Scale<T> scale(args.scale);
  const auto s = static_cast<stream_t>(stream);
  if (args.counts)
    return launch(report_kernel<F, T, nearest>, dim3(chunks_of(args.size)), dim3(chunk_threads), 0, s, args, plan,
                  scale);
  constexpr int tile_size = tile_threads * group_size<T>;
  const dim3 tiles(static_cast<unsigned>((args.size + tile_size - 1) / tile_size));
  return launch(convert_kernel<F, T, nearest>, tiles, dim3(tile_threads), 0, s, args, plan, scale);
}

}  // namespace

int convert(const ConvertArgs* args, Stream stream) {
  if (args->size == 0) return 0;
  // In place, float32 lanes would look at entries that are overwritten.
  const bool narrow =
      args->source_format != FormatId::float64 && ops::fits_f32(args->scale) && args->source != args->stored;
  return formats::visit(args->format, [&](auto f) {
    using F = decltype(f);
    if (args->mode.rounding != formats::Rounding::nearest_even) return start<F, double, false>(*args, stream);
    if constexpr (F::id != FormatId::float64)
      if (narrow) return start<F, float, true>(*args, stream);
    return start<F, double, true>(*args, stream);
  });
}

}  // namespace gradkern::cuda
