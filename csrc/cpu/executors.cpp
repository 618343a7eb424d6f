#include "cpu/executors.hpp"

#include <algorithm>
#include <atomic>
#include <utility>
#include <vector>

#include "base/thread_pool.hpp"
#include "cpu/clip.hpp"
#include "cpu/cpuid.hpp"
#include "cpu/kernels.hpp"
#include "cpu/product.hpp"
#include "cpu/statistics.hpp"
#include "executor/registry.hpp"

namespace gradkern::cpu {
namespace {

using executor::Executor;

constexpr std::int64_t chunk = ops::rounding_chunk;

const Kernels& kernels(const Executor& e) { return *static_cast<const Kernels*>(e.kernels); }

// body(begin, end) for each fixed chunk of [0, size), on any thread.
template <class Body>
void for_chunks(std::int64_t size, Body body) {
  base::parallel_for(base::chunk_count(size, chunk), [&](std::int64_t c) {
    const std::int64_t begin = c * chunk;
    body(begin, begin + chunk < size ? begin + chunk : size);
  });
}

// Elements of an activation that are worth a thread of their own.
std::int64_t grain_of(ops::ActivationId activation) {
  using ops::ActivationId;
  const bool selects = activation == ActivationId::identity || activation == ActivationId::relu ||
                       activation == ActivationId::leaky_relu;
  return selects ? 8192 : 1024;
}

// Activations do not depend on how they are cut.
template <class Body>
void for_grains(const executor::ActivationArgs& args, Body body) {
  constexpr std::int64_t unit = 512;  // ends of blocks
  const std::int64_t units = base::chunk_count(args.size, unit);
  const std::int64_t parts =
      std::min<std::int64_t>(base::chunk_count(args.size, grain_of(args.activation)), base::num_threads());
  base::parallel_for(parts, [&](std::int64_t p) {
    body(units * p / parts * unit, std::min(args.size, units * (p + 1) / parts * unit));
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
  for_grains(args, [&](std::int64_t begin, std::int64_t end) { kernels(e).activation_forward(args, begin, end); });
}

void activation_backward(const Executor& e, const executor::ActivationArgs& args) {
  for_grains(args, [&](std::int64_t begin, std::int64_t end) { kernels(e).activation_backward(args, begin, end); });
}

void statistics(const Executor& e, const executor::StatisticsArgs* tensors, std::int64_t count,
                const executor::StatisticsDone& done) {
  measure_tensors(kernels(e), tensors, count, done);
}

void errors(const Executor& e, const executor::ErrorArgs& args, executor::ErrorSums& sums) {
  reduce_chunks(args.size, sums, [&](std::int64_t begin, std::int64_t end, executor::ErrorSums& partial) {
    kernels(e).errors(args, begin, end, partial);
  });
}

void clip_survey(const Executor& e, const executor::ClipTensor* tensors, std::int64_t count, ops::Norm p,
                 ops::Survey* surveys) {
  survey_tensors(kernels(e), tensors, count, p, surveys);
}

void clip_scale(const Executor& e, const executor::ClipTensor* tensors, std::int64_t count, const ops::Survey* surveys,
                const ops::ClipFactor* factors, bool zero, ops::ClipCounts* counts) {
  scale_tensors(kernels(e), tensors, count, surveys, factors, zero, counts);
}

void clip_clamp(const Executor& e, const executor::ClipTensor* tensors, std::int64_t count,
                const ops::ClipBounds* bounds, bool zero, ops::ClipCounts* counts) {
  clamp_tensors(kernels(e), tensors, count, bounds, zero, counts);
}

void update(const Executor& e, const executor::UpdateArgs& args) {
  ops::UpdateCounts counts;
  reduce_chunks(args.size, counts, [&](std::int64_t begin, std::int64_t end, ops::UpdateCounts& partial) {
    kernels(e).update(args, begin, end, partial);
  });
  if (args.counts) *args.counts = counts;
}

void products(const Executor& e, const executor::ProductArgs* args, std::int64_t count) {
  packed_products(kernels(e), args, count);
}

// Rows, or columns of a transposed matrix, for each thread: no entry depends on how they are cut.
void matvec(const Executor& e, const executor::MatvecArgs& args) {
  constexpr std::int64_t unit = 64, worth_threads = 32768;  // entries of y; multiply-adds
  const std::int64_t size = args.transposed ? args.columns : args.rows;
  const std::int64_t units = base::chunk_count(size, unit);
  const bool small = args.rows * args.columns * args.vectors < worth_threads;
  const std::int64_t parts = small ? 1 : std::min<std::int64_t>(units, base::num_threads());
  base::parallel_for(parts, [&](std::int64_t p) {
    kernels(e).matvec(args, units * p / parts * unit, std::min(size, units * (p + 1) / parts * unit));
  });
}

void elementary_f32(const Executor& e, int function, const float* x, float* y, std::int64_t size) {
  for_chunks(size,
             [&](std::int64_t b, std::int64_t end) { kernels(e).elementary_f32(function, x + b, y + b, end - b); });
}

void elementary_f64(const Executor& e, int function, const double* x, double* y, std::int64_t size) {
  for_chunks(size,
             [&](std::int64_t b, std::int64_t end) { kernels(e).elementary_f64(function, x + b, y + b, end - b); });
}

std::int64_t multiply_adds(const Executor& e, bool wide, std::int64_t rounds) {
  std::atomic<std::int64_t> done{0};
  base::parallel_for(base::num_threads(), [&](std::int64_t) { done += kernels(e).multiply_adds(wide, rounds, 0.5); });
  return done;
}

executor::Candidate candidate(const Kernels& k, bool usable) {
  const Executor e{k.name,
                   k.vector_bytes,
                   &k,
                   convert,
                   products,
                   matvec,
                   activation_forward,
                   activation_backward,
                   statistics,
                   errors,
                   clip_survey,
                   clip_scale,
                   clip_clamp,
                   update,
                   elementary_f32,
                   elementary_f64,
                   multiply_adds,
                   nullptr};
  return {e, usable, usable ? "" : "not on this processor"};
}

}  // namespace

void register_executors() {
#if defined(GRADKERN_HAS_X86_KERNELS)
  static const Kernels avx512 = [] {
    Kernels k = kernels_avx512;
    if (halves_avx512()) std::swap(k.measure, k.measure_otherwise);  // its units are half as wide as its registers
    return k;
  }();
#endif
  executor::register_candidates({
      candidate(kernels_base, true),
#if defined(GRADKERN_HAS_X86_KERNELS)
      candidate(kernels_avx2, has_avx2_fma()),
      candidate(avx512, has_avx512()),
#endif
#if defined(GRADKERN_HAS_AVX512FP16_KERNELS)
      candidate(kernels_avx512fp16, has_avx512fp16()),
#endif
#if defined(GRADKERN_HAS_NEON_KERNELS)
      candidate(kernels_neon, true),
#endif
  });
}

}  // namespace gradkern::cpu
