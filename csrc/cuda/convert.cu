// stored[i] = encode(decode(source[i]) * scale), and one partial report a chunk of what that lost: ops/rounding.hpp.
//
// Without a report, a thread rounds one group of entries. With one, a thread block takes a chunk, each warp of it a block,
// round by round: its threads round and count a group each, then it adds squares of values and errors. Bytes: source and
// result once. Groups that are there are loaded and stored by 128 bits; in float64 lanes, and without a report, where all of
// a warp are. Rounded otherwise than to nearest even, their entries wait in shared memory, each for its turn.
#include "cuda/rounding_groups.hpp"
#include "cuda/together.hpp"

namespace gradkern::cuda {
namespace {

using executor::ConvertArgs;

template <class T>
struct Rows {
  TileRow<T> signal, noise;
};

// What of a tensor is its own among those of a launch. key: of random bits.
struct Own {
  std::int64_t size;
  const void* source;
  void* stored;
  std::uint64_t key;
  ops::RoundingCounts* counts;
};

// What one launch converts: blockIdx.y is of one of the tensors. groups: all of them are aligned.
template <class T>
struct Work {
  FormatId source_format;
  bool groups, flush, scaled;
  double scale;
  formats::Mode mode;
  Scale<T> lane_scale;
  Own tensors[most_together];

  __device__ __forceinline__ const Own& own() const { return tensors[blockIdx.y]; }
  __device__ __forceinline__ const void* source() const { return own().source; }
  template <class F>
  __device__ __forceinline__ typename F::container* stored() const {
    return static_cast<typename F::container*>(own().stored);
  }
  __device__ __forceinline__ Chunk chunk() const { return Chunk(own().size); }
  __device__ __forceinline__ double entry(std::int64_t i) const { return load_entry(source_format, source(), i); }
};

// nearest: said at compile time, it leaves out the random bits and what else other roundings need.
template <class F, bool nearest, class T>
__device__ __forceinline__ formats::Encoded<F> encode_entry(const Work<T>& work, double x, std::int64_t i,
                                                            double& exact) {
  exact = scaled(x, work.scale);
  formats::Mode mode = work.mode;
  if (nearest) mode.rounding = formats::Rounding::nearest_even;
  return ops::encode_scaled<F>(x, exact, mode, formats::draw_by_key(mode, work.own().key, i));
}

template <class F, class T>
__device__ __forceinline__ void store_entry(const Work<T>& work, std::int64_t i, const formats::Encoded<F>& e) {
  store(work.template stored<F>() + i, e.bits);
}

template <class F, class T, bool nearest>
__global__ void __launch_bounds__(tile_threads, tile_blocks) convert_kernel(const Work<T> work) {
  constexpr int n = group_size<T>, tile_size = tile_threads * n;
  const std::int64_t tile = std::int64_t(blockIdx.x) * tile_size, first = tile + threadIdx.x * n;
  const bool groups = work.groups && warp_is_whole<n>(first, work.own().size);
  void* const stored = work.template stored<F>() + first;
  double exact;
  if constexpr (nearest) {
    if (groups) {
      T x[n];
      load_group(work.source_format, work.source(), first, x);
      Words<group_words<F, n>> words{};
      bool plain = true;
#pragma unroll entries_at_once < T>
      for (int k = 0; k < n; ++k) {
        T value = x[0];
        plain &= scale_plainly<F>(value, work.lane_scale);
        put_rounded<F>(words, k, value, round_plain<F>(value, work.flush), work.flush);
        shift_in(x, T(0));
      }
      store_words(stored, words, plain);
      if (plain) return;
    }
  } else if (groups) {
    __shared__ __align__(16) double waiting[tile_size];
    double* const x = waiting + threadIdx.x * n;
    load_into<n>(work.source_format, work.source(), first, x);
    Patterns<F> patterns;
#pragma unroll 1
    for (int k = 0; k < n; ++k) {
      const double value = exact_entry(work.source_format, work.source(), first + k, load(x + k));
      patterns.add(stored, k, encode_entry<F, nearest>(work, value, first + k, exact).bits);
    }
    return;
  }
  const int stride = work.groups ? 1 : tile_threads;
  std::int64_t i = work.groups ? first : tile + threadIdx.x;
#pragma unroll 1
  for (int k = 0; k < n && i < work.own().size; ++k, i += stride) {
    const double x = work.entry(i);
    store_entry<F>(work, i, encode_entry<F, nearest>(work, x, i, exact));
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

// A group of plain values rounded and stored, 16 bytes at a time: patterns of 32 bits or more, which no registers are left
// for while the report is made.
template <class F>
inline constexpr bool stored_after = sizeof(typename F::container) >= 4;

template <class F, int n, class T>
__device__ __forceinline__ void store_plain(typename F::container* to, const T* values, bool flush) {
  constexpr int together = 16 / static_cast<int>(sizeof(typename F::container));
#pragma unroll 1
  for (int k = 0; k < n; k += together) {
    T x[together];
    load_values(values + k, x);
    Words<4> words{};
#pragma unroll
    for (int j = 0; j < together; ++j) put_rounded<F>(words, j, x[j], round_plain<F>(x[j], flush), flush);
    store_words(to + k, words);
  }
}

// The thread's group of the round that begins at `begin` of the chunk, whose values and errors it leaves in the tile; false,
// and nothing counted or stored, where it is not plain: of its plain entries only the error per binade is kept, which they
// have one by one as well. By all lanes of a warp; there: all of the group is.
template <class F, class T>
__device__ __forceinline__ bool report_group(const Work<T>& work, bool there, int begin, SquareTile<T>& tile, T& ulp,
                                             ChunkRounding& shared) {
  constexpr int n = group_size<T>;
  const auto slot = [] { return thread_anew() % 32 * n; };
  const auto first = [&] { return Chunk::begin() + begin + slot(); };
  const auto signal = [&] { return tile.row(0) + slot(); };
  const auto noise = [&] { return tile.row(1) + slot(); };
  T none[n] = {};
  if (there) {
    load_into<n>(work.source_format, work.source(), first(), signal());
  } else {
    store_values(signal(), none);
  }
  Words<group_words<F, n>> words{};
  GroupCounts group;
  bool plain = there;
#pragma unroll entries_at_once < T>
  for (int k = 0; k < n; k += quarter<T>) {
    T values[quarter<T>], errors[quarter<T>] = {};
    load_values(signal() + k, values);
#pragma unroll entries_at_once < T>
    for (int j = 0; j < quarter<T>; ++j) {
      T value = values[0];
      plain &= scale_plainly<F>(value, work.lane_scale);
      const Rounded<T> rounded = round_plain<F>(value, work.flush);
      if constexpr (!stored_after<F>) put_rounded<F>(words, k + j, value, rounded, work.flush);
      group.add<F>(rounded, k + j);
      ulp = ops::max(ops::error_per_binade(rounded.error, rounded.binade), ulp);
      shift_in(values, value);
      shift_in(errors, rounded.error);
    }
    if (work.scaled) store_values(signal() + k, values);
    store_values(noise() + k, errors);
  }
  auto* const stored = work.template stored<F>() + first();
  if constexpr (stored_after<F>) {
    if (plain) store_plain<F, n>(stored, signal(), work.flush);
  } else {
    store_words(stored, words, plain);
  }
  if constexpr (sizeof(T) == 8) {  // two registers that could not wait
    add_max_ulp(shared, static_cast<double>(ulp) * formats::exp2i(formats::Layout<F>::fraction_bits - 1));
    ulp = 0;
  }
  if (plain) ThreadCounts(shared).add(group.count, group.flushed_bits, begin + slot());
  return plain;
}

// The thread's group of the round that begins at `begin` of the chunk, one by one; whether a square is unusual. whole: the
// warp's groups are all there, and aligned.
template <class F, class T, bool nearest>
__device__ __forceinline__ bool report_entries(const Work<T>& work, int begin, bool whole, bool done,
                                               SquareTile<T>* tiles, ChunkRounding& shared) {
  constexpr int n = group_size<T>;
  const auto tile = [&]() -> SquareTile<T>& { return tiles[Chunk::warp()]; };
  const auto slot = [] { return thread_anew() % 32 * n; };
  const auto first = [&] { return Chunk::begin() + begin + slot(); };
  if (!nearest && whole) load_into<n>(work.source_format, work.source(), first(), tile().row(0) + slot());
  Rows<T> rows{{tiles, 0, begin}, {tiles, 1, begin}};
  Patterns<F> patterns;
  EntryRounding counts(shared);
#pragma unroll 1
  for (int k = 0; k < n; ++k) {
    if (nearest && done) break;
    const int j = slot() + k;
    const auto i = [&] { return Chunk::begin() + begin + slot() + k; };
    const bool there = (!nearest && whole) || begin + j < work.chunk().block_end();
    double value = 0, exact;
    if (!nearest && whole) {
      value = exact_entry(work.source_format, work.source(), i(), load(tile().row(0) + j));
    } else if (there) {
      value = work.entry(i());
    }
    store(tile().row(0) + j, T(0));
    store(tile().row(1) + j, T(0));
    if (!there) continue;
    const auto encoded = encode_entry<F, nearest>(work, value, i(), exact);
    if (!nearest && whole) {
      patterns.add(work.template stored<F>() + first(), k, encoded.bits);
    } else {
      store_entry<F>(work, i(), encoded);
    }
    ops::record_rounding<F>(exact, encoded, begin + j, counts, rows);
  }
  add_max_ulp(shared, counts.max_ulp);
  return rows.signal.unusual || rows.noise.unusual;
}

template <class F, class T, bool nearest>
__global__ void __launch_bounds__(chunk_threads, (report_blocks<F, T, nearest>)) report_kernel(const Work<T> work) {
  __shared__ __align__(16) SquareTile<T> tiles[chunk_warps];
  __shared__ SharedSquares squares;
  __shared__ ChunkRounding counted;
  if (work.chunk().count() <= 0) return;
  const auto tile = [&]() -> SquareTile<T>& { return tiles[Chunk::warp()]; };
  counted.clear();
  __syncthreads();
  T ulp = 0;  // of groups: the largest error, per binade
  const SquareLane sum(squares);
#pragma unroll 1
  for (int begin = Chunk::block_begin(), end = work.chunk().block_end(); begin < end; begin += round_size<T>) {
    const bool whole = work.groups && begin + round_size<T> <= end;
    bool done = false, unusual = false;
    // Of float64 all groups of a round or none: for those that are there in part no registers are left.
    if constexpr (nearest && sizeof(T) == 4) {
      const bool there = is_whole(begin + thread_anew() % 32 * group_size<T>, end);
      done = work.groups && report_group<F>(work, there, begin, tile(), ulp, counted);
    } else if constexpr (nearest) {
      done = whole && report_group<F>(work, true, begin, tile(), ulp, counted);
    }
    if (!__all_sync(~0u, done)) unusual = report_entries<F, T, nearest>(work, begin, whole, done, tiles, counted);
    unusual = __any_sync(~0u, unusual);
    __syncwarp();
    sum.add(tile(), end - begin, unusual, [&](int which, int j) {
      const std::int64_t i = Chunk::begin() + begin + j;
      const double exact = scaled(work.entry(i), work.scale);
      return which == 0 ? exact : load_entry_of<F>(work.own().stored, i) - exact;
    });
    __syncwarp();
  }
  ThreadCounts(counted).add_to_chunk(counted);
  add_max_ulp(counted, static_cast<double>(ulp) * formats::exp2i(formats::Layout<F>::fraction_bits - 1));
  sum.finish();
  __syncthreads();
  report(counted, squares, work.chunk(), work.own().counts[blockIdx.x]);
}

template <class T>
Work<T> work_of(const ConvertArgs* args, int count) {
  const formats::Mode& mode = args->mode;
  Work<T> work{args->source_format,   true,        mode.subnormals == formats::Subnormals::flush,
               args->scale != 1,      args->scale, mode,
               Scale<T>(args->scale), {}};
  for (int i = 0; i < count; ++i) {
    const ConvertArgs& a = args[i];
    work.groups &= aligned(a.source) && aligned(a.stored);
    work.tensors[i] = {a.size, a.source, a.stored, formats::random_bits(a.mode.seed, a.stream), a.counts};
  }
  return work;
}

template <class F, class T, bool nearest>
int start(const ConvertArgs* args, int count, Stream stream) {
  constexpr std::int64_t tile_size = tile_threads * group_size<T>;
  const auto work = work_of<T>(args, count);
  std::int64_t most = 0;
  for (int i = 0; i < count; ++i) most = args[i].size > most ? args[i].size : most;
  if (most == 0) return 0;
  const auto s = static_cast<stream_t>(stream);
  const auto tensors = static_cast<unsigned>(count);
  if (args->counts)
    return launch(report_kernel<F, T, nearest>, dim3(chunks_of(most), tensors), dim3(chunk_threads), 0, s, work);
  const dim3 tiles(static_cast<unsigned>((most + tile_size - 1) / tile_size), tensors);
  return launch(convert_kernel<F, T, nearest>, tiles, dim3(tile_threads), 0, s, work);
}

// In place, float32 lanes would look at entries that are overwritten.
bool is_narrow(const ConvertArgs& args) {
  return args.source_format != FormatId::float64 && ops::fits_f32(args.scale) && args.source != args.stored;
}

// Whether what they have in common is all but the tensors.
bool are_alike(const ConvertArgs& a, const ConvertArgs& b) {
  return a.source_format == b.source_format && a.format == b.format && a.scale == b.scale &&
         a.mode.rounding == b.mode.rounding && a.mode.overflow == b.mode.overflow &&
         a.mode.subnormals == b.mode.subnormals && is_narrow(a) == is_narrow(b) && !a.counts == !b.counts;
}

int convert_alike(const ConvertArgs* args, int count, Stream stream) {
  return formats::visit(args->format, [&](auto f) {
    using F = decltype(f);
    if (args->mode.rounding != formats::Rounding::nearest_even) return start<F, double, false>(args, count, stream);
    if constexpr (F::id != FormatId::float64)
      if (is_narrow(*args)) return start<F, float, true>(args, count, stream);
    return start<F, double, true>(args, count, stream);
  });
}

}  // namespace

int convert(const ConvertArgs* list, int count, Stream stream) {
  return each_together(list, count, are_alike,
                       [&](const ConvertArgs* args, int alike) { return convert_alike(args, alike, stream); });
}

}  // namespace gradkern::cuda
