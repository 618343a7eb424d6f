#include "cpu/executors.hpp"

#include <algorithm>
#include <memory>
#include <vector>

#include "base/thread_pool.hpp"
#include "cpu/cpuid.hpp"
#include "cpu/kernels.hpp"
#include "cpu/patterns.hpp"
#include "cpu/product.hpp"
#include "executor/registry.hpp"

namespace gradkern::cpu {
namespace {

using executor::Executor;

constexpr std::int64_t chunk = 16384;

const Kernels& kernels(const Executor& e) { return *static_cast<const Kernels*>(e.kernels); }

// body(begin, end) for each fixed chunk of [0, size), on any thread.
template <class Body>
void for_chunks(std::int64_t size, Body body) {
  base::parallel_for(base::chunk_count(size, chunk), [&](std::int64_t c) {
    const std::int64_t begin = c * chunk;
    body(begin, begin + chunk < size ? begin + chunk : size);
  });
}

// The same in smaller pieces, for results that do not depend on the pieces.
template <class Body>
void for_grains(std::int64_t size, Body body) {
  constexpr std::int64_t grain = 2048;
  const std::int64_t grains = base::chunk_count(size, grain),
                     parts = std::min<std::int64_t>(grains, base::num_threads());
  base::parallel_for(parts, [&](std::int64_t p) {
    body(grains * p / parts * grain, std::min(size, grains * (p + 1) / parts * grain));
  });
}

// Chunks, with a partial result per chunk, merged in index order.
template <class Partial, class Body>
void reduce_chunks(std::int64_t size, Partial& result, Body body) {
  std::vector<Partial> partials(static_cast<std::size_t>(base::chunk_count(size, chunk)));
  for_chunks(size, [&](std::int64_t begin, std::int64_t end) {
    body(begin, end, partials[static_cast<std::size_t>(begin / chunk)]);
  });
  for (const Partial& partial : partials) result.merge(partial);
}

void convert(const Executor& e, const executor::ConvertArgs& args) {
  ops::RoundingCounts counts;
  if (args.size <= chunk) {
    if (args.size) kernels(e).convert(args, 0, args.size, counts);
    if (args.counts) *args.counts = counts;
    return;
  }
  reduce_chunks(args.size, counts, [&](std::int64_t begin, std::int64_t end, ops::RoundingCounts& partial) {
    kernels(e).convert(args, begin, end, partial);
  });
  if (args.counts) *args.counts = counts;
}

void activation_forward(const Executor& e, const executor::ActivationArgs& args) {
  for_grains(args.size, [&](std::int64_t begin, std::int64_t end) { kernels(e).activation_forward(args, begin, end); });
}

void activation_backward(const Executor& e, const executor::ActivationArgs& args) {
  for_grains(args.size,
             [&](std::int64_t begin, std::int64_t end) { kernels(e).activation_backward(args, begin, end); });
}

// One for each span of a region; the caller's, so that a tensor costs no allocation.
ops::Statistics& span_counts(std::size_t span) {
  thread_local std::vector<std::unique_ptr<ops::Statistics>> spans;
  while (spans.size() <= span) spans.push_back(ops::make_statistics());
  return *spans[span];
}

ops::Moments merge_blocks(const ops::Moments* blocks, std::int64_t count) {
  constexpr std::int64_t in_chunk = ops::statistics_chunk / ops::statistics_block;
  ops::Moments total;
  for (std::int64_t first = 0; first < count; first += in_chunk) {
    ops::Moments chunk_moments;
    for (std::int64_t b = first; b < std::min(count, first + in_chunk); ++b) chunk_moments.merge(blocks[b]);
    total.merge(chunk_moments);
  }
  return total;
}

// Counts gather in a few spans, moments in every block: only moments have an order to keep.
void measure_by_block(const Executor& e, const executor::StatisticsArgs& args) {
  constexpr std::int64_t block = ops::statistics_block, few_blocks = 64;
  ops::Statistics& total = *args.result;
  const std::int64_t blocks = base::chunk_count(args.size, block), threads = base::num_threads();
  const std::int64_t spans = std::min(blocks, threads == 1 || blocks < few_blocks ? threads : 4 * threads);
  std::vector<ops::Moments> moments(static_cast<std::size_t>(blocks));
  const auto measure_span = [&](std::int64_t span, ops::Statistics& counts) {
    const std::int64_t first = blocks * span / spans, end = blocks * (span + 1) / spans;
    kernels(e).measure(args, first * block, std::min(end * block, args.size), counts, moments.data() + first);
  };
  if (spans <= 1) {
    if (spans == 1) measure_span(0, total);
  } else {
    std::vector<ops::Statistics*> counts;
    for (std::int64_t span = 0; span < spans; ++span) counts.push_back(&span_counts(static_cast<std::size_t>(span)));
    base::parallel_for(spans, [&](std::int64_t span) {
      auto& mine = *counts[static_cast<std::size_t>(span)];
      mine.reset();
      measure_span(span, mine);
    });
    for (const auto* part : counts) total.merge_counts(*part);
  }
  total.moments = merge_blocks(moments.data(), blocks);
}

void statistics(const Executor& e, const executor::StatisticsArgs& args) {
  args.result->reset();
  formats::visit(args.format, [&](auto f) {
    using F = decltype(f);
    if (ops::measured_by_pattern<F>(args.size)) {
      measure_by_pattern(args);
    } else {
      measure_by_block(e, args);
    }
    ops::count_subnormals(*args.result, formats::Layout<F>::min_exponent);
  });
}

void product(const Executor& e, const executor::ProductArgs& args) { packed_product(kernels(e), args); }

void elementary_f32(const Executor& e, int function, const float* x, float* y, std::int64_t size) {
  for_chunks(size,
             [&](std::int64_t b, std::int64_t end) { kernels(e).elementary_f32(function, x + b, y + b, end - b); });
}

void elementary_f64(const Executor& e, int function, const double* x, double* y, std::int64_t size) {
  for_chunks(size,
             [&](std::int64_t b, std::int64_t end) { kernels(e).elementary_f64(function, x + b, y + b, end - b); });
}

executor::Candidate candidate(const Kernels& k, bool usable) {
  const Executor e{
      k.name,         k.vector_bytes, &k, convert, product, activation_forward, activation_backward, statistics,
      elementary_f32, elementary_f64};
  return {e, usable, usable ? "" : "not on this processor"};
}

}  // namespace

void register_executors() {
  executor::register_candidates({
      candidate(kernels_base, true),
#if defined(GRADKERN_HAS_X86_KERNELS)
      candidate(kernels_avx2, has_avx2_fma()),
      candidate(kernels_avx512, has_avx512()),
#endif
#if defined(GRADKERN_HAS_NEON_KERNELS)
      candidate(kernels_neon, true),
#endif
  });
}

}  // namespace gradkern::cpu
