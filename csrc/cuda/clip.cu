// Clipping of many tensors in one launch (ops/clip.hpp): one CUDA block a chunk, its partial result in its own place.
//
// survey: half a warp a block of entries, read once. What is not finite counts as zero. A float64 block out of range is
// summed again. scale: entry by entry, 16 bytes at a time; where the product is a normal number or zero that float32
// arithmetic rounds once, in float32, the rest by the definition.
#include "cuda/clip_entries.hpp"
#include "cuda/kernels.hpp"

namespace gradkern::cuda {
namespace {

using executor::ClipList;
using executor::ClipTensor;
using ops::Norm;

constexpr int survey_stages = 4, nowhere = 0x7FFFFFFF;

// Of a block, in shared memory.
struct BlockSurvey {
  double sum, amax;
  int range, nan, inf, first_nonfinite;
};

// Half a warp's block.
template <class F>
__device__ __forceinline__ BlockSurvey survey_block(const typename F::container* x, int size, unsigned char* stages,
                                                    Norm p) {
  using T = holder<F>;
  using U = bits_of<T>;
  using C = typename F::container;
  constexpr bool wide = sizeof(T) == 8;
  constexpr U magnitude = ~U(0) >> 1, infinity = base::bit_cast<U>(static_cast<T>(__builtin_inf()));
  U top = 0;
  unsigned special = 0;  // NaNs, and infinities times 2^16
  int first = nowhere;
  double sum = 0;
  const bool squares = p == Norm::two;
  const auto add = [&](double a) {  // + a * 1 is + a; a square of 24 bits is exact
    sum = wide ? sum + (squares ? a * a : a) : ops::fma(a, squares ? a : 1.0, sum);
  };
  walk<survey_stages>(x, size, stages, [&](int j, C stored) {
    const U m = base::bit_cast<U>(held<F>(stored)) & magnitude;
    if (m >= infinity) {
      special += m > infinity ? 1u : 0x10000u;
      first = min(first, j);
      return;
    }
    top = max(top, m);
    add(static_cast<double>(base::bit_cast<T>(m)));
  });
  top = reduce_lanes(top, [](U a, U b) { return max(a, b); });
  const double amax = static_cast<double>(base::bit_cast<T>(top));
  const int range = wide ? ops::clip_range_of(amax) : 0;
  if (wide && __any_sync(~0u, range != 0)) {
    const double scale = ops::range_scale(range);
    sum = 0;
    walk<survey_stages>(x, size, stages, [&](int, C stored) {
      const double a = ops::abs(static_cast<double>(held<F>(stored))) * scale;
      if (a < __builtin_inf()) add(a);
    });
  }
  special = reduce_lanes(special, [](unsigned a, unsigned b) { return a + b; });
  first = reduce_lanes(first, [](int a, int b) { return min(a, b); });
  return {fold_lanes(sum), amax, range, static_cast<int>(special & 0xFFFF), static_cast<int>(special >> 16), first};
}

template <class F>
__global__ __launch_bounds__(list_threads, 12) void survey_kernel(ClipList list, Norm p, ops::Survey* partials) {
  __shared__ __align__(16) unsigned char stages[all_stage_bytes<survey_stages>];
  __shared__ BlockSurvey blocks[list_blocks];
  const ListChunk chunk = chunk_of(list);
  const int b = threadIdx.x / list_lanes;
  const auto* x = static_cast<const typename F::container*>(chunk.tensor->source) + chunk.begin + b * list_block;
  const BlockSurvey found = survey_block<F>(x, block_size(chunk.count, b), stages_of_half<survey_stages>(stages, b), p);
  if (threadIdx.x % list_lanes == 0) blocks[b] = found;
  __syncthreads();
  if (threadIdx.x != 0) return;
  ops::Survey s;
  s.amin = 0;
#pragma unroll 1
  for (int i = 0; i * list_block < chunk.count; ++i) {
    const BlockSurvey& block = blocks[i];
    s.nan += block.nan;
    s.inf += block.inf;
    if (s.first_nonfinite < 0 && block.first_nonfinite != nowhere)
      s.first_nonfinite = chunk.begin + i * list_block + block.first_nonfinite;
    if (block.amax > s.amax) s.amax = block.amax;
    if (p != Norm::infinity) s.add(block.range, block.sum);
  }
  partials[blockIdx.x] = s;
}

// One entry, as ops::clip_entry says. plain: the factor is one normal float32.
template <class F>
__device__ __forceinline__ typename F::container scaled(typename F::container stored, const ops::ClipFactor& factor,
                                                        float first, bool plain, bool zero, EntryCounts& counts) {
  const auto define = [&] {
    ops::ClipCounts own;
    const auto result = ops::clip_entry<F>(stored, factor, zero, own);
    counts.add(own);
    return result;
  };
  if constexpr (F::id == FormatId::float64) {
    return define();
  } else {
    using Limits = ops::ClipLimits<F, float>;
    const float x = held<F>(stored), y = x * first, a = ops::abs(y);
    constexpr float largest = ops::LaneLimits<F, float>::largest;
    if (!(plain && a <= largest && ops::abs(x) < __builtin_inff())) return define();
    const bool none = a <= Limits::zero_to;
    counts.flushed += none && x != 0;
    counts.subnormal += a < Limits::subnormal_below && !none && ops::abs(x) >= Limits::smallest_normal;
    const auto binade = ops::binade_bits<F>(a);
    const float rounded = ops::round_magnitude<F>(a, binade);
    constexpr int shift = F::bias == 127 ? 0 : F::container_shift;
    return static_cast<typename F::container>(ops::pattern_of_rounded<F>(a, binade, rounded, y) << shift);
  }
}

template <class F>
__global__ __launch_bounds__(list_threads, 12) void scale_kernel(ClipList list, const ops::ClipFactor* factors,
                                                                 bool zero, ops::ClipCounts* partials) {
  const ListChunk chunk = chunk_of(list);
  const ops::ClipFactor factor = factors[chunk.index];
  const bool plain = factor.second == 1 && factor.first >= 0x1p-126 && factor.first < 0x1p127;
  const float first = static_cast<float>(factor.first);
  each_entry<F>(chunk, factor.write, true, partials, [&](typename F::container stored, EntryCounts& counts) {
    return scaled<F>(stored, factor, first, plain, zero, counts);
  });
}

}  // namespace

int clip_survey(const ClipList* list, Norm p, ops::Survey* partials, Stream stream) {
  return formats::visit(list->format, [&](auto f) {
    return launch(survey_kernel<decltype(f)>, static_cast<unsigned>(list->where.chunks), list_threads, 0,
                  static_cast<stream_t>(stream), *list, p, partials);
  });
}

int clip_scale(const ClipList* list, const ops::ClipFactor* factors, bool zero, ops::ClipCounts* partials,
               Stream stream) {
  return formats::visit(list->format, [&](auto f) {
    return launch(scale_kernel<decltype(f)>, static_cast<unsigned>(list->where.chunks), list_threads, 0,
                  static_cast<stream_t>(stream), *list, factors, zero, partials);
  });
}

}  // namespace gradkern::cuda
