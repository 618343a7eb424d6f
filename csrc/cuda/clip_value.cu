// y = min(max(x, low), high) over many tensors in one launch, low and high being values of the storage: nothing is rounded.
// NaN keeps its bits; with `zero`, what is not finite counts as zero first. What does not change is not written.
#include "cuda/clip_entries.hpp"
#include "cuda/kernels.hpp"

namespace gradkern::cuda {
namespace {

using executor::ClipList;

template <class F>
__global__ __launch_bounds__(list_threads, 12) void clamp_kernel(ClipList list, const ops::ClipBounds* all, bool zero,
                                                                 ops::ClipCounts* partials) {
  using C = typename F::container;
  using T = holder<F>;
  const ListChunk chunk = chunk_of(list);
  const ops::ClipBounds& bounds = all[chunk.index];
  const T low = static_cast<T>(bounds.low), high = static_cast<T>(bounds.high);
  const C low_bits = formats::encode<F>(bounds.low, formats::Mode{}).bits,
          high_bits = formats::encode<F>(bounds.high, formats::Mode{}).bits;
  each_entry<F>(chunk, bounds.write, false, partials, [&](C stored, EntryCounts& counts) {
    T x = held<F>(stored);
    if (zero && !(ops::abs(x) < static_cast<T>(__builtin_inf()))) {
      ++counts.flushed;
      x = 0;
      stored = 0;
    }
    const bool above = x > high, below = x < low;
    counts.changed += above || below;
    return above ? high_bits : below ? low_bits : stored;
  });
}

}  // namespace

int clip_clamp(const ClipList* list, const ops::ClipBounds* bounds, bool zero, ops::ClipCounts* partials,
               Stream stream) {
  return formats::visit(list->format, [&](auto f) {
    return launch(clamp_kernel<decltype(f)>, static_cast<unsigned>(list->where.chunks), list_threads, 0,
                  static_cast<stream_t>(stream), *list, bounds, zero, partials);
  });
}

}  // namespace gradkern::cuda
