// Statistics of many tensors in one launch (ops/statistics.hpp): one CUDA block a chunk, half a warp a block of entries.
//
// Each entry is read once from global memory: counts and extrema as integers, its cell of its binade into a table in
// shared memory, and x, |x|, x^2 into its lane's float64 sums (the square of at most 24 bits is exact, and fused). A
// block whose squares cancel about its mean, or leave float64, is summed again. Eight blocks merge in index order.
#include "cuda/kernels.hpp"
#include "cuda/lists.hpp"

namespace gradkern::cuda {
namespace {

using executor::BinadeRange;
using executor::StatisticsArgs;
using executor::StatisticsChunk;
using executor::StatisticsList;

constexpr int statistics_stages = 3;

// The binades of F whose cells a chunk counts in shared memory: nearly all that float32 has. The rest are counted
// where the tensor has them.
template <class F>
struct Window {
  static constexpr int first = BinadeRange<F>::first > -120 ? BinadeRange<F>::first : -120;
  static constexpr int last = BinadeRange<F>::last < 128 ? BinadeRange<F>::last : 128;
  static constexpr int cells = (last - first) * ops::cell_count,
                       offset = (first - BinadeRange<F>::first) * ops::cell_count;
};

using Cells = unsigned long long;  // a tensor's, in global memory

constexpr int nowhere = 0x7FFFFFFF;

// What a lane has counted, then a block. Magnitudes as bits: those of the smallest non-zero less 1.
template <class U>
struct Found {
  U amax = 0, least = ~U(0);
  unsigned signs = 0;    // zeros, and negative entries times 2^16: a block has at most 2048
  unsigned special = 0;  // of a lane NaNs, infinities and negative ones in bytes: it has at most 128
  int first_nonfinite = nowhere;
};

template <class U>
struct BlockFound {
  U amax, least;
  int zero, negative, nan, pos_inf, neg_inf, first_nonfinite, size;

  __device__ __forceinline__ int finite() const { return size - nan - pos_inf - neg_inf; }
  __device__ __forceinline__ bool constant() const {
    return amax == 0 || (amax == least + 1 && zero == 0 && (negative == 0 || negative == finite()));
  }
};

// In shared memory: what the threads of a chunk have in common, and what they find. Registers are scarce.
template <class F>
struct Shared {
  using U = bits_of<holder<F>>;
  const typename F::container* x;  // the chunk's first entry
  std::int64_t begin;              // and its index
  Cells* cells;
  int count;
  BlockFound<U> found[list_blocks];
  ops::BlockSums sums[list_blocks];
  unsigned counted[Window<F>::cells];
  // The stages; then, of each block, what follows from its sums.
  __align__(16) unsigned char stages[all_stage_bytes<statistics_stages>];

  __device__ __forceinline__ int blocks() const { return (count + list_block - 1) / list_block; }
  __device__ __forceinline__ unsigned char* stages_of(int block) {
    return stages_of_half<statistics_stages>(stages, block);
  }
  __device__ __forceinline__ ops::DeviationSums& deviations(int block) {
    return *reinterpret_cast<ops::DeviationSums*>(stages_of(block));
  }
  __device__ __forceinline__ ops::Moments& moments(int block) {
    return *reinterpret_cast<ops::Moments*>(stages_of(block) + sizeof(ops::DeviationSums));
  }
  __device__ __forceinline__ ops::Moments::Shares& shares(int block) {
    return *reinterpret_cast<ops::Moments::Shares*>(stages_of(block) + sizeof(ops::DeviationSums) +
                                                    sizeof(ops::Moments));
  }
};

template <class T>
struct Fields {
  using U = bits_of<T>;
  static constexpr int fraction_bits = sizeof(T) == 8 ? 52 : 23, bias = sizeof(T) == 8 ? 1023 : 127;
  static constexpr U magnitude = ~U(0) >> 1, infinity = U(2 * bias + 1) << fraction_bits;
  static constexpr U smallest_normal = U(1) << fraction_bits, fraction = smallest_normal - 1;
  static constexpr U fine = fraction - (U(1) << (fraction_bits - 10));  // of a magnitude less 1: beyond cell 1, or zero
};

template <class U>
__device__ __forceinline__ double magnitude_of(U bits) {
  using T = std::conditional_t<sizeof(U) == 8, double, float>;
  return static_cast<double>(base::bit_cast<T>(bits));
}

template <class F, class Found>
__device__ __forceinline__ int range_of(const Found& found) {
  return sizeof(holder<F>) == 8 ? ops::range_of(magnitude_of(found.amax)) : 0;
}

template <class F>
__device__ __forceinline__ void count_cell(int binade, int cell, unsigned* counted, Cells* cells) {
  using W = Window<F>;
  const int row = binade - W::first;
  if (static_cast<unsigned>(row) < static_cast<unsigned>(W::last - W::first)) {
    atomicAdd(counted + row * ops::cell_count + cell, 1u);
  } else {
    atomicAdd(cells + (W::offset + row * ops::cell_count + cell), 1ull);
  }
}

// One entry, of index j in its chunk. False: it is not finite.
template <class F, class U>
__device__ __forceinline__ bool count_entry(holder<F> x, int j, Found<U>& found, unsigned* counted, Cells* cells) {
  using T = holder<F>;
  using L = Fields<T>;
  const U bits = base::bit_cast<U>(x), m = bits & L::magnitude, less = m - 1;
  if (m >= L::infinity) {
    found.special += m > L::infinity ? 1u : bits == m ? 0x100u : 0x10000u;
    found.first_nonfinite = min(found.first_nonfinite, j);
    return false;
  }
  const unsigned negative = static_cast<unsigned>(bits >> (8 * sizeof(T) - 1)) << 16;
  found.amax = max(found.amax, m);
  found.least = min(found.least, less);
  found.signs += negative;
  if ((less & L::fraction) >= L::fine || m < L::smallest_normal) {
    if (m == 0) {
      found.signs += 1 - negative;
    } else {
      const double v = x;
      count_cell<F>(ops::binade_of(v), ops::cell_of(ops::fraction_of(v)), counted, cells);
    }
  } else {
    count_cell<F>(static_cast<int>(m >> L::fraction_bits) - L::bias, 1, counted, cells);
  }
  return true;
}

template <class U>
__device__ __forceinline__ BlockFound<U> block_of(const Found<U>& lane, int size) {
  const auto most = [](auto a, auto b) { return max(a, b); };
  const auto least = [](auto a, auto b) { return min(a, b); };
  const auto sum = [](auto a, auto b) { return a + b; };
  const unsigned signs = reduce_lanes(lane.signs, sum);
  BlockFound<U> block{reduce_lanes(lane.amax, most),
                      reduce_lanes(lane.least, least),
                      static_cast<int>(signs & 0xFFFF),
                      static_cast<int>(signs >> 16),
                      0,
                      0,
                      0,
                      reduce_lanes(lane.first_nonfinite, least),
                      size};
  if (__any_sync(~0u, block.first_nonfinite != nowhere)) {
    block.nan = static_cast<int>(reduce_lanes(lane.special & 0xFF, sum));
    block.pos_inf = static_cast<int>(reduce_lanes(lane.special >> 8 & 0xFF, sum));
    block.neg_inf = static_cast<int>(reduce_lanes(lane.special >> 16, sum));
  }
  return block;
}

// Half a warp's block: counted and summed.
template <class F>
__device__ __forceinline__ void sum_block(Shared<F>& s) {
  using T = holder<F>;
  using C = typename F::container;
  constexpr bool wide = sizeof(T) == 8;
  const int b = threadIdx.x / list_lanes, size = block_size(s.count, b);
  const C* x = s.x + b * list_block;
  ops::BlockSums sums{0, 0, 0};
  const auto add = [&](double v) {
    sums.sum += v;
    sums.magnitude += ops::abs(v);
    sums.square = wide ? sums.square + v * v : ops::fma(v, v, sums.square);
  };
  Found<bits_of<T>> lane;
  walk<statistics_stages>(x, size, s.stages_of(b), [&](int j, C stored) {
    const T v = held<F>(stored);
    if (count_entry<F>(v, j, lane, s.counted, s.cells)) add(static_cast<double>(v));
  });
  const auto keep = [&] {
    sums = {fold_lanes(sums.sum), fold_lanes(sums.magnitude), fold_lanes(sums.square)};
    if (threadIdx.x % list_lanes == 0) s.sums[b] = sums;
  };
  keep();
  const auto found = block_of(lane, size);
  if (threadIdx.x % list_lanes == 0) s.found[b] = found;
  const int range = range_of<F>(found);
  if (wide && __any_sync(~0u, range != 0)) {
    const double scale = ops::range_scale(range);
    sums = {0, 0, 0};
    walk<statistics_stages>(x, size, s.stages_of(b), [&](int, C stored) {
      const double v = static_cast<double>(held<F>(stored)) * scale;
      if (ops::abs(v) < __builtin_inf()) add(v);
    });
    keep();
  }
}

// Half a warp's block once more, about its mean, where its squares cancel.
template <class F>
__device__ __forceinline__ void sum_deviations(Shared<F>& s) {
  using C = typename F::container;
  const int b = threadIdx.x / list_lanes, finite = s.found[b].finite();
  const ops::Centre centre(s.sums[b], static_cast<double>(finite));
  if (!__any_sync(~0u, finite != 0 && centre.cancels)) return;  // both blocks of a warp, or none
  const double mean = centre.mean, scale = ops::range_scale(range_of<F>(s.found[b]));
  ops::DeviationSums d{0, 0};
  walk<statistics_stages>(s.x + b * list_block, block_size(s.count, b), s.stages_of(b), [&](int, C stored) {
    const double v = static_cast<double>(held<F>(stored)) * scale, deviation = v - mean;
    if (!(ops::abs(v) < __builtin_inf())) return;
    d.sum += deviation;
    d.square += deviation * deviation;
  });
  d = {fold_lanes(d.sum), fold_lanes(d.square)};
  if (threadIdx.x % list_lanes == 0) s.deviations(b) = d;
}

template <class F>
__device__ __forceinline__ void finish_block(Shared<F>& s, int b) {
  const auto found = s.found[b];
  s.moments(b) = ops::moments_of_sums(s.sums[b], found.finite(), range_of<F>(found), found.constant(),
                                      [&](double) { return s.deviations(b); });
}

template <class F>
__device__ __forceinline__ void merge_counts(const Shared<F>& s, StatisticsChunk* chunk) {
  const auto* blocks = s.found;
  auto all = blocks[0];
  int first = nowhere;
#pragma unroll 1
  for (int b = s.blocks() - 1; b >= 0; --b)
    if (blocks[b].first_nonfinite != nowhere) first = b * list_block + blocks[b].first_nonfinite;
#pragma unroll 1
  for (int b = 1; b < s.blocks(); ++b) {
    all.amax = max(all.amax, blocks[b].amax);
    all.least = min(all.least, blocks[b].least);
    all.zero += blocks[b].zero;
    all.negative += blocks[b].negative;
    all.nan += blocks[b].nan;
    all.pos_inf += blocks[b].pos_inf;
    all.neg_inf += blocks[b].neg_inf;
  }
  chunk->nan = all.nan;
  chunk->pos_inf = all.pos_inf;
  chunk->neg_inf = all.neg_inf;
  chunk->zero = all.zero;
  chunk->negative = all.negative;
  chunk->first_nonfinite = first == nowhere ? -1 : s.begin + first;
  chunk->amax = magnitude_of(all.amax);
  chunk->amin = all.amax == 0 ? __builtin_inf() : magnitude_of(all.least + 1);
}

template <class F>
__global__ __launch_bounds__(list_threads, 12) void statistics_kernel(StatisticsList list) {
  using W = Window<F>;
  __shared__ Shared<F> s;
  const std::int64_t tensor = tensor_of(list.where, blockIdx.x);
  if (threadIdx.x == 0) {
    const StatisticsArgs& t = list.tensors[tensor];
    s.begin = (static_cast<std::int64_t>(blockIdx.x) - list.where.first_chunk[tensor]) * list_chunk;
    s.count = static_cast<int>(min(t.size - s.begin, std::int64_t(list_chunk)));
    s.x = static_cast<const typename F::container*>(t.data) + s.begin;
    s.cells = reinterpret_cast<Cells*>(list.cells) + tensor * BinadeRange<F>::cells;
  }
  for (int c = threadIdx.x; c < W::cells; c += list_threads) s.counted[c] = 0;
  __syncthreads();
  sum_block(s);
  __syncthreads();
  sum_deviations(s);
  for (int c = threadIdx.x; c < W::cells; c += list_threads)
    if (const unsigned count = s.counted[c]) atomicAdd(s.cells + (W::offset + c), static_cast<Cells>(count));
  __syncthreads();
  if (const int b = threadIdx.x; b < list_blocks) finish_block(s, b);
  if (const int b = threadIdx.x - 32; b >= 0 && b < list_blocks) {
    int before = 0;
    for (int i = 0; i < b; ++i) before += s.found[i].finite();
    s.shares(b) = {static_cast<double>(before), static_cast<double>(s.found[b].finite())};
  }
  __syncthreads();
  StatisticsChunk* partial = list.partials + blockIdx.x;
  if (threadIdx.x == 32) merge_counts(s, partial);
  if (threadIdx.x == 0) {
#pragma unroll 1
    for (int b = 1; b < s.blocks(); ++b) s.moments(0).merge(s.moments(b), s.shares(b));
    partial->moments = s.moments(0);
  }
}

}  // namespace

int statistics(const StatisticsList* list, Stream stream) {
  return formats::visit(list->format, [&](auto f) {
    return launch(statistics_kernel<decltype(f)>, static_cast<unsigned>(list->where.chunks), list_threads, 0,
                  static_cast<stream_t>(stream), *list);
  });
}

}  // namespace gradkern::cuda
